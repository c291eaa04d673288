"""A recipe -> what its run will take, as figures and as a table; see `plan`."""

from pathlib import Path
from typing import Any

import tensorflow as tf

from kerasformer.config import Recipe, Run, TextRecipe
from kerasformer.data.corpus import INDEX
from kerasformer.data.sources import read_examples
from kerasformer.errors import InputError
from kerasformer.models.checkpoint import read_config
from kerasformer.models.families import backbone_class
from kerasformer.models.head import Head
from kerasformer.models.heads import Classifier
from kerasformer.training.language import KINDS, fresh_config, trained_tokenizer, windows
from kerasformer.training.optimizers import OPTIMIZERS
from kerasformer.training.plan import Memory, Step, Weightless, flops, largest_batch, memory
from kerasformer.training.precision import dtype_policy
from kerasformer.training.tuning import freeze


def figures(recipe: Run, room: int | None = None) -> dict[str, Any]:
    """What the recipe's run takes, in bytes, numbers and FLOPs.

    Args:
        room: bytes of a device's memory, for the largest batch that fits.

    Raises:
        InputError: a recipe that names no model, or freezes more than it has.
    """
    settings, data = recipe.train, recipe.data
    policy = dtype_policy(settings.precision)

    def model() -> Head:
        made = model_of(recipe, policy)
        freeze(made, settings.freeze)
        return made

    own = {"schedule": settings.schedule, "ema": settings.ema, **settings.own_settings}
    weightless = Weightless.of(model, OPTIMIZERS[settings.optimizer](1.0, steps=1, **own))
    config = weightless.model.backbone.config
    devices = settings.devices or len(tf.config.list_physical_devices("GPU")) or 1
    length = min(data.max_length, config.max_length)
    step = Step(data.batch_size, length, devices, settings.accumulate, settings.remat == "blocks")
    own, computed = flops(weightless, step)
    tokens, run = step.batch_size * length, run_length(recipe)
    found = {
        "precision": {"float32": "float32"}.get(policy, "bfloat16"),
        "remat": settings.remat,
        "devices": devices,
        "batch_size": step.batch_size,
        "rows_at_a_time": step.rows,
        "length": length,
        "parameters": weightless.parameters(),
        "memory": as_dict(memory(weightless, step)),
        "tokens_per_step": tokens,
        **{name: steps * (tokens if name.startswith("tokens") else 1) for name, steps in run.items()},
        "flops_per_step": own,
        "computed_flops_per_step": computed,
    }
    if room is not None:
        found |= {"room": room, "largest_batch": largest_batch(weightless, step, room)}
    return found


def model_of(recipe: Run, policy: str) -> Head:
    """The recipe's model, with the sizes that its checkpoint, preset or flags tell.

    Raises:
        InputError: neither its flags nor its files tell them.
    """
    folder = recipe.model.from_pretrained
    if isinstance(recipe, Recipe):
        values = read_config(Path(folder))
        backbone = backbone_class(values["model_type"])(Classifier.config_from(values), dtype=policy)
        return Classifier(backbone, ["some", "other"], dropout=recipe.model.dropout)  # more cost next to nothing
    kind = KINDS[type(recipe.data)]
    config = kind.head.config_from(read_config(Path(folder))) if folder else fresh_config(recipe, vocab_size(recipe))
    return kind.head(kind.family(config, dtype=policy))


def vocab_size(recipe: TextRecipe) -> int:
    """How many tokens a fresh model has: those of its tokenizer, or of its preset where no tokenizer is named.

    Raises:
        InputError: neither is named.
    """
    data, kind = recipe.data, KINDS[type(recipe.data)]
    if prepared(recipe):
        return windows(data, None)[0].tokenizer().vocab_size
    if data.tokenizer in ("bpe", "wordpiece"):
        return data.vocab_size
    if data.tokenizer == "char" and data.train:
        return trained_tokenizer(data).vocab_size
    if data.tokenizer not in (None, "char"):
        return kind.family.tokenizer_class.from_folder(data.tokenizer).vocab_size
    if recipe.model.preset is None:
        raise InputError(
            "expected a vocabulary, got none; pass --data.train with a prepared folder, --data.tokenizer, or "
            "--model.preset"
        )
    return kind.family.preset(recipe.model.preset).values.get("vocab_size", kind.family.config_class.vocab_size)


def prepared(recipe: TextRecipe) -> bool:
    """Whether the recipe reads a folder that has been prepared, whose size is known at once."""
    return len(recipe.data.train) == 1 and (Path(recipe.data.train[0]) / INDEX).exists()


def run_length(recipe: Run) -> dict[str, int]:
    """Steps by what they make up, where the recipe and its data tell: an epoch, the run."""
    settings, data, epoch = recipe.train, recipe.data, None
    if isinstance(recipe, Recipe) and data.train is not None:
        held_out = 0.0 if data.validation else data.split
        examples = len(read_examples(data.train, **data.columns).texts)
        epoch = -(-round(examples * (1 - held_out)) // data.batch_size)
    elif isinstance(recipe, TextRecipe) and prepared(recipe):
        epoch = windows(data, None)[0].steps_per_epoch
    steps = getattr(settings, "steps", None) or (epoch and settings.epochs and epoch * settings.epochs)
    found = {"epoch": epoch, "run": steps}
    return {f"{what}_per_{of}": n for of, n in found.items() if n for what in ("steps", "tokens")}


def as_dict(found: Memory) -> dict[str, Any]:
    """Bytes by what they are for, on one device."""
    parts = {name: getattr(found, name) for name in ("weights", "optimizer", "gradients", "activations", "loss")}
    return parts | {"peak": found.peak, "phases": found.phases}


def table(found: dict[str, Any]) -> str:
    """The figures as lines of text."""
    taken, parameters = found["memory"], found["parameters"]
    total = sum(parameters.values())
    rows = [("parameters", f"{total:,}"), *((f"  {part}", f"{count:,}") for part, count in parameters.items())]
    how = f"{found['precision']}, {found['rows_at_a_time']} x {found['length']} tokens at a time"
    how += ", blocks recomputed" if found["remat"] == "blocks" else ""
    rows += [("memory on each device", how)]
    rows += [(f"  {name}", _size(taken[name])) for name in taken if name != "phases"]
    rows += [(f"    live in: {name}", _size(size)) for name, size in taken["phases"].items()]
    rows += [("devices", f"{found['devices']}"), ("batch", f"{found['batch_size']:,} rows")]
    rows += [(name.replace("_", " "), f"{found[name]:,}") for name in found if "_per_" in name and "flops" not in name]
    rows += [("FLOPs per step", f"{found['flops_per_step']:.3g}")]
    if found["remat"] == "blocks":
        rows += [("  computed", f"{found['computed_flops_per_step']:.3g}")]
    if "room" in found:
        rows += [(f"largest batch in {_size(found['room'])}", f"{found['largest_batch']:,} rows")]
    return "\n".join(f"{name:34} {value:>16}".rstrip() for name, value in rows)


def _size(count: int) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
