"""Packages that are not here, for programs that import them and may never need them: the first use ends the run."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class Absent:
    """Something of an absent package. It can be imported, handed on and looked into; a call or a class made from it ends
    the run with its name."""

    def __init__(self, name: str, refuse: Callable[[str], Callable]) -> None:
        self._name, self._refuse = name, refuse

    def __call__(self, *_: Any, **__: Any) -> Any:
        return self._refuse(self._name)()

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Absent(f"{self._name}.{attribute}", self._refuse)

    def __mro_entries__(self, bases: tuple) -> tuple:
        return self._refuse(f"a class made from {self._name}")()


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds every module below the absent packages."""

    def __init__(self, packages: frozenset[str], refuse: Callable[[str], Callable]) -> None:
        self.packages, self.refuse = packages, refuse

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        """A module in name only."""
        absent = fullname.partition(".")[0] in self.packages
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if absent else None

    def exec_module(self, module: types.ModuleType) -> None:
        """Whatever is asked of it is absent."""

        def lookup(attribute: str) -> Any:
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return Absent(f"{module.__name__}.{attribute}", self.refuse)

        module.__getattr__ = lookup


def install(packages: Iterable[str], refuse: Callable[[str], Callable]) -> None:
    """Let these packages be imported. `refuse` makes a function that ends the run with a name."""
    sys.meta_path.append(_Finder(frozenset(packages), refuse))
