"""Triton under the names it is imported by. Kernels have no stand-in: launching one ends the run with its name."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any


class Anything:
    """Stands for a name of a module of which only decorators, annotations and default values are used."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and not kwargs and callable(args[0]) else Anything(f"{self.__name__}()")

    def __or__(self, other: Any) -> Any:
        return self

    def __getitem__(self, key: Any) -> Any:
        return self


class Kernel:
    """A compiled kernel; `refuse` raises when it is launched."""

    def __init__(self, function: Callable, refuse: Callable[[str], Callable]) -> None:
        self.fn, self.refuse = function, refuse
        self.__name__ = getattr(function, "__name__", "kernel")

    def __getitem__(self, grid: Any) -> Callable:
        return self.refuse(f"the Triton kernel {self.__name__!r}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.refuse(f"the Triton kernel {self.__name__!r}")()


def install(refuse: Callable[[str], Callable]) -> None:
    """Put the modules in place unless the real ones are installed."""

    def jit(function: Callable | None = None, **_: Any) -> Any:
        return Kernel(function, refuse) if function is not None else jit

    def decorating(*_: Any, **__: Any) -> Callable:
        return lambda kernel: kernel

    known = {
        "jit": jit,
        "autotune": decorating,
        "heuristics": decorating,
        "cdiv": lambda a, b: -(-a // b),
        "next_power_of_2": lambda n: 1 << max(int(n) - 1, 0).bit_length(),
        "Config": Anything("Config"),
        "__version__": "3.4.0",
    }
    for name in ("triton", "triton.language", "triton.language.extra", "triton.tools", "triton.runtime", "triton.testing",
                 "triton.tools.tensor_descriptor", "triton.language.extra.libdevice", "triton.language.extra.cuda",
                 "triton.compiler", "triton.backends"):  # fmt: skip
        if name in sys.modules:
            continue
        module = types.ModuleType(name)
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__getattr__ = _lookup(name)
        if name == "triton":
            module.__dict__.update(known)
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


def _lookup(name: str) -> Callable[[str], Any]:
    def lookup(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Anything(f"{name}.{attribute}")

    return lookup
