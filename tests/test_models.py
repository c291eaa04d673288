"""What every model family must do, asked of each that is found."""

import dataclasses
import functools
import json
import shutil

import keras
import numpy as np
import pytest

from kerasformer.errors import InputError
from kerasformer.models.families import families

TINY = {"vocab_size": 30, "num_layers": 2, "num_heads": 2, "dim": 8, "mlp_dim": 12, "max_length": 16}
FAMILIES = families()
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
every_preset = pytest.mark.parametrize(
    ("family", "preset"),
    [(f, p) for f in FAMILIES.values() for p in f.presets],
    ids=lambda value: getattr(value, "name", ""),
)


def tiny(family, **kwargs):
    return family(family.config_class(**TINY, **kwargs))


@functools.cache
def shared(family):
    """A tiny model that no test changes."""
    return tiny(family)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Gives the folder of a family's tiny model, which no test changes."""

    @functools.cache
    def write(family):
        folder = tmp_path_factory.mktemp("saved") / "model"
        shared(family).save_pretrained(folder)
        return folder

    return write


def inputs_of(model, batch=3, length=7):
    ids = np.random.default_rng(0).integers(0, TINY["vocab_size"], (batch, length)).astype(np.int32)
    mask = (np.arange(length) < np.array([[length], [4], [1]])[:batch]).astype(np.int32)
    made = {"token_ids": ids, "padding_mask": mask}
    return {name: made.get(name, np.zeros_like(ids)) for name in model.input_names}


@every_family
def test_hidden_states_and_pooled_have_their_shapes(family):
    model = shared(family)
    outputs = model(inputs_of(model))
    assert tuple(outputs["hidden_states"].shape) == (3, 7, 8)
    assert tuple(outputs["pooled"].shape) == (3, 8)


@every_family
def test_padding_does_not_change_what_is_real(family):
    model = shared(family)
    inputs = inputs_of(model)
    short = {name: value[1:2, :4] for name, value in inputs.items()}
    padded = model(inputs)["hidden_states"][1, :4]
    np.testing.assert_allclose(padded, model(short)["hidden_states"][0], rtol=1e-5, atol=1e-5)


@every_family
def test_config_round_trip(family):
    model = shared(family)
    assert type(model).from_config(model.get_config()).config == model.config
    assert type(model.config).from_hf(model.config.to_hf()) == model.config
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.config.dim = 4


@every_family
def test_checkpoint_round_trip(family, saved):
    model = shared(family)
    again = family.from_pretrained(saved(family))
    inputs = inputs_of(model)
    np.testing.assert_array_equal(model(inputs)["hidden_states"], again(inputs)["hidden_states"])
    assert again.config == model.config


# Keras 3.15 converts variables in a way that NumPy 2.4 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@every_family
def test_keras_file_round_trip(family, tmp_path):
    model = shared(family)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    inputs = inputs_of(model)
    np.testing.assert_array_equal(model(inputs)["pooled"], again(inputs)["pooled"])


@every_family
def test_an_output_embedding_of_its_own_scores_the_tokens(family):
    tied, own = tiny(family), tiny(family, tie_embeddings=False)
    assert tied.output_table is tied.embedding.token.embeddings
    assert sum(v is own.output_table for v in own.trainable_variables) == 1
    assert own.count_params() == tied.count_params() + TINY["vocab_size"] * TINY["dim"]
    states = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
    np.testing.assert_allclose(own.logits(states), states @ np.asarray(own.output_table).T, rtol=1e-5, atol=1e-5)
    own.embedding.token.embeddings.assign(np.zeros((30, 8)))
    assert np.abs(own.logits(states)).max() > 0


@every_family
def test_every_variable_has_a_row_and_every_row_a_variable(family):
    model = shared(family)
    rows = family.table.rows_for(model.config.num_layers, None)
    assert sorted(row.path for row in rows) == sorted(v.path.split("/", 1)[1] for v in model.weights)


