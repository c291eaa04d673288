"""A run's folder: recipe.json, metrics.jsonl, tensorboard/, and model/, the best one."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasformer.config import LanguageData, LanguageRecipe, Recipe, Run
from kerasformer.errors import InputError
from kerasformer.files import read_json, write_json
from kerasformer.training import strategies
from kerasformer.training.strategies import is_chief

logger = logging.getLogger(__name__)

RECIPE_FILE = "recipe.json"


def begin(recipe: Run) -> tf.distribute.Strategy:
    """Sets the random seeds; returns what the recipe trains on.

    Raises:
        InputError: devices or workers that are not there.
    """
    settings = recipe.train
    keras.utils.set_random_seed(settings.seed)
    strategy = strategies.strategy(settings.strategy, settings.devices, settings.worker_timeout)
    if (replicas := strategy.num_replicas_in_sync) > 1:
        logger.info("replicas: %d, each of which reads its part of a batch", replicas)
    return strategy


def open_folder(recipe: Run) -> None:
    """Makes the folder and writes the recipe."""
    if is_chief():
        recipe.folder.mkdir(parents=True)
        write_json(recipe.folder / RECIPE_FILE, as_json(recipe))


def of_chief(*callbacks: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """Callbacks that write or show something: of several workers one has them."""
    return list(callbacks) if is_chief() else []


def read_part(folder: Path, name: str, kind: type) -> Any:
    """A part of a run's recipe, such as its `data`.

    Raises:
        InputError: no run, or one of another kind.
    """
    path = Path(folder) / RECIPE_FILE
    try:
        return kind(**read_json(path, "a run's recipe")[name])
    except (KeyError, TypeError) as error:
        raise InputError(f"expected a run's recipe at {path}, got another file ({error!r}); name a run") from error


def kind_of(folder: Path) -> type[Run]:
    """Which kind of recipe made a run: the one whose data have the fields that are told, and since then perhaps more.

    Raises:
        InputError: no run.
    """
    told = read_part(folder, "data", dict)
    return LanguageRecipe if told.keys() <= {f.name for f in dataclasses.fields(LanguageData)} else Recipe


def as_json(recipe: Run) -> dict:
    """The recipe as JSON writes it, paths as strings."""
    return json.loads(json.dumps(dataclasses.asdict(recipe), default=str))


def hyperparameters(recipe: Run) -> dict[str, str | float | int | bool]:
    """The recipe's numbers and choices as flat names ("train.epochs"), for TensorBoard."""

    def flatten(values: dict, prefix: str):
        for name, value in values.items():
            if isinstance(value, dict):
                yield from flatten(value, f"{prefix}{name}.")
            elif isinstance(value, list):
                yield f"{prefix}{name}", " ".join(map(str, value))
            elif value is not None:
                yield f"{prefix}{name}", value

    return dict(flatten(as_json(recipe), ""))
