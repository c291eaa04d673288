"""The heads as users train them: those of `models.heads`, with the training step of `training.step`."""

from kerasformer.generation.generating import Generating
from kerasformer.models import heads
from kerasformer.training.step import TrainingStep


class Classifier(TrainingStep, heads.Classifier):
    """Assigns one of `labels` to a text or a pair of texts; see `models.heads.Classifier`."""


class CausalLM(Generating, heads.CausalLM):
    """Predicts the next token of a text, and continues texts; see `models.heads.CausalLM` and `generation`."""
