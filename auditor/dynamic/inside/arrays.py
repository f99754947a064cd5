"""Losses that leave torch for numpy stay traced: an array that carries the ids of the losses in it.

The same idea as `traces`: indexing and reshaping move the ids along, arithmetic keeps them, a sum reports them. Arrays of
floats that the program makes to fill them later take on the ids of what is written into them (`install`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from auditor.dynamic.inside import tables
from auditor.dynamic.inside.numbers import Term, Traced, number

NONE = -1


class LossArray(np.ndarray):
    """A numpy array of losses; `ids` has its shape. `counted` is called with (ids, value, how, terms)
    for every sum, `terms` being the numbers that were added up."""

    ids: np.ndarray | None
    counted: Callable[..., None] | None

    def __array_finalize__(self, source: Any) -> None:
        self.ids = self.counted = None
        if isinstance(source, LossArray) and source.ids is not None and source.ids.shape == self.shape:
            self.ids, self.counted = source.ids, source.counted

    def __getitem__(self, index: Any) -> Any:
        value = super().__getitem__(_plain(index))
        if self.ids is None:
            return value
        ids = self.ids[_plain(index)]
        if isinstance(value, LossArray):
            return _traced(value, ids, self.counted)
        if ids == NONE or type(value) not in (np.float64, np.float32):
            return value
        self.counted(np.array([ids]), float(value), "item")
        return number(value, int(ids), Term(self.counted))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_plain(index), _plain(value))
        tables.written_at(index)
        if isinstance(value, LossArray) and value.ids is not None:
            self.ids = np.full(self.shape, NONE) if self.ids is None else self.ids.copy()
            self.ids[_plain(index)] = value.ids
            self.counted = value.counted
        elif isinstance(value, Traced) and np.ndim(_plain(self)[_plain(index)]) == 0:
            self.ids = np.full(self.shape, NONE) if self.ids is None else self.ids.copy()
            self.ids[_plain(index)] = value.loss
            self.counted = value.counted.counted
        elif self.ids is not None:
            # Another number for the same token, unless it is nothing: then the token is left out.
            self.ids = self.ids.copy()
            self.ids[_plain(index)] = np.where(_plain(self)[_plain(index)] == 0, NONE, self.ids[_plain(index)])

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """As numpy's, ids included."""
        ids = None if self.ids is None else self.ids.reshape(*shape, **kwargs)
        return _traced(super().reshape(*shape, **kwargs), ids, self.counted)

    def ravel(self, *args: Any) -> Any:
        """As numpy's, ids included."""
        return self.reshape(-1)

    flatten = ravel

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        sources = [item for item in inputs if isinstance(item, LossArray) and item.ids is not None]
        plain = [_plain(item) for item in inputs]
        if method == "at":
            tables.written_at(inputs[1])
            plain[1] = tables.plain(inputs[1])
        if "out" in kwargs:
            kwargs["out"] = tuple(_plain(item) for item in kwargs["out"])
        result = getattr(function, method)(*plain, **kwargs)
        if not sources:
            return result
        source = sources[0]
        if method == "reduce" and function is np.add:
            self._summed(source, result)
            return result
        if method != "__call__" or not isinstance(result, np.ndarray) or result.dtype == bool:
            return result
        if source.ids.shape != result.shape:
            return result
        ids = source.ids
        if function is np.multiply and len(plain) == 2:
            other = plain[1] if inputs[0] is source else plain[0]
            ids = np.where(np.asarray(other) == 0, NONE, ids)
        return _traced(result.view(LossArray), ids, source.counted)

    def _summed(self, source: LossArray, result: Any) -> None:
        inside = source.ids != NONE
        if inside.any():
            terms = _plain(source)[inside].astype(np.float64)
            source.counted(source.ids[inside], float(np.sum(np.asarray(result))), "sum", terms)

    def __array_function__(self, function: Callable, types: Any, args: tuple, kwargs: dict) -> Any:
        if function is np.concatenate and args:
            return _concatenated(args[0], kwargs.get("axis", args[1] if len(args) > 1 else 0))
        if function is np.where and len(args) == 3:
            return _where(*args)
        return super().__array_function__(function, types, args, kwargs)


def install(ours: Callable[[], bool], tell: tables.Tell) -> None:
    """Make the arrays that the program creates ready to be traced: floats for losses, all of them as tables of counts.

    Args:
        ours: whether the program is calling. tell: see `tables`.
    """
    for name in ("zeros", "empty", "full", "ones", "zeros_like", "empty_like", "full_like"):
        setattr(np, name, _ready(getattr(np, name), ours, tell))


def _ready(real: Callable, ours: Callable[[], bool], tell: tables.Tell) -> Callable:
    @functools.wraps(real)
    def made(*args: Any, **kwargs: Any) -> Any:
        array = real(*args, **kwargs)
        if type(array) is np.ndarray and array.dtype.kind == "f" and 1 <= array.ndim <= 2 and array.size > 1 and ours():
            return array.view(LossArray)
        return tables.table(array, tell) if ours() else array

    return made


def trace(array: np.ndarray, ids: np.ndarray, counted: Callable[..., None]) -> np.ndarray:
    """A traced view of an array; `ids` of its shape, -1 where an element is no loss."""
    return _traced(array.view(LossArray), ids, counted)


def _traced(array: Any, ids: np.ndarray | None, counted: Any) -> Any:
    if isinstance(array, LossArray) and ids is not None and ids.shape == array.shape:
        array.ids, array.counted = ids, counted
    return array


def _plain(value: Any) -> Any:
    if isinstance(value, LossArray):
        return value.view(np.ndarray)
    return tuple(_plain(item) for item in value) if isinstance(value, tuple) else value


def _concatenated(parts: Any, axis: int) -> Any:
    joined = np.concatenate([_plain(np.asanyarray(part)) for part in parts], axis=axis)
    ids = [
        part.ids if isinstance(part, LossArray) and part.ids is not None else np.full(np.shape(part), NONE)
        for part in parts
    ]
    counted = next((part.counted for part in parts if isinstance(part, LossArray) and part.counted), None)
    return _traced(joined.view(LossArray), np.concatenate(ids, axis=axis), counted) if counted else joined


def _where(condition: Any, yes: Any, no: Any) -> Any:
    result = np.where(_plain(condition), _plain(yes), _plain(no))
    sides = [item for item in (yes, no) if isinstance(item, LossArray) and item.ids is not None]
    if not sides:
        return result
    ids = [item.ids if isinstance(item, LossArray) and item.ids is not None else NONE for item in (yes, no)]
    merged = np.broadcast_to(np.where(_plain(condition), *ids), result.shape)
    return _traced(result.view(LossArray), merged, sides[0].counted)
