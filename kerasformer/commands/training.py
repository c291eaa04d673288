"""Commands that train and measure a model."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro

from kerasformer.commands.shared import import_tensorflow, print_json
from kerasformer.config import Recipe, Run, load_recipe
from kerasformer.errors import InputError
from kerasformer.flags import HELP, parse


def train(arguments: list[str]) -> None:
    """Train a model as a recipe says: `kerasformer train pipelines/bert_classify.py --data.train FILE ...`."""
    module = recipe_of(arguments, "train", train.__doc__, "train pipelines/bert_classify.py --help")
    recipe = parse(type(module.recipe), arguments[1:], f"train {arguments[0]}", module.__doc__, default=module.recipe)
    examples = None if recipe.data.train else getattr(module, "examples", None)
    recipe.check(has_source=bool(recipe.data.train or examples))
    import_tensorflow()
    from kerasformer.training.train import train as run

    print_json(run(recipe, examples and examples()))


@dataclass(frozen=True)
class Plan:
    """A recipe, and what is asked of it."""

    recipe: Annotated[Run, tyro.conf.arg(name="")]
    memory: str | None = None
    """Of each device, such as 16GB: how large a batch fits it."""
    devices: int = 0
    """How many of them; 0 for what --train.devices tells."""
    json: bool = False
    """Print JSON and no table."""


def plan(arguments: list[str]) -> None:
    """Tell what a run takes before it runs: `kerasformer plan RECIPE --memory 16GB --devices 8 --json`, and flags."""
    module = recipe_of(arguments, "plan", plan.__doc__, "plan pipelines/gpt_pretrain.py --memory 16GB", Plan)
    asked = parse(Plan, arguments[1:], f"plan {arguments[0]}", plan.__doc__, default=Plan(module.recipe))
    recipe = asked.recipe
    if asked.devices:
        recipe = replace(recipe, train=replace(recipe.train, devices=asked.devices))
    recipe.check_fields()
    room = None if asked.memory is None else size_of(asked.memory)
    import_tensorflow()
    from kerasformer.training.planning import figures, table

    found = figures(recipe, room)
    print_json(found) if asked.json else print(table(found), flush=True)


def recipe_of(
    arguments: list[str], command: str, description: str | None, example: str, options: type | None = None
) -> ModuleType:
    """The module of the recipe that is a command's first argument; help where that is asked for.

    Args:
        options: what holds the recipe and the command's own flags, if there are any.

    Raises:
        InputError: no recipe.
    """
    if arguments and arguments[0] in HELP:
        some = Recipe(name="RECIPE")
        default = some if options is None else options(some)
        parse(type(default), ["--help"], f"{command} RECIPE", description, default=default)
    if not arguments or arguments[0].startswith("-"):
        raise InputError(
            f"expected a recipe first, got {arguments[0] if arguments else 'none'}; for example kerasformer {example}"
        )
    return load_recipe(Path(arguments[0]))


def size_of(text: str) -> int:
    """Bytes of a size such as 16GB or 512MiB.

    Raises:
        InputError: no size.
    """
    units = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    units |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", text.strip().upper())
    if not found or found[2] not in units:
        raise InputError(f"expected --memory as a size such as 16GB, got {text!r}; change it")
    return int(float(found[1]) * units[found[2]])


def launch(arguments: list[str]) -> int:
    """Train with several workers on this host: `kerasformer launch --workers 2 train RECIPE ...`."""
    at = 0
    while at < len(arguments) and arguments[at].startswith("-"):
        at += 1 if "=" in arguments[at] or arguments[at] in HELP else 2

    def options(workers: int = 2) -> int:
        """Train with several workers on this host, as they would on several hosts.

        After the flags comes the command: train, a recipe and its flags.

        Args:
            workers: Processes that train together, each with its share of the batch.
        """
        return workers

    workers = parse(options, arguments[:at], "launch", launch.__doc__)
    if workers < 1:
        raise InputError(f"expected --workers of at least 1, got {workers}; raise it")
    if (command := arguments[at] if at < len(arguments) else "none") != "train":
        raise InputError(f"expected train as the command that the workers run, got {command}; launch train RECIPE ...")
    from kerasformer.training.launch import launch as run

    return run(arguments[at:], workers)


def evaluate(arguments: list[str]) -> None:
    """Measure a run's best model on held-out data: `kerasformer evaluate runs/news --data FILE`."""

    def options(run: tyro.conf.Positional[Path], data: tuple[Path, ...]) -> tuple[Path, tuple[Path, ...]]:
        return run, data

    run, data = parse(options, arguments, "evaluate", evaluate.__doc__)
    if not data:
        raise InputError("expected a value for --data, got none; name the files")
    import_tensorflow()
    from kerasformer.training.train import evaluate_run

    print_json(evaluate_run(run, data))
