"""Will TF Serving serve this SavedModel? `inspect` reads its files; `check` also runs it as the server would."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.graph_pb2 import GraphDef
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef, SignatureDef, TensorInfo
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from kerasformer.errors import InputError
from kerasformer.files import path_of
from kerasformer.serving import session_loader, warmup
from kerasformer.serving.ops import SERVERS, TEXT_OPS, Refusal, must_compile, refusal
from kerasformer.serving.report import Finding, Report, Signature, Tensor
from kerasformer.serving.session import DEFAULT_SIGNATURE
from kerasformer.serving.session_loader import Replay, Session
from kerasformer.serving.versions import is_version, newest

_COMPOSITE = "composite"
_REST_DTYPES = ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "bool", "string"]
_TABLE_WRITES = ("LookupTableInsert", "LookupTableImport", "LookupTableRemove")
_VARIABLE_WRITES = ("Assign", "ResourceApply", "ResourceScatter", "ResourceSparseApply", "RngReadAndSkip", "RngSkip")


def check(version_dir: Path, timeout: float = 120.0) -> Report:
    """Inspects a SavedModel, then loads it and replays its warm-up requests in a fresh process, on the CPU.

    Args:
        version_dir: a version's folder; of a folder of versions the newest is taken, as a server does.
        timeout: seconds that the fresh process may take.

    Raises:
        InputError: nothing there can be read as a SavedModel, or the fresh process crashed or ran out of time.
    """
    report = inspect(version_dir)
    if not report.signatures:
        return report
    session = _run_in_fresh_process(report.version_dir, timeout)
    findings = _errors_first([*report.findings, *_session_findings(session, report.signatures)])
    return dataclasses.replace(report, findings=findings, session=session)


def inspect(version_dir: Path) -> Report:
    """The part of `check` that starts no process: what the files alone tell."""
    version_dir = _newest_version(path_of(version_dir))
    graph = _serving_graph(version_dir)
    definitions = {name: s for name, s in graph.signature_def.items() if not name.startswith("__")}
    signatures = {name: Signature(_tensors(s.inputs), _tensors(s.outputs)) for name, s in sorted(definitions.items())}
    findings = [
        *_name_findings(version_dir, graph, signatures),
        *_op_findings(graph.graph_def),
        *_variable_findings(graph, definitions),
        *_write_findings(graph.graph_def, definitions),
        *_tensor_findings(signatures),
        *_warmup_findings(version_dir, definitions),
    ]
    return Report(version_dir, signatures, _errors_first(findings))


def _errors_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.severity))


def _grouped(places: Mapping[Refusal, list[str]]) -> list[Finding]:
    return [Finding(reason.what, tuple(where), reason.advice, reason.servers) for reason, where in places.items()]


# Files and names


def _newest_version(path: Path) -> Path:
    if not path.is_dir():
        raise InputError(f"expected the folder of a SavedModel, got {path}, which is none: export the model first")
    if (path / "saved_model.pb").is_file():
        return path
    version = newest(path)
    if version is None:
        raise InputError(
            f"expected {path / 'saved_model.pb'} or {path / '1' / 'saved_model.pb'}, got neither; export a model there"
        )
    if not (version / "saved_model.pb").is_file():
        raise InputError(
            f"expected {version / 'saved_model.pb'}, as a server loads the newest version, got none; remove the folder "
            "or export anew"
        )
    return version


def _serving_graph(version_dir: Path) -> MetaGraphDef:
    """The graph that a server takes: the one with the tag "serve" and no other. An empty one when there is none."""
    path = version_dir / "saved_model.pb"
    try:
        graphs = SavedModel.FromString(path.read_bytes()).meta_graphs
    except DecodeError as error:
        raise InputError(f"expected a SavedModel in {path}, got corrupt or cut data: export it again") from error
    if not graphs:
        raise InputError(f"expected a SavedModel in {path}, got a file without a graph: export it again")
    return next(
        (graph for graph in graphs if set(graph.meta_info_def.tags) == {tf.saved_model.SERVING}), MetaGraphDef()
    )


def _name_findings(version_dir: Path, graph: MetaGraphDef, signatures: Mapping[str, Signature]) -> Iterator[Finding]:
    if not is_version(Path(os.path.abspath(version_dir)).name):  # by the name that a server sees, be it a link
        what = "the folder's name is no version number: servers pass it over"
        yield Finding(what, (version_dir.name,), "name it NAME/1, then NAME/2 and so on")
    if not graph.meta_info_def.tags:
        advice = "save it with tf.saved_model.save or keras.export.ExportArchive"
        yield Finding('no graph is tagged "serve" and nothing else', ("saved_model.pb",), advice, SERVERS)
    elif not signatures:
        yield Finding("no signature to call", ("saved_model.pb",), "save it with signatures=...", SERVERS)
    elif DEFAULT_SIGNATURE not in signatures:
        what = f"no signature {DEFAULT_SIGNATURE!r}: each request has to name one"
        yield Finding(what, tuple(signatures), f"save one of them as {DEFAULT_SIGNATURE!r} as well")


# The graph


def _op_findings(graph: GraphDef) -> list[Finding]:
    places = defaultdict(list)
    for function, attributes, nodes in _bodies(graph, graph.node):
        judged = [
            (function, must_compile(attributes)),
            *((f"{function}: {node.name}", refusal(node)) for node in nodes),
        ]
        for place, reason in judged:
            if reason:
                places[reason].append(place)
    return _grouped(places)


def _variable_findings(graph: MetaGraphDef, definitions: Mapping[str, SignatureDef]) -> Iterator[Finding]:
    starts = [graph.saver_def.restore_op_name, *_outputs(graph.signature_def["__saved_model_init_op"])]
    written = set(_variables(_upstream(graph.graph_def, starts)))
    places = {}
    for name, definition in definitions.items():
        for variable in _variables(_upstream(graph.graph_def, _outputs(definition))):
            if variable not in written:
                places[f"{name}: {variable}"] = None
    if places:
        what = "a variable that the load does not restore"  # tf.saved_model.save restores a copy of a Keras variable
        yield Finding(what, tuple(places), "track [v.value for v in model.variables], or use ExportArchive", SERVERS)


def _variables(nodes: Iterable[NodeDef]) -> Iterator[str]:
    for node in nodes:
        if node.op == "VarHandleOp":
            yield node.attr["shared_name"].s.decode() or node.name


def _write_findings(graph: GraphDef, definitions: Mapping[str, SignatureDef]) -> Iterator[Finding]:
    nodes = [
        (f"{name}: {node.name}", node.op)
        for name, definition in definitions.items()
        for _, _, nodes in _bodies(graph, _upstream(graph, _outputs(definition)))
        for node in nodes
    ]
    if tables := tuple(place for place, op in nodes if op.startswith(_TABLE_WRITES)):
        what = "requests write to a hash table: it grows for as long as the server runs"
        yield Finding(what, tables, "look up in a tf.lookup.StaticHashTable")
    if variables := tuple(place for place, op in nodes if op.startswith(_VARIABLE_WRITES)):
        what = "requests write a variable: they race for it, and equal requests get unequal answers"
        yield Finding(what, variables, "make the state, such as a seed, an input")


def _bodies(graph: GraphDef, nodes: Iterable[NodeDef]) -> Iterator[tuple[str, Mapping[str, AttrValue], list[NodeDef]]]:
    """(name, attributes, ops) of the main graph's given nodes, then of each function that they call, however deep."""
    functions = {function.signature.name: function for function in graph.library.function}
    pending, seen = [("graph", {}, nodes)], set()
    while pending:
        name, attributes, nodes = pending.pop()
        yield name, attributes, [node for node in nodes if node.op not in functions]
        called = {callee for node in nodes for callee in _callees(node)} & functions.keys() - seen
        seen |= called
        pending += [(callee, functions[callee].attr, functions[callee].node_def) for callee in sorted(called)]


