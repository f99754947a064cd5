"""Which names of a program hold the byte tables, followed through assignments, calls and tuples.

Names carry no weight: a name holds a table because a builder's result reaches it. They are followed over the whole
program at once; a name that would hold two different tables holds none.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from auditor.static import byte_find as find
from auditor.static.byte_evaluate import Tables

_WRAPPERS = frozenset(
    ("tensor", "as_tensor", "array", "asarray", "from_numpy", "ascontiguousarray", "LongTensor", "FloatTensor")
)
_ROUNDS = 6


@dataclass
class Roles:
    """Names that hold tables.

    Attributes:
        of: name -> "base", "lead", "bound".
        whole: names of all tables together, in the builder's order.
        makers: functions that return them.
    """

    of: dict[str, str] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)
    makers: set[str] = field(default_factory=set)
    mixed: set[str] = field(default_factory=set)

    def give(self, name: str, role: str) -> None:
        """Record that a name holds a table."""
        if not name or not role or name in self.mixed:
            return
        if self.of.setdefault(name, role) != role:
            del self.of[name]
            self.mixed.add(name)


def last(node: ast.AST | None) -> str:
    """The name a value is kept under: `x` of `x`, `a.x`."""
    return getattr(node, "id", getattr(node, "attr", "")) if isinstance(node, ast.Name | ast.Attribute) else ""


def bare(node: ast.expr) -> ast.expr:
    """A value without conversions and array constructors around it."""
    while True:
        inner = find.strip(node)
        if isinstance(inner, ast.Call) and inner.args and last(inner.func) in _WRAPPERS:
            inner = inner.args[0]
        if inner is node:
            return node
        node = inner


def roles(trees: Sequence[ast.Module], table: Tables) -> Roles:
    """Follow the tables of a builder through the modules of a program."""
    found = Roles()
    scope = table.builder.scope
    if isinstance(scope, ast.FunctionDef) and table.builder.statements is None:
        found.makers.add(scope.name)
    else:
        for name, role in zip(table.names, table.order, strict=True):
            found.give(name, role)
    functions = defined(trees)
    for _ in range(_ROUNDS):
        before = (len(found.of), len(found.whole), len(found.makers))
        for tree in trees:
            _follow(tree, table.order, found, functions)
        if before == (len(found.of), len(found.whole), len(found.makers)):
            break
    return found


def defined(trees: Sequence[ast.Module]) -> dict[str, ast.FunctionDef]:
    """Functions and methods of a program by name; names with several definitions are left out."""
    found: dict[str, ast.FunctionDef | None] = {}
    for tree in trees:
        for scope in find.outline(tree).scopes:
            if isinstance(scope, ast.FunctionDef):
                found[scope.name] = None if scope.name in found else scope
    return {name: node for name, node in found.items() if node is not None}


def _follow(tree: ast.Module, order: list[str], found: Roles, functions: dict[str, ast.FunctionDef]) -> None:
    for node in find.outline(tree).all:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                _assign(target, node.value, order, found)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            _assign(node.target, node.value, order, found)
        elif isinstance(node, ast.Call) and last(node.func) in functions:
            for name, value in bound_arguments(node, functions[last(node.func)]):
                _assign(ast.Name(name, ast.Store()), value, order, found)
    for scope in find.outline(tree).scopes:
        if isinstance(scope, ast.FunctionDef) and any(
            isinstance(n, ast.Return) and n.value is not None and _makes(n.value, found)
            for n in find.outline(tree).own[id(scope)]
        ):
            found.makers.add(scope.name)


def bound_arguments(call: ast.Call, function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """(parameter, value) of a call; the object a method is called on is left out."""
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    if names[:1] in (["self"], ["cls"]) and isinstance(call.func, ast.Attribute):
        names = names[1:]
    if not any(isinstance(a, ast.Starred) for a in call.args):
        yield from zip(names, call.args, strict=False)
    yield from ((k.arg, k.value) for k in call.keywords if k.arg)


def _makes(value: ast.expr, found: Roles) -> bool:
    arms = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
    return any(
        (isinstance(arm, ast.Call) and last(arm.func) in found.makers) or last(bare(arm)) in found.whole for arm in arms
    )


def _assign(target: ast.expr, value: ast.expr, order: list[str], found: Roles) -> None:
    if isinstance(value, ast.IfExp):
        _assign(target, value.body, order, found)
        _assign(target, value.orelse, order, found)
        return
    parts = target.elts if isinstance(target, ast.Tuple | ast.List) else None
    if _makes(value, found) or _makes(bare(value), found):
        if parts is not None:
            for part, role in zip(parts, order, strict=False):
                found.give(last(part), role)
        elif len(order) == 1:
            found.give(last(target), order[0])
        else:
            found.whole.add(last(target))
    elif parts is not None and isinstance(value, ast.Tuple | ast.List) and len(parts) == len(value.elts):
        for part, item in zip(parts, value.elts, strict=True):
            _assign(part, item, order, found)
    elif parts is not None and isinstance(value, ast.GeneratorExp | ast.ListComp):
        # a, b, c = (t.to(device) for t in tables)
        if last(bare(value.generators[0].iter)) in found.whole:
            for part, role in zip(parts, order, strict=False):
                found.give(last(part), role)
    elif parts is None:
        found.give(last(target), _held(bare(value), order, found))


def _held(value: ast.expr, order: list[str], found: Roles) -> str:
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
        index = value.slice.value
        if last(value.value) in found.whole and isinstance(index, int) and -len(order) <= index < len(order):
            return order[index]
    return found.of.get(last(value), "")


def looked_at(
    trees: Sequence[ast.Module], names: set[str], functions: dict[str, ast.FunctionDef], but: ast.AST | None = None
) -> bool:
    """Whether a value of `names` is used for anything but being handed on inside the program, function `but` aside."""
    for tree in trees:
        for scope in find.outline(tree).scopes:
            nodes = find.outline(tree).own[id(scope)] if scope is not but else []
            held = [n for n in nodes if last(n) in names and isinstance(getattr(n, "ctx", None), ast.Load)]
            if held:
                parents = {id(c): n for n in (scope, *nodes) for c in ast.iter_child_nodes(n)}
                if any(not _handed_on(node, parents, functions) for node in held):
                    return True
    return False


def _handed_on(node: ast.AST, parents: dict[int, ast.AST], functions: dict[str, ast.FunctionDef]) -> bool:
    above = parents.get(id(node))
    while isinstance(above, ast.expr) and not isinstance(above, ast.Subscript | ast.BinOp | ast.UnaryOp | ast.Compare):
        if isinstance(above, ast.Call):
            if last(above.func) in functions:
                return True
            if bare(above) is above:
                return False
        node, above = above, parents.get(id(above))
    if isinstance(above, ast.keyword):
        call = parents.get(id(above))
        return isinstance(call, ast.Call) and last(call.func) in functions
    if isinstance(above, ast.Compare):
        return all(isinstance(c, ast.Constant) and c.value is None for c in above.comparators)
    return isinstance(above, ast.Assign | ast.AnnAssign | ast.Return)


def idle(trees: Sequence[ast.Module], table: Tables, held: Roles, functions: dict[str, ast.FunctionDef]) -> bool:
    """Whether nothing calls the function that makes the tables, or nothing looks at what it made."""
    scope = table.builder.scope
    if not isinstance(scope, ast.FunctionDef) or table.builder.statements is not None or scope.name.startswith("__"):
        return False
    inside = {id(node) for node in ast.walk(scope)}
    mentions = 0
    for tree in trees:
        for node in find.outline(tree).all:
            mentions += last(node) == scope.name and id(node) not in inside
    kept = held.whole | set(held.of)
    kept_calls = sum(
        isinstance(node, ast.Assign)
        and any(last(t) in kept for target in node.targets for t in ast.walk(target))
        and any(isinstance(n, ast.Call) and last(n.func) == scope.name for n in ast.walk(node.value))
        for tree in trees
        for node in find.outline(tree).all
    )
    return mentions == 0 or (mentions == kept_calls and not looked_at(trees, kept, functions, scope))


def strangers(trees: Sequence[ast.Module], held: Roles) -> list[str]:
    """Imported functions that are handed the tables and whose module the program does not bring, as `module.name`."""
    functions = defined(trees)
    kept = held.whole | set(held.of)
    found: dict[str, None] = {}
    for tree in trees:
        brought = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in find.outline(tree).all
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in find.outline(tree).all:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in brought:
                values = [*node.args, *(k.value for k in node.keywords)]
                if node.func.id not in functions and any(last(bare(value)) in kept for value in values):
                    found[brought[node.func.id]] = None
    return list(found)


def absent_calls(trees: Sequence[ast.Module]) -> list[str]:
    """Imported functions that by their names evaluate, and whose module is not there; for a remark, not a verdict."""
    functions = defined(trees)
    found: dict[str, None] = {}
    for tree in trees:
        for node in find.outline(tree).all:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    if _BPB.search(alias.name) and alias.name not in functions:
                        found[f"{node.module}.{alias.name}"] = None
    return list(found)


_BPB = re.compile(r"bpb|bits_per_byte|eval|luts|score", re.IGNORECASE)
