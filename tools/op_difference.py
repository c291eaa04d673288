"""Prints what each TensorFlow release added to the ops that TF Serving links: `SINCE` in kerasformer/serving/ops.py.

    pip download --no-deps --python-version 3.11 --only-binary=:all: tensorflow-cpu==2.16.2    # and so on
    python tools/op_difference.py tensorflow_cpu-2.16.2-*.whl tensorflow_cpu-2.17.1-*.whl ...

Only the C++ library of each wheel is loaded, not its Python: it is what `tensorflow_model_server` links, while the
Python process registers test ops and Python kernels on top. Run it with the newest of the releases installed.
"""

import ctypes
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")


class Buffer(ctypes.Structure):
    """The head of the C API's TF_Buffer."""

    _fields_ = [("data", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    def bytes(self) -> bytes:
        return ctypes.string_at(self.data, self.length)


def registries(wheel: str) -> tuple[bytes, bytes]:
    """A wheel's serialized OpList and KernelList. One process can hold one release, so each call needs its own."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            paths = [archive.extract(f"tensorflow/{name}", folder) for name in LIBRARIES]
        library = [ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in paths][-1]
    library.TF_NewStatus.restype = ctypes.c_void_p
    library.TF_GetAllOpList.restype = ctypes.POINTER(Buffer)
    library.TF_GetAllRegisteredKernels.restype = ctypes.POINTER(Buffer)
    kernels = library.TF_GetAllRegisteredKernels(ctypes.c_void_p(library.TF_NewStatus()))
    return library.TF_GetAllOpList().contents.bytes(), kernels.contents.bytes()


def features(op_list: bytes, kernel_list: bytes) -> set[str]:
    """What a server of this release can run on a CPU: `Op`, `Op.attr` and `Op.attr=dtype`, public ops only."""
    import tensorflow as tf
    from tensorflow.core.framework import kernel_def_pb2, op_def_pb2

    ops = {op.name: op for op in op_def_pb2.OpList.FromString(op_list).op if hasattr(tf.raw_ops, op.name)}
    found = set()
    for kernel in kernel_def_pb2.KernelList.FromString(kernel_list).kernel:
        if kernel.op in ops and kernel.device_type in ("CPU", "DEFAULT") and not kernel.label:
            found.add(kernel.op)
            found.update(attributes(ops[kernel.op], kernel))
    return found


def attributes(op, kernel) -> Iterator[str]:
    """One op's attributes, and the dtypes that one kernel of it takes for each."""
    import tensorflow as tf

    constraints = {constraint.name: constraint.allowed_values.list.type for constraint in kernel.constraint}
    for attr in op.attr:
        yield f"{op.name}.{attr.name}"
        for dtype in constraints.get(attr.name, attr.allowed_values.list.type):
            yield f"{op.name}.{attr.name}={tf.as_dtype(dtype).name}"


def added(old: set[str], new: set[str]) -> list[str]:
    """The features that are new, less those that their new op or attribute implies."""
    fresh = new - old
    return sorted(f for f in fresh if not {f.split(".")[0], f.split("=")[0]} & (fresh - {f}))


def main(wheels: list[str]) -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        releases = [features(*dump) for dump in pool.map(registries, wheels)]
    for (_, old), (wheel, new) in pairwise(zip(wheels, releases, strict=True)):
        release = ".".join(Path(wheel).name.split("-")[1].split(".")[:2])
        print(f'"{release}": "{" ".join(added(old, new))}",')


if __name__ == "__main__":
    main(sys.argv[1:])
