"""Batches that grow: the sizes before the full one, as (size, steps) pairs."""

from collections.abc import Sequence

from kerasformer.errors import InputError

Ramp = Sequence[tuple[int, int]]


def check_ramp(ramp: Ramp, batch_size: int) -> None:
    """Refuses pairs of other than whole numbers of at least 1, and sizes that do not rise to the full one.

    Raises:
        InputError: such a ramp.
    """
    numbers = all(len(pair) == 2 and all(isinstance(n, int) and n > 0 for n in pair) for pair in ramp)
    sizes = [pair[0] for pair in ramp] + [batch_size]
    if not numbers or any(size >= following for size, following in zip(sizes, sizes[1:], strict=False)):
        raise InputError(
            f"expected a batch_ramp of SIZE STEPS pairs whose sizes rise to below the batch_size, {batch_size}, got "
            f"{' '.join(str(n) for pair in ramp for n in pair)}; change it"
        )
