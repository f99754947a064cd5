"""Where a tensor is, as far as the program is told: on the GPU that is not there, or in the host's memory.

Everything lies in one memory here. Programs ask all the same (`t.device != device`, `assert not t.is_cuda`), and a copy
from one memory to the other is a copy: a snapshot of the weights taken with `.cpu()` must not follow what becomes of them.
So tensors that a program brings to the host are remembered, and what is computed from them is on the host as well.
Whatever was not brought there answers to be on the GPU.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch

GPU = torch.device("cuda", 0)
_HOST = torch.device("cpu")
_MOVES = frozenset({"to", "cpu", "cuda"})
_ASKING = frozenset({"device", "is_cpu"})
_HERE = __file__.rpartition("/")[0]
_BETWEEN = ("/torch/utils/_device.py", "/torch/overrides.py")  # `with torch.device("cuda")`
_PASSING = (*_BETWEEN, "/torch/nn/modules/module.py")  # they hand on what the program said
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3")


class Devices:
    """Which live tensors are on the host. torch itself is told the truth, the submission what it would see on a GPU."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}
        self._host: dict[int, weakref.ref] = {}

    def on_host(self, value: Any) -> bool:
        """Whether a tensor was brought to the host or made from one that was."""
        held = self._host.get(id(value))
        return held is not None and held() is value

    def mark(self, value: Any, host: bool = True) -> None:
        """Tensors, also in lists and dictionaries, are on the host from now on, or on the GPU."""
        if isinstance(value, torch.Tensor):
            key = id(value)
            self._host.pop(key, None)
            if host:
                self._host[key] = weakref.ref(value, lambda _, key=key: self._host.pop(key, None))
        elif isinstance(value, dict | list | tuple):
            for item in value.values() if isinstance(value, dict) else value:
                self.mark(item, host)

    def after(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any) -> Any:
        """What the caller gets for the result of an operation. Arguments are those the program wrote."""
        if name == "__get__":
            attribute = getattr(getattr(func, "__self__", None), "__name__", "")
            if attribute in _ASKING:
                return self._answer(attribute, args[0], result, sys._getframe(2))
        elif name == "__set__" and len(args) > 1 and getattr(func.__self__, "__name__", "") == "data":
            self.mark(args[0], self.on_host(args[1]))
            return result
        elif name in _MOVES and self._meant(sys._getframe(2)):
            return self._moved(name, args, kwargs, result)
        elif kwargs and str(kwargs.get("device", "")) in ("cpu", "cuda", "cuda:0") and self._meant(sys._getframe(2)):
            self.mark(result, str(kwargs["device"]) == "cpu")
            return result
        if self._host and args:
            first = args[0][0] if isinstance(args[0], list | tuple) and args[0] else args[0]
            if isinstance(first, torch.Tensor) and self.on_host(first) and result is not first:
                self.mark(result)
        return result

    def _answer(self, attribute: str, tensor: Any, result: Any, caller: Any) -> Any:
        while caller.f_code.co_filename.endswith(_BETWEEN):
            caller = caller.f_back
        if self.on_host(tensor) or not self._ours(caller.f_code.co_filename):
            return result
        if attribute == "is_cpu":
            return False
        return GPU if result == _HOST else result

    def _meant(self, caller: Any) -> bool:
        """Whether a place named to an operation is the program's choice; torch's own code passes on where tensors are."""
        file = caller.f_code.co_filename
        return self._ours(file) or file.endswith(_PASSING)

    def _ours(self, file: str) -> bool:
        """Whether a file is the submission's."""
        known = self._known.get(file)
        if known is None:
            foreign = file.startswith((_HERE, "<frozen")) or any(part in file for part in _LIBRARIES)
            known = self._known[file] = not foreign
        return known

    def _moved(self, name: str, args: tuple, kwargs: dict, result: Any) -> Any:
        """A move between the memories makes a copy; within one it does not."""
        tensor, target = args[0], self._target(name, args, kwargs)
        here = self.on_host(tensor)
        there = here if target is None else target
        if result is tensor and here != there:
            result = tensor.clone()
        if there:
            self.mark(result)
        return result

    def _target(self, name: str, args: tuple, kwargs: dict) -> bool | None:
        """Whether a move ends on the host; None where it names no place."""
        if name != "to":
            return name == "cpu"
        for value in (*args[1:], kwargs.get("device"), kwargs.get("other")):
            if isinstance(value, torch.Tensor):
                return self.on_host(value)
            if isinstance(value, torch.device | str):
                return str(value).partition(":")[0] == "cpu"
            if type(value) is int:
                return False
        return None
