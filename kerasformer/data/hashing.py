"""Numbers that look random, each a function of another: the same on every host and in every order."""

from types import ModuleType
from typing import Any

import numpy as np


def splitmix64(values: Any, bits: ModuleType = np) -> Any:
    """Scatters 64-bit numbers: the finaliser of splitmix64, https://doi.org/10.1145/2660193.2660195.

    Args:
        values: uint64, of NumPy or of TensorFlow.
        bits: where their operations are: `np` or `tf.bitwise`.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values = bits.bitwise_xor(values, bits.right_shift(values, np.uint64(shift))) * np.uint64(factor)
    return bits.bitwise_xor(values, bits.right_shift(values, np.uint64(31)))
