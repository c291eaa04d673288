"""Hugging Face folders with a tokenizer each, for `golden/make_tokenizers.py` and the tests that compare with it.

They differ in which of their files says what. Each maps the names of files to their contents.
"""

import json
from pathlib import Path

ROLES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*ROLES, "[unused0]", "[unused1]"]
WORDS += (
    "the cat sat on é e ##s ##1 [ ] 1 2 . , ! ' - _ < > / a b ab ##b ##a covid ##19 中 文 The Cat É E L R x".split()
)
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
MERGES = ["a b", "ab c", "Ġ a", "Ġa b", "c a", "ca t"]
TOKENS = [*map(chr, PRINTABLE), *(chr(256 + i) for i in range(68)), *(m.replace(" ", "") for m in MERGES)]
TOKENS += ["<|endoftext|>"]
N, M = len(WORDS), len(TOKENS)

# None of these holds a special token of the models' own, which are ordinary text here but not in `transformers`.
TEXTS = [
    "",
    " ",
    "The cat sat on É é e\u0301",
    "[E1]",
    "[e1] [E1] [E 1]",
    "cat[E1]cat",
    "the [E1]cat [E1][E1] on",
    "[E1] the cat",
    "THE CAT [E1]",
    "  [E1]\t\n[E1]  a",
    "[E1[E1]] [[E1] E1] [E1",
    "ab ab. cab ab9 ab_ -ab- abé ab\u0301 ab",
    "a Ab AB ab",
    "cat L cat \u3000L\u2003cat L",
    "cat R cat R \x85 \x0b cat",
    "LR L R R L",
    "covid covid19 Covid-19 COVID",
    "中文 a中b <s>文",
    "<s> the <s><s>cat<S>",
    "a👩‍👩‍👧[E1]👍🏽",
    "\x00[E1]\x01a\x02\x03\x07[E1]\u200d",
    "\u0301[E1]\u0301 \U0001d165[E1]\u1b44",
    "İstanbul [E1] ß",
    "it's 's [E1]'s",
    "one\ntwo\n\n[E1]\nthree",
    "<|start|>a cat<|end|>",
    "[P1][p1] [P2]",
    "it is  a   cat. , !",
]


def token(content, *, special=False, **flags):
    """An added token as the files hold it; special ones are not normalized unless it is said."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": not special}
    return {"content": content, **plain, "special": special, **flags}


def decoder(*tokens):
    """Added tokens by their ids, from pairs of an id and a token."""
    return {"added_tokens_decoder": {str(i): added for i, added in tokens}}


FLAGGED = [
    token("[E1]"),
    token("[E1", special=True),
    token("ab", single_word=True, normalized=False),
    token("L", lstrip=True, normalized=False),
    token("R", rstrip=True, special=True),
    token("<s>", lstrip=True, rstrip=True, single_word=True),
    token("中"),
    token("\n", normalized=False),
]


def wordpiece(*added, words=WORDS, **normalizer):
    """tokenizer.json of a BERT; `added` are pairs of an id and a token beside the five special ones."""

    def special(name, type_id=0):
        return {"SpecialToken": {"id": name, "type_id": type_id}}

    def text(name, type_id=0):
        return {"Sequence": {"id": name, "type_id": type_id}}

    single = [special("[CLS]"), text("A"), special("[SEP]")]
    added = [*((i, token(role, special=True)) for i, role in enumerate(ROLES)), *added]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **entry} for i, entry in added],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
            **normalizer,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, text("B", 1), special("[SEP]", 1)],
            "special_tokens": {
                name: {"id": name, "ids": [words.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: i for i, word in enumerate(words)},
        },
    }


def bpe(*added, merges=MERGES):
    """tokenizer.json of a GPT-2; `added` are pairs of an id and a token beside the end of text."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    added = [(M - 1, token("<|endoftext|>", special=True)), *added]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **entry} for i, entry in added],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: i for i, text in enumerate(TOKENS)},
            "merges": merges,
        },
    }


LINES = "".join(f"{word}\n" for word in WORDS)
TXT, BERT = {"vocab.txt": LINES}, {"config.json": {"model_type": "bert"}}
MERGED = "".join(f"{merge}\n" for merge in MERGES)
PARTS = {"vocab.json": {text: i for i, text in enumerate(TOKENS)}, "merges.txt": f"#version: 0.2\n{MERGED}"}
GPT = {"config.json": {"model_type": "gpt2"}}
UNUSED = [{"[unused0]": "[E1]", "[unused1]": "[P1]"}.get(word, word) for word in WORDS]


def config(kind=None, **settings):
    """tokenizer_config.json."""
    return {"tokenizer_config.json": settings | ({"tokenizer_class": kind} if kind else {})}


def placed(tokens, vocab):
    """Pairs of an id and a token: of those that the vocabulary lacks, one after the other follows it."""
    ids = {text: i for i, text in enumerate(vocab)}
    return [(ids.setdefault(added["content"], len(ids)), added) for added in tokens]


