"""Commands that use a model: its labels for texts, or its continuation of a text."""

from pathlib import Path
from typing import Literal

import tyro

from kerasformer.commands.shared import import_tensorflow, lines_of_stdin, model_of, print_json, text_of_stdin
from kerasformer.errors import InputError
from kerasformer.flags import parse


def predict(arguments: list[str]) -> None:
    """Label texts, or the lines of standard input: `kerasformer predict runs/news "a text" ...`."""

    def options(
        model: tyro.conf.Positional[Path],
        texts: tyro.conf.Positional[tuple[str, ...]] = (),
        text_pair: tuple[str, ...] = (),
    ) -> tuple:
        """Label texts.

        Args:
            texts: The texts to label; the lines of standard input by default.
            text_pair: The second text of each, for a model of pairs.
        """
        return model, texts, text_pair

    model_folder, texts, pairs = parse(options, arguments, "predict", predict.__doc__)
    texts = list(texts) or lines_of_stdin()
    if not texts:
        raise InputError("expected texts, got none; pass them after the model, or as lines of standard input")
    if pairs and len(pairs) != len(texts):
        raise InputError(f"expected as many --text-pair as texts, {len(texts)}, got {len(pairs)}; pair them up")
    import_tensorflow()
    from kerasformer.training.tasks import Classifier

    model = Classifier.from_pretrained(model_of(model_folder), dtype="float32")
    probabilities = model.predict(list(zip(texts, pairs, strict=True)) if pairs else texts)
    for text, row in zip(texts, probabilities, strict=True):
        shares = {label: round(float(share), 6) for label, share in zip(model.labels, row, strict=True)}
        answer = {"label": model.labels[row.argmax()]}
        if model.multi_label:
            answer = {"labels": [label for label, share in shares.items() if share >= 0.5]}
        print_json({"text": text, **answer, "probabilities": shares})


def generate(arguments: list[str]) -> None:
    """Continue a text, or standard input, as it is made: `kerasformer generate runs/stories --prompt "Once upon"`."""

    def options(
        model: tyro.conf.Positional[Path],
        prompt: str | None = None,
        max_new_tokens: int = 100,
        temperature: float | None = None,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
        precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto",
        truncate_prompt: bool = False,
        slide: bool = False,
    ) -> dict:
        """Continue a text.

        Args:
            prompt: The text to continue; standard input by default.
            max_new_tokens: The most tokens that come; an end of text ends it before.
            temperature: 0 takes the best token each time; above it tokens are drawn, the higher the wilder.
            top_k: Draw among the k best tokens; 0 for all.
            top_p: Draw among the best tokens that have this probability together.
            repetition_penalty: Above 1, tokens that have come become less likely.
            stop: The text ends before the first of these strings.
            seed: Of the draws: the same one gives the same text.
            precision: Of the weights; auto: the float that this machine computes fast.
            truncate_prompt: Read the end of a prompt that is too long, instead of refusing it.
            slide: Of a text that fills the model's positions, go on from the last half of them.
        """
        return locals()

    settings = parse(options, arguments, "generate", generate.__doc__)
    model_folder, prompt = settings.pop("model"), settings.pop("prompt")
    prompt = text_of_stdin().removesuffix("\n") if prompt is None else prompt
    import_tensorflow()
    from kerasformer.training.tasks import CausalLM

    model = CausalLM.from_pretrained(model_of(model_folder), dtype="float32")
    # XLA would compile for longer than one text takes.
    for piece in model.stream(prompt, xla=False, **settings):
        print(piece, end="", flush=True)
    print()
