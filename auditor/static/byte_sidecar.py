"""Whether bytes that come from a file are taken at the positions of the targets.

A sidecar holds one count per token of the stream, so the count of a target at position p stands at p. Inputs are
`tokens[a:b-1]`, targets `tokens[a+1:b]`; the counts must be `sidecar[a+1:b]`. Positions are computed, not compared as
text: every index is evaluated with drawn numbers in place of what is not known, the same for tokens and sidecar.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.static import byte_find as find
from auditor.static.byte_formula import sidecar_lines
from auditor.static.byte_roles import bare, bound_arguments, defined, last

ALIGNED, AT_INPUTS = "aligned", "taken at the inputs"
_DRAWS = (1, 2, 3)
_DEPTH = 12
_SAME = frozenset(("clamp", "clamp_", "clamp_min", "clamp_max", "unsqueeze", "pin_memory", "expand", "min", "max"))


@dataclass(frozen=True)
class Taking:
    """A place where bytes of the sidecar are taken: `ALIGNED`, `AT_INPUTS`, or "" when it cannot be told."""

    path: str
    line: int
    state: str


def takings(modules: Sequence[tuple[str, ast.Module]]) -> list[Taking]:
    """Every place that slices or indexes bytes from a file, beside targets cut out of a stream in the same function."""
    trees = [tree for _, tree in modules]
    held = _holders(trees)
    found = []
    for path, tree in modules:
        for scope in find.outline(tree).scopes:
            nodes = find.outline(tree).own[id(scope)]
            cuts = [n for n in nodes if _is_cut(n) and last(n.value) in held]  # type: ignore[attr-defined]
            if cuts:
                ends = [_ends(nodes, held, draw) for draw in _DRAWS]
                found += [Taking(path, cut.lineno, _state(cut, ends)) for cut in cuts]  # type: ignore[arg-type]
    return found


def _is_cut(node: ast.AST) -> bool:
    """A part of an array that is read: a slice with a lower end, or an index that is computed."""
    if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
        return False
    if isinstance(node.slice, ast.Slice):
        return node.slice.lower is not None
    return isinstance(node.slice, ast.Name | ast.BinOp | ast.Call)


def _holders(trees: Sequence[ast.Module]) -> dict[str, int]:
    """Names that hold the sidecar -> positions cut off at its beginning."""
    patterns: set[str] = set()
    for tree in trees:
        lines = set(sidecar_lines(tree))
        for node in find.outline(tree).all if lines else ():
            if isinstance(node, ast.Assign) and any(line in lines for line in range(node.lineno, _end(node) + 1)):
                patterns |= {last(target) for target in node.targets}
    patterns.discard("")
    functions = defined(trees)
    loaders = {name for name, node in functions.items() if _loads(node, patterns)}
    wholes, calls = [], []
    for tree in trees:
        for node in find.outline(tree).all:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and last(node.targets[0]):
                whole = _whole(node.value)
                if whole is not None:
                    wholes.append((last(node.targets[0]), *whole))
            elif isinstance(node, ast.Call) and last(node.func) in functions:
                calls += [(name, bare(v)) for name, v in bound_arguments(node, functions[last(node.func)])]
    held: dict[str, int] = {}
    for name, inner, shift in wholes:
        if isinstance(inner, ast.Call) and any(last(n) in patterns or last(n) in loaders for n in ast.walk(inner)):
            function = functions.get(last(inner.func))
            held.setdefault(name, shift + (_returned_shift(function) if function is not None else 0))
    for _ in range(4):
        for name, inner, shift in (*wholes, *((name, value, 0) for name, value in calls)):
            if last(inner) in held:
                held.setdefault(name, held[last(inner)] + shift)
    return held


def _loads(function: ast.FunctionDef, patterns: set[str]) -> bool:
    """Whether a function reads a name of the sidecar's files and returns something."""
    nodes = list(ast.walk(function))
    reads = any(last(n) in patterns and isinstance(getattr(n, "ctx", None), ast.Load) for n in nodes)
    return reads and any(isinstance(n, ast.Return) and n.value is not None for n in nodes)


def _whole(value: ast.expr) -> tuple[ast.expr, int] | None:
    """What a value is all of, and how many positions are cut off at its beginning; None for another part."""
    inner, shift = bare(value), 0
    while isinstance(inner, ast.Subscript) and isinstance(inner.slice, ast.Slice):
        lower = inner.slice.lower
        if lower is not None and not (isinstance(lower, ast.Constant) and isinstance(lower.value, int)):
            return None
        shift += lower.value if lower is not None else 0  # type: ignore[attr-defined]
        inner = bare(inner.value)
    return inner, shift


