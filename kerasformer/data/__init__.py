"""Files -> examples -> batches."""

from kerasformer.data.batches import Batches
from kerasformer.data.classification import classification, unlabelled
from kerasformer.data.sources import Examples, read_examples

__all__ = ["Batches", "Examples", "classification", "read_examples", "unlabelled"]
