"""Operators over known values, element by element where arrays take part; sizes are bounded."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from auditor.static import evaluate
from auditor.static.byte_stand_in import OPAQUE, SIZE, Argument, Opaque, Table

MAX_SIZE = 1 << 20


class Stuck(Exception):
    """The evaluation cannot go on; the message says why."""


class Raised(Stuck):
    """The evaluated code raises."""


def bounded(value: Any) -> Any:
    if isinstance(value, str | bytes | list | tuple | dict | set) and len(value) > MAX_SIZE:
        raise Stuck("a value grows beyond bounds")
    if isinstance(value, int) and value.bit_length() > 256:
        raise Stuck("a number grows beyond bounds")
    return value


def _power(left: Any, right: Any) -> Any:
    if abs(right) > 64:
        raise Stuck("a number grows beyond bounds")
    return left**right


def _times(left: Any, right: Any) -> Any:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, str | bytes | list | tuple) and isinstance(count, int):
            if len(sequence) * count > MAX_SIZE:
                raise Stuck("a value grows beyond bounds")
    return left * right


def _shift(left: Any, right: Any) -> Any:
    if right > 128:
        raise Stuck("a number grows beyond bounds")
    return left << right


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, str | bytes):
        raise Stuck("text is formatted")
    return left % right


BINARY: dict[type, Callable[[Any, Any], Any]] = evaluate.ARITHMETIC | {
    ast.Mult: _times,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: _shift,
    ast.RShift: operator.rshift,
}
COMPARE: dict[type, Callable[[Any, Any], Any]] = evaluate.COMPARE | {
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}


def invert(value: Any) -> Any:
    """`~` as arrays of truth values have it."""
    if isinstance(value, Table):
        return Table([invert(item) for item in value.items], value.numeric)
    return (not value) if isinstance(value, bool) else OPAQUE if isinstance(value, Opaque) else ~value


def spread(apply: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """A binary operation, element by element where an array takes part."""
    if isinstance(left, Table) or isinstance(right, Table):
        size = len(left.items) if isinstance(left, Table) else len(right.items)
        rows = [value.items if isinstance(value, Table) else [value] * size for value in (left, right)]
        return Table([spread(apply, a, b) for a, b in zip(*rows, strict=False)])
    if isinstance(left, Opaque) or isinstance(right, Opaque):
        return OPAQUE
    left, right = (SIZE if isinstance(value, Argument) else value for value in (left, right))
    return bounded(apply(left, right))
