"""Loads a SavedModel and replays its warm-up requests as TF Serving does, and prints what happened as JSON.

Run as `python -m kerasformer.serving.session_loader VERSION_DIR`, so that nothing that the exporting process has
loaded or registered can help the model along. A session on the "serve" graph with XLA off gives the server's verdict;
`tf.saved_model.load` does not: it runs jit_compile, XLA ops and ragged outputs without complaint.
"""

import dataclasses
import json
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from kerasformer.serving import warmup
from kerasformer.serving.session import disable_xla, load, reason, with_defaults


@dataclasses.dataclass(frozen=True)
class Replay:
    """One warm-up request, run twice."""

    signature: str
    first_seconds: float
    second_seconds: float
    input_shapes: dict[str, list[int]]
    output_shapes: dict[str, list[int]]


@dataclasses.dataclass
class Session:
    """What happened in the fresh process; memory in bytes, at its peak and before the model was loaded."""

    xla_disabled: bool
    base_memory: int
    peak_memory: int = 0
    load_seconds: float = 0.0
    replays: list[Replay] = dataclasses.field(default_factory=list)
    error: str | None = None  # of the load, or of the request that follows the last replay

    @classmethod
    def from_json(cls, text: str) -> "Session":
        fields = json.loads(text)
        return cls(**{**fields, "replays": [Replay(**replay) for replay in fields["replays"]]})


def run(version_dir: Path) -> Session:
    """Loads the SavedModel and runs each of its warm-up requests twice, up to the first error."""
    result = Session(xla_disabled=disable_xla(), base_memory=_peak_memory())
    try:
        requests = warmup.read(version_dir)
        started = perf_counter()
        session, graph = load(version_dir)
        result.load_seconds = perf_counter() - started
        with session:
            for signature, inputs in requests:
                result.replays.append(_replay(session, graph, signature, inputs))
    except (tf.errors.OpError, RuntimeError, TypeError, ValueError) as error:
        result.error = f"{type(error).__name__}: {reason(str(error))}"
    result.peak_memory = _peak_memory()
    return result


def _replay(
    session: tf.compat.v1.Session, graph: MetaGraphDef, signature: str, inputs: Mapping[str, np.ndarray]
) -> Replay:
    tensors = graph.signature_def[signature]
    feeds = {tensors.inputs[name].name: value for name, value in with_defaults(tensors, inputs).items()}
    fetches = {name: info.name for name, info in tensors.outputs.items()}
    marks = [perf_counter()]
    for _ in range(2):
        outputs = session.run(fetches, feeds)
        marks.append(perf_counter())
    return Replay(signature, *np.diff(marks).tolist(), _shapes(inputs), _shapes(outputs))


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: list(np.shape(array)) for name, array in arrays.items()}


def _peak_memory() -> int:
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text()  # on Linux, ru_maxrss counts what the parent held at the fork
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(Path(sys.argv[1])))))
