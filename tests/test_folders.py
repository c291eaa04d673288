"""Odd Hugging Face folders against `transformers`: what it computed with them (golden/make_folders.py).

Tolerance 1e-4 (logits are of order 1 to 10): float32 sums in another order.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from folder_variants import (
    BERT,
    DECODER,
    HEADS,
    IDS,
    LM,
    MASK,
    MASKED,
    UNTIED,
    VARIANTS,
    WORDS,
    WTE,
    V,
    Variant,
    renamed,
    sampled,
    with_tensor,
)
from safetensors.numpy import load_file, save_file

import kerasformer as kf
from kerasformer.errors import InputError
from kerasformer.generation.precision import in_precision
from kerasformer.models import heads
from kerasformer.models.bert.config import BertConfig
from kerasformer.models.gpt.config import GPTConfig
from kerasformer.text.bpe import ALPHABET

GOLDEN = np.load(Path(__file__).parent / "golden" / "folders.npz")
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
READERS = {"LMHeadModel": heads.CausalLM, "MaskedLM": heads.MaskedLM, "SequenceClassification": heads.Classifier}


@pytest.fixture(scope="module")
def tokenizers() -> dict:
    return {
        "Bert": kf.WordPiece([*SPECIAL, *(f"w{i}" for i in range(V - len(SPECIAL)))]),
        "GPT2": kf.BPE([*ALPHABET, "<|endoftext|>"], []),
    }


@pytest.fixture
def write(tokenizers, tmp_path):
    """Writes a variant and a tokenizer that goes with it, and returns their folder."""

    def write(variant: Variant) -> Path:
        tokenizers[variant.named[:4]].save(tmp_path / "read")
        return variant.write(tmp_path / "read")

    return write


def reader(variant: Variant) -> type[heads.Head]:
    return next(head for end, head in READERS.items() if (variant.read_as or variant.named).endswith(end))


def logits(model) -> np.ndarray:
    inputs = {"token_ids": IDS, "padding_mask": MASK, "segment_ids": np.zeros_like(IDS)}
    return np.asarray(model({name: inputs[name] for name in model.input_names}))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_logits_are_those_of_transformers_and_so_are_the_names_of_what_is_saved(name, write, tmp_path):
    variant = VARIANTS[name]
    folder, head = write(variant), reader(variant)
    model = head.from_pretrained(folder, dtype="float32")
    ours, theirs = sampled(logits(model)), GOLDEN[f"{name}/logits"]
    real = MASK.astype(bool) if ours.ndim == 3 else slice(None)
    np.testing.assert_allclose(ours[real], theirs[real], **TOLERANCE)

    model.save_pretrained(tmp_path / "saved")
    names = set(load_file(tmp_path / "saved" / "model.safetensors"))
    # Of an output embedding of its own transformers reads this name, whatever else config.json says.
    expected = {name.replace("gamma", "weight") for name in GOLDEN[f"{name}/names"]} - {f"{DECODER}bias"}
    assert names == expected | ({f"{DECODER}bias"} if f"{DECODER}weight" in names else set())
    again = head.from_pretrained(tmp_path / "saved", dtype="float32")
    assert again.backbone.config == model.backbone.config
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["own output", pytest.param("masked, own output", marks=pytest.mark.slow)])
def test_an_output_embedding_of_its_own_is_trained_and_saved(name, write, tmp_path):
    variant = VARIANTS[name]
    trained = getattr(kf, reader(variant).__name__).from_pretrained(write(variant), dtype="float32")
    assert not trained.backbone.config.tie_embeddings
    variables = [trained.backbone.output_table, trained.backbone.embedding.token.embeddings]
    before = [variable.numpy() for variable in variables]
    trained.compile(kf.optimizers.adamw(1e-2, steps=1), jit_compile=False)
    mask = {"padding_mask": MASK, "segment_ids": np.zeros_like(IDS)}
    inputs = {"token_ids": IDS} | {n: value for n, value in mask.items() if n in trained.input_names}
    trained.fit(inputs, IDS, verbose=0)
    for variable, old in zip(variables, before, strict=True):
        assert not np.allclose(variable, old)
    trained.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["tie_word_embeddings"] is False
    again = reader(variant).from_pretrained(tmp_path / "saved", dtype="float32")
    np.testing.assert_array_equal(logits(again), logits(trained))


def test_what_generation_reads_in_another_precision_has_the_output_embedding(write):
    own = heads.CausalLM.from_pretrained(write(VARIANTS["own output"]), dtype="float32")
    states = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    rounded = in_precision(own.backbone, "int8").logits(states)
    np.testing.assert_allclose(rounded, own.backbone.logits(states), atol=0.1)  # of 3


def test_an_untied_folder_without_output_embedding_starts_a_fresh_one(write, caplog):
    model = heads.CausalLM.from_pretrained(write(Variant(LM, UNTIED)))
    assert "no weights for output/embeddings: they start fresh" in caplog.text
    assert not model.backbone.config.tie_embeddings


def test_a_masked_head_starts_fresh_with_its_output_embedding(write, caplog):
    model = heads.MaskedLM.from_pretrained(write(Variant("BertModel", UNTIED)))
    assert not model.backbone.config.tie_embeddings
    [record] = caplog.records
    assert "no head for masked tokens" in record.message and "no weights for output/embeddings" in record.message


def test_an_untied_folder_without_the_input_embedding_is_refused(write):
    edit = renamed(lambda name: "lm_head.weight" if name == WTE else name)
    with pytest.raises(InputError, match=r"got -transformer.wte.weight "):
        heads.CausalLM.from_pretrained(write(Variant(LM, UNTIED, edit)))


def test_two_values_under_two_names_are_told(write, caplog):
    heads.MaskedLM.from_pretrained(write(VARIANTS["masked, two biases"]))
    assert f"other values under two names of one tensor: {DECODER}bias is used" in caplog.text


# What a head leaves out of a folder that is not its own, and whether its own part starts fresh.
LEFT_OUT = [
    ("Classifier", "BertForQuestionAnswering", "qa_outputs.", False),
    ("Classifier", "BertForPreTraining", "cls.", False),
    ("Classifier", "BertForNextSentencePrediction", "cls.seq_relationship.", False),
    ("Classifier", "BertForTokenClassification", None, True),
    ("Classifier", "BertForMultipleChoice", None, True),
    ("Classifier", "GPT2ForTokenClassification", "classifier.", False),
    ("Classifier", "GPT2DoubleHeadsModel", "multiple_choice_head.summary.", False),
    ("CausalLM", "GPT2ForSequenceClassification", "score.weight", False),
    ("CausalLM", "GPT2ForQuestionAnswering", "qa_outputs.", False),
    ("MaskedLM", "BertForQuestionAnswering", "qa_outputs.", False),
]


@pytest.mark.parametrize(("task", "named", "left_out", "is_fresh"), LEFT_OUT)
def test_the_head_of_another_class_is_left_out_with_one_warning(task, named, left_out, is_fresh, write, caplog):
    options = {"labels": ["x", "y", "z"]} if task == "Classifier" else {}
    model = getattr(heads, task).from_pretrained(write(Variant(named)), **options)
    [record] = caplog.records
    assert record.levelname == "WARNING"
    if left_out is not None:
        assert left_out in record.message and "of a head that is not used" in record.message
    assert ("a fresh classifier takes its place" in record.message) == is_fresh
    table = "transformer.wte.weight" if named.startswith("GPT2") else WORDS
    tensors = load_file(Path(str(record.args[0])) / "model.safetensors")
    np.testing.assert_array_equal(model.backbone.embedding.token.embeddings, tensors[table])


@pytest.mark.parametrize("named", [named for named in HEADS if named != "BertForSequenceClassification"])
def test_no_text_is_labelled_by_the_head_of_another_class(named, write):
    if named == "GPT2ForSequenceClassification":
        assert heads.Classifier.from_pretrained(write(Variant(named, VARIANTS["one label"].config))).labels == [*"abc"]
        return
    with pytest.raises(InputError, match=r"expected a classifier, got .* (the classifier of Bert|no classifier)"):
        heads.Classifier.from_pretrained(write(Variant(named)))


@pytest.mark.parametrize("named", HEADS)
def test_a_backbone_is_read_of_every_class(named, write, caplog):
    family = kf.Bert if named.startswith("Bert") else kf.GPT
    assert family.from_pretrained(write(Variant(named))).count_params() > 0
    assert "of a head that is not used" in caplog.text


@pytest.mark.parametrize(
    ("named", "stranger"),
    [
        ("BertForSequenceClassification", "adapter.weight"),
        ("BertModel", "qa_outputs.weight"),
        ("BertForQuestionAnswering", "bert.encoder.layer.0.adapter.weight"),
        ("BertForQuestionAnswering", "bert.encoder.layer.1.output.dense.weight"),
        ("GPT2LMHeadModel", "transformer.h.0.attn.lora_A.weight"),
    ],
)
def test_tensors_of_no_head_are_refused(named, stranger, write):
    folder = write(Variant(named, edit=with_tensor(stranger, WTE if named.startswith("GPT2") else WORDS)))
    family = kf.Bert if named.startswith("Bert") else kf.GPT
    with pytest.raises(InputError, match=rf"got \+{stranger} "):
        family.from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quantization_config": {"load_in_8bit": True}}, "expected no quantization_config"),
        ({"pruned_heads": {"0": [1]}}, "expected no pruned_heads"),
        ({"per_layer_config": {"0": {"hidden_act": "relu"}}}, "expected no per_layer_config"),
        ({"add_cross_attention": True}, "expected add_cross_attention=False"),
        ({"hidden_size": "8"}, "expected hidden_size as a whole number from 1 .* got '8'"),
        ({"num_hidden_layers": None}, "expected num_hidden_layers as a whole number from 1 .* got None"),
        ({"type_vocab_size": 0}, "expected type_vocab_size as a whole number from 1 .* got 0"),
        ({"layer_norm_eps": -1}, r"expected layer_norm_eps as a number in \[0, inf\) .* got -1"),
        ({"hidden_dropout_prob": 1.0}, r"expected hidden_dropout_prob as a number in \[0, 1\) .* got 1.0"),
        ({"tie_word_embeddings": None}, "expected tie_word_embeddings as true or false .* got None"),
        ({"hidden_act": 3}, "expected hidden_act as a string .* got 3"),
        ({"num_attention_heads": 3}, "expected num_attention_heads to divide hidden_size .* got 3 and 8"),
        ({"architectures": [1]}, "expected architectures as a list of names"),
        ({"model_type": 1}, "expected a model_type"),
        ({"classifier_dropout": "0.1"}, r"expected classifier_dropout as a number in \[0, 1\)"),
    ],
)
def test_fields_that_change_the_model_are_refused_where_they_are_not_understood(config, message, write):
    with pytest.raises(InputError, match=message) as caught:
        heads.Classifier.from_pretrained(write(Variant("BertForSequenceClassification", config)))
    assert "\n" not in str(caught.value)


def test_fields_that_change_nothing_are_passed_over(write, caplog):
    config = {
        "chunk_size_feed_forward": 4,
        "use_cache": False,
        "torch_dtype": "float16",
        "gradient_checkpointing": True,
    }
    heads.MaskedLM.from_pretrained(write(Variant(MASKED, config | {"output_attentions": True, "junk": {"a": 1}})))
    assert not caplog.records


def test_code_of_its_own_is_not_run_and_told(write, caplog):
    heads.MaskedLM.from_pretrained(write(Variant(MASKED, {"auto_map": {"AutoModel": "modeling.Mine"}})))
    assert "names code of its own in auto_map, which is not run" in caplog.text


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_attention_heads": 4}, {"num_heads": 4}),  # which transformers prefers to n_head
        ({"n_inner": None}, {"mlp_dim": 32}),
        ({"embd_pdrop": 0.3}, {"embedding_dropout": 0.3, "dropout": 0.1}),
        ({"resid_pdrop": 0.2}, {"embedding_dropout": 0.1, "dropout": 0.2}),
        ({"activation_function": "gelu_python_tanh"}, {"activation": "gelu_tanh"}),
        ({"prenorm": False, "attention_window": 4}, {"prenorm": True, "window": 0}),  # that gpt2 does not have
    ],
)
def test_fields_of_gpt2_are_read_as_transformers_reads_them(config, expected):
    values = {"model_type": "gpt2", **GPTConfig(dim=8, num_heads=2, mlp_dim=12).to_hf(), **config}
    read = GPTConfig.from_hf(values)
    assert {name: getattr(read, name) for name in expected} == expected
    assert GPTConfig.from_hf(read.to_hf()) == read


def test_the_dropout_of_the_classifier_is_kept(write, tmp_path):
    config = {**VARIANTS["any labels"].config, "classifier_dropout": 0.5}
    model = heads.Classifier.from_pretrained(write(Variant("BertForSequenceClassification", config)))
    assert model.dropout.dropped == 128  # of 256
    model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["classifier_dropout"] == 0.5


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"adapter_config.json": "{}"}, "expected a whole model, got the adapter of one .*merge_and_unload"),
        ({"model.safetensors": None, "tf_model.h5": ""}, "got tf_model.h5; convert it"),
        ({"model.safetensors": None, "flax_model.msgpack": ""}, "got flax_model.msgpack; convert it"),
        ({"model.safetensors": None, "pytorch_model.bin": "", "tf_model.h5": ""}, "got pytorch_model.bin: a pickle"),
        ({"model.safetensors": None, "model.safetensors.index.json": "{}"}, "expected a weight_map of file names"),
        ({"model.safetensors": None, "model.safetensors.index.json": "["}, "expected the index of the weights as JSON"),
        (
            {"model.safetensors": None, "model.safetensors.index.json": '{"weight_map": {"a": "1.safetensors"}}'},
            "got none for 1.safetensors",
        ),
    ],
)
def test_files_that_are_not_the_weights_are_refused_with_what_to_do(files, message, write):
    folder = write(Variant(MASKED))
    for name, content in files.items():
        (folder / name).unlink() if content is None else (folder / name).write_text(content)
    with pytest.raises(InputError, match=message):
        heads.MaskedLM.from_pretrained(folder)


def test_a_pickle_beside_safetensors_is_not_read(write):
    folder = write(Variant(MASKED))
    (folder / "pytorch_model.bin").write_text("")
    assert heads.MaskedLM.from_pretrained(folder).count_params() > 0


def test_quantized_tensors_are_refused(write):
    folder = write(Variant(MASKED, edit=with_tensor(WORDS, WORDS, lambda tensor: tensor.astype(np.int8))))
    with pytest.raises(InputError, match=rf"expected tensors of F64, F32, F16, BF16 in .*, got {WORDS} of I8; use"):
        heads.MaskedLM.from_pretrained(folder)


def test_shards_are_read_and_two_values_of_a_tensor_refused(write):
    folder = write(Variant(MASKED))
    whole = load_file(folder / "model.safetensors")
    expected = logits(heads.MaskedLM.from_pretrained(folder))
    names = sorted(whole)
    (folder / "model.safetensors").unlink()
    for i, part in enumerate((names[:5], names[5:])):
        save_file({name: whole[name] for name in part}, folder / f"{i}.safetensors")
    index = {"weight_map": {name: f"{int(i >= 5)}.safetensors" for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(logits(heads.MaskedLM.from_pretrained(folder)), expected)
    save_file({names[0]: whole[names[0]] + 1, **{n: whole[n] for n in names[5:]}}, folder / "1.safetensors")
    with pytest.raises(InputError, match=f"expected one value of {names[0]} in the shards"):
        heads.MaskedLM.from_pretrained(folder)


@pytest.mark.parametrize(
    ("file", "config", "told"),
    [
        ({"do_sample": True, "temperature": 0.7, "eos_token_id": 256}, {}, "do_sample=True, temperature=0.7, which"),
        ({"eos_token_id": [256, 3]}, {}, r"eos_token_id=\[256, 3\], which"),
        (None, {"do_sample": True, "top_k": 7}, "do_sample=True, top_k=7, which"),
        (None, {"eos_token_id": 3}, "eos_token_id=3, which"),
        ({"eos_token_id": [256], "use_cache": True}, {"do_sample": True}, None),  # the file goes before
        (None, {"do_sample": False, "temperature": 1.0, "num_beams": 1, "max_length": 20, "top_k": 50}, None),
    ],
)
def test_how_transformers_would_generate_is_told_and_kept(file, config, told, write, tmp_path, caplog):
    folder = write(Variant(LM, config))
    if file is not None:
        (folder / "generation_config.json").write_text(json.dumps(file))
    heads.CausalLM.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    saved = tmp_path / "saved" / "generation_config.json"
    if told is None:
        assert not caplog.records and not saved.exists()
    else:
        [record] = caplog.records
        assert re.search(told, record.message)
        expected = file or {name: json.loads((folder / "config.json").read_text())[name] for name in config}
        assert expected.items() <= json.loads(saved.read_text()).items()


def test_the_plan_counts_an_output_embedding_that_config_json_tells_of(write):
    tied, untied = (heads.CausalLM.config_from({"model_type": "gpt2", **config}) for config in ({}, UNTIED))
    assert (tied.tie_embeddings, untied.tie_embeddings) == (True, False)
    assert heads.Classifier.config_from({"model_type": "gpt2", **UNTIED}).tie_embeddings
    assert heads.MaskedLM.config_from({"model_type": "bert", **BERT}) == BertConfig(
        vocab_size=V, dim=8, num_layers=1, num_heads=2, mlp_dim=12, max_length=16, pooler=False
    )
