"""The recipe of a language model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kerasformer.config.ramp import check_ramp
from kerasformer.config.rules import SHARE, choices, or_none, whole
from kerasformer.config.run import COMMON, OnBad, Run, Schedule, Training
from kerasformer.errors import InputError


@dataclass(frozen=True)
class LanguageData:
    """The text that a language model learns from."""

    train: tuple[Path, ...] = ()
    """A folder that `kerasformer prepare` wrote; or .txt, JSON, JSONL (each also .gz), Parquet, or folders of them."""
    validation: tuple[Path, ...] = ()
    """Files of their own to validate on; otherwise `split` holds text out. Not for a prepared folder."""
    split: float = 0.1
    """Share held out for validation: the end of a single .txt file, else documents; 0 for none."""
    tokenizer: str | None = None
    """Of text files: a folder; or a kind to be trained on them (char or bpe for a GPT, wordpiece for a BERT). A
    checkpoint brings its own."""
    vocab_size: int = 8192
    """Of a bpe or wordpiece tokenizer that is to be trained."""
    documents: Literal["files", "lines"] = "files"
    """What a document of a .txt file is."""
    text_column: str = "text"
    encoding: str = "utf-8"
    on_bad: OnBad = "few"
    """few: up to one in a hundred records that cannot be used are left out, and counted in a warning; skip: up to half
    of all; stop: the first is an error."""
    order: Literal["random", "consecutive"] = "random"
    """random: windows start anywhere; consecutive: they lie end to end, each once an epoch."""
    batch_size: int = 16
    batch_ramp: tuple[tuple[int, int], ...] = ()
    """SIZE STEPS pairs of smaller batches before `batch_size`, such as 4 500 8 500."""
    max_length: int = 1024
    """Tokens of a window, and the longest input of a fresh model."""
    seed: int = 0
    """Of the order and of what is held out."""

    @property
    def windows(self) -> dict[str, Any]:
        """What is told of the windows, wherever the tokens are from."""
        return {name: getattr(self, name) for name in ("max_length", "batch_size", "batch_ramp", "order", "seed")}

    @property
    def texts(self) -> dict[str, Any]:
        """What `data.Texts` is told of the files."""
        held_out = {"validation": self.split, "validation_files": self.validation}
        columns = {"text_column": self.text_column, "encoding": self.encoding, "on_bad": self.on_bad}
        return {**held_out, "documents": self.documents, **columns}


@dataclass(frozen=True)
class LanguageModel:
    """The model to go on from, or a fresh one."""

    from_pretrained: Path | None = None
    """A Hugging Face folder, whose weights, sizes and tokenizer hold then."""
    preset: str | None = None
    """A published size, such as gpt2 or bert_mini_uncased; the sizes below go before it."""
    num_layers: int | None = None
    num_heads: int | None = None
    dim: int | None = None
    mlp_dim: int | None = None
    """Four times `dim` by default."""
    dropout: float = 0.0
    """Of a fresh model."""

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that are given, and the one that follows from another."""
        names = ("num_layers", "num_heads", "dim", "mlp_dim")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {"mlp_dim": 4 * self.dim, **given} if self.dim is not None else given


@dataclass(frozen=True)
class TextTrain(Training):
    """How a model of plain text learns: for a number of steps, or of epochs."""

    learning_rate: float = 6e-4
    weight_decay: float = 0.1
    warmup: float = 0.02
    steps: int | None = None
    epochs: int | None = None
    """Of about as many tokens as there are; evaluates after each."""
    schedule: Schedule = "cosine"
    """How the rate falls after the warm-up; wsd: stable, then linearly."""
    beta_2: float | None = None
    """Of adamw and muon, 0.95 by default; of lamb, 0.999; and of lion, 0.99."""
    evaluate_every: int = 0
    """Steps between evaluations, of which the last is at the end; 0: that one alone."""
    evaluation_batches: int = 0
    """How much of the validation set they read; 0 for all. The final figures are of all."""
    steps_per_execution: int = 1
    """Steps between looks at the progress: more of them make steps of milliseconds cheaper."""

    @property
    def own_settings(self) -> dict[str, float]:
        """See Training; AdamW's second moments forget sooner, as GPT-3's did."""
        return ({"beta_2": 0.95} if self.optimizer in ("adamw", "muon") else {}) | super().own_settings


@dataclass(frozen=True)
class LanguageTrain(TextTrain):
    """How a language model learns: for a number of steps, or of epochs."""

    prompts: tuple[str, ...] = ()
    """Texts that the model continues at each evaluation, for TensorBoard."""
    sample_tokens: int = 100
    """How many tokens it makes of each, if it has room for them."""


@dataclass(frozen=True)
class TextRecipe(Run):
    """A training run on plain text."""

    data: LanguageData = field(default_factory=LanguageData)
    model: LanguageModel = field(default_factory=LanguageModel)
    train: TextTrain = field(default_factory=TextTrain)

    def check(self, has_source: bool = True) -> None:
        """See Run."""
        super().check(has_source)
        check_ramp(self.data.batch_ramp, self.data.batch_size)
        train = self.train
        if (train.steps is None) == (train.epochs is None):
            got = "none" if train.steps is None else "both"
            raise InputError(f"expected --train.steps or --train.epochs, got {got}; set one, and the other to None")
        if train.evaluate_every and train.steps is None:
            raise InputError(
                "expected --train.evaluate_every 0 with --train.epochs, as each ends with an evaluation, "
                f"got {train.evaluate_every}; set it to 0"
            )

    def _check_model(self) -> None:
        model = self.model
        whole = {"num_layers", "num_heads", "dim"} <= model.sizes.keys()
        if model.from_pretrained is None and model.preset is None and not whole:
            raise InputError(
                "expected a model, got none; pass --model.from_pretrained DIR, --model.preset NAME, or "
                "--model.num_layers, --model.num_heads and --model.dim"
            )


@dataclass(frozen=True)
class LanguageRecipe(TextRecipe):
    """A training run, from text to a language model's folder."""

    train: LanguageTrain = field(default_factory=LanguageTrain)


TextRecipe.rules = COMMON | {
    "data.vocab_size": whole(257),
    "data.max_length": whole(1),
    "model.num_layers": or_none(whole(1)),
    "model.num_heads": or_none(whole(1)),
    "model.dim": or_none(whole(1)),
    "model.mlp_dim": or_none(whole(1)),
    "model.dropout": SHARE,
    "train.steps": or_none(whole(1)),
    "train.epochs": or_none(whole(1)),
    "train.evaluate_every": whole(0),
    "train.evaluation_batches": whole(0),
    "train.steps_per_execution": whole(1),
    **choices(LanguageData, "data"),
    **choices(TextTrain, "train"),
}
LanguageRecipe.rules = TextRecipe.rules | {"train.sample_tokens": whole(1)}
