"""Which settings an optimizer and a schedule have: another's is refused, since it would change nothing."""

from typing import Any

from kerasformer.errors import InputError

# Those that only some have, by their flags.
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adamw": ("beta_1", "beta_2"),
    "muon": ("beta_1", "beta_2", "momentum"),
    "lamb": ("beta_1", "beta_2"),
    "adafactor": (),
    "lion": ("beta_1", "beta_2"),
    "sgd": ("momentum",),
}
SCHEDULES: dict[str, tuple[str, ...]] = {
    "linear": ("min_learning_rate",),
    "cosine": ("min_learning_rate",),
    "polynomial": ("min_learning_rate", "power"),
    "inverse_sqrt": ("min_learning_rate",),
    "constant": (),
    "wsd": ("min_learning_rate", "decay_share"),
    "one_cycle": ("min_learning_rate",),
}


def check_settings(train: Any) -> None:
    """Refuses a setting that the optimizer or the schedule does not have, and a last rate above the highest.

    Raises:
        InputError: such a setting.
    """
    given = train.own_settings | ({"min_learning_rate": train.min_learning_rate} if train.min_learning_rate else {})
    for field, table in {"optimizer": OPTIMIZERS, "schedule": SCHEDULES}.items():
        chosen = getattr(train, field)
        others = {name for names in table.values() for name in names} - set(table[chosen])
        if strange := [name for name in given if name in others]:
            having = ", ".join(word for word, names in table.items() if strange[0] in names)
            raise InputError(
                f"expected no --train.{strange[0]} with --train.{field} {chosen}, got {given[strange[0]]}; leave it "
                f"out, set it to {'0' if strange[0] == 'min_learning_rate' else 'None'}, or choose {having}"
            )
    if train.min_learning_rate > train.learning_rate:
        raise InputError(
            f"expected --train.min_learning_rate of at most --train.learning_rate, {train.learning_rate}, got "
            f"{train.min_learning_rate}; lower it"
        )
