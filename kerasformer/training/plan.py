"""What a training step will take, before anything of it exists: parameters, memory on a device, arithmetic.

The memory is counted from what the layers keep for the backward pass where `compile(jit_compile="auto")` runs them on a
CPU. A step that XLA compiles whole keeps less, at best.

Shapes: B rows of a device and micro-batch, T length, n = B T tokens, D width, M width inside the MLP, N heads, L
blocks, V vocabulary; c bytes of a number in the precision of the products, 4 of a weight, a gradient and a statistic.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras

from kerasformer.models.head import Head
from kerasformer.training.flops import flops_per_token, multiplied
from kerasformer.training.next_token import CHUNK_LOGITS
from kerasformer.training.updates import Adafactor

FLOAT = 4
# Of the memory that lives at the peak, what TensorFlow's allocator takes: gaps remain between tensors of many sizes.
ALLOCATED = 1.1
# The traced step, its kernels, what XLA compiled and their scratch space, whatever the size of the model.
PROCESS = 250_000_000


@dataclass(frozen=True)
class Step:
    """What one step of a run reads, and how it is computed.

    Args:
        batch_size: rows of all devices together.
        length: T, padding included.
        accumulate: micro-batches that each device reads its rows in.
        remat: the blocks are computed anew in the backward pass.
    """

    batch_size: int
    length: int
    devices: int = 1
    accumulate: int = 1
    remat: bool = False

    @property
    def rows(self) -> int:
        """B, of one micro-batch on one device."""
        return -(-self.batch_size // (self.devices * self.accumulate))


@dataclass(frozen=True)
class Weightless:
    """A model whose weights have shapes and no values, and the numbers that its optimizer keeps."""

    model: Head
    optimizer_numbers: int

    @classmethod
    def of(cls, make: Callable[[], Head], optimizer: keras.Optimizer) -> "Weightless":
        """Builds the model without allocating it."""
        with keras.StatelessScope(initialize_variables=False):
            model = make()
        keras.utils.clear_session()  # or the next model would allocate them after all
        return cls(model, _state(optimizer, model.trainable_variables))

    def parameters(self) -> dict[str, int]:
        """How many the embeddings, the blocks, and what comes after them have."""
        counts = dict.fromkeys(("embeddings", "blocks", "head"), 0)
        for variable in self.model.weights:
            part = variable.path.split("/", 2)[1] if "/" in variable.path else ""
            name = "blocks" if part.startswith("block_") else "embeddings" if part.startswith("embedding") else "head"
            counts[name] += math.prod(variable.shape)
        return counts


@dataclass(frozen=True)
class Block:
    """Bytes that one block takes for n tokens in rows of T."""

    kept: int  # from the forward to the backward pass
    working: int  # beside that, while it is computed or differentiated
    input: int


def block(model: Head, step: Step) -> Block:
    """What a block of the model's sizes takes in a step."""
    config, c = model.backbone.config, _bytes(model)
    n = step.rows * step.length
    stream, inside = n * config.dim, n * config.mlp_dim  # numbers in [B, T, D] and in [B, T, M]
    weights = step.rows * config.num_heads * step.length**2  # numbers in [B, N, T, T]
    kept = 2 * 2 * c * stream  # of each normalisation what it reads, and its output, which products read
    kept += 3 * c * stream  # queries, keys and values
    kept += c * stream  # the queries, scaled
    kept += c * stream  # what was attended, which the output projection reads
    kept += c * weights  # the softmax
    if config.attention_dropout:
        kept += 2 * c * weights  # what multiplied them, and the product
    if config.dropout:
        kept += 2 * c * stream  # what multiplied each sublayer's output
    kept += c * inside  # the activation's output, which the second product reads
    kept += c * inside * (config.activation != "relu")  # what the activation reads; ReLU's slope is read off its output
    # Of the activation's slope four temporaries are at work at a time; of the softmax's gradient, three.
    working = max(4 * FLOAT * inside, 3 * FLOAT * weights)
    return Block(kept, working, c * stream)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device: what is always there, and the peak of each phase of a step."""

    weights: int
    optimizer: int
    gradients: int
    activations: int  # all that the forward pass keeps
    loss: int  # logits, and the gradients that are computed beside them
    phases: dict[str, int]

    @property
    def peak(self) -> int:
        """The most that the process takes above what it took before there was a model."""
        return round(max(self.phases.values()) * ALLOCATED) + PROCESS


def memory(weightless: Weightless, step: Step) -> Memory:
    """What a step takes on each device."""
    model, c = weightless.model, _bytes(weightless.model)
    config, n = model.backbone.config, step.rows * step.length
    stream, one = n * config.dim, block(model, step)
    weights, gradients = FLOAT * _numbers(model.weights), FLOAT * _numbers(model.trainable_variables)
    optimizer = FLOAT * weightless.optimizer_numbers
    always = weights + optimizer + (c < FLOAT) * c * multiplied(model)  # products read the weights in their precision
    if step.accumulate > 1:
        always += gradients  # of the micro-batches before

    blocks = _trained(model) * (one.input if step.remat else one.kept)  # those below have no backward pass
    outside = (FLOAT + c) * stream  # of the one normalisation before or after the blocks
    outside += (config.dropout > 0) * c * stream  # what multiplied the embeddings
    learns = model.scored_share and model.backbone.output_table.trainable
    table = FLOAT * math.prod(model.backbone.output_table.shape) if learns else 0
    scored = FLOAT * model.scored_share * stream
    loss = FLOAT * _logits(model, n) * 3  # logits, their exponentials, and these as the products read them
    loss += 4 * table  # in the loop over chunks: zeros, the sum so far, a chunk's share, their sum
    loss += 2 * scored  # the hidden states' gradient, in chunks and whole
    kept = table + scored  # of these, until the backward pass reads them

    # The gradient of the token table as an input, made dense.
    lookup = FLOAT * _largest([v for v in model.trainable_variables if v.name == "embeddings"])
    largest = FLOAT * _largest(model.trainable_variables)
    again = one.kept if step.remat else 0
    phases = {
        "loss": always + blocks + outside + max(loss, one.working),
        "first block backward": always + blocks + outside + kept + again + one.working,
        "last block backward": always + gradients + kept + lookup + one.kept + one.working,
        # Each gradient divided beside the sum that it was, and the largest weight beside the one that it was.
        "update": always + 2 * gradients + largest + (step.devices > 1) * gradients,  # summed over devices: a copy
    }
    return Memory(weights, optimizer, gradients, blocks + outside + again, loss, phases)


def largest_batch(weightless: Weightless, step: Step, room: int) -> int:
    """The largest batch, of all devices, whose step fits each device's room in bytes; 0 where no row does."""
    parts = step.devices * step.accumulate

    def fits(rows: int) -> bool:
        wider = Step(rows * parts, step.length, step.devices, step.accumulate, step.remat)
        return memory(weightless, wider).peak <= room

    below, above = 0, 1
    while above < 2**24 and fits(above):
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(middle) else (below, middle)
    return below * parts


