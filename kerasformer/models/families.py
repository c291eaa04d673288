"""The families, discovered by their folders: each has the name of a `model_type` and names its backbone."""

import importlib
import pkgutil

from kerasformer import models
from kerasformer.errors import InputError
from kerasformer.models.base import UNPUBLISHED, Model


def families() -> dict[str, type[Model]]:
    """Backbone class by `model_type`."""
    folders = [module.name for module in pkgutil.iter_modules(models.__path__) if module.ispkg]
    backbones = [importlib.import_module(f"{models.__name__}.{folder}").BACKBONE for folder in folders]
    return {backbone.config_class.model_type: backbone for backbone in backbones}


def backbone_class(model_type: str) -> type[Model]:
    """The backbone that reads checkpoints of this `model_type`.

    Raises:
        InputError: none does.
    """
    known, model_type = families(), model_type.removesuffix(UNPUBLISHED)
    if model_type not in known:
        raise InputError(
            f"expected a model_type among {', '.join(known)}, got {model_type!r}; use a model of these families"
        )
    return known[model_type]
