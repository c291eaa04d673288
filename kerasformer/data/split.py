"""Labels as numbers, and a held-out part with the same mix of classes."""

from collections.abc import Sequence

import numpy as np

from kerasformer.errors import InputError, listed


def label_names(labels: Sequence[str]) -> list[str]:
    """The distinct labels, sorted: a label's place here is its id."""
    return sorted(set(labels))


def label_ids(labels: Sequence[str], names: Sequence[str], origins: Sequence[str] | None = None) -> np.ndarray:
    """The place of each label in `names`, int32.

    Args:
        origins: where each label came from, for the error message; its index by default.

    Raises:
        InputError: a label that `names` lacks, as when only the held-out data have it.
    """
    places = {name: place for place, name in enumerate(names)}
    ids = np.fromiter((places.get(label, -1) for label in labels), np.int32, count=len(labels))
    if (unknown := np.flatnonzero(ids < 0)).size:
        first = unknown[0]
        origin = origins[first] if origins else f"labels[{first}]"
        raise InputError(
            f"{origin}: the label {labels[first]!r:.60} is none of those trained on: "
            f"{listed([repr(name[:40]) for name in names])}; rename or remove it"
        )
    return ids


def stratified_split(labels: Sequence[str], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices to hold out, each ascending.

    `round(fraction * len(labels))` examples are held out, shared among the classes by largest remainder. Every class
    keeps one example to train on, so a class of one is never held out. The split depends on the arguments alone, not
    on the platform or the version of NumPy.

    Args:
        fraction: share to hold out, between 0 and 1.
        seed: 0 or more.

    Raises:
        InputError: a fraction or seed out of range, or too few examples to hold any out.
    """
    if not 0 < fraction < 1:
        raise InputError(f"expected a fraction between 0 and 1 to hold out, not {fraction}; change it")
    if seed < 0:
        raise InputError(f"expected a seed of 0 or more, not {seed}; change it")
    names = label_names(labels)
    ids = label_ids(labels, names)
    counts = np.bincount(ids, minlength=len(names))
    held = _shares(counts, fraction)
    if not held.sum():
        raise InputError(
            f"holding out {fraction} of {len(ids)} examples in {len(names)} classes leaves none to hold out; "
            "raise the fraction or add examples"
        )
    keys = np.random.PCG64(seed).random_raw(len(ids))  # the raw stream is what NumPy keeps the same for ever
    order = np.lexsort((keys, ids))  # class by class, shuffled within each
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(ids)) - starts[ids[order]]
    chosen = rank < held[ids[order]]
    return np.sort(order[~chosen]), np.sort(order[chosen])


def _shares(counts: np.ndarray, fraction: float) -> np.ndarray:
    """How many of each class to hold out: largest remainder, leaving one of each."""
    limits = counts - 1
    total = min(round(fraction * int(counts.sum())), limits.sum())
    quotas = fraction * counts
    shares = np.minimum(np.floor(quotas).astype(np.int64), limits)
    while (short := total - shares.sum()) > 0:
        unfilled = np.flatnonzero(shares < limits)
        neediest = unfilled[np.argsort((shares - quotas)[unfilled], kind="stable")]
        shares[neediest[:short]] += 1
    return shares
