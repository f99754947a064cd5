"""Settings a program declares: attributes of its settings class, environment variables, command line options.

What the program says, not what was in force: a run command or the log may say otherwise.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.static.evaluate import UNKNOWN, Value, evaluate
from auditor.static.parse import parse_module
from auditor.static.scopes import Index, dotted, index, last_name

_CASTS = {"int", "float", "str", "bool"}


@dataclass(frozen=True)
class Setting:
    """One declared setting.

    Attributes:
        name: attribute, variable or option name as the program uses it (`iterations`).
        default: its default where it is written out, None when it is computed.
        environment: variable that overrides it, "" for none.
        path, line: where it is declared.
        owner: class that holds it, "" for a variable or option.
    """

    name: str
    default: Value
    environment: str
    path: str
    line: int
    owner: str = ""


@functools.lru_cache(maxsize=64)
def declared_settings(text: str, path: str) -> tuple[Setting, ...]:
    """Settings declared in one source, in order; empty when it does not parse."""
    parsed = parse_module(text)
    if parsed.tree is None:
        return ()
    return tuple(_settings(parsed.tree, path))


@functools.lru_cache(maxsize=64)
def known_names(text: str) -> frozenset[str]:
    """Every name that could appear in a listing of settings: attributes set anywhere, variables, options, keywords."""
    parsed = parse_module(text)
    if parsed.tree is None:
        return frozenset()
    found = index(parsed.tree)
    names = set(found.attributes) | {item.name for item in declared_settings(text, "")}
    names |= {item.environment for item in declared_settings(text, "") if item.environment}
    names |= {keyword.arg for site in found.calls for keyword in site.node.keywords if keyword.arg}
    for node in ast.walk(parsed.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return frozenset(names)


def environment_reads(found: Index) -> Iterator[tuple[ast.Call | ast.Subscript, str, Value]]:
    """(node, variable, default) for every read of the environment with a written-out name."""
    for site in found.calls:
        name = dotted(site.node.func)
        if name.endswith(("environ.get", "getenv", "environ.setdefault", "environ.pop")) and site.node.args:
            variable = site.node.args[0]
            if isinstance(variable, ast.Constant) and isinstance(variable.value, str):
                default = site.node.args[1] if len(site.node.args) > 1 else None
                yield site.node, variable.value, _literal(default)


def _settings(tree: ast.Module, path: str) -> Iterator[Setting]:
    found = index(tree)
    helpers = _environment_helpers(found)
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            yield from _class_settings(statement, path, helpers)
        else:
            yield from _assigned(statement, path, "", helpers, need_environment=True)
    for site in found.calls:
        if last_name(site.node.func) == "add_argument" and site.node.args:
            option = _option(site.node, path)
            if option is not None:
                yield option


def _class_settings(node: ast.ClassDef, path: str, helpers: frozenset[str]) -> Iterator[Setting]:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in ("__init__", "__post_init__"):
            for inner in statement.body:
                yield from _assigned(inner, path, node.name, helpers, need_environment=True)
        else:
            yield from _assigned(statement, path, node.name, helpers, need_environment=False)


def _assigned(
    statement: ast.stmt, path: str, owner: str, helpers: frozenset[str], need_environment: bool
) -> Iterator[Setting]:
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        targets, value = [statement.target], statement.value
    else:
        return
    variable, default = _environment(value, helpers)
    if need_environment and not variable:
        return
    for target in targets:
        name = last_name(target)
        if name:
            yield Setting(name, default if variable else _literal(value), variable, path, statement.lineno, owner)


def _environment(node: ast.expr, helpers: frozenset[str]) -> tuple[str, Value]:
    """(variable, default) of an expression that reads the environment, ("", None) otherwise."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Subscript) and dotted(inner.value).endswith("environ"):
            key = inner.slice.value if isinstance(inner.slice, ast.Constant) else None
            if isinstance(key, str):
                return key, None
        if not isinstance(inner, ast.Call) or not inner.args:
            continue
        name = dotted(inner.func)
        reads = name.endswith(("environ.get", "getenv")) or name in helpers
        first = inner.args[0]
        if reads and isinstance(first, ast.Constant) and isinstance(first.value, str):
            default = inner.args[1] if len(inner.args) > 1 else None
            return first.value, _literal(default)
    return "", None


def _environment_helpers(found: Index) -> frozenset[str]:
    """Small functions that wrap a read of the environment (`def _env_int(name, default)`)."""
    return frozenset(
        site.scope.name
        for site in found.calls
        if dotted(site.node.func).endswith(("environ.get", "getenv"))
        and site.node.args
        and isinstance(site.node.args[0], ast.Name)
        and site.node.args[0].id in site.scope.parameters[:1]
    )


def _option(call: ast.Call, path: str) -> Setting | None:
    flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    flag = next((f for f in flags if f.startswith("--")), flags[0] if flags else "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if not flag:
        return None
    return Setting(flag.lstrip("-").replace("-", "_"), _literal(keywords.get("default")), "", path, call.lineno)


def _literal(node: ast.expr | None) -> Value:
    """A written-out value, casts and arithmetic included; None when it is computed from something else."""
    if node is None:
        return None
    if isinstance(node, ast.Call) and last_name(node.func) in _CASTS and len(node.args) == 1:
        return _literal(node.args[0])
    value = evaluate(node, {})
    return None if value is UNKNOWN else value  # type: ignore[return-value]
