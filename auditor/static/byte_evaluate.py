"""Evaluates the code that makes byte tables and the code that sums with them, over the stand-in vocabulary."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass, field
from typing import Any

from auditor.static import byte_find as find
from auditor.static import byte_stand_in as known
from auditor.static.byte_interpreter import Function, Interpreter, _Return
from auditor.static.byte_operators import Stuck
from auditor.static.byte_stand_in import OPAQUE, Argument, Opaque, Table


@dataclass
class Tables:
    """Tables of a builder by what they hold: lists over the ids of the stand-in vocabulary."""

    base: list[Any]
    lead: list[Any] | None
    bound: list[Any] | None
    builder: find.Builder
    path: str
    order: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def called(interpreter: Interpreter, node: ast.FunctionDef) -> list[tuple[str, Any]]:
    """Tables a function returns or leaves on its object."""
    owner = Argument()
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    given: list[Any] = [owner if name == "self" else Argument() for name in names]
    required = len(names) - len(node.args.defaults)
    optional: list[tuple[str, ast.expr | None]] = [*zip(names[required:], node.args.defaults, strict=True)]
    optional += [(a.arg, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    # What is left out by default (None) is what the program's own call hands in.
    keywords = {n: Argument() for n, d in optional if d is None or (isinstance(d, ast.Constant) and d.value is None)}
    result = interpreter.call(Function(node, {}), given[:required], keywords)
    return [*_flat("", result), *((n, v) for n, v in owner.attributes.items())]


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, tuple):
        return [pair for item in value for pair in _flat(name, item)]
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        return list(value.items())
    if isinstance(value, Argument):
        return list(value.attributes.items())
    return [(name, value)]


def after(interpreter: Interpreter, statements: list[ast.stmt], scope: ast.AST) -> list[tuple[str, Any]]:
    """Tables that are there after some statements; what cannot be followed on the way stays unknown."""
    inside = isinstance(scope, ast.FunctionDef)
    names: dict[str, Any] = {}
    if isinstance(scope, ast.FunctionDef):
        names = {a.arg: Argument() for a in (*scope.args.args, *scope.args.kwonlyargs)}
    for statement in statements:
        try:
            interpreter.run([statement], names)
        except _Return:
            break
        except Stuck:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
                names |= dict.fromkeys(_written(statement), Argument())  # settings, as far as tables are concerned
            if isinstance(statement, ast.For | ast.While):  # half-filled tables are worth nothing
                names |= dict.fromkeys(_written(statement), OPAQUE)
    return [(n, v) for n, v in names.items() if not isinstance(v, Argument) or inside]


def _written(statement: ast.stmt) -> set[str]:
    """Names a statement assigns or writes into."""
    stores = [n for n in ast.walk(statement) if isinstance(getattr(n, "ctx", None), ast.Store)]
    return {n.id for store in stores for n in ast.walk(store) if isinstance(n, ast.Name)}


def classify(values: list[tuple[str, Any]], builder: find.Builder, path: str) -> Tables | None:
    """Which of the values are tables over the vocabulary, and what each holds; None without a table of bytes."""
    held: dict[str, list[Any]] = {}
    order = []
    for _, value in values:
        row = row_of(value)
        role = _role(row) if row is not None else ""
        order.append(role)
        if row is not None and role:
            held.setdefault(role, row)
    if "base" not in held and "text" in held:
        held["base"] = [
            len(t.encode() if isinstance(t, str) else t) if isinstance(t, str | bytes) else 0 for t in held["text"]
        ]
        order = ["base" if role == "text" else role for role in order]
    if "base" not in held:
        return None
    names = [name for name, _ in values]
    return Tables(held["base"], held.get("lead"), held.get("bound"), builder, path, order, names)


def _role(row: list[Any]) -> str:
    """What a table over the vocabulary holds, "" when it is none of those that bytes are counted with."""
    plain, leading = [row[i] for i in known.PLAIN], [row[i] for i in known.LEADING[1:]]
    outside = [row[i] for i in known.BOUNDARY_IDS[:2]]
    flags = all(item in (0, 1) for item in row)
    if all(isinstance(item, str | bytes) for item in plain):
        return "text"
    if all(plain) and not all(item in (0, 1) for item in plain):
        return "base"
    if not any(plain) and all(leading) and flags:
        return "lead"
    if not any(plain) and not any(leading) and any(outside):
        return "bound"
    return "bound" if all(plain) and flags and not any(outside) else ""


def row_of(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and value and all(isinstance(key, int) for key in value):
        value = [value.get(i, 0) for i in range(known.SIZE)]
    items = value.items if isinstance(value, Table) else value
    if not isinstance(items, list) or not known.SIZE <= len(items) <= 4 * known.SIZE:
        return None
    if any(isinstance(item, Opaque) or not isinstance(item, int | float | str | bytes) for item in items[: known.SIZE]):
        return None
    return items


def bytes_at(site: find.Site, tree: ast.Module, rows: dict[str, list[Any]], previous: int, token: int) -> int:
    """Bytes that a site counts for one pair of tokens."""

    def look(node: ast.expr) -> Any:
        pair = find.lookup(node) if isinstance(node, ast.Subscript | ast.Call) else None
        if pair is None or pair[0] not in site.roles or pair[1] not in (site.target, site.previous):
            return NotImplemented
        return rows[site.roles[pair[0]]][token if pair[1] == site.target else previous]

    interpreter = Interpreter(ast.Module([], []), look)
    interpreter.imports = _imports(tree)
    scope: dict[str, Any] = {}
    value: Any = OPAQUE
    for part in site.run:
        if isinstance(part, ast.stmt):
            interpreter.run([part], scope)
            value = scope.get(site.result, OPAQUE)
        else:
            value = interpreter.value(part, scope)
    if isinstance(value, Opaque) or not isinstance(value, int | float):
        raise Stuck("its value is not known")
    return int(value) + (int(rows["base"][token]) if site.partial else 0)


@functools.lru_cache(maxsize=24)
def _imports(tree: ast.Module) -> dict[str, str]:
    return Interpreter(ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])).imports