def _returned_shift(function: ast.FunctionDef) -> int:
    """Positions that a loader cuts off at the beginning of what it returns."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            value = bare(node.value)
            lower = (
                value.slice.lower if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) else None
            )
            if isinstance(lower, ast.Constant) and isinstance(lower.value, int):
                return lower.value
    return 0


Ends = tuple["_Positions", set[int], set[int]]


def _ends(nodes: Sequence[ast.AST], held: dict[str, int], draw: int) -> Ends:
    """Positions where inputs begin and where targets begin: arrays of one stream that lie one position apart."""
    positions = _Positions(nodes, held, draw)
    known = {start for n in nodes if isinstance(n, ast.Assign) for start in positions.starts(n)}
    tokens = {start for start in known if start[0] not in held}
    inputs = {p for base, p in tokens if (base, p + 1) in tokens}
    return positions, inputs, {p for base, p in tokens if (base, p - 1) in tokens}


def _state(cut: ast.Subscript, ends: Sequence[Ends]) -> str:
    taken = [positions.start(cut, 0) for positions, _, _ in ends]
    if all(side is not None and side[1] in targets for side, (_, _, targets) in zip(taken, ends, strict=True)):
        return ALIGNED
    begins = [side is not None and side[1] in inputs for side, (_, inputs, _) in zip(taken, ends, strict=True)]
    return AT_INPUTS if all(begins) else ""


class _Positions:
    """First position of arrays cut out of a stream, as (stream, position), with drawn numbers for what is unknown."""

    def __init__(self, nodes: Sequence[ast.AST], held: dict[str, int], draw: int) -> None:
        self.held, self.draw = held, draw
        self.given: dict[str, list[ast.expr]] = {}
        self.numbers: dict[str, list[ast.expr]] = {}
        for node in nodes:
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    whole = isinstance(target, ast.Name | ast.Attribute)
                    name = last(target) if whole else last(getattr(target, "value", None))
                    self.given.setdefault(name, []).append(node.value)
                    if whole and last(_unclamped(node.value)) != name:
                        self.numbers.setdefault(name, []).append(node.value)

    def starts(self, node: ast.Assign) -> list[tuple[str, int]]:
        """Positions of what an assignment holds, of its elements where it is a tuple or a list of arrays."""
        parts = node.value.elts if isinstance(node.value, ast.Tuple | ast.List) else [node.value]
        return [start for part in parts if (start := self.start(part, 0)) is not None]

    def start(self, node: ast.expr, depth: int) -> tuple[str, int] | None:
        """(stream, first position) of an array."""
        if depth > _DEPTH:
            return None
        node = bare(node)
        if isinstance(node, ast.Call):
            name = last(node.func)
            if name == "where" and len(node.args) == 3:
                return self.start(node.args[1], depth + 1)
            if name in _SAME and isinstance(node.func, ast.Attribute):
                return self.start(node.func.value, depth + 1)
            return None
        if isinstance(node, ast.Name | ast.Attribute):
            name = last(node)
            for value in self.given.get(name, ()):
                found = self.start(value, depth + 1)
                if found is not None:
                    return found
            return None
        return self._part(node, depth) if isinstance(node, ast.Subscript) else None

    def _part(self, node: ast.Subscript, depth: int) -> tuple[str, int] | None:
        offset = self._offset(node.slice, depth)
        if offset is None:
            return None
        before = None if last(node.value) in self.held else self.start(node.value, depth + 1)
        if before is not None:
            return before[0], before[1] + offset
        base = last(bare(node.value))
        return (base, offset + self.held.get(base, 0)) if base else None

    def _offset(self, index: ast.expr, depth: int) -> int | None:
        """Positions skipped by an index: the lower end of its last slice, or the first element of an index array."""
        if isinstance(index, ast.Tuple):
            return self._offset(index.elts[-1], depth) if index.elts else None
        if isinstance(index, ast.Constant) and index.value is None:
            return 0  # another axis
        if isinstance(index, ast.Slice):
            return 0 if index.lower is None else self.number(index.lower, depth + 1)
        if isinstance(index, ast.Name | ast.BinOp | ast.Call):
            return self.number(index, depth + 1)
        return None

    def number(self, node: ast.expr, depth: int) -> int | None:
        """A position as a number; what is not known is drawn by its text, so that the same is the same everywhere."""
        if depth > _DEPTH:
            return None
        node = bare(node)
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, int) else None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            left, right = self.number(node.left, depth + 1), self.number(node.right, depth + 1)
            if left is None or right is None:
                return None
            return left + right if isinstance(node.op, ast.Add) else left - right
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SAME:
            return self.number(node.func.value, depth + 1)
        if isinstance(node, ast.Call) and last(node.func) == "arange":
            return 0 if len(node.args) == 1 else self.number(node.args[0], depth + 1)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice | ast.Tuple | ast.Constant):
            inner = self.number(node.value, depth + 1)
            return inner if not isinstance(node.slice, ast.Constant) else self._drawn(node)
        if isinstance(node, ast.Name) and len(self.numbers.get(node.id, ())) == 1:
            value = self.numbers[node.id][0]
            # Only sums are followed: a product or a call is one unknown, whatever it is made of.
            if isinstance(bare(value), ast.BinOp | ast.Call | ast.Subscript):
                found = self.number(value, depth + 1)
                if found is not None:
                    return found
        return self._drawn(node)

    def _drawn(self, node: ast.expr) -> int:
        text = f"{self.draw}:{ast.unparse(node)}"
        return 10_000 + int.from_bytes(hashlib.blake2s(text.encode(), digest_size=3).digest(), "big")


def _unclamped(node: ast.expr) -> ast.expr:
    """An index without the limits and shapes put on it."""
    node = bare(node)
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _SAME:
        node = bare(node.func.value)
    return node


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno
