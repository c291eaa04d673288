"""Files -> examples -> batches."""

from kerasformer.lazy import attach

__getattr__, __dir__, __all__ = attach(
    {
        "Augment": "kerasformer.config",
        "Batches": "kerasformer.data.batches",
        "Examples": "kerasformer.data.sources",
        "classification": "kerasformer.data.encoding",
        "read_examples": "kerasformer.data.sources",
    }
)
