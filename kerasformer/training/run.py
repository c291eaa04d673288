"""A run's folder: recipe.json, metrics.jsonl, tensorboard/, checkpoints/, model/, the best one, and figures.json."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasformer.config import LanguageRecipe, MaskedRecipe, Recipe, Run
from kerasformer.config.run import MAY_GROW, MAY_MOVE, RECIPE_FILE, as_json, flat
from kerasformer.errors import InputError
from kerasformer.files import read_json, whole_file, write_json
from kerasformer.training import strategies
from kerasformer.training.checkpoints import check_shared
from kerasformer.training.strategies import is_chief

logger = logging.getLogger(__name__)

CHECKPOINTS, FIGURES = "checkpoints", "figures.json"
LOG, TABLE = "metrics.jsonl", "metrics.csv"


def begin(recipe: Run) -> tf.distribute.Strategy:
    """Sets the random seeds; returns what the recipe trains on.

    Raises:
        InputError: devices or workers that are not there, or workers with other recipes or other files of the run.
    """
    settings = recipe.train
    keras.utils.set_random_seed(settings.seed)
    strategy = strategies.strategy(settings.strategy, settings.devices, settings.worker_timeout)
    if (replicas := strategy.num_replicas_in_sync) > 1:
        logger.info("replicas: %d, each of which reads its part of a batch", replicas)
    for name, value in flat(as_json(recipe)).items():
        if name not in {"runs", *MAY_MOVE}:  # which hosts may have elsewhere
            advice = "start the same command on every host"
            strategies.check_alike(strategy, "all workers to have one recipe", f"--{name} {value}", advice)
    finished = " and figures" if (recipe.folder / FIGURES).is_file() else ""
    check_shared(strategy, recipe.folder / CHECKPOINTS, finished)
    return strategy


def of_chief(*callbacks: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
    """Callbacks that write or show something: of several workers one has them."""
    return list(callbacks) if is_chief() else []


@contextlib.contextmanager
def held(recipe: Run, step: int) -> Iterator[None]:
    """Makes the run's folder, or cuts its log back to the step that it goes on from; then it is this process's alone.

    Of several workers the first one does that for all.

    Raises:
        InputError: another process trains in it.
    """
    if not is_chief():
        yield
        return
    recipe.folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(recipe.folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"expected a run that nobody trains, got {recipe.folder}, in which another process does; "
                "wait for it or choose another --name"
            ) from error
        (recipe.folder / FIGURES).unlink(missing_ok=True)
        write_json(recipe.folder / RECIPE_FILE, as_json(recipe))
        for log in (LOG, TABLE):
            _cut_back(recipe.folder / log, step)
        yield
    finally:
        os.close(descriptor)  # which gives the lock back


def tell_if_not_shared(recipe: Run, strategy: tf.distribute.Strategy) -> None:
    """Warns where a worker does not see the run's folder, which the first one has: too late after a fault."""
    strategies.agreed(strategy)  # that it is made
    [missing] = strategies.agreed(strategy, not recipe.folder.exists())
    if missing:
        logger.warning(
            "%s is not on every host: put --runs where all share it, or a run that breaks off cannot go on",
            recipe.folder,
        )


def figures_of(recipe: Run) -> dict[str, float | str] | None:
    """What a run gave that has come to its end; None for one that has not, or that is to go on for longer.

    None as well where its files lie elsewhere: whether they are the same is found when they are read.
    """
    path = recipe.folder / FIGURES
    if not path.is_file():
        return None
    before, now = flat(read_json(recipe.folder / RECIPE_FILE, "a run's recipe")), flat(as_json(recipe))
    if any(before.get(name) != now.get(name) for name in MAY_GROW | MAY_MOVE):
        return None
    logger.info("%s is finished: these are its figures", recipe.folder)
    return read_json(path, "a run's figures") | {"model": str(recipe.folder / "model")}


def finish(recipe: Run, figures: dict[str, float | str]) -> dict[str, float | str]:
    """Writes the figures, which ends the run; returns them."""
    if is_chief():
        write_json(recipe.folder / FIGURES, figures)
    return figures


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
    """Which kind of recipe made a run: that of plain text whose data have the fields that are told, or a classifier's.

    Since then they may have got more.

    Raises:
        InputError: no run.
    """
    told = read_part(folder, "data", dict)
    for kind in (LanguageRecipe, MaskedRecipe):
        if told.keys() <= {field.name for field in dataclasses.fields(data_class(kind))}:
            return kind
    return Recipe


def data_class(kind: type[Run]) -> type:
    """The class of a recipe's data."""
    [found] = [field.type for field in dataclasses.fields(kind) if field.name == "data"]
    return found


def hyperparameters(recipe: Run) -> dict[str, str | float | int | bool]:
    """The recipe's numbers and choices as flat names ("train.epochs"), for TensorBoard."""
    values = flat(as_json(recipe))
    return {
        name: " ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in values.items()
        if value is not None
    }


def _cut_back(log: Path, step: int) -> None:
    """Leaves a log what it said until a step, so that none is there twice; half a line that a kill left goes too."""
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = lines[:1] if log.name == TABLE else []
    for line in lines[len(kept) :]:
        with contextlib.suppress(ValueError):
            at = int(line.partition(",")[0]) if log.name == TABLE else json.loads(line)["step"]
            kept += [line] if at <= step else []
    with whole_file(log) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
