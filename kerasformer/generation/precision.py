"""A backbone with its weights in another number format, for decoding."""

import numpy as np

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


def is_in_precision(backbone: Model, precision: str) -> bool:
    """Whether the backbone's own weights are in this format, and it computes in it."""
    policy = backbone.dtype_policy
    return policy.variable_dtype == policy.compute_dtype == precision


def in_precision(backbone: Model, precision: str, into: Model | None = None) -> Model:
    """A copy of the backbone that holds its weights, and computes, in `precision`.

    Args:
        precision: "int8" holds matrices in int8, the rest and the products are in the machine's `native` format.
        into: an earlier copy, to be brought up to date and returned.
    """
    policy = Int8Policy(native()) if precision == "int8" else precision
    copy = into or type(backbone)(backbone.config, dtype=policy)
    originals, copies = by_path(backbone), by_path(copy)
    for path, original in originals.items():
        if copies[path].dtype == "int8":
            values, scale = in_int8(np.asarray(original, np.float32))
            copies[path].assign(values)
            copies[path + Rows.SCALE].assign(scale)
        else:
            copies[path].assign(original)
    return copy
