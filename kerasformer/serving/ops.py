"""Which ops a TF Serving server can run, by release.

A stock server links TensorFlow's core, TF Text and Decision Forests, and nothing else (`model_servers/BUILD` of
https://github.com/tensorflow/serving). Core is read here from the installed TensorFlow: a public op that has a kernel
is in every server, unless `SINCE` names it as younger. The ops of Decision Forests are outside of this product.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import tensorflow as tf
from tensorflow.core.framework.attr_value_pb2 import AttrValue
from tensorflow.core.framework.node_def_pb2 import NodeDef
from tensorflow.python.framework import kernels, op_def_registry

SERVERS = ("2.16", "2.17", "2.18", "2.19", "2.20")  # releases of TF Serving, oldest first

TEXT_OPS = frozenset(
    [
        "CaseFoldUTF8",
        "ConstrainedSequence",
        "FastBertNormalize",
        "FastWordpieceTokenizeWithOffsets",
        "FindSourceOffsets",
        "MaxSpanningTree",
        "NormalizeUTF8",
        "NormalizeUTF8WithOffsetsMap",
        "PhraseTokenize",
        "RegexSplitWithOffsets",
        "RougeL",
        "SentenceFragments",
        "SentenceFragmentsV2",
        "SentencepieceDetokenizeOp",
        "SentencepieceIdToStringOp",
        "SentencepieceOp",
        "SentencepieceStringToIdOp",
        "SentencepieceTokenizeOp",
        "SentencepieceTokenizeWithOffsetsOp",
        "SentencepieceVocabSizeOp",
        "SplitMergeTokenizeWithOffsets",
        "TokenizerFromLogits",
        "UnicodeScriptTokenizeWithOffsets",
        "WhitespaceTokenizeWithOffsets",
        "WordpieceTokenizeWithOffsets",
        "TFText>BoiseTagsToOffsets",
        "TFText>ByteSplitByOffsets",
        "TFText>ByteSplitWithOffsets",
        "TFText>FastSentencepieceDetokenize",
        "TFText>FastSentencepieceTokenize",
        "TFText>FastWordpieceDetokenize",
        "TFText>NgramsStringJoin",
        "TFText>OffsetsToBoiseTags",
        "TFText>PhraseDetokenize",
        "TFText>RoundRobinGenerateMasks",
        "TFText>RoundRobinTrim",
        "TFText>Utf8Binarize",
        "TFText>WhitespaceTokenizeWithOffsetsV2",
    ]
)

# What each release added: `Op`, `Op.attr` or `Op.attr=dtype`. Core by tools/op_difference.py; the three of TF Text
# because servers up to 2.19 link TF Text 2.12.
SINCE = {
    "2.17": """
        BatchFunction.mixed_priority_policy GatherNd.bad_indices_policy GlobalShuffleDataset IndexFlatMapDataset
        IteratorGetModelProto StringToNumber.out_type=uint32 StringToNumber.out_type=uint64 WeightedFlatMapDataset
        """,
    "2.18": """
        BatchFunction.batch_padding_policy CheckPinned MapDataset.force_synchronous
        ParallelMapDatasetV2.use_unbounded_threadpool Range.Tidx=bfloat16 Range.Tidx=float16
        ResourceScatterNdAdd.bad_indices_policy ResourceScatterNdMax.bad_indices_policy
        ResourceScatterNdMin.bad_indices_policy ResourceScatterNdSub.bad_indices_policy
        ResourceScatterNdUpdate.bad_indices_policy ScatterNd.bad_indices_policy ScatterNdAdd.bad_indices_policy
        ScatterNdMax.bad_indices_policy ScatterNdMin.bad_indices_policy ScatterNdNonAliasingAdd.bad_indices_policy
        ScatterNdSub.bad_indices_policy ScatterNdUpdate.bad_indices_policy TensorScatterAdd.bad_indices_policy
        TensorScatterMax.bad_indices_policy TensorScatterMin.bad_indices_policy TensorScatterSub.bad_indices_policy
        TensorScatterUpdate.bad_indices_policy
        """,
    "2.19": "SobolSample",
    "2.20": """
        AssignVariableOp.dtype=int2 AssignVariableOp.dtype=uint2 DecodeWebP UniformDequantize.Tin=quint8
        UniformQuantize.Tout=quint8 VarHandleOp.dtype=int2 VarHandleOp.dtype=uint2 TFText>RoundRobinGenerateMasks
        TFText>RoundRobinTrim TFText>Utf8Binarize
        """,
    "2.21": "AssignVariableOp.dtype=float4_e2m1fn DecodeJxl TensorListGetItem.Tshape",
}
_RELEASE = {feature: release for release, features in SINCE.items() for feature in features.split()}

_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}  # tf.py_function and tf.numpy_function
_REWRITTEN_OPS = {"AccumulateNV2"}  # has no kernel: TensorFlow replaces it when it prepares a graph
_XLA_OFF = "needs XLA, which TF Serving starts with switched off"


@dataclass(frozen=True)
class Refusal:
    """Why servers cannot run something, what its author can do, and which servers (none: a warning)."""

    what: str
    advice: str
    servers: tuple[str, ...] = SERVERS


def must_compile(attributes: Mapping[str, AttrValue]) -> Refusal | None:
    """Refuses the attributes of a function, or of a call to one, that was traced with jit_compile=True."""
    if "_XlaMustCompile" in attributes and attributes["_XlaMustCompile"].b:
        return Refusal(f"jit_compile=True {_XLA_OFF}", "export with jit_compile=False")
    return None


def refusal(node: NodeDef) -> Refusal | None:
    """Why some server cannot run a graph's node as it stands; None when all can."""
    op = node.op
    if op.startswith("Xla"):
        return Refusal(f"{op} {_XLA_OFF}", _without_xla(op))
    if op in _PYTHON_OPS:
        return Refusal(f"{op} calls Python, which a server does not have", "write the function with TensorFlow ops")
    if op in TEXT_OPS or op in _REWRITTEN_OPS:
        return must_compile(node.attr) or _too_new(node)
    if not hasattr(tf.raw_ops, op):
        return Refusal(f"{op} is no op of TensorFlow or TF Text", "use an op that the server links")
    devices = _devices(op)
    if not devices & {"CPU", "DEFAULT", "GPU"}:
        return Refusal(
            f"{op} has no kernel for a CPU or GPU", "export for serving, without ops of a TPU or of training"
        )
    if devices == {"GPU"}:
        return Refusal(f"{op} runs on a GPU alone", "use a server with a GPU", servers=())
    return must_compile(node.attr) or _too_new(node)


