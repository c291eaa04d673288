"""The rules of the house. Each check reads one file and yields what breaks a rule; each is tried on a planted breach.

Imports go one way, down `ORDER`. `errors`, `files` and `config` are at its top so that all may import them;
`kerasformer/__init__.py` comes before `cli` because it is the face of what precedes it.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ORDER = (
    "errors",
    "lazy",
    "files",
    "config",
    "kernels",
    "backend",
    "gradients",
    "text",
    "data",
    "layers",
    "models",
    "generation",
    "training",
    "serving",
)
ORDER += ("__init__", "flags", "commands", "cli", "__main__")
WITHOUT_TENSORFLOW = {"errors", "lazy", "files", "config", "layers", "models", "generation"}
BASE = {"kerasformer", "tensorflow", "tensorflow_serving", "keras", "tensorboard", "tokenizers", "safetensors", "tyro"}
BASE |= {"rich", "numpy", "PIL", "google", *sys.stdlib_module_names}
BEHIND_EXTRAS = {"kerasformer/serving/server.py"}  # imported by `kerasformer serve` alone
MAX_FILE, MAX_FUNCTION, MAX_DEPTH, MAX_CONTRIBUTING = 400, 60, 3, 60

# Index hosts and one machine's folders. A bracket in each keeps this line from matching itself.
UNWANTED = re.compile(r"pypi[.]org|pythonhoste[d]|deb[.]debian|registry[.]npmjs|/(?:work|farm|root|home|Users)/\w")
SIGNATURE = re.compile(r"(?!build$)[^_].*|__init__|__call__")
PIN = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*==\d[\w.]*")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file of the repository, at its path from the root."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def room(self) -> str:
        """The name in ORDER that a file of the package belongs to."""
        return self.path.parts[1].removesuffix(".py")

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and absolute dotted name of everything that is imported, at any depth."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self.path.parts[: -node.level] if node.level else ()
                module = ".".join([*above, *filter(None, [node.module])])
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)

    def functions(self) -> Iterator[Function]:
        yield from (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def at(self, line: int, message: str) -> str:
        return f"{self.path}:{line}: {message}"


def imports_go_one_way(source: Source) -> Iterator[str]:
    if source.room not in ORDER:
        yield source.at(1, f"{source.room} has no place in ORDER")
        return
    for line, name in source.imports():
        package, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        room = room if room in ORDER else "__init__"
        if package == "kerasformer" and ORDER.index(room) > ORDER.index(source.room):
            yield source.at(line, f"{source.room} imports {name}, which comes after it")


def tensorflow_stays_out(source: Source) -> Iterator[str]:
    for line, name in source.imports():
        if source.room in WITHOUT_TENSORFLOW and name.startswith("tensorflow"):
            yield source.at(line, f"{source.room} imports {name}; keras.ops runs on every backend")


def extras_are_imported_where_used(source: Source) -> Iterator[str]:
    """So that every module imports with the base dependencies alone."""
    inside = {node.lineno for function in source.functions() for node in ast.walk(function) if hasattr(node, "lineno")}
    for line, name in source.imports():
        if name.partition(".")[0] not in BASE and line not in inside and str(source.path) not in BEHIND_EXTRAS:
            yield source.at(line, f"{name} is an extra: import it in the function that needs it")


def families_stand_alone(source: Source) -> Iterator[str]:
    family = source.path.parts[2]
    for line, name in source.imports():
        match name.split("."):
            case ["kerasformer", "models", shared, *_]:
                if shared != family and not (ROOT / f"kerasformer/models/{shared}.py").exists():
                    yield source.at(line, f"the family {family} imports {name}")


def files_fit(source: Source) -> Iterator[str]:
    if (lines := source.text.count("\n")) > MAX_FILE:
        yield source.at(1, f"{lines} lines, at most {MAX_FILE}")
    if (depth := len(source.path.parts) - 1) > MAX_DEPTH:
        yield source.at(1, f"{depth} folders deep, at most {MAX_DEPTH}")


def functions_fit(source: Source) -> Iterator[str]:
    for function in source.functions():
        if (lines := function.end_lineno - function.lineno + 1) > MAX_FUNCTION:
            yield source.at(function.lineno, f"{function.name} has {lines} lines, at most {MAX_FUNCTION}")


def public(nodes: list[ast.stmt]) -> list[Function | ast.ClassDef]:
    return [n for n in nodes if isinstance(n, Function | ast.ClassDef) and not n.name.startswith("_")]


def public_names_are_documented(source: Source) -> Iterator[str]:
    if not source.tree.body:
        return
    if not ast.get_docstring(source.tree):
        yield source.at(1, "the module has no docstring")
    for node in public(source.tree.body):
        if not ast.get_docstring(node):
            yield source.at(node.lineno, f"{node.name} has no docstring")


def public_signatures_are_typed(source: Source) -> Iterator[str]:
    """All but `*args` and `**kwargs`, which their receiver types, and `build`, whose signature is Keras's own."""
    for node in public(source.tree.body):
        for function in [node] if isinstance(node, Function) else node.body:
            if isinstance(function, Function) and SIGNATURE.fullmatch(function.name):
                yield from untyped(source, function)


