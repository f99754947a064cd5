"""Live tensors with a second tensor of the same shape beside each, which says something of every element.

What says what is up to the heirs: whose loss an element is (`traces`), or where a token stands (`tables`).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch

NONE = -1  # nothing is said of an element
#: Operations that move elements and change none.
MOVING = frozenset(
    {
        "__getitem__", "reshape", "view", "flatten", "squeeze", "unsqueeze", "contiguous", "clone", "detach", "narrow",
        "index_select", "masked_select", "transpose", "permute", "t", "expand", "split", "chunk", "unbind", "flip", "select",
        "ravel", "roll", "repeat", "repeat_interleave", "take", "tensor_split",
    }
)  # fmt: skip
JOINING = frozenset({"cat", "concat", "stack", "hstack", "vstack", "concatenate"})


class Shadows:
    """The shadows (int64) of the tensors that have one, as long as those live."""

    def __init__(self) -> None:
        self.shadows: dict[int, tuple[weakref.ref, torch.Tensor]] = {}

    def of(self, tensor: Any) -> torch.Tensor | None:
        """Shadow of a tensor, None when it has none."""
        entry = self.shadows.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def put(self, tensor: Any, shadow: torch.Tensor) -> None:
        """Give a tensor its shadow; nothing happens where the shapes differ."""
        if isinstance(tensor, torch.Tensor) and shadow.shape == tensor.shape:
            key = id(tensor)
            self.shadows[key] = (weakref.ref(tensor, lambda _, key=key: self.shadows.pop(key, None)), shadow)

    def move(self, func: Callable, shadow: torch.Tensor, args: tuple, kwargs: dict, result: Any) -> None:
        """Repeat an operation that moves elements on the shadow of its first argument."""
        for item, own in zip(_many(result), _many(func(shadow, *args[1:], **kwargs)), strict=False):
            self.put(item, own)

    def join(self, func: Callable, args: tuple, kwargs: dict, result: Any) -> None:
        """Repeat an operation that joins tensors on their shadows."""
        parts = args[0] if args else kwargs.get("tensors", ())
        found = [self.of(part) for part in parts]
        if all(own is None for own in found):
            return
        filled = [torch.full(part.shape, NONE) if own is None else own for part, own in zip(parts, found, strict=True)]
        self.put(result, func(filled, *args[1:], **{k: v for k, v in kwargs.items() if k != "tensors"}))


def _many(value: Any) -> tuple:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