@cache
def _devices(op: str) -> frozenset[str]:
    return frozenset(kernel.device_type for kernel in kernels.get_registered_kernels_for_op(op).kernel)


def _without_xla(op: str) -> str:
    if op == "XlaDynamicUpdateSlice":
        return "write the slice with tf.concat or a scatter instead of keras.ops.slice_update"
    return "use a plain TensorFlow op"


def _too_new(node: NodeDef) -> Refusal | None:
    """Refuses the youngest feature of a node for the servers that came before it."""
    releases = {feature: _RELEASE[feature] for feature in _features(node) if feature in _RELEASE}
    if not releases:
        return None
    feature, release = max(releases.items(), key=lambda item: item[1])
    older = tuple(server for server in SERVERS if server < release)
    return Refusal(f"{feature} is new in {release}", f"use a server >= {release}, or do without it", older)


def _features(node: NodeDef) -> Iterator[str]:
    """An op's name, the dtypes it is used with, and the attributes that are not at their default.

    A server ignores an attribute that it does not know, so one at its default changes nothing there.
    """
    yield node.op
    for name, value in node.attr.items():
        attribute = f"{node.op}.{name}"
        if value.type:
            yield f"{attribute}={tf.as_dtype(value.type).name}"
        if attribute in _RELEASE and value != _default(node.op, name):
            yield attribute


def _default(op: str, name: str) -> AttrValue:
    return next(attr.default_value for attr in op_def_registry.get(op).attr if attr.name == name)
