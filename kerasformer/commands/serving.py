"""Commands from a model to a server."""

from pathlib import Path

import tyro

from kerasformer.commands.shared import import_tensorflow, model_of
from kerasformer.flags import parse


def export(arguments: list[str]) -> None:
    """Write the next version of a model for TF Serving: `kerasformer export runs/news saved_models/news`."""

    def options(
        run: tyro.conf.Positional[Path],
        folder: tyro.conf.Positional[Path],
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
    ) -> dict:
        """Write the next version of a model for TF Serving.

        Args:
            max_new_tokens: Of a language model: the most that a request can get (128, or half of its positions if that
                is less).
            temperature: Of a language model: what serving_default draws with; 0 takes the best token each time (1 with
                top_k or top_p, else 0).
            top_k: Of a language model: serving_default draws among the k best tokens (0, among all).
            top_p: Of a language model: serving_default draws among the best that have this probability (1, all).
            repetition_penalty: Of a language model: above 1 it repeats less (1).
            seed: Of a language model: of serving_default's draws (0).
        """
        return {name: value for name, value in locals().items() if value is not None}

    settings = parse(options, arguments, "export", export.__doc__)
    run, folder = settings.pop("run"), settings.pop("folder")
    import_tensorflow()
    from kerasformer.models.heads import from_folder
    from kerasformer.serving.export import export as write

    print(write(from_folder(model_of(run), dtype="float32"), folder, **settings))


def check(arguments: list[str]) -> int:
    """Tell whether TF Serving will serve a SavedModel: `kerasformer check saved_models/news/1`."""

    def options(version: tyro.conf.Positional[Path], json: bool = False) -> tuple[Path, bool]:
        """Tell whether TF Serving will serve a SavedModel; the exit code is 1 if it will not.

        Args:
            json: Print JSON and no table.
        """
        return version, json

    version, as_json = parse(options, arguments, "check", check.__doc__)
    import_tensorflow()
    import rich

    from kerasformer.serving import check as checking

    report = checking.check(version)
    print(report.to_json()) if as_json else rich.print(report.render())
    return 0 if report.ok else 1


def serve(arguments: list[str]) -> None:
    """Serve every model of a folder over TF Serving's REST API: `kerasformer serve saved_models`."""

    def options(
        folder: tyro.conf.Positional[Path],
        host: str = "127.0.0.1",
        rest_port: int = 8501,
        file_system_poll_wait_seconds: float = 1.0,
    ) -> dict:
        """Serve every model of a folder, each in its newest version, until SIGINT or SIGTERM.

        Versions and models that are added are loaded while it runs, and those that are removed are unloaded.

        Args:
            host: The address to listen at; 0.0.0.0 for all of this machine.
            rest_port: Of the REST API; 0 takes a free one, which the log tells.
            file_system_poll_wait_seconds: Between two looks for new and removed versions; 0 looks once, at the start.
        """
        return locals()

    settings = parse(options, arguments, "serve", serve.__doc__)
    import_tensorflow()
    from kerasformer.serving.server import serve as run

    run(settings.pop("folder"), **settings)
