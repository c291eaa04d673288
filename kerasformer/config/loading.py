"""Reading a recipe's file."""

import traceback
from pathlib import Path
from types import ModuleType

from kerasformer.config.run import Run
from kerasformer.errors import InputError


def load_recipe(path: Path) -> ModuleType:
    """Runs a recipe's file, which sets `recipe`.

    Raises:
        InputError: no such file, one that does not run, or no recipe in it.
    """
    if path.suffix != ".py" or not path.is_file():
        raise InputError(f"expected a recipe's Python file, got {path}, which is none; see pipelines/ for examples")
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), vars(module))  # an import would leave its cache beside the file
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None) or 1
        reason = " ".join(f"{type(error).__name__}: {getattr(error, 'msg', error)}".split())
        raise InputError(f"expected a recipe that runs, got {reason} in {path}, line {line}; mend it") from error
    if not isinstance(getattr(module, "recipe", None), Run):
        raise InputError(f"expected `recipe = Recipe(...)` in {path}, got none; see pipelines/ for examples")
    return module
