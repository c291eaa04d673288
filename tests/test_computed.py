"""Elements that Python computes for tf.data."""

import numpy as np
import pytest
import tensorflow as tf

from kerasformer.data.computed import computed

SPEC = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([], tf.float32))


def test_elements_come_in_order_and_again():
    dataset = computed(5, lambda i: (np.arange(i, dtype=np.int32), np.float32(i / 2)), SPEC)
    assert dataset.element_spec == SPEC
    assert dataset.cardinality() == 5
    for _ in range(2):
        found = [(a.tolist(), float(b)) for a, b in dataset.as_numpy_iterator()]
        assert found == [(list(range(i)), i / 2) for i in range(5)]


def test_what_python_raises_is_told():
    def element(i: int) -> tuple[np.ndarray, np.ndarray]:
        raise ValueError(f"no element {i}")

    with pytest.raises(tf.errors.InvalidArgumentError, match="no element 0"):
        list(computed(1, element, SPEC))
