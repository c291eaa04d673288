"""A recipe: everything that a training run is told. Each field is a flag of `kerasformer train`."""

from kerasformer.config.classify import Augment, Data, Pretrained, Recipe, Train
from kerasformer.config.language import LanguageData, LanguageModel, LanguageRecipe, LanguageTrain
from kerasformer.config.loading import load_recipe
from kerasformer.config.run import Run, Training

__all__ = ["Augment", "Data", "LanguageData", "LanguageModel", "LanguageRecipe", "LanguageTrain", "Pretrained"]
__all__ += ["Recipe", "Run", "Train", "Training", "load_recipe"]