def untyped(source: Source, function: Function) -> Iterator[str]:
    arguments = function.args
    for arg in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
        if arg.annotation is None and arg.arg not in {"self", "cls"}:
            yield source.at(function.lineno, f"{function.name}: {arg.arg} has no type")
    if function.returns is None and function.name != "__init__":
        yield source.at(function.lineno, f"{function.name} has no return type")


def each_test_asserts(source: Source) -> Iterator[str]:
    for function in source.functions():
        if function.name.startswith("test_") and not any(map(asserts, ast.walk(function))):
            yield source.at(function.lineno, f"{function.name} asserts nothing")


def asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return not isinstance(node.test, ast.Constant)
    if isinstance(node, ast.Call):
        name = ast.unparse(node.func).rpartition(".")[2]
        return name.startswith("assert") or name in {"raises", "warns"}
    return False


def generators_are_not_read(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "from_generator":
            yield source.at(node.lineno, "from_generator slows the process down: `data.computed` says how")


def nothing_local_is_named(source: Source) -> Iterator[str]:
    for line, text in enumerate(source.text.splitlines(), 1):
        if found := UNWANTED.search(text):
            yield source.at(line, f"{found.group()} belongs to one machine")


def contributing_is_short(source: Source) -> Iterator[str]:
    if (lines := source.text.count("\n")) > MAX_CONTRIBUTING:
        yield source.at(1, f"{lines} lines, at most {MAX_CONTRIBUTING}")


def constraints_are_pins(source: Source) -> Iterator[str]:
    for line, text in enumerate(source.text.splitlines(), 1):
        if not PIN.fullmatch(text):
            yield source.at(line, f"{text!r} is not name==version")


Check = Callable[[Source], Iterator[str]]

# Each check and the files that it reads; a star also stands for slashes.
CHECKS: dict[Check, str] = {
    imports_go_one_way: "kerasformer/*.py",
    tensorflow_stays_out: "kerasformer/*.py",
    extras_are_imported_where_used: "kerasformer/*.py",
    families_stand_alone: "kerasformer/models/*/*.py",
    files_fit: "*.py",
    functions_fit: "*.py",
    public_names_are_documented: "kerasformer/*.py",
    public_signatures_are_typed: "kerasformer/*.py",
    each_test_asserts: "tests/*.py",
    generators_are_not_read: "kerasformer/*.py",
    nothing_local_is_named: "*",
    contributing_is_short: "CONTRIBUTING.md",
    constraints_are_pins: "constraints.txt",
}
PLANTED = [
    (imports_go_one_way, "kerasformer/text/a.py", "from kerasformer.serving import export"),
    (imports_go_one_way, "kerasformer/text/a.py", "def f():\n    import kerasformer.cli"),
    (imports_go_one_way, "kerasformer/models/bert/model.py", "from ...training import metrics"),
    (imports_go_one_way, "kerasformer/data/a.py", "from kerasformer import Classifier"),
    (imports_go_one_way, "kerasformer/config/run.py", "import kerasformer.text"),
    (imports_go_one_way, "kerasformer/utils.py", ""),
    (tensorflow_stays_out, "kerasformer/layers/a.py", "import tensorflow as tf"),
    (tensorflow_stays_out, "kerasformer/generation/a.py", "from tensorflow.python import ops"),
    (extras_are_imported_where_used, "kerasformer/data/a.py", "import pyarrow.parquet"),
    (families_stand_alone, "kerasformer/models/bert/model.py", "from kerasformer.models.gpt.config import GptConfig"),
    (families_stand_alone, "kerasformer/models/bert/model.py", "from ..gpt import weights"),
    (files_fit, "kerasformer/text/a.py", "x = 1\n" * (MAX_FILE + 1)),
    (files_fit, "kerasformer/models/bert/parts/a.py", ""),
    (functions_fit, "tests/a.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION),
    (public_names_are_documented, "kerasformer/text/a.py", "x = 1"),
    (public_names_are_documented, "kerasformer/text/a.py", '"""Doc."""\ndef f() -> None: ...'),
    (public_names_are_documented, "kerasformer/text/a.py", '"""Doc."""\nclass A: ...'),
    (public_signatures_are_typed, "kerasformer/text/a.py", "def f(x) -> None: ..."),
    (public_signatures_are_typed, "kerasformer/text/a.py", "def f(*, x) -> None: ..."),
    (public_signatures_are_typed, "kerasformer/text/a.py", "def f(x: int): ..."),
    (public_signatures_are_typed, "kerasformer/text/a.py", "class A:\n    def __init__(self, x): ..."),
    (public_signatures_are_typed, "kerasformer/text/a.py", "class A:\n    @staticmethod\n    def f(x) -> None: ..."),
    (each_test_asserts, "tests/test_a.py", "def test_a():\n    print(1)"),
    (each_test_asserts, "tests/test_a.py", "def test_a():\n    assert 1"),
    (generators_are_not_read, "kerasformer/data/a.py", "tf.data.Dataset.from_generator(f)"),
    (nothing_local_is_named, "README.md", "pip install -i https://" + "pypi" + ".org/simple"),
    (nothing_local_is_named, "docs/a.md", "cd /" + "work/main"),
    (contributing_is_short, "CONTRIBUTING.md", "line\n" * (MAX_CONTRIBUTING + 1)),
    (constraints_are_pins, "constraints.txt", "keras>=3.15"),
    (constraints_are_pins, "constraints.txt", "--index-url somewhere"),
    (constraints_are_pins, "constraints.txt", "keras==3.15.1 --hash=sha256:00"),
]
ALLOWED = [
    (imports_go_one_way, "kerasformer/serving/a.py", "import keras\nfrom kerasformer.errors import InputError"),
    (imports_go_one_way, "kerasformer/cli.py", "from kerasformer import config"),
    (tensorflow_stays_out, "kerasformer/training/a.py", "import tensorflow as tf"),
    (extras_are_imported_where_used, "kerasformer/data/a.py", "import keras\ndef f():\n    import pyarrow"),
    (families_stand_alone, "kerasformer/models/bert/model.py", "from kerasformer.models.bert.config import BertConfig"),
    (public_names_are_documented, "kerasformer/text/a.py", '"""Doc."""\ndef _f(): ...'),
    (public_signatures_are_typed, "kerasformer/text/a.py", "class A:\n    def f(self, x: int, **kwargs) -> int: ..."),
    (each_test_asserts, "tests/test_a.py", "def test_a():\n    with pytest.raises(ValueError):\n        f()"),
    (nothing_local_is_named, "README.md", "kerasformer train --data.train news.csv"),
    (constraints_are_pins, "constraints.txt", "keras==3.15.1\njax==0.10.2\n"),
]


@pytest.fixture(scope="module")
def tree() -> list[Source]:
    """Every file that git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    files = [name for name in names if (ROOT / name).is_file()]
    return [Source(PurePosixPath(name), (ROOT / name).read_text("utf-8", errors="replace")) for name in files]


@pytest.mark.parametrize("check", CHECKS)
def test_the_repository_keeps(check: Check, tree: list[Source]) -> None:
    files = [source for source in tree if fnmatch(str(source.path), CHECKS[check])]
    assert files
    breaches = [breach for source in files for breach in check(source)]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize(("check", "path", "text"), PLANTED)
def test_a_breach_is_found(check: Check, path: str, text: str) -> None:
    assert fnmatch(path, CHECKS[check])
    assert list(check(Source(PurePosixPath(path), text)))


@pytest.mark.parametrize(("check", "path", "text"), ALLOWED)
def test_no_breach_is_invented(check: Check, path: str, text: str) -> None:
    assert not list(check(Source(PurePosixPath(path), text)))


def test_every_check_has_a_planted_breach() -> None:
    assert {check for check, *_ in PLANTED} == CHECKS.keys()


def test_every_folder_of_the_package_is_imported_by_name() -> None:
    folders = {path.parent for path in (ROOT / "kerasformer").rglob("*.py")}
    assert folders == {path.parent for path in (ROOT / "kerasformer").rglob("__init__.py")}


def test_constraints_pin_each_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    for line in chain(project["dependencies"], *project["optional-dependencies"].values()):
        wanted = Requirement(line)
        assert wanted.specifier.contains(pins[wanted.name]), f"{line}: constraints.txt has {pins[wanted.name]}"


def loaded_by(statement: str, names: set[str]) -> set[str]:
    """Which of the packages a fresh interpreter has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", code]
    loaded = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return names & set(loaded.split())


def test_the_command_line_starts_without_a_backend() -> None:
    heavy = {"tensorflow", "keras", "jax"}
    assert loaded_by("import json", {"json", *heavy}) == {"json"}
    assert loaded_by("import kerasformer, kerasformer.cli", heavy) == set()


def test_the_wheel_installs(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT], check=True)
    [wheel] = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", "--target", tmp_path, wheel], check=True)
    installed = {path.relative_to(tmp_path) for path in (tmp_path / "kerasformer").rglob("*.*")}
    package = {path.relative_to(ROOT) for path in (ROOT / "kerasformer").rglob("*.*") if path.suffix != ".pyc"}
    assert installed == package
    assert (tmp_path / "bin/kerasformer").exists()
