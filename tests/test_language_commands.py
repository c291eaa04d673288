"""A language model through the commands, each a process of its own: from a text file to a served text."""

import json
import shlex
from pathlib import Path

import pytest
from exported import in_session, strings
from processes import Forked

TRAIN = (
    "train pipelines/gpt_shakespeare_char.py --name plays --train.steps 40 --train.evaluate_every 20 "
    "--train.steps_per_execution 5 --train.compile none --model.num_layers 1 --model.num_heads 2 --model.dim 16 "
    "--data.max_length 24 --train.learning_rate 1e-2"
)
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pipelines").symlink_to(ROOT / "pipelines")
    (folder / "plays.txt").write_text("To be, or not to be: that is the question.\n" * 200, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def kerasformer(project):
    """Runs a command to its end: exit code, stdout and stderr."""

    def run(command: str, stdin: str = "") -> tuple[int, str, str]:
        process = Forked(shlex.split(command), cwd=project)
        out, err = process.communicate(stdin)
        return process.returncode, out, err

    return run


@pytest.fixture(scope="module")
def trained(kerasformer) -> dict:
    code, out, err = kerasformer(f"{TRAIN} --data.train plays.txt")
    assert code == 0, err
    return json.loads(out)


def test_training_ends_with_its_figures_and_a_model_folder(trained, project):
    assert trained["val_loss"] < 3.0  # of 257 tokens: an untrained model's is 5.5
    assert {"perplexity", "bits_per_byte", "train_seconds"} <= trained.keys()
    names = {path.name for path in (project / "runs/plays").iterdir()}
    assert names == {
        "recipe.json",
        "metrics.jsonl",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "model",
        "figures.json",
    }


def test_evaluation_agrees_with_training(trained, kerasformer, project):
    held_out = (project / "plays.txt").read_text(encoding="utf-8")
    (project / "held_out.txt").write_text(held_out[int(len(held_out) * 0.9) :], encoding="utf-8")
    code, out, _ = kerasformer("evaluate runs/plays --data held_out.txt")
    assert code == 0
    assert json.loads(out)["loss"] == pytest.approx(trained["val_loss"], rel=1e-3)


def test_a_prompt_is_continued_alike_from_the_command_and_from_standard_input(trained, kerasformer):
    settings = "--max-new-tokens 12 --temperature 0.8 --seed 3 --precision float32"
    code, out, _ = kerasformer(f"generate runs/plays --prompt 'To be' {settings}")
    assert (code, len(out)) == (0, 12 + 1)
    assert kerasformer(f"generate runs/plays {settings}", stdin="To be\n")[:2] == (0, out)


def test_the_export_is_served_and_continues_as_the_command_does(trained, kerasformer, project):
    code, out, err = kerasformer("export runs/plays saved_models/plays --max-new-tokens 12")
    assert code == 0, err
    call = in_session(project / out.strip())
    [text] = call("serving_default", prompt=strings(["To be"]))["text"]
    code, printed, _ = kerasformer("generate runs/plays --prompt 'To be' --max-new-tokens 12 --precision float32")
    assert (code, printed) == (0, text.decode() + "\n")


def test_a_prompt_beyond_the_context_is_one_line_and_writes_nothing(trained, kerasformer):
    code, out, err = kerasformer(f"generate runs/plays --prompt '{'a' * 30}' --max-new-tokens 12")
    assert (code, out) == (2, "")
    assert "at most 24 tokens together" in err and err.count("\n") == 1
    code, out, _ = kerasformer(f"generate runs/plays --prompt '{'a' * 30}' --max-new-tokens 60 --slide")
    assert (code, len(out)) == (0, 60 + 1)
