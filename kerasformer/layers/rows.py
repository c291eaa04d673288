"""Matrices that are read row by row, and held in int8 where the layer's dtype policy is Int8Policy.

A row then has one scale, its largest number over 127 (symmetric, as in Dettmers et al. 2022, arXiv 2208.07339, section
2.1). Only weights are in int8: products are made in the policy's compute dtype, or in float32 where XLA compiles them
for a CPU.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
from keras import KerasTensor, activations, ops
from keras.backend import standardize_dtype

from kerasformer import backend
from kerasformer.gradients import custom_gradient
from kerasformer.layers.activations import gelu, gelu_tanh
from kerasformer.layers.reductions import summed

LARGEST = 127
FEW = 64  # rows, up to which `project_few` is the faster on CPUs without AVX-512 and no slower elsewhere
ONEDNN = {gelu: "GeluExact", gelu_tanh: "GeluApproximate"}  # its names of what it computes within a product


@keras.saving.register_keras_serializable("kerasformer")
class Int8Policy(keras.DTypePolicy):
    """Computes in a float format, "float32" or "bfloat16", and holds Rows in int8: for inference alone.

    Keras's own policies of int8 make the products in int8 as well.

    Args:
        name: of the float format.
        in_floats: hold the whole numbers of int8 in the float format, exactly, for kernels that take floats alone.
    """

    def __init__(self, name: str, in_floats: bool = False, **kwargs):
        super().__init__(name, **kwargs)
        self.weight_dtype = self.compute_dtype if in_floats else "int8"


class Rows:
    """A weight [R, D] of a layer and, in int8, its scale [R]; the layer must be in its `build`.

    Args:
        layer: with the dtype policy.
        name: of the weight; that of the scale ends in SCALE.
    """

    SCALE = "_scale"

    def __init__(
        self, layer: keras.layers.Layer, name: str, shape: tuple[int, int], initializer: str | keras.Initializer
    ):
        self.scale = None
        if isinstance(layer.dtype_policy, Int8Policy):
            dtype = layer.dtype_policy.weight_dtype
            self.weight = layer.add_weight(shape, initializer="zeros", dtype=dtype, trainable=False, name=name)
            scale = {"dtype": "float32", "autocast": False, "trainable": False, "name": name + self.SCALE}
            self.scale = layer.add_weight(shape[:1], initializer="ones", **scale)
        else:
            # Cast where it is used: Keras would cast a whole table of which a few rows are taken.
            self.weight = layer.add_weight(shape, initializer=initializer, autocast=False, name=name)

    def product(
        self, x: KerasTensor, bias: KerasTensor | None = None, activation: Callable = activations.linear
    ) -> KerasTensor:
        """[..., D] -> [..., R]: the activation of the product with each row, plus the bias [R]."""
        flat = ops.reshape(x, (-1, x.shape[-1]))  # [M, D]
        bias = None if bias is None else ops.cast(ops.copy(bias), x.dtype)
        is_int8 = standardize_dtype(self.weight.dtype) == "int8"
        is_packed = not is_int8 and backend.is_packed(standardize_dtype(x.dtype))
        # XLA turns int8 into float32 while it reads it. By way of bfloat16, half of the time would go into that.
        dtype = "float32" if is_int8 and backend.is_fused_on_cpu() else x.dtype
        rows = ops.cast(ops.copy(self.weight), dtype)  # a copy, as a written gradient takes tensors alone
        if is_packed and self.scale is None:
            y = backend.packed_product(flat, rows, bias, ONEDNN.get(activation, ""))
            y = y if activation in ONEDNN else activation(y)
        else:
            product = backend.packed_product if is_packed else project_few if _is_few(x) else project
            y = product(ops.cast(flat, dtype), rows)
            y = y if self.scale is None else ops.cast(ops.cast(y, "float32") * self.scale, x.dtype)
            y = activation(y if bias is None else shift(y, bias))
        return ops.reshape(y, (*ops.shape(x)[:-1], self.weight.shape[0]))

    def take(self, places: KerasTensor, dtype: str) -> KerasTensor:
        """The rows at `places` [...], as [..., D]; see `backend.lookup` for a place that there is not."""
        rows = backend.lookup(self.weight, places)
        if self.scale is not None:
            rows = ops.cast(rows, "float32") * backend.lookup(self.scale, places)[..., None]
        return ops.cast(rows, dtype)


@custom_gradient
def project(x: KerasTensor, rows: KerasTensor) -> tuple[KerasTensor, Callable]:
    """[M, D] and [R, D] -> [M, R]."""

    def gradient(upstream):
        # Written out, as what TensorFlow derives is the rows' gradient transposed, and a pass to turn it.
        return ops.matmul(upstream, rows), ops.matmul(ops.transpose(upstream), x)

    return ops.matmul(x, ops.transpose(rows)), gradient


def project_few(x: KerasTensor, rows: KerasTensor) -> KerasTensor:
    """[M, D] and [R, D] -> [M, R], for few M.

    Where the product is Eigen's, as on CPUs without AVX-512, the rows come first: as the second factor they are copied
    in another order, which takes three to ten times as long as the product; and so they are for a bias fused with it.
    """
    if standardize_dtype(x.dtype) != "float32":
        return project(x, rows)
    return ops.transpose(ops.matmul(rows, ops.transpose(x)))


def _is_few(x: KerasTensor) -> bool:
    """Whether x [..., D] is known to have few rows, or is one token of each text [B, 1, D]."""
    outer = x.shape[:-1]
    return outer[-1:] == (1,) or (None not in outer and math.prod(outer) <= FEW)


@custom_gradient
def shift(y: KerasTensor, bias: KerasTensor) -> tuple[KerasTensor, Callable]:
    """[M, R] and [R] -> their sum [M, R]."""

    def gradient(upstream):
        return upstream, _sum_of_rows(upstream)

    return ops.add(y, bias), gradient


@backend.fusible
def _sum_of_rows(x: KerasTensor) -> KerasTensor:
    """[M, R] -> [R], added up in float32."""
    return backend.cast(summed(ops.cast(x, "float32"), 0), x.dtype)


def in_int8(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [R, D] as int8 [R, D] and float32 scales [R]: no number is off by more than half of its row's scale."""
    largest = np.abs(rows).max(axis=1)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(rows / scale[:, None]).astype(np.int8), scale
