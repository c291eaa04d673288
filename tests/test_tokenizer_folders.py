"""Every file of a folder that changes the ids counts, as in `transformers` (golden/make_tokenizers.py)."""

import json
import re
from pathlib import Path

import pytest
import tensorflow as tf
from tokenizer_folders import (
    BPES,
    GPT,
    LINES,
    PARTS,
    TEXTS,
    TXT,
    WORDPIECES,
    M,
    N,
    bpe,
    config,
    decoder,
    token,
    wordpiece,
    write,
)
from tokenizers import Tokenizer

from kerasformer.errors import InputError
from kerasformer.text.bpe import BPE
from kerasformer.text.folder import read_tokenizer
from kerasformer.text.wordpiece import WordPiece

GOLDEN = json.loads((Path(__file__).parent / "golden" / "tokenizers.json").read_text())
FOLDERS = [(WordPiece, "wordpiece", *folder) for folder in WORDPIECES.items()]
FOLDERS += [(BPE, "bpe", *folder) for folder in BPES.items()]
IDS = [f"{kind}: {name}" for _, kind, name, _ in FOLDERS]
# Graphs of the tokenizers that have been compared already, which many folders describe alike.
compared = set()


def meaning(tokenizer):
    """What decides on the ids that a tokenizer gives."""
    return (
        type(tokenizer).__name__,
        *(tokenizer.vocab, tokenizer.base_size, tokenizer.pad_id, tokenizer.max_length, tokenizer.frame),
        *(getattr(tokenizer, name, None) for name in ("normalization", "merges", "special_tokens", "eot_token")),
        [(token.content, token.__getstate__()) for token in tokenizer.added_tokens],
    )


@pytest.mark.parametrize(("kind", "group", "name", "files"), FOLDERS, ids=IDS)
def test_ids_as_transformers_gives_them(kind, group, name, files, tmp_path):
    golden = GOLDEN[group][name]
    tokenizer = kind.from_folder(write(tmp_path / "read", files))
    assert tokenizer.tokenize(TEXTS) == golden["ids"]
    assert tokenizer.vocab_size == golden["size"] and golden["pad"] in (tokenizer.pad_id, None)
    frame = tokenizer.frame
    assert [*frame.first, *frame.last] == [*golden["start"], *golden["end"]]
    if repr(meaning(tokenizer)) not in compared:
        compared.add(repr(meaning(tokenizer)))
        run = tokenizer.in_graph().tokenize.python_function  # the operations one by one: to trace them takes longer
        assert run(tf.constant(TEXTS)).to_list() == golden["ids"]

    # Saved and read again it means the same, with tokenizer.json and without, and to `tokenizers`, too.
    tokenizer.save(tmp_path / "saved")
    assert meaning(kind.from_folder(tmp_path / "saved")) == meaning(tokenizer)
    theirs = Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    assert [encoding.ids for encoding in theirs.encode_batch(TEXTS, add_special_tokens=False)] == golden["ids"]
    (tmp_path / "saved" / "tokenizer.json").unlink()
    assert meaning(kind.from_folder(tmp_path / "saved")) == meaning(tokenizer)