WORDPIECES = {
    "vocabulary and settings": TXT | BERT | config(do_lower_case=True),
    "cased vocabulary": TXT | BERT | config("BertTokenizer", do_lower_case=False),
    "another class of the kind": TXT | BERT | config("DistilBertTokenizerFast", strip_accents=False),
    "added_tokens.json, special": TXT
    | BERT
    | config()
    | {
        "added_tokens.json": {"[P1]": N + 1, "[E1]": N},
        "special_tokens_map.json": {"additional_special_tokens": ["[E1]"]},
    },
    "added_tokens.json, plain": TXT
    | BERT
    | config("BertTokenizer")
    | {"added_tokens.json": {"[E1]": N, "[P1]": N + 1}},
    "flags in the settings": TXT | BERT | config("BertTokenizer", **decoder(*placed(FLAGGED, WORDS))),
    "flags, cased": TXT | BERT | config("BertTokenizer", do_lower_case=False, **decoder(*placed(FLAGGED, WORDS))),
    "flags in tokenizer.json": BERT | config("BertTokenizer") | {"tokenizer.json": wordpiece(*placed(FLAGGED, WORDS))},
    "flags, tokenizer.json as it is": BERT
    | config("TokenizersBackend", extra_special_tokens=["[E1"])
    | {"tokenizer.json": wordpiece(*placed(FLAGGED, WORDS), lowercase=False)},
    "settings lower-case, tokenizer.json not": BERT
    | config("BertTokenizer", do_lower_case=True)
    | {"tokenizer.json": wordpiece(lowercase=False)},
    "tokenizer.json lower-cases, settings not": BERT
    | config("BertTokenizerFast", do_lower_case=False)
    | {"tokenizer.json": wordpiece()},
    "nothing but tokenizer.json and the model": BERT | {"tokenizer.json": wordpiece(lowercase=False)},
    "nothing but tokenizer.json": {"tokenizer.json": wordpiece(lowercase=False)},
    "no class and no model": config(do_lower_case=True) | {"tokenizer.json": wordpiece(lowercase=False)},
    "any class": BERT
    | config("PreTrainedTokenizerFast", do_lower_case=True)
    | {"tokenizer.json": wordpiece(lowercase=False)},
    "the model names the class": {"config.json": {"model_type": "bert", "tokenizer_class": "PreTrainedTokenizerFast"}}
    | config(do_lower_case=True)
    | {"tokenizer.json": wordpiece(lowercase=False)},
    "accents and ideographs, other than in tokenizer.json": BERT
    | config("BertTokenizer", strip_accents=False, tokenize_chinese_chars=False)
    | {"tokenizer.json": wordpiece(strip_accents=True)},
    "settings leave out an added token": BERT
    | config("BertTokenizer", **decoder((N, token("[E1]", special=True))))
    | {"tokenizer.json": wordpiece((N, token("[E1]")), (N + 1, token("[P1]")))},
    "settings add to tokenizer.json": BERT
    | config("TokenizersBackend", **decoder((N + 1, token("[P1]")), (N, token("[E1]", special=True))))
    | {"tokenizer.json": wordpiece((N, token("[E1]")))},
    "in the vocabulary": BERT
    | config("BertTokenizer")
    | {"tokenizer.json": wordpiece((5, token("[E1]", special=True)), (6, token("[P1]")), words=UNUSED)},
    "in the vocabulary's lines": {"vocab.txt": "".join(f"{word}\n" for word in UNUSED)}
    | BERT
    | config(additional_special_tokens=["[E1]"]),
    "listed and named alone": TXT
    | BERT
    | config(
        extra_special_tokens=["[E1]", "<|end|>"],
        bos_token={**token("<s>", special=True, lstrip=True), "__type": "AddedToken"},
        start_token="<|start|>",
    ),
    "listed by name": TXT | BERT | config(extra_special_tokens={"entity": "[E1]", "second": "[P1]"}),
    "empty lines at the end": {"vocab.txt": LINES + "\n\n"} | BERT | config(additional_special_tokens=["[E1]"]),
    "CR LF and white space": {"vocab.txt": LINES.replace("covid\n", "covid \u3000\n").replace("\n", "\r\n")}
    | BERT
    | config(),
    "another token for unknown words": BERT
    | config("BertTokenizer", unk_token="[unused0]")
    | {"tokenizer.json": wordpiece()},
    "special tokens of special_tokens_map.json": TXT
    | BERT
    | config(pad_token="[PAD]")
    | {"special_tokens_map.json": {"pad_token": "[unused1]", "mask_token": token("[unused0]", special=True)}},
    "settings that nobody follows": TXT
    | BERT
    | config(do_basic_tokenize=False, never_split=["covid"], clean_text=False),
}
BPES = {
    "parts": PARTS | GPT,
    "no header": {**PARTS, "merges.txt": MERGED} | GPT,
    "added_tokens.json": PARTS
    | GPT
    | config(pad_token="<|pad|>")
    | {"added_tokens.json": {"<|pad|>": M, "[E1]": M + 1}},
    "names of special_tokens_map.json": PARTS
    | GPT
    | config("GPT2Tokenizer")
    | {
        "added_tokens.json": {"<|start|>": M, "<|pad|>": M + 1},
        "special_tokens_map.json": {
            "bos_token": "<|start|>",
            "eos_token": "<|endoftext|>",
            "pad_token": token("<|pad|>", special=True),
        },
    },
    "flags in the settings": PARTS | GPT | config("GPT2Tokenizer", **decoder(*placed(FLAGGED, TOKENS))),
    "flags in tokenizer.json": GPT
    | config("GPT2TokenizerFast", additional_special_tokens=["[E1"])
    | {"tokenizer.json": bpe(*placed(FLAGGED, TOKENS))},
    "flags, tokenizer.json as it is": GPT
    | config("TokenizersBackend", pad_token="<|endoftext|>", add_prefix_space=True)
    | {"tokenizer.json": bpe(*placed(FLAGGED, TOKENS), merges=[merge.split(" ") for merge in MERGES])},
    "pad after other tokens": GPT
    | config("GPT2Tokenizer", pad_token="<|pad|>")
    | {"tokenizer.json": bpe((M, token("[E1]")), (M + 1, token("<|pad|>", special=True)), (M + 2, token("[P2]")))},
}


def write(folder: Path, files: dict) -> Path:
    """Makes a folder of these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        content = content if isinstance(content, str) else json.dumps(content)
        (folder / name).write_bytes(content.encode())
    return folder
