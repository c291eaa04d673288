"""A backbone's compiled functions for generation, and its weights in other number formats."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
from keras import ops

from kerasformer import backend
from kerasformer.generation import beam, decoding
from kerasformer.generation.arguments import rules_of
from kerasformer.generation.decoding import as_it_is
from kerasformer.generation.precision import Copies, is_in_precision, native, resolved
from kerasformer.generation.sampling import Rules
from kerasformer.kernels.probes import fastest
from kerasformer.models.base import Model

# Lengths are rounded up to a power of two, so that calls of like lengths share what is compiled.
LEAST_COLUMNS = 16
# How a step is run: by the backend's operations, by those with weights in a kernel's own layout, or compiled by XLA.
STEP_COMPILERS = {"operations": as_it_is, "packed": backend.packed, "xla": backend.fused}
# The model that step compilers are timed with: the decoder's own, but for its depth and vocabulary.
PROBE_LAYERS, PROBE_VOCAB_SIZE, PROBE_TOKENS = 2, 4096, 16
PROBE_DIM = 256  # below this width the weights stay in the CPU's caches, and all take the same time
SEED_STEP = np.int64(0x9E3779B1)  # between the seeds of the parts of a text that slides

# The new ids of each row, and whether it is done, bool [B].
Chunk = tuple[list[list[int]], np.ndarray]


def rounded(columns: int) -> int:
    """The columns that are compiled for: a power of two."""
    return max(LEAST_COLUMNS, 1 << (columns - 1).bit_length())


class Decoder:
    """Decodes batches of ids with one backbone; keeps what it compiled and converted for the next call.

    Args:
        backbone: its weights may change between calls.
        end_id: ends a text.
    """

    def __init__(self, backbone: Model, end_id: int):
        self.backbone, self.end_id = backbone, end_id
        self._copies = Copies(backbone)
        self._functions: dict[tuple, Callable] = {}
        self._fastest: dict[tuple, str] = {}  # step compiler

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        rules: Rules,
        *,
        precision: str,
        xla: bool | None = None,
        chunk: int | None = None,
        step_compiler: str | None = None,
    ) -> Iterator[Chunk]:
        """Yields the new ids of the rows and whether they are done, after every `chunk` tokens and at the end.

        The caller may mark more rows as done, which ends them. Without a `chunk` there is one yield alone.

        Args:
            step_compiler: one of STEP_COMPILERS; by default the fastest for so many rows.
        """
        room = rounded(int(max(rules.max_new_tokens)))
        precision = resolved(precision)
        step_compiler = step_compiler or self._step_compiler(len(prompts), precision, xla)
        model = self._model(precision, len(prompts), step_compiler)
        token_ids, padding_mask = padded(prompts, rounded(max(map(len, prompts))))
        prefill = self._compiled("prefill", model, precision, room=room)
        advance = self._compiled("advance", model, precision, compiled=STEP_COMPILERS[step_compiler])
        state = prefill(token_ids, padding_mask, rules)
        if chunk is None:
            state, chunk = advance(state, rules, np.array(room, np.int32)), room
        known = np.zeros(len(prompts), int)
        while True:
            ids, lengths, is_done = map(ops.convert_to_numpy, (state.token_ids, state.lengths, state.is_done))
            is_done = is_done.copy()
            yield [row[a:b].tolist() for row, a, b in zip(ids, known, lengths, strict=True)], is_done
            if is_done.all():
                return
            known = lengths
            state = advance(state._replace(is_done=is_done), rules, np.array(chunk, np.int32))

    def slide(
        self, prompts: Sequence[Sequence[int]], rules: Rules, *, chunk: int | None, **settings
    ) -> Iterator[Chunk]:
        """What `decode` yields, of rows that may outgrow the model's positions; without a `chunk` in several parts.

        A row that has filled them goes on from the last half of its tokens, read anew as a prompt.
        """
        positions = self.backbone.config.max_length
        rows, left = [list(prompt) for prompt in prompts], np.array(rules.max_new_tokens)
        for part in itertools.count():
            rows = [row if len(row) < positions else row[-(positions // 2) :] for row in rows]
            limits = np.minimum(left, [positions - len(row) for row in rows]).astype(np.int32)
            seed = (rules.seed + part * SEED_STEP & np.iinfo(np.int32).max).astype(np.int32)  # other draws in each part
            made, ended = np.zeros(len(rows), int), np.zeros(len(rows), bool)
            own = rules._replace(max_new_tokens=limits, seed=seed)
            for new, is_done in self.decode(rows, own, chunk=chunk, **settings):
                made += [len(ids) for ids in new]
                ended |= is_done & ((made < limits) | (limits == left))
                yield new, ended
                is_done |= ended  # those too that the reader has marked
                rows = [row + ids for row, ids in zip(rows, new, strict=True)]
            left = np.where(ended, 0, left - made)
            if not left.any():
                return

    def search(
        self, prompts: Sequence[Sequence[int]], rules: Rules, *, num_beams: int, length_penalty: float, precision: str
    ) -> list[list[int]]:
        """The new ids of each row by beam search."""
        room, rows = rounded(int(max(rules.max_new_tokens))), len(prompts) * num_beams
        precision = resolved(precision)
        step_compiler = self._step_compiler(rows, precision, xla=False)
        model = self._model(precision, rows, step_compiler)
        token_ids, padding_mask = padded(prompts, rounded(max(map(len, prompts))))
        compiled = STEP_COMPILERS[step_compiler]
        function = self._compiled("search", model, precision, room=room, num_beams=num_beams, compiled=compiled)
        ids, lengths = function(token_ids, padding_mask, rules, np.full(len(prompts), length_penalty, np.float32))
        pairs = zip(ops.convert_to_numpy(ids), ops.convert_to_numpy(lengths), strict=True)
        return [row[:length].tolist() for row, length in pairs]

    def _model(self, precision: str, rows: int, step_compiler: str) -> Model:
        """The backbone with weights of this precision, as the step compiler reads them."""
        reads_copy = rows > 1 or not is_in_precision(self.backbone, precision)  # a row alone may read its own weights
        if reads_copy and self._copies.look():
            self._functions = {key: made for key, made in [*self._functions.items()] if backend.packed not in key}
        # XLA converts int8 while it reads it; other kernels need the numbers as floats.
        return self._copies.get(precision, in_floats=precision == "int8" and step_compiler != "xla")

    def _step_compiler(self, rows: int, precision: str, xla: bool | None) -> str:
        """The name of the step compiler that is the fastest for so many rows, as measured on this machine."""
        if keras.backend.backend() != "tensorflow":
            return "operations"
        if xla:
            return "xla"
        # Weights that have changed once will do so again, and what is packed is compiled anew each time.
        held = native() if precision == "int8" else precision
        has_packed = rows > 1 and backend.has_packed_products(held) and not self._copies.changes
        names = ["packed", "operations"] if has_packed else ["operations"]
        if xla is None:
            # By default XLA, which makes one pass over weights that it converts, for a row alone.
            names = ["xla", *names] if rows == 1 and precision != "float32" else [*names, "xla"]
        if len(names) == 1 or self.backbone.config.dim < PROBE_DIM:
            return names[0]
        key = (1 << (rows - 1).bit_length(), precision, tuple(names))
        if key not in self._fastest:
            self._fastest[key] = self._measured(*key)
        return self._fastest[key]

    def _measured(self, rows: int, precision: str, names: Sequence[str]) -> str:
        """The step compiler with which a model of few layers decodes fastest; its functions are compiled once."""
        config = self.backbone.config
        sizes = {"num_layers": PROBE_LAYERS, "vocab_size": min(config.vocab_size, PROBE_VOCAB_SIZE)}
        probe = functools.cache(lambda: Decoder(type(self.backbone)(dataclasses.replace(config, **sizes)), end_id=-1))
        rules = rules_of(rows, PROBE_TOKENS, 0.0, 0, 1.0, 1.0, 0)

        def decode(name: str) -> None:
            list(probe().decode([[0]] * rows, rules, precision=precision, step_compiler=name))

        device = "an accelerator" if backend.has_accelerator() else "a CPU"
        choice = f"decoding {rows} rows of width {config.dim} in {precision} on {device}"
        return fastest(choice, {name: functools.partial(decode, name) for name in names})

    def _compiled(self, name: str, model: Model, precision: str, **settings) -> Callable:
        key = (name, precision, *settings.values())
        if key not in self._functions:
            settings["end_id"] = self.end_id
            function = {
                "prefill": lambda *inputs: decoding.prefill(model, *inputs, **settings),
                "advance": lambda state, rules, steps: decoding.advance(model, state, rules, steps=steps, **settings),
                "search": lambda *inputs: beam.search(model, *inputs, **settings),
            }[name]
            self._functions[key] = backend.compiled(function, model.variables)
        return self._functions[key]


def padded(prompts: Sequence[Sequence[int]], columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and padding mask, int32 [B, columns], of prompts that are padded on the left."""
    token_ids, padding_mask = np.zeros((2, len(prompts), columns), np.int32)
    for ids, mask, prompt in zip(token_ids, padding_mask, prompts, strict=True):
        ids[columns - len(prompt) :] = prompt
        mask[columns - len(prompt) :] = 1
    return token_ids, padding_mask
