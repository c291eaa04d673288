"""A recipe: everything that a training run is told. Each field is a flag of `kerasformer train`."""

from kerasformer.config.classify import Augment, Data, Pretrained, Recipe, Train
from kerasformer.config.language import (
    LanguageData,
    LanguageModel,
    LanguageRecipe,
    LanguageTrain,
    TextRecipe,
    TextTrain,
)
from kerasformer.config.loading import load_recipe
from kerasformer.config.masked import MaskedData, MaskedRecipe
from kerasformer.config.run import Run, Training

__all__ = ["Augment", "Data", "LanguageData", "LanguageModel", "LanguageRecipe", "LanguageTrain", "Pretrained"]
__all__ += [
    "MaskedData",
    "MaskedRecipe",
    "Recipe",
    "Run",
    "TextRecipe",
    "TextTrain",
    "Train",
    "Training",
    "load_recipe",
]
