"""How `transformers` continues texts with a model: `generation_config.json`, or older ones' fields of `config.json`.

`generate` has its own arguments and reads none of this; it is kept, so that a saved model means the same to
`transformers`.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasformer.files import read_json

logger = logging.getLogger(__name__)

FILE = "generation_config.json"
# Of transformers 5.23's GenerationConfig, what changes the text.
SETTINGS = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("max_length", "max_new_tokens", "min_length", "min_new_tokens", "max_time", "stop_strings"),
    *("num_beams", "num_beam_groups", "length_penalty", "diversity_penalty", "early_stopping", "penalty_alpha"),
    *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "force_words_ids", "constraints"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
    *("exponential_decay_length_penalty", "sequence_bias", "guidance_scale", "token_healing", "watermarking_config"),
)
_NEUTRAL = {"max_length": 20, "top_k": 50}  # that change nothing, beside those that are the same for all
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read(folder: Path, values: Mapping[str, Any], end_id: int) -> dict[str, Any]:
    """What a folder says of generation, {} where `generate` does so anyway; a log line names what `generate` does not.

    Args:
        values: of `config.json`.
        end_id: ends a text for `generate`.
    """
    path = folder / FILE
    if path.is_file():
        found = read_json(path, "the settings of generation")
    else:
        found = {name: values[name] for name in (*SETTINGS, *_TOKENS) if name in values}
    unread = [f"{name}={found[name]!r}" for name in SETTINGS if name in found and _changes(name, found[name])]
    end = found.get("eos_token_id")
    if end not in (None, end_id, [end_id]):
        unread.append(f"eos_token_id={end!r}")
    if unread:
        logger.warning(
            "%s: transformers would generate with %s, which are not read: pass settings to generate; a text ends with "
            "token %d",
            folder,
            ", ".join(unread),
            end_id,
        )
    return found if unread else {}


def _changes(name: str, value: Any) -> bool:
    """Whether a setting changes anything; 1 and 0 do not, of whichever it is."""
    return value is True or value not in (None, False, 0, 1, [], _NEUTRAL.get(name))
