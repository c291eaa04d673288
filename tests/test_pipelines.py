"""The recipes, on small data that the tests make."""

import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest

from kerasformer.cli import main
from kerasformer.config import Run, load_recipe

PIPELINES = Path(__file__).parent.parent / "pipelines"
RECIPES = sorted({*PIPELINES.glob("bert_*.py"), *PIPELINES.glob("gpt_*.py")})
TINY = Path(__file__).parent / "golden/bert_tiny"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_document(path):
    module = load_recipe(path)
    assert isinstance(module.recipe, Run)
    assert f"kerasformer train pipelines/{path.name}" in module.__doc__
    assert "Hardware: " in module.__doc__


@pytest.fixture
def newsgroups(tmp_path, monkeypatch) -> None:
    """A small cache where scikit-learn's fetcher looks before it downloads."""
    datasets = pytest.importorskip("sklearn.datasets")
    from sklearn.utils import Bunch

    groups = ["rec.pets.cat", "rec.pets.dog"]
    bodies = ["the cat sat on the mat .", "a dog ran .", ""] * 10
    texts = [f"From: somebody\nSubject: pets\n\n{body}" for body in bodies]
    posts = Bunch(data=texts, target=[0, 1, 1] * 10, target_names=groups, filenames=[str(i) for i in range(30)])
    posts |= {name: np.array(posts[name]) for name in ("target", "filenames")}
    cache = zlib.compress(pickle.dumps({"train": posts, "test": posts}))
    folder = Path(datasets.get_data_home(str(tmp_path / "scikit")))
    (folder / "20news-bydate_py3.pkz").write_bytes(cache)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(folder))


def test_newsgroups_reads_posts_that_have_text(newsgroups):
    texts, labels = load_recipe(PIPELINES / "bert_newsgroups.py").examples()
    assert set(zip(texts, labels, strict=True)) == {
        ("the cat sat on the mat .", "rec.pets.cat"),
        ("a dog ran .", "rec.pets.dog"),
    }
    assert len(texts) == 40


def test_newsgroups_trains(newsgroups, tmp_path, capsys):
    arguments = ["--model.from_pretrained", str(TINY), "--data.max_length", "16", "--runs", str(tmp_path / "runs")]
    arguments += ["--train.epochs", "1", "--train.compile", "none"]
    assert main(["train", str(PIPELINES / "bert_newsgroups.py"), *arguments]) == 0
    assert '"accuracy"' in capsys.readouterr().out
    assert (tmp_path / "runs/newsgroups/model/model.safetensors").is_file()
