"""A backbone with its weights in another number format, for decoding."""

from kerasformer.errors import InputError
from kerasformer.models.base import Model

PRECISIONS = ("float32", "bfloat16")


def check_precision(precision: str) -> None:
    """Raises InputError for a name that is none of PRECISIONS or "auto"."""
    if precision not in ("auto", *PRECISIONS):
        raise InputError(
            f"expected a precision of auto, {', '.join(PRECISIONS)}, got {precision!r}; choose one of them"
        )


def is_in_precision(backbone: Model, precision: str) -> bool:
    """Whether the backbone's own weights are in this format, and it computes in it."""
    policy = backbone.dtype_policy
    return policy.variable_dtype == policy.compute_dtype == precision


def in_precision(backbone: Model, precision: str, into: Model | None = None) -> Model:
    """A copy of the backbone that holds its weights, and computes, in `precision`.

    Args:
        into: an earlier copy, to be brought up to date and returned.
    """
    copy = into or type(backbone)(backbone.config, dtype=precision)
    for variable, original in zip(copy.variables, backbone.variables, strict=True):
        variable.assign(original)
    return copy
