"""From text files to a served transformer, in Keras.

Names are imported when they are first used, so that `kerasformer --help` need not wait for TensorFlow.
"""

import importlib

from kerasformer.errors import InputError

__version__ = "0.1.0"

_MODULES = {
    "data": "kerasformer.data",
    "callbacks": "kerasformer.training.callbacks",
    "optimizers": "kerasformer.training.optimizers",
    "losses": "kerasformer.training.losses",
}
_MEMBERS = {
    "Bert": "kerasformer.models.bert.model",
    "BertConfig": "kerasformer.models.bert.config",
    "WordPiece": "kerasformer.text.wordpiece",
    "Classifier": "kerasformer.training.tasks",
    "export": "kerasformer.serving.export",
    "check": "kerasformer.serving.check",
    "serve": "kerasformer.serving.server",
}

__all__ = ["InputError", *_MODULES, *_MEMBERS]


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _MEMBERS:
        return getattr(importlib.import_module(_MEMBERS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