def test_what_else_the_settings_say_is_kept(tmp_path):
    settings = {
        "bos_token": "<|start|>",
        "extra_special_tokens": ["[E1]"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": True,
        "model_max_length": 64,
    }
    BPE.from_folder(write(tmp_path, PARTS | GPT | config(**settings, add_bos_token=False))).save(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert saved.items() >= settings.items() and saved["tokenizer_class"] == "GPT2Tokenizer"
    assert [entry["content"] for entry in saved["added_tokens_decoder"].values()] == [
        "<|endoftext|>",
        "<|start|>",
        "[E1]",
    ]
    assert BPE.from_folder(tmp_path).max_length == 64


def test_an_end_of_text_of_another_name(tmp_path):
    ids = {"</s>" if text == "<|endoftext|>" else text: i for text, i in PARTS["vocab.json"].items()}
    tokenizer = BPE.from_folder(write(tmp_path, PARTS | GPT | {"vocab.json": ids} | config(eos_token="</s>")))
    assert tokenizer.vocab == list(ids) and (tokenizer.eot_id, tokenizer.pad_id) == (M - 1, M - 1)


def test_the_length_of_rows_by_its_old_name(tmp_path):
    assert WordPiece.from_folder(write(tmp_path, TXT | config(max_len=48))).max_length == 48


LEFT = {"direction": "Left", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
JAPANESE = config("BertJapaneseTokenizer") | {"tokenizer.json": wordpiece()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (TXT | config(do_lower_case=True), None),
        (WORDPIECES["flags in tokenizer.json"], None),
        (TXT, "vocab.txt: guessed that texts are not lower-cased, as there is the token 'The'; .* do_lower_case"),
        ({"vocab.txt": LINES.replace("The\nCat\nÉ\nE\nL\nR\n", "<S>\n[X]\n")}, "are lower-cased, as no token has"),
        (
            config("BertTokenizer") | {"tokenizer.json": wordpiece(lowercase=False)},
            "lowercase True counts, not the False",
        ),
        (
            config("TokenizersBackend", do_lower_case=False) | {"tokenizer.json": wordpiece()},
            "True counts, not the False",
        ),
        (
            config("BertTokenizer", cls_token="[unused0]") | {"tokenizer.json": wordpiece()},
            "'.unused0.' counts, not the",
        ),
        (WORDPIECES["settings leave out an added token"], "not added: '.P1.', which added_tokens_decoder in"),
        (TXT | config(never_split=["a"]), "never_split is .'a'., which is not followed"),
        (
            TXT | config(truncation_side="left"),
            "tokenizer_config.json: texts that are too long are to lose their beginning",
        ),
        ({"tokenizer.json": wordpiece() | {"truncation": LEFT}}, "tokenizer.json: texts that are too long"),
        (
            {"vocab.txt": LINES.replace("cat", "dog"), "tokenizer.json": wordpiece()},
            "vocab.txt: not what tokenizer.json",
        ),
        ({"vocab.txt": "\ufeff" + LINES, "tokenizer.json": wordpiece()}, "vocab.txt: not what tokenizer.json"),
        (TXT | {"tokenizer.json": wordpiece((N, token("[E1]")))}, None),
        (PARTS | {"tokenizer.json": bpe()}, None),
        (
            {**PARTS, "merges.txt": "c a\na b\n"} | {"tokenizer.json": bpe()},
            "merges.txt: not what tokenizer.json holds",
        ),
    ],
)
def test_what_is_guessed_or_overridden_is_said_in_one_line(files, message, tmp_path, caplog):
    kind = BPE if "merges" in str(files) else WordPiece
    kind.from_folder(write(tmp_path, files))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (message is not None)
    if message is not None:
        assert re.search(message, lines[0]) and "\n" not in lines[0]


@pytest.mark.parametrize(("kind", "content"), [(WordPiece, wordpiece()), (BPE, bpe())])
def test_a_model_that_does_not_name_its_kind(kind, content, tmp_path):
    del content["model"]["type"]
    assert type(read_tokenizer(write(tmp_path, {"tokenizer.json": content}))) is kind


E1 = token("[E1]", special=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (JAPANESE, "tokenizer_class BertTokenizer or .*, got BertJapaneseTokenizer, .*PreTrainedTokenizerFast"),
        (TXT | config("PreTrainedTokenizerFast"), "tokenizer_class BertTokenizer or .*, got PreTrainedTokenizerFast"),
        (TXT | config(split_special_tokens=True), "split_special_tokens False, got True"),
        (TXT | config(wordpieces_prefix="@@"), "wordpieces_prefix '##', got '@@'"),
        (TXT | config(fast_tokenizer_files=["tokenizer.4.0.json"]), "fast_tokenizer_files .*tokenizer.4.0.json"),
        (TXT | config(auto_map={"AutoTokenizer": ["mine.Mine", None]}), "no code of its own, got an auto_map"),
        (TXT | config(auto_map=["mine.Mine", None]), "no code of its own"),
        (TXT | config(additional_special_tokens="[E1]"), "list of tokens as additional_special_tokens, got '.E1.'"),
        (TXT | config(extra_special_tokens=["[E1]", 7]), "string as extra_special_tokens, got 7"),
        (TXT | config(bos_token={"lstrip": True}), "string as bos_token, got {'lstrip'"),
        (TXT | config(bos_token="\ud800"), "string as bos_token"),
        (TXT | config(added_tokens_decoder=["[E1]"]), "object as added_tokens_decoder, got"),
        (TXT | config(added_tokens_decoder={"one": E1}), "number as the id of the added token '.E1.', got 'one'"),
        (TXT | config(added_tokens_decoder={"44": {}}), "string as the added token 44, got {}"),
        (
            TXT | config(**decoder((N + 1, E1))),
            f"tokenizer_config.json: expected the id {N} for the added .*, got {N + 1}",
        ),
        (TXT | config(**decoder((5, E1))), f"expected the id {N} for the added token '.E1.'.*, got 5"),
        (TXT | config(**decoder((N, E1), (N + 1, E1))), f"expected the id {N} for .*, got {N + 1}; make them agree"),
        (TXT | {"added_tokens.json": {"[E1]": N + 2}}, f"added_tokens.json: expected the id {N} for the added"),
        (TXT | {"added_tokens.json": {"[E1]": -1}}, "added_tokens.json: expected a number as the id .*, got -1"),
        (TXT | {"added_tokens.json": ["[E1]"]}, "expected added tokens as a JSON object"),
        (TXT | {"special_tokens_map.json": "["}, "expected the names of special tokens as JSON"),
        (TXT | {"special_tokens_map.json": {"pad_token": "[X]"}}, r"special tokens, \[X\] missing"),
        (
            TXT | {"special_tokens_map.json": {"unk_token": "[E1]"}, "added_tokens.json": {"[E1]": N}},
            "for unknown words",
        ),
        (
            {"tokenizer.json": wordpiece((N, E1)), "added_tokens.json": {"[E1]": N + 1}},
            "as added_tokens.json says, got",
        ),
        (
            {"tokenizer.json": wordpiece((N + 1, E1), (N, token("[P1]")))},
            f"expected the id {N} for the added token '.E1.'",
        ),
        ({"vocab.txt": "\ufeff" + LINES}, "vocab.txt, line 1: expected UTF-8 without a byte order mark"),
        ({"vocab.txt": LINES + "cat \n"}, "'cat' for ids 8 and"),
        (PARTS | GPT | config(add_eos_token=True), "expected add_eos_token false, got True"),
        (
            PARTS | {"merges.txt": "\ufeff#version: 0.2\n"},
            "merges.txt, line 1: expected UTF-8 without a byte order mark",
        ),
        (PARTS | GPT | {"added_tokens.json": {"[PAD]": M + 1}}, f"added_tokens.json: expected the id {M} for"),
    ],
)
def test_folders_that_are_refused(files, message, tmp_path):
    kind = BPE if "merges" in str(files) else WordPiece
    with pytest.raises(InputError, match=message) as error:
        kind.from_folder(write(tmp_path, files))
    assert "\n" not in str(error.value)
