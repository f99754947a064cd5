"""Which tokens a table of counts has counted: the places of tokens are followed into the keys under which they are counted.

An array of token ids knows the place of each. Slices and casts move the places along; a key made from several tokens has the
place of the last of them. Where a table is added to or written at such keys, `tell` gets their places. Dictionaries and
keys that are made one by one as plain numbers are not followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from auditor.dynamic.inside.shadows import JOINING, MOVING, NONE, Shadows

_STREAM = 1000  # token ids at once that are taken for a stream
_TABLE = 256  # numbers in an array that may be a table
_MOVING = MOVING | {"unfold"}
_CASTS = frozenset({"to", "long", "int", "short", "cpu", "type", "type_as", "pin_memory"})
_MIXING = frozenset(
    {f"{side}{name}__" for side in ("__", "__r", "__i") for name in
     ("add", "sub", "mul", "xor", "and", "or", "mod", "lshift", "rshift", "floordiv")}
    | {f"{name}{end}" for end in ("", "_") for name in
       ("add", "sub", "mul", "bitwise_xor", "bitwise_and", "bitwise_or", "remainder", "fmod", "clamp", "clamp_min", "abs",
        "clamp_max", "floor_divide", "bitwise_left_shift", "bitwise_right_shift")}
    | {"where", "minimum", "maximum"}
)  # fmt: skip
# Where the keys stand among the arguments.
_COUNTING = {
    "scatter_add_": 2, "scatter_add": 2, "scatter_": 2, "index_add_": 2, "index_add": 2, "index_put_": 1, "put_": 1,
    "bincount": 0, "__setitem__": 1,
}  # fmt: skip
_LEAVING = frozenset({"numpy", "__array__"})
_ENTERING = frozenset({"from_numpy", "as_tensor", "tensor", "frombuffer"})
_REDUCING = frozenset({"sum", "amax", "max"})
NAMES = _MOVING | _CASTS | _MIXING | JOINING | _LEAVING | _REDUCING | set(_COUNTING)

Tell = Callable[[np.ndarray], None]


class TokenArray(np.ndarray):
    """An array of whole numbers: token ids or keys with their places, or a table that may be written at such keys.

    Attributes:
        places: int64, of its shape; None where it is not known what the numbers are.
        tell: called with the places of keys at which a table is written.
    """

    places: np.ndarray | None
    tell: Tell | None

    def __array_finalize__(self, source: Any) -> None:
        self.places, self.tell = None, getattr(source, "tell", None)
        if isinstance(source, TokenArray) and source.places is not None and source.places.shape == self.shape:
            self.places = source.places

    def __getitem__(self, index: Any) -> Any:
        value = plain(self)[plain(index)]
        if not isinstance(value, np.ndarray):
            return value
        if self.places is not None:
            return with_places(value, self.places[plain(index)], self.tell)
        return value.view(TokenArray)._telling(self.tell) if np.may_share_memory(value, self) else value

    def __setitem__(self, index: Any, value: Any) -> None:
        plain(self)[plain(index)] = plain(value)
        written_at(index)
        if self.places is not None:
            self.places = self.places.copy()
            self.places[plain(index)] = getattr(value, "places", None) if _known(value) else NONE

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """As numpy's, places included."""
        value = plain(self).reshape(*shape, **kwargs).view(TokenArray)._telling(self.tell)
        return value if self.places is None else with_places(value, self.places.reshape(*shape, **kwargs), self.tell)

    def ravel(self, *args: Any) -> Any:
        """As numpy's, places included."""
        return self.reshape(-1)

    flatten = ravel

    def _telling(self, tell: Tell | None) -> TokenArray:
        self.tell = tell
        return self

    def __reduce__(self) -> Any:
        return plain(self).__reduce__()  # what is stored holds numbers only

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        outs = kwargs.pop("out", ())
        if outs:
            kwargs["out"] = tuple(plain(item) for item in outs)
        result = getattr(function, method)(*(plain(item) for item in inputs), **kwargs)
        if method == "at":
            written_at(inputs[1])
            return None
        result = outs[0] if outs else result
        if not isinstance(result, np.ndarray) or result.dtype.kind not in "iu":
            return result
        found = [item for item in inputs if _known(item)]
        if method == "reduce" and found:
            axis = kwargs.get("axis", 0)
            places = found[0].places.max(axis=axis) if axis is not None else None
        else:
            places = _last(found, result.shape) if method == "__call__" else None
        if places is None or np.shape(places) != result.shape:
            return result
        if outs:
            if isinstance(result, TokenArray):
                result.places = places
            return result
        return with_places(result, places, found[0].tell)

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if function is np.bincount and args:
            written_at(args[0])
        result = function(*_deep(args), **_deep(kwargs))
        if function in (np.concatenate, np.stack, np.hstack) and args and isinstance(result, np.ndarray):
            parts = [part.places if _known(part) else np.full(np.shape(part), NONE) for part in args[0]]
            along = {"axis": kwargs["axis"]} if "axis" in kwargs else {}
            return with_places(result, function(parts, *args[1:2], **along), self.tell)
        return result


