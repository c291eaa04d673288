"""What `import kerasformer as kf` gives."""

import importlib

import pytest

import kerasformer as kf

PACKAGES = (kf, kf.data)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_name_is_there_and_is_no_submodule_of_that_name(package):
    for name in package.__all__:
        value = getattr(package, name)
        again = getattr(importlib.import_module(package.__name__), name)  # importing one member must not hide another
        assert value is again
        assert callable(value) or value.__name__.startswith("kerasformer."), name
    assert callable(kf.data.classification)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_an_unknown_name_lists_the_known_ones(package):
    with pytest.raises(AttributeError, match=f"no attribute 'absent'; there are .*{package.__all__[0]}"):
        _ = package.absent


def test_dir_lists_them():
    assert {"Classifier", "data", "export"} <= set(dir(kf))
    assert set(kf.callbacks.__all__) >= {"Evaluation", "TensorBoard"}


def test_the_quick_start_of_the_readme_runs(animals, bert_tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = kf.Classifier.from_pretrained(bert_tiny, labels=["cat", "dog"])
    train, valid = kf.data.classification(animals, tokenizer=model.tokenizer, labels=model.labels, max_length=16)
    model.compile(kf.optimizers.adamw(1e-3, steps=len(train)))
    evaluation = kf.callbacks.Evaluation(valid)
    callbacks = [evaluation, kf.callbacks.TensorBoard("runs/animals", evaluation)]
    history = model.fit(train, epochs=1, callbacks=callbacks, verbose=0)
    assert {"loss", "accuracy", "val_accuracy", "val_macro_f1"} <= history.history.keys()
    assert model.predict(["the cat sat"]).shape == (1, 2)
    model.save_pretrained("runs/animals/model")
    assert kf.export(model, "saved_models/animals").name == "1"
    assert kf.check("saved_models/animals").ok
