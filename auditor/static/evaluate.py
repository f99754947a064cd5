"""Evaluates small expressions and functions of a submission by interpreting their syntax tree: never by running them.

Arithmetic, comparisons, boolean logic, conditionals, `min`, `max`, `abs`, `int`, `float`, `round`, `math.*`. Anything
else, and any name without a value, is UNKNOWN; `unknown or True` is True, `unknown + 1` is UNKNOWN.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

Value = float | int | bool | str | None


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = _Unknown()
Result = Value | _Unknown
_MAX_POWER = 64
#: Arithmetic of numbers.
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARE: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
_CALLS: dict[str, Callable] = {
    "min": min,
    "max": max,
    "abs": abs,
    "int": int,
    "float": float,
    "bool": bool,
    "round": round,
    "math.cos": math.cos,
    "math.sqrt": math.sqrt,
    "math.exp": math.exp,
    "math.floor": math.floor,
    "math.ceil": math.ceil,
    "math.log": math.log,
}


def evaluate(node: ast.expr, names: Mapping[str, Value]) -> Result:
    """Value of an expression; `names` maps source text of names and attributes (`args.iterations`) to values."""
    method = _NODES.get(type(node))
    return method(node, names) if method else UNKNOWN


def call(function: ast.FunctionDef, arguments: Mapping[str, Value], names: Mapping[str, Value]) -> Result:
    """Value a function of assignments, conditionals and returns gives for these arguments."""
    local = {**names, **arguments}
    returned, value = _block(function.body, local)
    return value if returned is True else UNKNOWN


def _block(body: list[ast.stmt], local: dict[str, Value]) -> tuple[bool | None, Result]:
    """(True, value) returned; (False, None) fell through; (None, UNKNOWN) cannot be told."""
    for node in body:
        if isinstance(node, ast.Return):
            return True, evaluate(node.value, local) if node.value is not None else None
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            _set(local, node.targets[0].id, evaluate(node.value, local))
        elif isinstance(node, ast.If):
            test = evaluate(node.test, local)
            if isinstance(test, _Unknown):
                return None, UNKNOWN
            returned, value = _block(node.body if test else node.orelse, local)
            if returned is not False:
                return returned, value
        elif not isinstance(node, ast.Pass | ast.Expr | ast.Nonlocal | ast.Global):
            return None, UNKNOWN
    return False, None


def _set(local: dict[str, Value], name: str, value: Result) -> None:
    if isinstance(value, _Unknown):
        local.pop(name, None)
    else:
        local[name] = value


def _constant(node: ast.Constant, names: Mapping[str, Value]) -> Result:
    return node.value if isinstance(node.value, float | int | bool | str | None) else UNKNOWN


def _named(node: ast.Name | ast.Attribute | ast.Subscript, names: Mapping[str, Value]) -> Result:
    return names.get(ast.unparse(node), UNKNOWN)


def _unary(node: ast.UnaryOp, names: Mapping[str, Value]) -> Result:
    value = evaluate(node.operand, names)
    if isinstance(value, _Unknown):
        return UNKNOWN
    if isinstance(node.op, ast.Not):
        return not value
    if isinstance(node.op, ast.USub) and isinstance(value, int | float):
        return -value
    return UNKNOWN


def _arithmetic(node: ast.BinOp, names: Mapping[str, Value]) -> Result:
    left, right = evaluate(node.left, names), evaluate(node.right, names)
    if not (isinstance(left, int | float) and isinstance(right, int | float)):
        return UNKNOWN
    try:
        if isinstance(node.op, ast.Pow):
            return left**right if abs(right) <= _MAX_POWER and abs(left) < 1e9 else UNKNOWN
        function = ARITHMETIC.get(type(node.op))
        return function(left, right) if function else UNKNOWN
    except (ArithmeticError, ValueError):
        return UNKNOWN


def _boolean(node: ast.BoolOp, names: Mapping[str, Value]) -> Result:
    """Three-valued: a deciding operand decides even next to unknown ones."""
    values = [evaluate(item, names) for item in node.values]
    deciding = isinstance(node.op, ast.Or)
    if any(not isinstance(value, _Unknown) and bool(value) is deciding for value in values):
        return deciding
    return UNKNOWN if any(isinstance(value, _Unknown) for value in values) else not deciding


def _comparison(node: ast.Compare, names: Mapping[str, Value]) -> Result:
    left = evaluate(node.left, names)
    outcome: Result = True
    for op, item in zip(node.ops, node.comparators, strict=True):
        right = evaluate(item, names)
        function = COMPARE.get(type(op))
        if isinstance(left, _Unknown) or isinstance(right, _Unknown) or function is None:
            outcome = UNKNOWN
        else:
            try:
                if not function(left, right):
                    return False
            except TypeError:
                return UNKNOWN
        left = right
    return outcome


def _conditional(node: ast.IfExp, names: Mapping[str, Value]) -> Result:
    test = evaluate(node.test, names)
    if isinstance(test, _Unknown):
        return UNKNOWN
    return evaluate(node.body if test else node.orelse, names)


def _function(node: ast.Call, names: Mapping[str, Value]) -> Result:
    function = _CALLS.get(ast.unparse(node.func))
    values = [evaluate(argument, names) for argument in node.args]
    if function is None or node.keywords or any(isinstance(value, _Unknown) for value in values):
        return UNKNOWN
    try:
        return function(*values)
    except (ArithmeticError, ValueError, TypeError):
        return UNKNOWN


_NODES: dict[type[ast.expr], Callable] = {
    ast.Constant: _constant,
    ast.Name: _named,
    ast.Attribute: _named,
    ast.Subscript: _named,
    ast.UnaryOp: _unary,
    ast.BinOp: _arithmetic,
    ast.BoolOp: _boolean,
    ast.Compare: _comparison,
    ast.IfExp: _conditional,
    ast.Call: _function,
}