def _callees(node: NodeDef) -> Iterator[str]:
    yield node.op  # a function can be called as if it were an op
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _outputs(definition: SignatureDef) -> list[str]:
    return [info.name for info in definition.outputs.values()]


def _upstream(graph: GraphDef, names: Iterable[str]) -> list[NodeDef]:
    """The nodes of the main graph that run when those of the given names, of ops or tensors, do."""
    nodes = {node.name: node for node in graph.node}
    pending, reached = list(names), {}
    while pending:
        name = pending.pop().lstrip("^").split(":")[0]
        if name in nodes and name not in reached:
            reached[name] = nodes[name]
            pending += nodes[name].input
    return list(reached.values())


# Inputs and outputs


def _tensors(infos: Mapping[str, TensorInfo]) -> dict[str, Tensor]:
    return {name: _tensor(info) for name, info in sorted(infos.items())}


def _tensor(info: TensorInfo) -> Tensor:
    if not info.name:
        return Tensor(_COMPOSITE, None)
    sizes = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return Tensor(tf.as_dtype(info.dtype).name, None if info.tensor_shape.unknown_rank else sizes)


def _tensor_findings(signatures: Mapping[str, Signature]) -> list[Finding]:
    places = defaultdict(list)
    for signature, tensors in signatures.items():
        for name, tensor in [*tensors.inputs.items(), *tensors.outputs.items()]:
            for flaw in _flaws(tensor):
                places[flaw].append(f"{signature}: {name}")
    return _grouped(places)


def _flaws(tensor: Tensor) -> Iterator[Refusal]:
    if tensor.dtype == _COMPOSITE:
        yield Refusal("a ragged or sparse tensor, which a server cannot fetch", "give a dense tensor and its lengths")
    elif tensor.dtype not in _REST_DTYPES:
        yield Refusal(f"REST has no {tensor.dtype}: only gRPC clients can use it", "cast it to float32", servers=())
    if tensor.shape == ():
        what = "a scalar: REST rows and batching need a first dimension"
        yield Refusal(what, "give it the shape [batch]", servers=())
    elif tensor.shape and tensor.shape[0] is not None:
        what = f"its first dimension is always {tensor.shape[0]}: REST rows and batching need the batch there"
        yield Refusal(what, "give it the shape [batch, ...]", servers=())


# The warm-up requests, and the run


def _warmup_findings(version_dir: Path, definitions: Mapping[str, SignatureDef]) -> Iterator[Finding]:
    try:
        requests = warmup.read(version_dir)
    except InputError as error:
        yield Finding(f"the load fails: {error}", (str(warmup.FILE),), "write the warm-up requests again", SERVERS)
        return
    for number, (signature, inputs) in enumerate(requests, start=1):
        if mismatch := _mismatch(definitions.get(signature), inputs):
            what = f"the load fails: a warm-up request {mismatch}"
            yield Finding(what, (f"request {number}",), "write the warm-up requests again", SERVERS)
    if cold := definitions.keys() - {signature for signature, _ in requests}:
        what = "no warm-up request: its first user waits, and it was not run here"
        yield Finding(what, tuple(sorted(cold)), "write one with kerasformer.serving.warmup")


def _mismatch(definition: SignatureDef | None, inputs: Mapping[str, np.ndarray]) -> str | None:
    """What keeps a request from being one of a signature's."""
    if definition is None:
        return "names a signature that the model does not have"
    if not definition.inputs.keys() - definition.defaults.keys() <= inputs.keys() <= definition.inputs.keys():
        return f"has inputs {sorted(inputs)}, the signature {sorted(definition.inputs)}"
    for name, value in inputs.items():
        given, expected = tf.as_dtype(value.dtype), tf.as_dtype(definition.inputs[name].dtype)
        if given != expected:
            return f"has {given.name} for {name!r}, the signature {expected.name}"
    return None


def _run_in_fresh_process(version_dir: Path, timeout: float) -> Session:
    command = [sys.executable, "-m", session_loader.__name__, str(version_dir)]
    path = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    options = {"capture_output": True, "encoding": "utf-8", "errors": "replace", "timeout": timeout}
    try:
        done = subprocess.run(command, env=environment, **options)
    except subprocess.TimeoutExpired:
        message = f"expected {version_dir} to load and warm up within {timeout:g} s, it did not: allow it more time"
        raise InputError(message) from None
    if done.returncode:
        code, lines = done.returncode, done.stderr.strip().splitlines()
        reason = signal.Signals(-code).name if code < 0 else lines[-1] if lines else f"code {code}"
        raise InputError(f"expected {version_dir} to load in a fresh process, which ended by {reason}: export it again")
    return Session.from_json(done.stdout.splitlines()[-1])  # the model itself may print before


def _session_findings(session: Session, signatures: Mapping[str, Signature]) -> Iterator[Finding]:
    if not session.xla_disabled:
        what = "was run with XLA on: this build of TensorFlow does not let it be switched off"
        yield Finding(what, ("fresh process",), "trust the findings on ops alone")
    missing = re.search(r"Op type not registered '(.+?)'", session.error or "")
    if missing and missing[1] in TEXT_OPS:
        what = f"was not run: it needs {missing[1]} of TF Text, which servers have and this machine does not"
        yield Finding(what, ("fresh process",), "pip install tensorflow-text")
    elif session.error:
        stage = f"warm-up request {len(session.replays) + 1}" if session.load_seconds else "load"
        yield Finding(session.error, (stage,), "mend this first: a server fails in the same place", SERVERS)
    unbatched = {
        f"{replay.signature}: {name}": None
        for replay in session.replays
        for name in _unbatched(replay, signatures[replay.signature])
    }
    if unbatched:
        what = "not as many rows as the request had: REST rows and batching need one for one"
        yield Finding(what, tuple(unbatched), "give it the shape [batch, ...]")


def _unbatched(replay: Replay, signature: Signature) -> Iterator[str]:
    """The outputs with another number of rows than all the inputs, where the signature left that open."""
    rows = {tuple(shape[:1]) for shape in replay.input_shapes.values()}
    for name, shape in replay.output_shapes.items():
        declared = signature.outputs[name].shape
        if len(rows) == 1 and tuple(shape[:1]) not in rows and (not declared or declared[0] is None):
            yield name
