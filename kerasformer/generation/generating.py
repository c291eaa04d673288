"""`generate` and `stream`: prompts in, texts out."""

from collections.abc import Iterator, Sequence

import numpy as np

from kerasformer.errors import InputError
from kerasformer.generation.arguments import (
    Prompt,
    check_beams,
    fitted,
    prompt_rows,
    rules_of,
    stop_strings,
)
from kerasformer.generation.decoder import Chunk, Decoder
from kerasformer.generation.precision import check_precision
from kerasformer.generation.text import GrowingText
from kerasformer.text.tokenizer import check_ids

# How many tokens are made between looks at whether a stop string has come.
STOP_CHUNK = 8


class Generating:
    """Mixin before `heads.CausalLM`: continues texts."""

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        max_new_tokens: int = 100,
        *,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int | Sequence[int] | None = None,
        precision: str = "auto",
        truncate_prompt: bool = False,
        slide: bool = False,
        xla: bool | None = None,
    ) -> str | list[str] | list[int] | list[list[int]]:
        """Continues prompts until the end of text: the new text of a text, the new ids of ids; a list for a list.

        A row's continuation depends on its own prompt and seed, not on the rows beside it.

        Args:
            prompts: texts or lists of ids, or one of them; an empty one stands for the start of a text.
            temperature: the scores are divided by it before a token is drawn; 0 takes the best token. By default 1
                with `top_k` or `top_p`, and else 0.
            top_k: draw among the k best tokens; 0 for all.
            top_p: draw among the best tokens that have this probability together.
            repetition_penalty: above 1, tokens that prompt and continuation hold become less likely.
            num_beams: search the likeliest text with this many beams, instead of token by token.
            length_penalty: of beams: above 0 it favours longer texts, below 0 shorter ones.
            stop: a text ends before the first of these strings. Beams are cut when the search is over.
            seed: of the draws: the same one gives the same text. One for all rows or one for each; by default each
                row has its own, of NumPy's global generator.
            precision: of the weights: float32, bfloat16, int8, or auto, the float that this machine computes fast. For
                several prompts or beams a CPU's kernels keep float weights once more, in their own layout.
            truncate_prompt: of a prompt that is too long, read the last tokens that leave room, instead of refusing it.
            slide: when a text fills the model's positions, go on from the last half of its tokens, all that the
                penalty is then for; a prompt that long is cut alike. Not for beams.
            xla: compile a step with XLA, on TensorFlow, but for beams; by default where it is measured to be fastest.

        Raises:
            InputError: a value out of its range, ids out of the vocabulary, values that contradict each other, or a
                prompt and continuation longer than the model has positions for.
        """
        rows, is_one, is_text = prompt_rows(prompts)
        stop = stop_strings(stop, is_text)
        check_precision(precision)
        rules = rules_of(len(rows), max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed)
        check_beams(num_beams, length_penalty, rules, self.backbone.config.vocab_size, slide)
        rows = self._ids(rows, is_text, max_new_tokens, truncate_prompt, slide)
        if num_beams > 1:
            settings = {"num_beams": num_beams, "length_penalty": length_penalty, "precision": precision}
            chunks = iter([(self._decoder.search(rows, rules, **settings), np.ones(len(rows), bool))])
        else:
            chunk = STOP_CHUNK if stop else None
            decode = self._decoder.slide if slide else self._decoder.decode
            chunks = decode(rows, rules, precision=precision, xla=xla, chunk=chunk)
        made = self._texts(chunks, len(rows), stop) if is_text else _joined(chunks)
        return made[0] if is_one else made

    def stream(
        self,
        prompt: Prompt,
        max_new_tokens: int = 100,
        *,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        precision: str = "auto",
        truncate_prompt: bool = False,
        slide: bool = False,
        xla: bool | None = None,
    ) -> Iterator[str] | Iterator[int]:
        """Yields what `generate` returns for one prompt, as it comes: pieces of text of whole characters, or ids.

        Raises:
            InputError: as `generate`, when it is called; or several prompts.
        """
        rows, is_one, is_text = prompt_rows(prompt)
        if not is_one:
            raise InputError("expected one prompt, got a list; call stream for each, or generate for all")
        stop = stop_strings(stop, is_text)
        check_precision(precision)
        rules = rules_of(1, max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed)
        rows = self._ids(rows, is_text, max_new_tokens, truncate_prompt, slide)
        decode = self._decoder.slide if slide else self._decoder.decode
        chunks = decode(rows, rules, precision=precision, xla=xla, chunk=1)
        return self._pieces(chunks, stop) if is_text else (i for [ids], _ in chunks for i in ids)

    def _pieces(self, chunks: Iterator[Chunk], stop: Sequence[str]) -> Iterator[str]:
        text = GrowingText(self.tokenizer, stop)
        for [ids], [is_done] in chunks:
            if piece := text.add(ids, is_last=is_done):
                yield piece
            if text.is_stopped:
                return

    def _texts(self, chunks: Iterator[Chunk], rows: int, stop: Sequence[str]) -> list[str]:
        """The text of each row; where a stop string has come, the row is marked as done."""
        growing, made = [GrowingText(self.tokenizer, stop) for _ in range(rows)], [""] * rows
        for new, is_done in chunks:
            for i, (text, ids) in enumerate(zip(growing, new, strict=True)):
                made[i] += text.add(ids, is_last=is_done[i])
                is_done[i] |= text.is_stopped
        return made

    @property
    def _decoder(self) -> Decoder:
        if "_decoding" not in self.__dict__:
            end_id = -1 if self.tokenizer is None else self.tokenizer.eot_id
            # Set as an attribute, the copies of the backbone would be layers of this model to Keras.
            self.__dict__["_decoding"] = Decoder(self.backbone, end_id)
        return self.__dict__["_decoding"]

    def _ids(
        self, prompts: list[Prompt], is_text: bool, max_new_tokens: int, truncate: bool, slide: bool
    ) -> list[list[int]]:
        """The ids of each prompt, as many as are read."""
        if self.tokenizer is None and is_text:
            raise InputError("expected token ids, as the model has no tokenizer, got text; pass ids, or give it one")
        rows = self.tokenizer.tokenize(prompts) if is_text else prompts
        if self.tokenizer is None and not all(map(len, rows)):
            raise InputError("expected ids in each prompt, as the model has no tokenizer, got none; pass one or more")
        config = self.backbone.config
        for row in rows:
            check_ids(row, config.vocab_size)
        rows = [list(row) or [self.tokenizer.eot_id] for row in rows]
        if not slide or config.max_length < 2:
            rows = [fitted(row, max_new_tokens, config.max_length, truncate) for row in rows]
        return rows


def _joined(chunks: Iterator[Chunk]) -> list[list[int]]:
    """All new ids of each row."""
    return [[i for ids in parts for i in ids] for parts in zip(*(new for new, _ in chunks), strict=True)]
