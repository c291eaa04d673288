"""A backbone with its weights in another number format, for decoding."""

import keras
import numpy as np
from keras import KerasTensor, ops

from kerasformer import backend
from kerasformer.errors import InputError
from kerasformer.layers.rows import Int8Policy, Rows, in_int8
from kerasformer.models.base import Model
from kerasformer.models.weights import by_path

PRECISIONS = ("float32", "bfloat16", "int8")


def check_precision(precision: str) -> None:
    """Raises InputError for a name that is none of PRECISIONS or "auto"."""
    if precision not in ("auto", *PRECISIONS):
        raise InputError(
            f"expected a precision of auto, {', '.join(PRECISIONS)}, got {precision!r}; choose one of them"
        )


def native() -> str:
    """The floating-point format that the machine computes fast."""
    return "bfloat16" if backend.has_fast_bfloat16() else "float32"


def resolved(precision: str) -> str:
    """The precision that is meant: of "auto", the machine's `native` one."""
    return native() if precision == "auto" else precision


def is_in_precision(backbone: Model, precision: str) -> bool:
    """Whether the backbone's own weights are in this format, and it computes in it."""
    policy = backbone.dtype_policy
    return policy.variable_dtype == policy.compute_dtype == precision


def in_precision(backbone: Model, precision: str, into: Model | None = None, *, in_floats: bool = False) -> Model:
    """A copy of the backbone that holds its weights, and computes, in `precision`.

    Args:
        precision: "int8" holds matrices in int8, and the rest in the machine's `native` format.
        into: an earlier copy, to be brought up to date and returned.
        in_floats: hold the same whole numbers of int8 in the `native` format, for products that take floats alone.
    """
    policy = Int8Policy(native(), in_floats=in_floats) if precision == "int8" else precision
    copy = into or type(backbone)(backbone.config, dtype=policy)
    originals, copies = by_path(backbone), by_path(copy)
    for path, original in originals.items():
        if path + Rows.SCALE in copies:
            values, scale = in_int8(np.asarray(original, np.float32))
            copies[path].assign(values)
            copies[path + Rows.SCALE].assign(scale)
        else:
            copies[path].assign(original)
    return copy


class Copies:
    """A backbone in several precisions, each brought up to date when it is asked for.

    Args:
        backbone: its weights may change.

    Attributes:
        changes: how many times `look` has found other weights than before.
    """

    def __init__(self, backbone: Model):
        self.backbone, self.changes = backbone, 0
        self._copies: dict[tuple[str, bool], tuple[Model | None, int]] = {}
        self._sums = None

        def sums():
            return ops.stack([_sum_by_place(variable) for variable in backbone.variables])

        self._sum = backend.compiled(sums, backbone.variables)

    def look(self) -> bool:
        """Whether the weights are other ones, or in other places, than at the last look."""
        before, self._sums = self._sums, ops.convert_to_numpy(self._sum())
        has_changed = before is not None and not np.array_equal(before, self._sums, equal_nan=True)
        self.changes += has_changed
        return has_changed

    def get(self, precision: str, in_floats: bool = False) -> Model:
        """The backbone, or a copy of it that holds its weights in this precision, made anew after a change.

        Args:
            in_floats: see `in_precision`.
        """
        if is_in_precision(self.backbone, precision):
            return self.backbone
        copy, changes = self._copies.get((precision, in_floats), (None, -1))
        if changes != self.changes:
            copy = in_precision(self.backbone, precision, into=copy, in_floats=in_floats)
            self._copies[precision, in_floats] = copy, self.changes
        return copy


def _sum_by_place(variable: keras.Variable) -> KerasTensor:
    """The sum of the values, each times a factor of its row and one of its column."""
    values = ops.cast(variable, "float32")
    rows = ops.reshape(values, (-1, values.shape[-1] if values.shape else 1))
    down, across = (ops.cos(ops.arange(1, size + 1, dtype="float32")) for size in rows.shape)
    return ops.sum(ops.matmul(rows, across[:, None])[:, 0] * down)
