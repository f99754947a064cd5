"""Parts of a model that collect from the whole stream and hand the result back to every position of it.

A few slots ask all positions (`slots = read(slots, x)`), and then every position asks the slots (`x + write(x, slots)`).
Without a mask on the way the first position learns of the last one by two steps, neither of which looks like attention
of the stream to itself.
"""

from __future__ import annotations

import ast

from auditor.static.attention import own_parameters

ROUND_TRIP = "slots that ask the whole stream and are asked by its positions"
# What a name comes from: (parameter, whether as a summary of all of its positions).
Sources = frozenset[tuple[str, bool]]


def round_trip(method: ast.FunctionDef) -> int | None:
    """Line at which the positions of a parameter ask what had asked all of them; None when none does."""
    reader = _Reader(own_parameters(method))
    reader.block(method.body)
    return reader.line


class _Reader:
    """Walks a method in order; `known` says what each name comes from."""

    def __init__(self, parameters: list[str]) -> None:
        self.known: dict[str, Sources] = {name: frozenset({(name, False)}) for name in parameters}
        self.line: int | None = None

    def block(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and node.value is not None:
                found = self.value(node.value)
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        before = (
                            self.known.get(target.id, frozenset()) if isinstance(node, ast.AugAssign) else frozenset()
                        )
                        self.known[target.id] = found | before
            else:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child)
                for part in ("body", "orelse", "finalbody"):
                    self.block(getattr(node, part, []))

    def value(self, node: ast.AST) -> Sources:
        """What an expression comes from; sizes and types come from nothing."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, frozenset())
        if isinstance(node, ast.Attribute) and node.attr in ("shape", "dtype", "device", "ndim"):
            return frozenset()
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("size", "numel", "dim"):
                return frozenset()
            if len(node.args) >= 2 and _own_part(node.func):
                return self.asked(node)
        return frozenset().union(*(self.value(child) for child in ast.iter_child_nodes(node)))

    def asked(self, node: ast.Call) -> Sources:
        """`self.part(asking, asked)`: the positions of the first, what is known of the second."""
        asking, answering = self.value(node.args[0]), self.value(node.args[1])
        names = {name for name, _ in asking}
        if self.line is None and any((name, True) in answering for name in names if (name, False) in asking):
            self.line = node.lineno
        collected = frozenset((name, True) for name, _ in answering if name not in names)
        return asking | collected | frozenset().union(*(self.value(a) for a in node.args[2:]))


def _own_part(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
