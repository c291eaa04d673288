"""GPT: decoder, config, presets and checkpoint layout."""

from kerasformer.models.gpt.model import GPT as BACKBONE

__all__ = ["BACKBONE"]
