"""Losses that a program takes out of torch one by one stay traced as plain numbers.

`tolist()`, `item()` and elements of traced arrays are numbers that know whose loss they are; arithmetic with other numbers and
the functions of `math` and numpy keep that, and adding one to a total (`total += x`, `total -= x`, `sum(...)`) counts it. So a mixture that is computed token by
token, or byte by byte, is known term by term.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

_ADDING = {np.add: 1.0, np.subtract: -1.0}
_FUNCTIONS = ("exp", "log", "log2", "log10", "log1p", "expm1", "sqrt", "pow")


class Term:
    """Tells what counts sums of losses, (ids, value, how), of single ones."""

    def __init__(self, counted: Callable[..., None]) -> None:
        self.counted = counted

    def __call__(self, loss: int, value: float) -> None:
        self.counted(np.array([loss]), value, "term")


class Traced:
    """Of a number: the id of the loss it was made from; `counted` is called with (id, term) when it is added to a total."""

    loss: int
    counted: Callable[[int, float], None]
    kind: type = float

    def __add__(self, other: Any) -> Any:
        return _kept(self, _plain(self) + _plain(other), other)

    def __sub__(self, other: Any) -> Any:
        return _kept(self, _plain(self) - _plain(other), other)

    def __mul__(self, other: Any) -> Any:
        return _kept(self, _plain(self) * _plain(other), other)

    def __truediv__(self, other: Any) -> Any:
        return _kept(self, _plain(self) / _plain(other), other)

    def __rmul__(self, other: Any) -> Any:
        return _kept(self, _plain(other) * _plain(self), other)

    def __rtruediv__(self, other: Any) -> Any:
        return _kept(self, _plain(other) / _plain(self), other)

    def __neg__(self) -> Any:
        return _kept(self, -_plain(self))

    def __abs__(self) -> Any:
        return _kept(self, abs(_plain(self)))

    def __radd__(self, other: Any) -> Any:
        result = _plain(other) + _plain(self)
        if _adds_up(sys._getframe(1)):
            self.counted(self.loss, float(self))
            return result
        return _kept(self, result, other)

    def __rsub__(self, other: Any) -> Any:
        result = _plain(other) - _plain(self)
        if _adds_up(sys._getframe(1)):
            self.counted(self.loss, -float(self))
            return result
        return _kept(self, result, other)

    def __reduce__(self) -> Any:
        return float, (float(self),)


class LossNumber(Traced, float):
    """A float that knows whose loss it is."""


class LossElement(LossNumber):
    """An element of an array that does: a float with the arithmetic, functions and methods of numpy's double precision.

    It is no subclass of numpy's own scalars, which break numpy where they are put into an array.
    """

    kind = np.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(_plain(self), name)

    def __array_ufunc__(self, function: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        result = getattr(function, method)(*map(_plain, inputs), **kwargs)
        if function in _ADDING and inputs[-1] is self and np.ndim(inputs[0]) == 0 and _adds_up(sys._getframe(1)):
            self.counted(self.loss, _ADDING[function] * float(self))  # `total += x` of a total that is numpy's
            return result
        others = [item for item in inputs if item is not self]
        return _kept(self, result, *others[:1]) if method == "__call__" and len(inputs) <= 2 else result


def number(value: float, loss: int, counted: Callable[[int, float], None]) -> Any:
    """A traced number in place of a float or of an element of an array of floats."""
    made = (LossNumber if type(value) is float else LossElement)(value)
    made.loss, made.counted = loss, counted
    return made


def _plain(value: Any) -> Any:
    """The number without what is known of it."""
    return value.kind(float(value)) if isinstance(value, Traced) else value


def _kept(source: Any, result: Any, other: Any = None) -> Any:
    """A result that is still about one token; what two tokens went into is about neither."""
    if type(result) not in (float, np.float64) or (isinstance(other, Traced) and other.loss != source.loss):
        return result
    made = type(source)(result)
    made.loss, made.counted = source.loss, source.counted
    return made


def _argument(statement: str) -> tuple[int, int]:
    """Opcode and argument of the operation in `a OP= b`; they differ between versions of Python."""
    import dis

    found = next(i for i in dis.get_instructions(compile(statement, "", "exec")) if i.opname == "BINARY_OP")
    return found.opcode, found.arg or 0


_TOTALS = {_argument("a += b"), _argument("a -= b")}
_BINARY = {opcode for opcode, _ in _TOTALS}


def _adds_up(frame: Any) -> bool:
    """Whether the running operation of a frame adds to a total: `+=`, `-=`, or no operator at all (`sum`)."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return (code[at], code[at + 1]) in _TOTALS or code[at] not in _BINARY


def install() -> None:
    """Let the functions of `math` keep whose loss a number is."""
    for name in _FUNCTIONS:
        setattr(math, name, _keeping(getattr(math, name)))
    math.fsum = _summing(math.fsum)


def _keeping(real: Callable) -> Callable:
    @functools.wraps(real)
    def kept(*args: Any) -> Any:
        result = real(*args)
        source = next((arg for arg in args if isinstance(arg, Traced)), None)
        return result if source is None else _kept(source, result)

    return kept


def _summing(real: Callable) -> Callable:
    @functools.wraps(real)
    def summed(terms: Any) -> float:
        terms = list(terms)
        for term in terms:
            if isinstance(term, Traced):
                term.counted(term.loss, float(term))
        return real(terms)

    return summed
