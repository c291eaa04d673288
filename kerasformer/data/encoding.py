"""Labelled text -> a training and a validation set, tokenized, split and bucketed."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from kerasformer.config import Augment
from kerasformer.data.batches import Batches
from kerasformer.data.sources import Examples, Source, check_labels, read_examples, read_held_out
from kerasformer.data.split import label_ids, label_names, stratified_split
from kerasformer.errors import InputError, listed
from kerasformer.text.columns import as_list, text_columns
from kerasformer.text.tokenizer import Encoded, Tokenizer


def classification(
    source: Source | Examples,
    *,
    tokenizer: Tokenizer,
    max_length: int = 128,
    batch_size: int = 16,
    split: float = 0.1,
    validation: Source | Examples | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    augment: Augment | None = None,
    **columns,
) -> tuple[Batches, Batches | None]:
    """Reads labelled texts and splits them into batches to train on and batches to validate on.

    Args:
        source: CSV, TSV, JSON, Parquet, a folder of them or of `<label>/*.txt`, or lists; see `read_examples`.
        max_length: longest row in tokens, the special ones included; longer texts are cut.
        split: share held out for validation, of every label alike; 0 for none. Unused where `validation` is given.
        validation: a source of its own for the validation set.
        labels: class names in the order of the model's logits; by default those of the training set, sorted.
        seed: of the split, the order and the augmentation.
        augment: word-level changes to the training texts.
        **columns: what else `read_examples` takes: `text`, `text_pair`, `label`, `on_bad` and so on.

    Raises:
        InputError: unreadable sources, a single class, a label that training lacks, or a `max_length` above the
            model's.
    """
    examples = read_examples(source, **columns) if not isinstance(source, Examples) else source
    check_labels(examples)
    train, valid = examples, None
    if validation is not None:
        valid = validation
        if not isinstance(valid, Examples):
            valid = read_held_out(valid, labels or set(examples.labels), **columns)
    elif split:
        kept, held_out = stratified_split(examples.labels, split, seed)
        train, valid = examples.take(kept), examples.take(held_out)
    if augment is not None and train.text_pairs is not None:
        raise InputError("expected single texts for augmentation, got pairs of texts; leave the augmentation out")
    labels = list(labels or label_names(train.labels))
    common = {
        "tokenizer": tokenizer,
        "labels": labels,
        "max_length": max_length,
        "batch_size": batch_size,
        "seed": seed,
    }
    encoded = None if valid is None else encode(valid, **common)
    return encode(train, **common, shuffle=True, augment=augment), encoded


def encode(
    examples: Examples, *, tokenizer: Tokenizer, max_length: int, labels: Sequence[str] | None = None, **settings
) -> Batches:
    """Tokenizes examples into Batches; `settings` are those of Batches.

    Raises:
        InputError: no label or one outside `labels`, or a `max_length` above the model's.
    """
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"expected a tokenizer, as model.tokenizer, got a {type(tokenizer).__name__}; pass one")
    limit = tokenizer.max_positions
    if limit is not None and max_length > limit:
        raise InputError(f"expected a max_length of at most {limit}, the model's, got {max_length}; lower it")
    if labels is not None and examples.labels is None:
        raise InputError("expected labelled examples, found no labels; name their column")
    ids = None if labels is None else label_ids(examples.labels, labels, examples.origins)
    encoded = tokenizer.encode(examples.texts, examples.text_pairs, max_length=max_length)
    shown = {"texts": examples.texts, "text_pair": examples.text_pairs is not None}
    return Batches(encoded, tokenizer, max_length, labels=labels, label_ids=ids, **shown, **settings)


def unlabelled(texts: Any, *, tokenizer: Tokenizer, max_length: int | None = None, batch_size: int = 32) -> Batches:
    """Batches of texts, or of (text, text_pair) tuples, to predict; in rows of the model's own length by default.

    Args:
        texts: see `text_columns`.

    Raises:
        InputError: no texts, or something else than texts.
    """
    texts = as_list(texts)
    if isinstance(texts, list | tuple) and not texts:
        raise InputError("expected texts to predict, got none; pass at least one")
    examples = Examples(*text_columns(texts), None, [])
    length = max_length or tokenizer.max_length
    return encode(examples, tokenizer=tokenizer, max_length=length, batch_size=batch_size)


def padded(encoded: Encoded, pad_id: int) -> dict[str, np.ndarray]:
    """The rows as token_ids, segment_ids and padding_mask, int32 [N, T], T the length of the longest."""
    lengths = np.diff(encoded.offsets)
    is_token = np.arange(lengths.max(initial=1)) < lengths[:, None]
    token_ids, segment_ids = np.full(is_token.shape, pad_id, np.int32), np.zeros(is_token.shape, np.int32)
    token_ids[is_token], segment_ids[is_token] = encoded.token_ids, encoded.segment_ids
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": is_token.astype(np.int32)}


def summary(batches: Batches) -> str:
    """One line on a set: examples, classes, how much is cut and how much is padding."""
    counts = Counter(batches.labels[i] for i in batches.label_ids)
    classes = listed([f"{name[:40]} {counts[name]:,}" for name in batches.labels])
    return (
        f"{len(batches.lengths):,} texts ({classes}); {np.mean(batches.encoded.truncated):.1%} cut to "
        f"{batches.max_length} tokens, {batches.padding_share:.1%} padding"
    )
