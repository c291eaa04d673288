"""BERT: encoder, config, presets and checkpoint layout."""

from kerasformer.models.bert.model import Bert as BACKBONE

__all__ = ["BACKBONE"]
