"""The heads as users train them: those of `models.heads`, with the training step of `training.step`."""

from kerasformer.models import heads
from kerasformer.training.step import TrainingStep


class Classifier(TrainingStep, heads.Classifier):
    """Assigns one of `labels` to a text or a pair of texts; see `models.heads.Classifier`."""
