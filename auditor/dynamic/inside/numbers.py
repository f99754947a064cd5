"""Losses that a program takes out of torch one by one stay traced as plain numbers.

`tolist()` and `item()` give numbers that know whose loss they are; arithmetic with other numbers and the functions of `math`
keep that, and adding one to a total (`total += x`, `total -= x`, `sum(...)`) counts it. So a mixture that is computed token by
token, or byte by byte, is known term by term.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

_FUNCTIONS = ("exp", "log", "log2", "log10", "log1p", "expm1", "sqrt", "pow")


class LossNumber(float):
    """A float with the id of the loss it was made from; `counted` is called with (id, term) when it is added to a total."""

    loss: int
    counted: Callable[[int, float], None]

    def __add__(self, other: Any) -> Any:
        return _kept(self, float.__add__(self, other), other)

    def __sub__(self, other: Any) -> Any:
        return _kept(self, float.__sub__(self, other), other)

    def __mul__(self, other: Any) -> Any:
        return _kept(self, float.__mul__(self, other), other)

    def __truediv__(self, other: Any) -> Any:
        return _kept(self, float.__truediv__(self, other), other)

    def __rmul__(self, other: Any) -> Any:
        return _kept(self, float.__rmul__(self, other), other)

    def __rtruediv__(self, other: Any) -> Any:
        return _kept(self, float.__rtruediv__(self, other), other)

    def __neg__(self) -> Any:
        return _kept(self, float.__neg__(self))

    def __abs__(self) -> Any:
        return _kept(self, float.__abs__(self))

    def __radd__(self, other: Any) -> Any:
        result = float.__radd__(self, other)
        if result is not NotImplemented and _adds_up(sys._getframe(1)):
            self.counted(self.loss, float(self))
            return float(result)
        return _kept(self, result, other)

    def __rsub__(self, other: Any) -> Any:
        result = float.__rsub__(self, other)
        if result is not NotImplemented and _adds_up(sys._getframe(1)):
            self.counted(self.loss, -float(self))
            return float(result)
        return _kept(self, result, other)

    def __reduce__(self) -> Any:
        return float, (float(self),)


def number(value: float, loss: int, counted: Callable[[int, float], None]) -> LossNumber:
    """A traced number."""
    made = LossNumber(value)
    made.loss, made.counted = loss, counted
    return made


def _kept(source: LossNumber, result: Any, other: Any = None) -> Any:
    """A result that is still about one token; what two tokens went into is about neither."""
    if type(result) is not float or (isinstance(other, LossNumber) and other.loss != source.loss):
        return result
    return number(result, source.loss, source.counted)


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
        source = next((arg for arg in args if type(arg) is LossNumber), None)
        return result if source is None else number(result, source.loss, source.counted)

    return kept


def _summing(real: Callable) -> Callable:
    @functools.wraps(real)
    def summed(terms: Any) -> float:
        terms = list(terms)
        for term in terms:
            if type(term) is LossNumber:
                term.counted(term.loss, float(term))
        return real(terms)

    return summed
