"""Packages whose members are imported at their first use: what needs no TensorFlow need not wait for it."""

import importlib
from collections.abc import Callable, Mapping


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
