"""Packages whose members are imported at their first use: what needs no TensorFlow need not wait for it."""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def attach(
    members: Mapping[str, str], modules: Mapping[str, str] | None = None
) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """A package's `__getattr__`, `__dir__` and `__all__` (PEP 562).

    Args:
        members: name -> the module that defines it.
        modules: name -> the module that it stands for.
    """
    modules = modules or {}
    names = sorted([*members, *modules])

    def get(name: str) -> object:
        if name in modules:
            return importlib.import_module(modules[name])
        if name in members:
            return getattr(importlib.import_module(members[name]), name)
        raise AttributeError(f"no attribute {name!r}; there are {', '.join(names)}")

    return get, lambda: names, names


def register_with_keras(package: str, members: Mapping[str, str]) -> None:
    """Makes Keras find classes in its files by the name that they are registered by, before anything imports them.

    Args:
        package: that they are registered in.
        members: name -> the module that defines it.
    """

    def register(keras: ModuleType) -> None:
        for name, module in members.items():
            keras.saving.get_custom_objects().setdefault(f"{package}>{name}", _Later(module, name))

    if "keras" in sys.modules:
        register(sys.modules["keras"])
    else:
        sys.meta_path.insert(0, _AfterImport("keras", register))


class _Later:
    """Stands for a class that is imported when an object is made of its config."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name

    def from_config(self, config: dict[str, Any], *args: Any) -> object:
        return getattr(importlib.import_module(self.module), self.name).from_config(config, *args)


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls `action` with a module when it has been imported; until then it costs nothing."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]):
        self.name, self.action = name, action

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                self.action(module)

            spec.loader.exec_module = exec_module
        return spec