@every_family
def test_dropout_acts_in_training_alone(family):
    model = tiny(family, dropout=0.5)
    inputs = inputs_of(model)
    assert not np.allclose(model(inputs, training=True)["pooled"], model(inputs, training=True)["pooled"])
    np.testing.assert_array_equal(model(inputs)["pooled"], model(inputs)["pooled"])


@every_family
def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(family):
    model = family(family.config_class(**TINY), dtype="mixed_bfloat16")
    outputs = model(inputs_of(model))
    assert keras.backend.standardize_dtype(outputs["hidden_states"].dtype) == "bfloat16"
    assert {weight.dtype for weight in model.weights} == {"float32"}


@every_preset
def test_preset_has_its_published_parameter_count(family, preset):
    """Of its blocks, which are alike, one is built."""
    with keras.StatelessScope(initialize_variables=False):  # shapes alone: no weight is allocated
        model = family.from_preset(preset.name, num_layers=1)
    keras.utils.clear_session()  # or the next model would allocate them after all
    block = sum(np.prod(weight.shape) for weight in model.weights if "/block_0/" in weight.path)
    assert block and model.count_params() + (preset.values["num_layers"] - 1) * block == preset.num_parameters


@every_preset
def test_preset_names_its_source(family, preset):
    assert "/" in preset.source and "arXiv" in preset.citation


@every_family
def test_unknown_preset(family):
    with pytest.raises(InputError, match="expected one of the presets .*, got 'huge'"):
        family.from_preset("huge")


@every_family
def test_foreign_model_type(family, saved, tmp_path):
    shutil.copytree(saved(family), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "t5"}))
    with pytest.raises(InputError, match="got 't5'"):
        family.from_pretrained(tmp_path)


@every_family
@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: (d / "config.json").unlink(), "expected a model's config at .*config.json, got no such file"),
        (lambda d: (d / "config.json").write_text("{"), "expected a model's config as JSON"),
        (lambda d: (d / "config.json").write_text("[]"), "as a JSON object .*, got a list"),
        (lambda d: (d / "config.json").write_text("{}"), "expected a model_type"),
        (lambda d: (d / "model.safetensors").unlink(), "expected .*model.safetensors, got a folder without it"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "a pickle can run any code .* refused"),
        (lambda d: _truncate(d / "model.safetensors"), "expected a whole safetensors file, got .* bytes"),
        (lambda d: (d / "model.safetensors").write_bytes(b"PK\3\4" * 99), "expected a whole safetensors file"),
        (lambda d: shutil.rmtree(d), "which is no folder"),
    ],
    ids=[
        "no config",
        "cut config",
        "list",
        "empty",
        "no weights",
        "pickle",
        "cut weights",
        "foreign weights",
        "no folder",
    ],
)
def test_broken_folders(family, break_it, message, saved, tmp_path):
    shutil.copytree(saved(family), tmp_path / "model")
    break_it(tmp_path / "model")
    with pytest.raises(InputError, match=message) as caught:
        family.from_pretrained(tmp_path / "model")
    assert "\n" not in str(caught.value)


def _truncate(file):
    file.write_bytes(file.read_bytes()[:-10])


@every_family
def test_weights_of_another_size_are_listed_and_nothing_is_loaded(family, saved, tmp_path):
    shutil.copytree(saved(family), tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    width = family.config_class.hf_names["mlp_dim"]
    (tmp_path / "config.json").write_text(json.dumps(config | {width: 20}))
    with pytest.raises(InputError, match=r"! other shape"):
        family.from_pretrained(tmp_path)


@every_family
def test_missing_and_foreign_tensors_are_listed(family, saved, tmp_path):
    from safetensors.numpy import load_file, save_file

    shutil.copytree(saved(family), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    victim = next(name for name in tensors if "0" in name)
    tensors["stranger"] = tensors.pop(victim)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=rf"got -{victim.replace('.', '[.]')} \+stranger "):
        family.from_pretrained(tmp_path)
