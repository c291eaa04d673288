"""A run's folder: recipe.json, metrics.jsonl, tensorboard/, and model/, the best one."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from kerasformer.config import LanguageData, LanguageRecipe, Recipe, Run
from kerasformer.errors import InputError
from kerasformer.files import read_json, write_json

RECIPE_FILE = "recipe.json"


def open_folder(recipe: Run) -> None:
    """Makes the folder and writes the recipe."""
    recipe.folder.mkdir(parents=True)
    write_json(recipe.folder / RECIPE_FILE, as_json(recipe))


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