def flops(weightless: Weightless, step: Step) -> tuple[float, float]:
    """FLOPs of a step on all devices: the model's own, and all that are computed, those of recomputed blocks too."""
    model, tokens = weightless.model, step.batch_size * step.length
    own = flops_per_token(model, step.length)
    config = model.backbone.config
    # A forward pass is a third of a step.
    again = 2 * weightless.parameters()["blocks"] + 4 * config.num_layers * step.length * config.dim
    again *= _trained(model) / config.num_layers
    return tokens * own, tokens * (own + step.remat * again)


def _logits(model: Head, tokens: int) -> int:
    """Logits that exist at a time; a classifier's few are not counted."""
    if not model.scored_share:
        return 0
    tokens = math.ceil(model.scored_share * tokens)
    vocab = model.backbone.config.vocab_size
    chunks = -(-tokens // max(1, CHUNK_LOGITS // vocab))
    return -(-tokens // chunks) * vocab


def _state(optimizer: keras.Optimizer, variables: Sequence[keras.Variable]) -> int:
    """Numbers that an optimizer keeps of the weights."""
    count, average = _numbers(variables), _numbers(variables) * bool(optimizer.use_ema)
    match optimizer:
        case keras.optimizers.Muon():  # a momentum; of what is left to Adam, a second one
            return average + count + _numbers([v for v in variables if optimizer._should_use_adamw(v)])
        case keras.optimizers.Lion():
            return average + count
        case keras.optimizers.SGD():
            return average + count * bool(optimizer.momentum)
        case Adafactor():  # a mean of each row and one of each column
            return average + sum(sum(v.shape) for v in variables)
    return average + 2 * count


def _trained(model: Head) -> int:
    """How many blocks are not frozen."""
    return sum(block.trainable for block in model.backbone.blocks)


def _bytes(model: Head) -> int:
    return 2 if model.compute_dtype in ("bfloat16", "float16") else 4


def _numbers(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _largest(variables: Sequence[keras.Variable]) -> int:
    return max((math.prod(variable.shape) for variable in variables), default=0)
