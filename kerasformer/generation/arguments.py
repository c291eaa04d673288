"""What `generate` and `stream` are given, checked: every complaint says what was expected, what came and what to do."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from kerasformer.errors import InputError
from kerasformer.generation.sampling import INT32, Rules
from kerasformer.text.columns import as_list

Prompt = str | Sequence[int]
BYTES = bytes | bytearray | memoryview
LARGEST = 1e30  # of a float: far below float32's own, and beyond what makes a difference


def rules_of(
    rows: int,
    max_new_tokens: int,
    temperature: float | None,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    seed: int | Sequence[int] | None,
) -> Rules:
    """The rules of each row; see `Generating.generate`.

    Raises:
        InputError: a value of another type or out of its range.
    """
    _check("max_new_tokens", max_new_tokens, int, least=1)
    _check("top_k", top_k, int, least=0)
    _check("top_p", top_p, float, above=0, most=1)
    if temperature is None:
        temperature = 1.0 if top_k or top_p != 1 else 0.0
    _check("temperature", temperature, float, least=0)
    _check("repetition_penalty", repetition_penalty, float, above=0)
    values = {
        "max_new_tokens": np.int32(max_new_tokens),
        "temperature": np.float32(temperature),
        "top_k": np.int32(top_k),
        "top_p": np.float32(top_p),
        "repetition_penalty": np.float32(repetition_penalty),
        "seed": _seeds(seed, rows),
    }
    return Rules(**{name: np.broadcast_to(value, rows) for name, value in values.items()})


def check_beams(num_beams: int, length_penalty: float, rules: Rules, vocab_size: int, slide: bool) -> None:
    """Raises InputError for a number of beams or a penalty out of its range, or beams beside drawing or sliding."""
    _check("num_beams", num_beams, int, least=1, most=vocab_size // 2)
    _check("length_penalty", length_penalty, float)
    if num_beams > 1 and rules.temperature.any():
        raise InputError(
            f"expected beams or drawn tokens, got num_beams={num_beams} and temperature={rules.temperature[0]:g}; "
            "leave temperature, top_k and top_p out, or take one beam"
        )
    if num_beams > 1 and slide:
        raise InputError(f"expected no slide with beams, got num_beams={num_beams}; leave it out, or take one beam")


def stop_strings(stop: str | Sequence[str], is_text: bool) -> tuple[str, ...]:
    """The stop strings as a tuple.

    Raises:
        InputError: an empty one, or any where the prompts are ids.
    """
    stop = (stop,) if isinstance(stop, str | BYTES) or not isinstance(stop, Iterable) else tuple(stop)
    if odd := [string for string in stop if not isinstance(string, str) or not string]:
        raise InputError(f"expected stop strings of a character or more, got {odd[0]!r}; leave it out")
    if stop and not is_text:
        raise InputError(f"expected texts as prompts where stop strings are given, got ids and {stop[0]!r}; pass texts")
    return stop


def prompt_rows(prompts: Prompt | Sequence[Prompt]) -> tuple[list[Prompt], bool, bool]:
    """The prompts as a list, whether one alone was given, and whether they are texts.

    Raises:
        InputError: none, or something else than texts or lists of ids; bytes could be either.
    """
    prompts = as_list(prompts)
    if isinstance(prompts, str):
        return [prompts], True, True
    given = [as_list(prompt) for prompt in prompts] if isinstance(prompts, Iterable) else []
    if found := [prompt for prompt in (prompts, *given) if isinstance(prompt, BYTES)]:
        raise InputError(
            f"expected texts or lists of token ids as prompts, got the bytes {found[0]!r:.60}; "
            "decode a text, as in prompt.decode(), or make a list of ids"
        )
    if given and all(isinstance(prompt, str) for prompt in given):
        return given, False, True
    if given and _are_ids(given):
        return [given], True, False
    if not given or not all(isinstance(row, Sequence) and not isinstance(row, str) and _are_ids(row) for row in given):
        raise InputError(
            f"expected texts or lists of token ids as prompts, got {(given or prompts)!r:.60}; pass one kind of them"
        )
    return given, False, False


def fitted(row: list[int], max_new_tokens: int, positions: int, truncate: bool) -> list[int]:
    """The prompt, or with `truncate` as much of its end as leaves room for the new tokens.

    Raises:
        InputError: no room in the model's `positions`.
    """
    if max_new_tokens >= positions:
        raise InputError(
            f"expected max_new_tokens of at most {positions - 1}, as the model has {positions} positions, "
            f"got {max_new_tokens}; ask for fewer, or pass slide=True (--slide)"
        )
    if truncate:
        return row[max_new_tokens - positions :]
    if len(row) + max_new_tokens > positions:
        raise InputError(
            f"expected a prompt and max_new_tokens of at most {positions} tokens together, which the model has "
            f"positions for, got {len(row)} and {max_new_tokens}; ask for fewer, or pass truncate_prompt=True "
            "(--truncate-prompt) or slide=True (--slide)"
        )
    return row


def _are_ids(row: Sequence) -> bool:
    return all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in row)


def _seeds(seed: int | Sequence[int] | None, rows: int) -> np.ndarray:
    if seed is None:
        return np.random.randint(INT32.max, size=rows, dtype=np.int32)
    seed = seed.tolist() if isinstance(seed, np.ndarray) else seed
    seeds = list(seed) if isinstance(seed, Sequence) else [seed] * rows
    for value in seeds:
        _check("seed", value, int, least=0, most=INT32.max)
    if len(seeds) != rows:
        raise InputError(f"expected one seed, or {rows}, one for each prompt, got {len(seeds)}; give as many")
    return np.array(seeds, np.int32)


def _check(
    name: str,
    value: object,
    kind: type,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> None:
    kinds = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    is_number = isinstance(value, kinds) and not isinstance(value, bool) and abs(value) < math.inf  # and no NaN
    largest = INT32.max if kind is int else LARGEST
    if is_number and abs(value) > largest:
        least, most = (-largest if least is None and above is None else least), (largest if most is None else most)
    wanted = ["a whole number" if kind is int else "a number"]
    wanted += [f"of at least {least}"] * (least is not None) + [f"above {above}"] * (above is not None)
    wanted += [f"of at most {most}"] * (most is not None)
    is_within = is_number and (least is None or value >= least) and (most is None or value <= most)
    if not is_within or not (above is None or np.float32(value) > above):  # as it is held
        raise InputError(f"expected {name} as {' '.join(wanted)}, got {value!r}; change it")
