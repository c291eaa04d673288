"""What users pass to `fit`, `evaluate` and `predict`, checked on the host, where it comes in.

Arrays are checked before the first step, and batches of a tf.data.Dataset as they come: a step that runs on a GPU, or
that XLA compiles, makes zeros of ids that there are not.

Shapes: N rows, T length, C classes.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasformer.data.split import label_ids
from kerasformer.errors import InputError, listed
from kerasformer.models.base import Model
from kerasformer.text.columns import as_list, as_text
from kerasformer.training.targets import as_targets, as_weights, check_heads, is_ids

# How TensorFlow tells of an assertion of `DataCheck`, and of an id that a table does not have.
ASSERTED = re.compile(r"assertion failed: \[(expected [^\]]*)\] \[(-?\d+)\] \[([^\]]*)\]")
NOT_IN_TABLE = re.compile(r"indices\[[\d,]*\] = (-?\d+) is not in \[0, (\d+)\)")


@dataclass(frozen=True)
class Ids:
    """Whole numbers from `lowest`, or any below 0 where that is None, to below `count`."""

    count: int
    lowest: int | None = 0

    def expected(self, name: str) -> str:
        """What a message says of them."""
        limits = f"below {self.count}" if self.lowest is None else f"from {self.lowest} to {self.count - 1}"
        return f"expected {name} {limits}"


@dataclass(frozen=True)
class LabelCheck:
    """The labels of a head.

    Args:
        ids: which there are.
        rank: 1 for a label a row, 2 for one a token.
        names: of the classes, if they have any.
    """

    ids: Ids
    rank: int
    names: tuple[str, ...] = ()

    def array(self, name: str, values: Any, shape: tuple[int, int]) -> np.ndarray:
        """Labels as ids [N] or [N, T], int32, or as numbers for each class, float32; names as ids.

        Args:
            shape: of the inputs, [N, T].

        Raises:
            InputError: labels of another number, shape or type, or outside the range.
        """
        labels = _array(name, values)
        if labels.dtype.kind in "OSU":
            labels = label_ids(self._names(name, values), self.names)
        _check_rows(name, labels, shape[0])
        shape = shape[: self.rank]
        labels = labels[..., 0] if labels.shape == (*shape, 1) else labels
        if labels.shape == (*shape, self.ids.count):
            return _finite(name, labels)
        if labels.shape != shape:
            raise InputError(
                f"expected {name} as ids of shape {_shape(shape)} or {_shape([*shape, 1])}, or a number for each class "
                f"{_shape([*shape, self.ids.count])}, got {_shape(labels.shape)}; reshape them"
            )
        return _ids(name, labels, self.ids)

    def weights(self, name: str, values: Any, labels: np.ndarray) -> np.ndarray:
        """Sample weights [N] or [N, T], float32; one for a row is that of each of its tokens.

        Raises:
            InputError: weights of another shape, or that are no finite numbers.
        """
        weights, shape = _finite(name, _array(name, values)), labels.shape[: self.rank]
        _check_rows(name, weights, len(labels))
        weights = weights[..., 0] if weights.ndim == self.rank + 1 and weights.shape[-1] == 1 else weights
        if self.rank == 2 and weights.shape in (shape[:1], (*shape[:1], 1)):
            weights = np.repeat(weights.reshape(-1, 1), shape[1], axis=1)
        if weights.shape != shape:
            expected = " or ".join(map(_shape, [shape[:1], shape][: self.rank]))
            raise InputError(
                f"expected {name} of shape {expected}, got {_shape(weights.shape)}; give one for each label"
            )
        return weights

    def _names(self, name: str, values: Any) -> list[str]:
        found = [as_text(label, f"{name}[{i}]") for i, label in enumerate(as_list(values))]
        odd = [i for i, label in enumerate(found) if not isinstance(label, str)] if self.names else [0]
        if odd:
            first = min(odd, key=lambda i: found[i] is not None)  # rather what is missing
            kinds = f"ids or names of {listed(self.names)}" if self.names else "whole numbers"
            raise InputError(f"expected {name} as {kinds}, got {found[first]!r:.60} at {first}; change it")
        return found


@dataclass(frozen=True)
class DataCheck:
    """The inputs of a backbone and the labels of one head or several.

    Args:
        inputs: by name, which ids there are; None for a mask.
        optional: names of inputs that may be left out.
        max_length: of a row.
        labels: by head; of a model that is one head, by "".
    """

    inputs: Mapping[str, Ids | None]
    optional: tuple[str, ...]
    max_length: int
    labels: Mapping[str, LabelCheck]

    def arrays(self, x: Any, y: Any = None, sample_weight: Any = None) -> tuple[dict[str, np.ndarray], Any, Any]:
        """Inputs [N, T] by name, labels and weights as NumPy arrays of the types that a step takes.

        Raises:
            InputError: what is not a dict of rows of one length, or values outside their range.
        """
        self._check_names(x, f"a {type(x).__name__}")
        inputs = {name: _array(name, value) for name, value in x.items()}
        for name, array in inputs.items():
            self._check_shape(name, array.shape, inputs["token_ids"].shape)
            if array.dtype.kind not in "iub":
                raise InputError(f"expected {name} as whole numbers, got {array.dtype}; pass what the tokenizer gives")
            inputs[name] = _ids(name, array, self.inputs[name])
        labels, weights = self._by_head(y, sample_weight)
        shape = inputs["token_ids"].shape
        for name, values in labels.items():
            labels[name] = self.labels[name].array(_of(name, "labels"), values, shape)
        for name, values in weights.items():
            weights[name] = self.labels[name].weights(_of(name, "sample_weight"), values, labels[name])
        weights = {name: weights.get(name) for name in labels} if weights else {}  # of the same structure, for Keras
        return inputs, labels.get("", labels or None), weights.get("", weights or None)

    def dataset(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches; one that holds ids outside of their range is an error when it comes.

        Raises:
            InputError: inputs that have other names, shapes or types.
        """
        inputs, labels, _ = keras.utils.unpack_x_y_sample_weight(dataset.element_spec)
        self._check_names(inputs, f"a dataset of {type(inputs).__name__}")
        for name, spec in inputs.items():
            if spec.shape.rank is not None:
                self._check_shape(name, spec.shape, spec.shape)
            if not (spec.dtype.is_integer or spec.dtype.is_bool):
                raise InputError(f"expected {name} as whole numbers, got {spec.dtype.name}; map the dataset")
        if any(spec.dtype == tf.string for spec in tf.nest.flatten(labels) if spec is not None):
            raise InputError(
                "expected labels as ids, got a dataset of strings; map them to indices of the model's labels, "
                "or read the texts with kf.data.classification"
            )
        return dataset.map(tf.autograph.experimental.do_not_convert(self._prepared))  # which would hide an InputError

    def _check_names(self, x: Any, what: str) -> None:
        wanted = ", ".join(self.inputs)
        if not isinstance(x, Mapping):
            raise InputError(f"expected inputs as a dict of {wanted}, got {what}; pass what the tokenizer gives")
        if missing := [name for name in self.inputs if name not in x and name not in self.optional]:
            raise InputError(f"expected the inputs {wanted}, got no {', '.join(missing)} among {', '.join(x)}; add it")
        if foreign := [name for name in x if name not in self.inputs]:
            raise InputError(f"expected the inputs {wanted}, got {', '.join(foreign)} as well; rename or remove it")

    def _check_shape(self, name: str, shape: Any, of_ids: Any) -> None:
        if len(shape) != 2 or tuple(shape) != tuple(of_ids):
            like = "of shape [rows, length]" if len(of_ids) != 2 else f"of shape {_shape(of_ids)} as token_ids"
            raise InputError(f"expected {name} {like}, got {_shape(shape)}; reshape or pad it")
        if shape[1] is not None and shape[1] > self.max_length:
            raise InputError(f"expected rows of at most the model's {self.max_length} tokens, got {shape[1]}; cut them")

    def _prepared(self, *batch: Any) -> Any:
        """The batch in the shapes and types of a step, once its ids are seen to be within their ranges."""
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(batch)
        for name, ids in self.inputs.items():
            if ids is not None and name in inputs:
                _assert_within(name, inputs[name], ids)
        inputs = {name: tf.cast(ids, tf.int32) for name, ids in inputs.items()}
        labels, weights = self._by_head(labels, weights)
        for name, values in labels.items():
            check = self.labels[name]
            targets = labels[name] = as_targets(values, check.rank)
            if is_ids(targets):
                _assert_within(_of(name, "labels"), targets, check.ids)
            if name in weights:
                weights[name] = as_weights(targets, weights[name], check.rank)
        parts = inputs, labels.get("", labels or None), weights.get("", weights or None)
        return parts[: len(batch)] if len(batch) > 1 else inputs

    def _by_head(self, labels: Any, sample_weight: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Labels and weights by head, as far as they are given."""
        if labels is None:
            return {}, {}
        if "" in self.labels:
            return {"": labels}, {} if sample_weight is None else {"": sample_weight}
        check_heads(self.labels, labels, sample_weight)
        return dict(labels), {name: values for name, values in (sample_weight or {}).items() if values is not None}


def data_check(backbone: Model, labels: Mapping[str, LabelCheck]) -> DataCheck:
    """What the inputs of a backbone and these labels may be."""
    config = backbone.config
    ids = {"token_ids": Ids(config.vocab_size), "segment_ids": Ids(getattr(config, "num_segments", 1))}
    inputs = {name: ids.get(name) for name in backbone.input_names}
    return DataCheck(inputs, backbone.optional_inputs, config.max_length, labels)


@contextlib.contextmanager
def told_as_input_errors() -> Iterator[None]:
    """Within it, an InputError says what TensorFlow found wrong with a batch.

    Raises:
        InputError: an id outside of its range.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        if found := ASSERTED.search(error.message):
            raise InputError(f"{found[1]}, got {found[2]}; {found[3]}") from error
        if found := NOT_IN_TABLE.search(error.message):
            last = int(found[2]) - 1
            raise InputError(f"expected ids from 0 to {last}, got {found[1]}; tokenize with model.tokenizer") from error
        raise


def _of(head: str, what: str) -> str:
    return f"{what} of {head}" if head else what


def _advice(name: str) -> str:
    return "give it ids that it has" if name.startswith("labels") else "tokenize with model.tokenizer"


def _array(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O" and not isinstance(array.flat[0] if array.size else None, str | bytes):
            array = np.asarray(as_list(values))  # such as a column of a table, whose numbers are objects
    except ValueError as error:  # NumPy's: inhomogeneous
        raise InputError(f"expected {name} in rows of one length, got rows of several; pad them") from error
    if array.ndim == 0 or (array.dtype.kind == "O" and not name.startswith("labels")) or array.dtype.kind == "V":
        raise InputError(f"expected {name} as an array of numbers, got {values!r:.60}; change it")
    return array


def _ids(name: str, array: np.ndarray, ids: Ids | None) -> np.ndarray:
    """An array of whole numbers as int32."""
    if array.dtype.kind not in "iubf" or (array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array))):
        raise InputError(f"expected {name} as whole numbers, got {array.dtype} with fractions or NaN; change them")
    if array.size and ids is not None:
        low, high = array.min(), array.max()
        if high >= ids.count or (ids.lowest is not None and low < ids.lowest):
            wrong = high if high >= ids.count else low
            raise InputError(f"{ids.expected(name)}, got {int(wrong)}; {_advice(name)}")
    return array.astype(np.int32, copy=False)


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "iubf" or not np.isfinite(array).all():
        raise InputError(f"expected {name} as finite numbers, got {array.dtype} with NaN or infinity; change them")
    return array.astype(np.float32, copy=False)


def _check_rows(name: str, array: np.ndarray, rows: int) -> None:
    if len(array) != rows:
        raise InputError(f"expected {name} of the {rows} rows of the inputs, got {len(array)}; give one for each")


def _shape(shape: Any) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _assert_within(name: str, values: tf.Tensor, ids: Ids) -> None:
    values = tf.cast(values, tf.int64)
    low, high = tf.reduce_min(values), tf.reduce_max(values)  # of no values: the largest and the least number
    is_high = (high >= ids.count) & (tf.size(values) > 0)
    is_low = False if ids.lowest is None else low < ids.lowest
    wrong = tf.where(is_high, high, low)
    tf.debugging.Assert(~(is_high | is_low), [ids.expected(name), wrong, _advice(name)])
