"""Whether the byte of a leading space is counted once: the table of bytes per token and its use, read together.

Two lines that are each reasonable make the error: the table already holds the byte of the space, and the evaluation
adds it again where a word begins (rule book, PG-B-leading-space).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from auditor.findings import Status
from auditor.static.machine import Machine
from auditor.static.order import Verdict
from auditor.timeline import Place

RULE = "PG-B-leading-space"
MARK = "\u2581"


def leading_space(machine: Machine) -> Verdict | None:
    """FAIL when table and use both add the byte, PASS when one of them does, None when no table is recognised."""
    tables: list[tuple[Place, bool]] = []
    uses: list[Place] = []
    for path in machine.modules:
        tree = machine.sources.tree(path)
        if tree is not None:
            tables += [(Place(path, line), added) for line, added in _tables(tree)]
            uses += [Place(path, line) for line in _uses(tree)]
    if not tables:
        return None
    twice = next((place for place, added in tables if added), None)
    if twice is not None and uses:
        chain = ((twice, "the table counts the space"), (uses[0], "the evaluation counts it again"))
        return Verdict(RULE, Status.FAIL, "the byte of a leading space is counted in the table and again at use", chain)
    if uses or twice is not None:
        chain = ((tables[0][0], "bytes of a piece"), *(((uses[0], "byte of the space"),) if uses else ()))
        return Verdict(RULE, Status.PASS, "the byte of a leading space is counted once", chain)
    return None


def _tables(tree: ast.Module) -> Iterator[tuple[int, bool]]:
    """(line, adds one) for every place that stores the bytes of a piece which begins with the marker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and _tests_marker(node.test):
            for inner in ast.walk(ast.Module(node.body, [])):
                if isinstance(inner, ast.Assign) and _is_length(inner.value):
                    yield inner.lineno, isinstance(inner.value, ast.BinOp)
            if not any(isinstance(n, ast.Assign) and _is_length(n.value) for n in ast.walk(ast.Module(node.body, []))):
                yield node.lineno, False


def _tests_marker(test: ast.expr) -> bool:
    return any(isinstance(n, ast.Constant) and n.value == MARK for n in ast.walk(test))


def _is_length(value: ast.expr) -> bool:
    """`len(piece[1:].encode())`, with or without `+ 1`."""
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        sides = (value.left, value.right)
        one = any(isinstance(s, ast.Constant) and s.value == 1 for s in sides)
        return one and any(_is_length(s) for s in sides if not isinstance(s, ast.Constant))
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "len":
        return any(isinstance(n, ast.Attribute) and n.attr == "encode" for n in ast.walk(value))
    return False


def _uses(tree: ast.Module) -> Iterator[int]:
    """Lines that combine `flag[target] & ~flag[previous]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            sides = (node.left, node.right)
            inverted = [s for s in sides if isinstance(s, ast.UnaryOp) and isinstance(s.op, ast.Invert)]
            if len(inverted) == 1 and isinstance(inverted[0].operand, ast.Subscript):
                yield node.lineno