def with_places(array: np.ndarray, places: np.ndarray, tell: Tell | None) -> TokenArray:
    """An array of token ids or keys that knows their places."""
    made = array.view(TokenArray)
    if np.shape(places) == made.shape:
        made.places = places
    made.tell = tell
    return made


def written_at(keys: Any) -> None:
    """A table was written at an index; where tokens made it, their places are told."""
    for part in keys if isinstance(keys, tuple) else (keys,):
        if _known(part) and part.tell is not None:
            part.tell(part.places)


def table(array: Any, tell: Tell) -> Any:
    """An array of whole numbers the program made, ready to tell when it is written at keys of tokens."""
    if type(array) is np.ndarray and array.dtype.kind in "iu" and array.ndim in (1, 2) and array.size >= _TABLE:
        return array.view(TokenArray)._telling(tell)
    return array


def _known(value: Any) -> bool:
    return isinstance(value, TokenArray) and value.places is not None


def plain(value: Any) -> Any:
    """The numbers alone, of an array or an index."""
    if isinstance(value, TokenArray):
        return value.view(np.ndarray)
    return tuple(plain(item) for item in value) if isinstance(value, tuple) else value


def _deep(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(map(_deep, value)) if isinstance(value, tuple) else list(map(_deep, value))
    return {name: _deep(item) for name, item in value.items()} if isinstance(value, dict) else plain(value)


def _last(found: list[TokenArray], shape: tuple[int, ...]) -> np.ndarray | None:
    """The last place of the tokens that take part in each element."""
    places = None
    for item in found:
        try:
            spread = np.broadcast_to(item.places, shape)
        except ValueError:
            continue
        places = spread if places is None else np.maximum(places, spread)
    return places


class TokenTraces(Shadows):
    """Places of the tokens in tensors of whole numbers. `places_of` finds those of a stream."""

    def __init__(self, places_of: Callable[[np.ndarray], np.ndarray], tell: Tell) -> None:
        super().__init__()
        self.places_of, self.tell = places_of, tell
        self.replacement: Any = None

    def follow(self, name: str, func: Callable, args: tuple, kwargs: dict, result: Any) -> None:
        """Follow one operation of torch; `replacement` is what the caller is to get instead of its result, if anything."""
        if name in _ENTERING and args:
            self._enter(args[0], result)
        if not self.shadows or name not in NAMES:
            return
        if name in _COUNTING:
            self._count(args, _COUNTING[name])
        elif name in JOINING:
            self.join(func, args, kwargs, result)
        elif (places := self.of(args[0] if args else None)) is None and name not in _MIXING:
            return
        elif name in _LEAVING:
            if isinstance(result, np.ndarray) and result.dtype.kind in "iu":
                self.replacement = with_places(result, places.numpy().copy(), self.tell)
        elif name in _MIXING:
            self._mix(args, result)
        elif name in _REDUCING:
            self._reduce(places, args, kwargs, result)
        elif name in _CASTS:
            self.put(result, places)
        else:
            self.move(func, places, args, kwargs, result)

    def _enter(self, array: Any, result: Any) -> None:
        if not isinstance(result, torch.Tensor) or result.is_floating_point() or result.dtype == torch.bool:
            return
        if _known(array):
            self.put(result, torch.from_numpy(np.ascontiguousarray(array.places)))
        elif result.dim() == 1 and result.numel() >= _STREAM:
            places = self.places_of(result.to(torch.int64).numpy())
            if 2 * (places != NONE).sum() > len(places):
                self.put(result, torch.from_numpy(places.astype(np.int64)))

    def _count(self, args: tuple, at: int) -> None:
        keys = args[at] if len(args) > at else None
        for part in keys if isinstance(keys, tuple | list) else (keys,):
            places = self.of(part)
            if places is not None:
                self.tell(places.numpy())

    def _mix(self, args: tuple, result: Any) -> None:
        found = [own for own in map(self.of, args) if own is not None]
        if not found or not isinstance(result, torch.Tensor):
            return
        try:
            spread = [own.broadcast_to(result.shape) for own in found]
        except RuntimeError:
            return
        self.put(result, torch.stack(spread).amax(0))

    def _reduce(self, places: torch.Tensor, args: tuple, kwargs: dict, result: Any) -> None:
        dim = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        if isinstance(dim, int) and isinstance(result, torch.Tensor):
            self.put(result, places.amax(dim, keepdim=bool(kwargs.get("keepdim", False))))

    def put(self, tensor: Any, shadow: torch.Tensor) -> None:
        """As for any; floats are no tokens."""
        if isinstance(tensor, torch.Tensor) and not tensor.is_floating_point():
            super().put(tensor, shadow)
