"""Follows per-token losses from the call that made them to the sums that count them.

Every recorded loss has an id. A traced tensor has a shadow, an int64 tensor of the same shape that holds the id of the
loss in each element (-1: none). Operations that move elements are repeated on the shadow, operations that change values
element by element keep it, and a reduction reports which ids it added up and to what. So the recorder knows what was
counted without knowing anything of the submission's loop: the slice, mask or document table decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from auditor.dynamic.inside.arrays import LossArray, trace
from auditor.dynamic.inside.numbers import Term, number
from auditor.dynamic.inside.shadows import JOINING, MOVING, NONE, Shadows

_BEYOND = 1 << 62
_MOVING = MOVING | {
    "cpu", "view_as", "reshape_as", "unflatten", "diagonal", "movedim", "alias", "swapaxes", "gather",
}  # fmt: skip
_CASTS = frozenset({"to", "float", "double", "half", "bfloat16", "type", "type_as", "cpu", "requires_grad_"})
_ELEMENTWISE = frozenset(
    {
        "add", "sub", "rsub", "mul", "div", "true_divide", "neg", "log", "exp", "log1p", "expm1", "clamp", "clamp_min",
        "clamp_max", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__",
        "__rtruediv__", "__neg__", "logaddexp", "minimum", "maximum", "min", "max", "nan_to_num", "masked_fill", "pow",
        "square", "abs", "sqrt", "lerp", "mul_", "add_", "sub_", "div_", "clamp_", "masked_fill_", "neg_", "clip",
        "__imul__", "__iadd__", "__isub__", "__itruediv__", "multiply", "negative", "subtract", "log2", "exp2",
    }
)  # fmt: skip
_PRODUCTS = frozenset({"mul", "__mul__", "__rmul__", "mul_", "__imul__", "multiply"})
_SUMS = frozenset({"sum", "mean", "nansum", "cumsum"})
_MIXING = frozenset({"sum", "mean", "nansum", "logsumexp"})  # along a dimension of experts, one of which is the loss
_ADDING = frozenset({"scatter_add_", "scatter_add", "index_add_", "index_add", "index_put_", "bincount"})
_NUMPY = frozenset({"numpy", "tolist", "__array__"})
NAMES = _MOVING | _CASTS | _ELEMENTWISE | _SUMS | _ADDING | JOINING | _NUMPY | {
    "where", "__setitem__", "copy_", "zero_", "fill_", "dot", "inner", "item", "logsumexp",
}  # fmt: skip


class Traces(Shadows):
    """Shadows of the live tensors that hold losses.

    `counted` is called with (ids, value, how, terms) for every reduction; `terms` are the numbers that were added up, one
    for every id, None where they are not known.
    """

    def __init__(self, counted: Callable[..., None]) -> None:
        super().__init__()
        self.counted = counted
        self.next_id = 0
        self.tokens = torch.full((1 << 12,), NONE)  # of each loss the place of its token
        self.replacement: Any = None

    def begin(self, tensor: torch.Tensor, count: int, places: np.ndarray | None = None) -> int:
        """Trace a fresh tensor of `count` losses; returns the id of its first element. `places`: whose losses they are."""
        base = self.next_id
        self.next_id += count
        if self.next_id > len(self.tokens):
            self.tokens = torch.cat([self.tokens, torch.full((self.next_id,), NONE)])
        if places is not None:
            self.tokens[base : self.next_id] = torch.from_numpy(np.ascontiguousarray(places, dtype=np.int64))
        if tensor.numel() == count:
            self.put(tensor, torch.arange(base, base + count).reshape(tensor.shape))
        return base

    def follow(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any) -> None:
        """Repeat one operation on the shadows of its arguments."""
        if name in ("from_numpy", "as_tensor", "tensor") and args:
            self.back(args[0], result)
        if not self.shadows or name not in NAMES:
            return
        if name in JOINING:
            self.join(func, args, kwargs, result)
            return
        found = [self.of(arg) if isinstance(arg, torch.Tensor) else None for arg in (*args, *kwargs.values())]
        if all(shadow is None for shadow in found):
            if name in ("copy_", "zero_", "fill_") and args:
                self.shadows.pop(id(args[0]), None)
            return
        handler = getattr(self, f"_{name.strip('_')}_", None) or self._general
        handler(name, func, args, kwargs, result, found)

    def _general(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        first = next(shadow for shadow in found if shadow is not None)
        if name in _MIXING and found[0] is not None and self._mixed(first, args, kwargs, result):
            return
        if name in _SUMS or name in ("dot", "inner"):
            self._sum(name, first, found, args, result)
        elif name in _ADDING:
            self._sum("sum", first, found, args, None)
        elif name in _CASTS:
            self.put(result, first)
        elif name in _MOVING and found[0] is not None:
            self.move(func, found[0], args, kwargs, result)
        elif name in _ELEMENTWISE:
            self._elementwise(name, args, result, found)

    def _elementwise(self, name: str, args: tuple, result: Any, found: list) -> None:
        if name in ("min", "max") and not isinstance(result, torch.Tensor):
            return
        if name in ("minimum", "maximum", "min", "max") and len(args) > 1 and isinstance(result, torch.Tensor):
            self._chosen(args, result, found)
            return
        for position, shadow in enumerate(found):
            if shadow is None or not isinstance(result, torch.Tensor):
                continue
            if shadow.shape != result.shape:
                if (shadow.numel() == 1 and result.numel() > 1) or result.dim() == 0:
                    continue
                try:
                    shadow = shadow.broadcast_to(result.shape)
                except RuntimeError:
                    continue
            other = args[1 - position] if len(args) > 1 and position < 2 else None
            if name in _PRODUCTS and isinstance(other, torch.Tensor):
                shadow = torch.where(other.detach() == 0, NONE, shadow)
            self.put(result, shadow)
            return

    def _chosen(self, args: tuple, result: torch.Tensor, found: list) -> None:
        """The smaller or larger of two: each element is the loss it was taken from."""
        one, other = (shadow if shadow is not None else torch.tensor(NONE) for shadow in found[:2])
        first = torch.as_tensor(result.detach() == args[0])
        shadow = torch.where(first, one, other)
        if shadow.shape == result.shape:
            self.put(result, shadow)

    def _sum(self, name: str, shadow: torch.Tensor, found: list, args: tuple, result: Any) -> None:
        ids = shadow.reshape(-1).numpy()
        inside = ids != NONE
        kept = ids[inside]
        if not len(kept):
            return
        source = next((arg for arg, item in zip(args, found, strict=False) if item is shadow), None)
        whole = source is not None and source.numel() == len(ids) and name not in ("dot", "inner")
        terms = source.detach().double().reshape(-1).numpy()[inside] if whole else None
        if result is None:
            value = float(source.detach().double().sum())
        elif name == "cumsum":
            return
        else:
            value = float(result.detach().double().sum())
            value *= len(kept) if name == "mean" else 1
        self.counted(kept.copy(), value, name, terms)

    def _mixed(self, shadow: torch.Tensor, args: tuple, kwargs: dict, result: Any) -> bool:
        """Whether a reduction leaves every loss on its own: it mixes each with other numbers and counts none."""
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        if dim is None or not isinstance(result, torch.Tensor) or not result.dim():
            return False
        keepdim = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
        # Several experts may each have a loss of the same token; the first of them stands for it.
        token = torch.where(shadow == NONE, NONE, self.tokens[shadow.clamp_min(0)])
        lowest = torch.where(shadow == NONE, self.next_id, shadow).amin(dim, keepdim=keepdim)
        highest = shadow.amax(dim, keepdim=keepdim)
        last = token.amax(dim, keepdim=keepdim)
        first = torch.where(token == NONE, _BEYOND, token).amin(dim, keepdim=keepdim)
        alone = (highest == lowest) | (highest == NONE)
        # Padding has no place.
        if not bool((alone | (first == last) | (last == NONE)).all()):
            return False
        self.put(result, torch.where((highest == NONE) | (~alone & (last == NONE)), NONE, lowest))
        return True

    def _where_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        if len(args) == 3 and isinstance(result, torch.Tensor):
            a, b = (shadow if shadow is not None else torch.tensor(NONE) for shadow in found[1:3])
            self.put(result, torch.where(args[0].bool(), a, b).broadcast_to(result.shape))

    def _setitem_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        target, index = args[0], args[1]
        shadow = (found[0] if found[0] is not None else torch.full(target.shape, NONE)).clone()
        value = found[2] if len(found) > 2 else None
        if value is not None:
            shadow[index] = value
        else:
            # Another number for the same token, unless it is nothing: then the token is left out.
            shadow[index] = torch.where(target.detach()[index] == 0, NONE, shadow[index])
        self.put(target, shadow)

    def _copy_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        if len(found) > 1 and found[1] is not None:
            self.put(args[0], found[1].broadcast_to(args[0].shape))
        else:
            self.shadows.pop(id(args[0]), None)

    def _zero_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        self.shadows.pop(id(args[0]), None)

    _fill_ = _zero_

    def _numpy_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        """Losses that leave torch: noted where they leave, and followed on as a traced array."""
        ids = found[0].numpy().copy()
        self.counted(ids.reshape(-1), float("nan"), "numpy")
        if isinstance(result, np.ndarray):
            self.replacement = trace(result, ids, self.counted)

    def _array_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        self.counted(found[0].reshape(-1).numpy().copy(), float("nan"), "list")

    def _tolist_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        self._array_(name, func, args, kwargs, result, found)
        self.replacement = self._numbers(result, found[0].tolist())

    def _numbers(self, values: Any, ids: Any) -> Any:
        """Lists of numbers, or one, that know whose losses they are."""
        if isinstance(values, list):
            return [self._numbers(value, own) for value, own in zip(values, ids, strict=True)]
        return values if ids == NONE or type(values) is not float else number(values, ids, Term(self.counted))

    def back(self, array: Any, tensor: Any) -> None:
        """A traced array came back to torch."""
        if isinstance(array, LossArray) and array.ids is not None:
            self.put(tensor, torch.from_numpy(np.ascontiguousarray(array.ids)))

    def _item_(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any, found: list) -> None:
        ids = found[0].reshape(-1).numpy()
        if ids[0] != NONE:
            self.counted(ids.copy(), float(result), "item")
            self.replacement = self._numbers(result, int(ids[0]))
