"""Constants in the formula of bits per byte, and per-token bytes that come from a file."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator

from auditor.static.byte_find import outline

_SIDECAR = re.compile(r"val_bytes|bytes_\*|_bytes_.*\.bin|byte_?sidecar", re.IGNORECASE)
LN2 = math.log(2)


def constant_ratios(tree: ast.Module) -> Iterator[tuple[int, float]]:
    """Lines where a loss is divided by ln 2 and a number of bytes per token, with that number (1.2 to 8)."""
    numbers = _numbers(tree)
    for node in outline(tree).all:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Mult):
            above, below, open_terms = _terms(node)
            logs = [t for t in below if _is_ln2(t)]
            values = [v for t in below if not _is_ln2(t) and (v := _value(t, numbers)) is not None]
            rest = [t for t in below if not _is_ln2(t) and _value(t, numbers) is None]
            if len(logs) == 1 and not rest and above and open_terms:
                ratio = math.prod(values)
                if 1.2 <= ratio <= 7.5:
                    yield node.lineno, ratio


def _terms(node: ast.expr) -> tuple[list[ast.expr], list[ast.expr], bool]:
    """Factors above and below the fraction bar, and whether any above is not a number."""
    above: list[ast.expr] = []
    below: list[ast.expr] = []

    def visit(part: ast.expr, up: bool) -> None:
        if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Mult | ast.Div):
            visit(part.left, up)
            visit(part.right, up if isinstance(part.op, ast.Mult) else not up)
        else:
            (above if up else below).append(part)

    visit(node, True)
    return above, below, any(not isinstance(part, ast.Constant) for part in above)


def _is_ln2(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and len(node.args) == 1 and isinstance(node.args[0], ast.Constant):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name == "log" and node.args[0].value in (2, 2.0)
    return isinstance(node, ast.Constant) and isinstance(node.value, float) and abs(node.value - LN2) < 1e-3


def _value(node: ast.expr, numbers: dict[str, float]) -> float | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    return numbers.get(node.id if isinstance(node, ast.Name) else getattr(node, "attr", ""))


def _numbers(tree: ast.Module) -> dict[str, float]:
    """Names that are given one number literal and nothing else anywhere in the module."""
    found: dict[str, list[float | None]] = {}
    for node in outline(tree).all:
        targets = (
            node.targets
            if isinstance(node, ast.Assign)
            else [node.target]
            if isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For)
            else []
        )
        value = getattr(node, "value", None)
        number = _default(value)
        for target in (n for t in targets for n in ast.walk(t)):
            name = getattr(target, "id", "")
            if name:
                found.setdefault(name, []).append(number)
    arguments = {a.arg for n in outline(tree).all if isinstance(n, ast.arguments) for a in (*n.args, *n.kwonlyargs)}
    return {n: v[0] for n, v in found.items() if len(v) == 1 and v[0] is not None and n not in arguments}


def _default(value: ast.AST | None) -> float | None:
    """A number literal, or the default of a number read from the environment."""
    while isinstance(value, ast.Call) and value.args:
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        if name not in ("float", "get", "getenv"):
            return None
        value = value.args[-1]
    if not isinstance(value, ast.Constant) or isinstance(value.value, bool):
        return None
    try:
        number = float(value.value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if isinstance(value.value, str | float) else None


def sidecar_lines(tree: ast.Module) -> list[int]:
    """Lines that name files of per-token bytes."""
    return [
        node.lineno
        for node in outline(tree).all
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and len(node.value) < 200
        and _SIDECAR.search(node.value)
        and ".bin" in node.value
    ]
