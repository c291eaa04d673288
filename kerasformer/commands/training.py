"""Commands that train and measure a model."""

from pathlib import Path

import tyro

from kerasformer.commands.shared import import_tensorflow, print_json
from kerasformer.config import LanguageRecipe, Recipe, load_recipe
from kerasformer.errors import InputError
from kerasformer.flags import HELP, parse


def train(arguments: list[str]) -> None:
    """Train a model as a recipe says: `kerasformer train pipelines/bert_classify.py --data.train FILE ...`."""
    if arguments and arguments[0] in HELP:
        parse(Recipe, ["--help"], "train RECIPE", train.__doc__, default=Recipe(name="RECIPE"))
    if not arguments or arguments[0].startswith("-"):
        raise InputError(
            f"expected a recipe first, got {arguments[0] if arguments else 'none'}; "
            "for example kerasformer train pipelines/bert_classify.py --help"
        )
    module = load_recipe(Path(arguments[0]))
    kind = type(module.recipe)
    recipe = parse(kind, arguments[1:], f"train {arguments[0]}", module.__doc__, default=module.recipe)
    if kind is LanguageRecipe:
        return _train_language_model(recipe)
    examples = getattr(module, "examples", None) if recipe.data.train is None else None
    recipe.check(has_source=bool(recipe.data.train or examples))
    import_tensorflow()
    from kerasformer.training.train import train as run

    print_json(run(recipe, examples() if examples else None))


def _train_language_model(recipe: LanguageRecipe) -> None:
    recipe.check(has_source=bool(recipe.data.train))
    import_tensorflow()
    from kerasformer.training.language import train as run

    print_json(run(recipe))


def launch(arguments: list[str]) -> int:
    """Train with several workers on this host: `kerasformer launch --workers 2 train RECIPE ...`."""
    at = arguments.index("train") if "train" in arguments else len(arguments)

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
    if at == len(arguments):
        raise InputError("expected the command that the workers run, got none; add train RECIPE ...")
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
    from kerasformer.training import language, train
    from kerasformer.training.run import kind_of

    if kind_of(run) is LanguageRecipe:
        return print_json(language.evaluate_run(run, data))
    if len(data) != 1:
        raise InputError(f"expected one file of labelled texts, got {len(data)}; evaluate them in turn")
    print_json(train.evaluate_run(run, data[0]))
