"""Parts of a model that collect from the whole stream and hand the result back to every position of it.

A few slots ask all positions (`slots = read(slots, x)`), and then every position asks the slots (`x + write(x, slots)`).
Without a mask on the way the first position learns of the last one by two steps, neither of which looks like attention
of the stream to itself.
"""

from __future__ import annotations

import ast

from auditor.static.attention import own_parameters

ROUND_TRIP = "slots that ask the whole stream and are asked by its positions"
CARRIED = "a state taken after the last position, with which the next pass over the same positions begins"
# What a name comes from: (parameter, whether as a summary of all of its positions).
Sources = frozenset[tuple[str, bool]]


def round_trip(method: ast.FunctionDef) -> int | None:
    """Line at which the positions of a parameter ask what had asked all of them; None when none does."""
    reader = _Reader(own_parameters(method))
    reader.block(method.body)
    return reader.line


def takes_final_state(node: ast.ClassDef) -> bool:
    """A scan along the positions that begins with a state handed in and gives back the one after the last position."""
    for call in ast.walk(node):
        given = {k.arg: k.value for k in call.keywords} if isinstance(call, ast.Call) else {}
        begins = given.get("initial_state")
        ends = given.get("output_final_state")
        if (
            begins is not None
            and not (isinstance(begins, ast.Constant) and begins.value is None)
            and isinstance(ends, ast.Constant)
            and ends.value is True
        ):
            return True
    return False


def carried_on(method: ast.FunctionDef) -> int | None:
    """Line of `x, state = self.part(x, state)` in a loop whose rounds all have the same positions; None without one.

    A loop that cuts its input in pieces hands the state from one piece to the next, which is what states are for.
    """
    for loop in ast.walk(method):
        if not isinstance(loop, ast.For) or any(isinstance(part, ast.Slice) for part in ast.walk(loop)):
            continue
        if not (isinstance(loop.iter, ast.Call) and getattr(loop.iter.func, "id", "") in ("range", "enumerate")):
            continue
        for node in ast.walk(loop):
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _own_part(node.value.func)):
                continue
            made = [
                t.id
                for each in node.targets
                if isinstance(each, ast.Tuple)
                for t in each.elts
                if isinstance(t, ast.Name)
            ]
            handed = [
                a.id for a in (*node.value.args, *(k.value for k in node.value.keywords)) if isinstance(a, ast.Name)
            ]
            if len(made) >= 2 and len(set(made) & set(handed)) >= 2:
                return node.lineno
    return None


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
