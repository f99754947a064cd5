"""When a progress line can print: its condition, evaluated for the values the line itself shows.

`if ci % 10 == 0 or ci == n - 1: log(f"[{ci+1}/{n}]")` cannot print `[100/1893]`. What the condition needs and the
line does not show (a setting) stays unknown, and an unknown condition accuses nobody.
"""

from __future__ import annotations

import ast
import functools

from auditor.static.evaluate import UNKNOWN, Value, evaluate
from auditor.static.scopes import Guard, Scope
from auditor.static.templates import Template, variants


def shown_values(template: Template, line: str) -> dict[str, Value]:
    """Names whose value a line shows: `{step}` -> step, `{ci + 1}` -> ci, `{args.n}` -> args.n (integers only)."""
    values: dict[str, Value] = {}
    for text in variants(line):
        found = template.regex.match(text) or template.relaxed.match(text)
        if not found:
            continue
        for part, group in zip(template.fields, found.groups(), strict=False):
            _invert(part.name, group, values)
        return values
    return values


def _invert(name: str, shown: str, values: dict[str, Value]) -> None:
    """Solve `name = shown` for one name when the expression is a name, or a name plus or minus an integer."""
    try:
        value = int(shown.strip().replace(",", ""))
    except ValueError:
        return
    node = _parsed(name)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub) and isinstance(node.right, ast.Constant):
        offset = node.right.value
        if isinstance(offset, int):
            values[ast.unparse(node.left)] = value - offset if isinstance(node.op, ast.Add) else value + offset
    elif isinstance(node, ast.Name | ast.Attribute):
        values[ast.unparse(node)] = value


@functools.lru_cache(maxsize=4096)
def _parsed(name: str) -> ast.expr | None:
    try:
        return ast.parse(name, mode="eval").body
    except SyntaxError:  # shortened source text
        return None


def refused_by(template: Template, line: str, known: dict[str, Value] | None = None) -> Guard | None:
    """The condition that forbids this template to print these values, or None when all may hold."""
    values = {**(known or {}), **shown_values(template, line)}
    for guard in template.guards:
        test = _expanded(guard, template)
        if test is None or not _mentions(test, values) or _changed_inside(guard, template, values):
            continue
        outcome = evaluate(test, values)
        if outcome is not UNKNOWN and bool(outcome) is not guard.holds:
            return guard
    return None


def describe(guard: Guard) -> str:
    """The condition as a reader would write it."""
    text = ast.unparse(guard.test)
    return text if guard.holds else f"not ({text})"


def _mentions(test: ast.expr, values: dict[str, Value]) -> bool:
    return any(isinstance(n, ast.Name | ast.Attribute) and ast.unparse(n) in values for n in ast.walk(test))


def _expanded(guard: Guard, template: Template) -> ast.expr | None:
    """The test itself, or the one expression a flag in it was set to just before (`should_log = step % 10 == 0`)."""
    test = guard.test
    if not isinstance(test, ast.Name) or template.scope is None:
        return test
    home = template.scope.find(test.id)
    values = home.bound.get(test.id, []) if home else []
    if len(values) != 1 or values[0][0] != "=" or values[0][1] is None:
        return None
    value = values[0][1]
    between = Guard(value, guard.holds, value.lineno)
    return None if _changed_between(between.line, guard.line, template, _names(value)) else value


def _changed_inside(guard: Guard, template: Template, values: dict[str, Value]) -> bool:
    """True when a name of the test is assigned between the test and the print (a counter that moved on)."""
    return _changed_between(guard.line, template.line, template, _names(guard.test) & set(values))


def _names(node: ast.AST) -> set[str]:
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}


def _changed_between(first: int, last: int, template: Template, names: set[str]) -> bool:
    scope = template.scope
    if scope is None:
        return True
    lines = _assigned_lines(scope)
    return any(first < line <= last for name in names for line in lines.get(name, ()))


def _assigned_lines(scope: Scope) -> dict[str, list[int]]:
    """Lines on which each name of a function is assigned; kept on the scope, the walk is slow."""
    kept = getattr(scope, "_assigned_lines", None)
    if kept is None:
        kept = {}
        for node in ast.walk(scope.node):
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    for name in _names(target):
                        kept.setdefault(name, []).append(node.lineno)
        scope._assigned_lines = kept  # type: ignore[attr-defined]
    return kept
