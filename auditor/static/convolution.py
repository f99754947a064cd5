"""Convolutions along the positions: padded in front they look back, padded on both sides they see what comes."""

from __future__ import annotations

import ast

TWO_SIDED = "a convolution padded on both sides"


def two_sided(node: ast.ClassDef, made: ast.Call) -> bool:
    """Whether a `Conv1d` of this module keeps the length by padding both ends, along an axis that was turned to last.

    Not where the module pads by itself or cuts what came out: then its own arithmetic decides.
    """
    padding = _given(node, made, "padding", 4)
    if padding is None or _is_one(_given(node, made, "kernel_size", 2)):
        return False
    halves = any(
        isinstance(part, ast.BinOp)
        and isinstance(part.op, ast.FloorDiv)
        and isinstance(part.right, ast.Constant)
        and part.right.value == 2
        for part in ast.walk(padding)
    )
    same = isinstance(padding, ast.Constant) and padding.value == "same"
    return (halves or same) and _turned(node) and not _trimmed(node)


def _given(node: ast.ClassDef, made: ast.Call, name: str, place: int) -> ast.expr | None:
    """An argument of the constructor, a plain name replaced by what the module assigned to it."""
    value = next((k.value for k in made.keywords if k.arg == name), None)
    if value is None and len(made.args) > place:
        value = made.args[place]
    if isinstance(value, ast.Name):
        for part in ast.walk(node):
            if isinstance(part, ast.Assign) and any(isinstance(t, ast.Name) and t.id == value.id for t in part.targets):
                return part.value
    return value


def _is_one(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value == 1


def _turned(node: ast.ClassDef) -> bool:
    """Positions are made the last axis: `x.transpose(1, 2)`, `x.permute(0, 2, 1)`, `x.mT`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and part.attr == "mT":
            return True
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
            axes = [a.value if isinstance(a, ast.Constant) else None for a in part.args]
            if part.func.attr in ("transpose", "swapaxes") and axes[-2:] in ([1, 2], [2, 1]):
                return True
            if part.func.attr == "permute" and axes == [0, 2, 1]:
                return True
    return False


def _trimmed(node: ast.ClassDef) -> bool:
    """The module pads by a call of its own, or drops the end of something."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call) and getattr(part.func, "attr", getattr(part.func, "id", "")) == "pad":
            return True
        if isinstance(part, ast.Slice) and part.lower is None and part.upper is not None:
            return True
    return False
