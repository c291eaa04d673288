"""The recipe of a masked language model."""

from dataclasses import dataclass, field
from typing import Any

from kerasformer.config.language import LanguageData, TextRecipe
from kerasformer.config.rules import whole


@dataclass(frozen=True)
class MaskedData(LanguageData):
    """The text that a masked language model learns from, and how much of it is hidden."""

    max_length: int = 128
    """Tokens of a row, [CLS] and [SEP] among them, and the longest input of a fresh model."""
    mask_share: float = 0.15
    """Of the tokens, to be predicted: most of them hidden, anew whenever they are seen."""
    whole_words: bool = False
    """Hides words, not tokens."""

    @property
    def windows(self) -> dict[str, Any]:
        """See LanguageData."""
        return {**super().windows, "mask_share": self.mask_share, "whole_words": self.whole_words}


@dataclass(frozen=True)
class MaskedRecipe(TextRecipe):
    """A training run, from text to a masked language model's folder, which other tasks can start from."""

    data: MaskedData = field(default_factory=MaskedData)


MaskedRecipe.rules = TextRecipe.rules | {
    "data.vocab_size": whole(6),
    "data.max_length": whole(3),
    "data.mask_share": (lambda value: isinstance(value, float) and 0 < value < 1, "a share above 0 and below 1"),
}
