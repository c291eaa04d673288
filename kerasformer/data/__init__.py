"""Files -> examples -> batches."""

from kerasformer.lazy import attach

__getattr__, __dir__, __all__ = attach(
    {
        "Augment": "kerasformer.config",
        "Batches": "kerasformer.data.batches",
        "Examples": "kerasformer.data.sources",
        "MaskedWindows": "kerasformer.data.masking",
        "Masking": "kerasformer.data.masking",
        "Texts": "kerasformer.data.documents",
        "Windows": "kerasformer.data.windows",
        "classification": "kerasformer.data.encoding",
        "language_modelling": "kerasformer.data.language",
        "masked_language_modelling": "kerasformer.data.masking",
        "read_examples": "kerasformer.data.sources",
    }
)
