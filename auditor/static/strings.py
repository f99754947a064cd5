"""Reads an expression that builds text into patterns: constants, f-strings, `%`, `.format`, `+`, joins, variables.

Flow-insensitive and bounded: a variable may hold any value ever assigned to it, alternatives past a limit and
anything not understood become a field that matches all text.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterable

from auditor.static.patterns import Field, Lit, Many, Param, Pattern, tidy
from auditor.static.scopes import Index, Scope, last_name, unparsed

_SAME_ELEMENTS = ("sorted", "list", "tuple", "reversed", "set")
MAX_ALTERNATIVES = 48
MAX_DEPTH = 10
_PRINTF = re.compile(
    r"%(?:\((?P<key>\w+)\))?(?P<flags>[-+ #0]*)(?P<width>\d+|\*)?(?:\.(?P<prec>\d+|\*))?[hlL]?(?P<type>[a-zA-Z%])"
)


class TextReader:
    """Resolves expressions of one module to what they can print."""

    def __init__(self, found: Index) -> None:
        self.index = found
        self._busy: set[tuple[int, str]] = set()

    def read(self, node: ast.expr | None, scope: Scope, depth: int = 0) -> list[Pattern]:
        """Every text `node` can stand for, as patterns; a value that is not text becomes one field."""
        if node is None or depth > MAX_DEPTH:
            return [(Field("...", None),)]
        method = _READERS.get(type(node))
        options = method(self, node, scope, depth) if method else [_field(node)]
        if len(options) > MAX_ALTERNATIVES:
            return [_field(node)]
        return list(dict.fromkeys(tidy(option) for option in options))

    def _constant(self, node: ast.Constant, scope: Scope, depth: int) -> list[Pattern]:
        return [(Lit(str(node.value)),)]

    def _joined(self, node: ast.JoinedStr, scope: Scope, depth: int) -> list[Pattern]:
        return self._product(node.values, scope, depth)

    def _formatted(self, node: ast.FormattedValue, scope: Scope, depth: int) -> list[Pattern]:
        spec = _static_spec(node.format_spec)
        if spec == "" and node.conversion in (-1, ord("s")):
            options = self.read(node.value, scope, depth + 1)
            return options if _known_text(options) else [_field(node.value)]
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) and spec is not None:
            return [_padded(Lit(node.value.value), spec)]
        return [(Field(unparsed(node.value), spec),)]

    def _binary(self, node: ast.BinOp, scope: Scope, depth: int) -> list[Pattern]:
        if isinstance(node.op, ast.Add) and self._is_text(node, scope):
            return self._product([node.left, node.right], scope, depth)
        if isinstance(node.op, ast.Mult):
            return self._repeat(node, scope, depth)
        if isinstance(node.op, ast.Mod):
            return self._printf(node, scope, depth)
        return [_field(node)]

    def _repeat(self, node: ast.BinOp, scope: Scope, depth: int) -> list[Pattern]:
        text, count = node.left, node.right
        if isinstance(text, ast.Constant) and isinstance(text.value, int):
            text, count = count, text
        if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
            return [_field(node)]
        if isinstance(count, ast.Constant) and isinstance(count.value, int) and count.value <= 400:
            return [(Lit(text.value * count.value),)]
        return [(Many(((Lit(text.value),),)),)]

    def _printf(self, node: ast.BinOp, scope: Scope, depth: int) -> list[Pattern]:
        if not (isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)):
            return [_field(node)]
        values = node.right.elts if isinstance(node.right, ast.Tuple) else [node.right]
        return [printf_pattern(node.left.value, values)]

    def _product(self, items: Iterable[ast.expr], scope: Scope, depth: int) -> list[Pattern]:
        options: list[Pattern] = [()]
        for item in items:
            more = self.read(item, scope, depth + 1)
            if len(options) * len(more) > MAX_ALTERNATIVES:
                more = [_field(item)]
            options = [left + right for left in options for right in more]
        return options

    def _either(self, node: ast.IfExp | ast.BoolOp, scope: Scope, depth: int) -> list[Pattern]:
        branches = [node.body, node.orelse] if isinstance(node, ast.IfExp) else node.values
        return [option for branch in branches for option in self.read(branch, scope, depth + 1)]

    def _call(self, node: ast.Call, scope: Scope, depth: int) -> list[Pattern]:
        func = node.func
        if isinstance(func, ast.Name) and func.id in ("str", "repr") and len(node.args) == 1:
            options = self.read(node.args[0], scope, depth + 1)
            return options if func.id == "str" else [_field(node.args[0])]
        if isinstance(func, ast.Attribute):
            method = _TEXT_METHODS.get(func.attr)
            if method is not None:
                return method(self, node, func, scope, depth)
        if isinstance(func, ast.Name) and depth < 6:
            return self._returned(node, func.id, scope, depth)
        return [_field(node)]

    def _returned(self, node: ast.Call, name: str, scope: Scope, depth: int) -> list[Pattern]:
        """What a function of the module that builds text returns."""
        homes = self.index.functions.get(name, [])
        if len(homes) != 1 or ("return", name) in self._busy:
            return [_field(node)]
        returns = [n.value for n in ast.walk(homes[0].node) if isinstance(n, ast.Return) and n.value is not None]
        if not returns or not all(_may_be_text(value) for value in returns):
            return [_field(node)]
        self._busy.add(("return", name))
        try:
            options = [option for value in returns for option in self.read(value, homes[0], depth + 1)]
        finally:
            self._busy.discard(("return", name))
        return [_without_params(option) for option in options]

    def _format_method(self, node: ast.Call, func: ast.Attribute, scope: Scope, depth: int) -> list[Pattern]:
        if not (isinstance(func.value, ast.Constant) and isinstance(func.value.value, str)):
            return [_field(node)]
        return [_format_pattern(func.value.value, node)]

    def _join(self, node: ast.Call, func: ast.Attribute, scope: Scope, depth: int) -> list[Pattern]:
        if len(node.args) != 1:
            return [_field(node)]
        elements = self._elements(node.args[0], scope, depth + 1)
        separators = self.read(func.value, scope, depth + 1)
        return [(Many(tuple(elements), separator),) for separator in separators]

    def _same_text(self, node: ast.Call, func: ast.Attribute, scope: Scope, depth: int) -> list[Pattern]:
        return self.read(func.value, scope, depth + 1)

    def _padding(self, node: ast.Call, func: ast.Attribute, scope: Scope, depth: int) -> list[Pattern]:
        space = Many(((Lit(" "),),))
        return [(space, *option, space) for option in self.read(func.value, scope, depth + 1)]

    def _elements(self, node: ast.expr, scope: Scope, depth: int) -> list[Pattern]:
        """Patterns of the elements of an iterable of text."""
        if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp):
            return [_without_params(option) for option in self.read(node.elt, scope, depth + 1)]
        if isinstance(node, ast.List | ast.Tuple | ast.Set):
            return [option for item in node.elts for option in self.read(item, scope, depth + 1)] or [()]
        if isinstance(node, ast.Call) and node.args and last_name(node.func) in _SAME_ELEMENTS:
            return self._elements(node.args[0], scope, depth + 1)
        if isinstance(node, ast.Name):
            return self._list_variable(node, scope, depth)
        return [_field(node)]

    def _list_variable(self, node: ast.Name, scope: Scope, depth: int) -> list[Pattern]:
        home = scope.find(node.id)
        key = (id(home), "list:" + node.id)
        if home is None or key in self._busy or node.id in home.parameters:
            return [_field(node)]
        self._busy.add(key)
        try:
            options: list[Pattern] = []
            for how, value in home.bound.get(node.id, []):
                if how in ("=", "+=") and value is not None:
                    options += self._elements(value, home, depth + 1)
                else:
                    options.append(_field(node))
            for value, where in self.index.appended.get((id(home), node.id), []):
                options += self.read(value, where, depth + 1)
        finally:
            self._busy.discard(key)
        options = list(dict.fromkeys(option for option in options if option)) or [_field(node)]
        return options if len(options) <= MAX_ALTERNATIVES else [_field(node)]

    def _name(self, node: ast.Name, scope: Scope, depth: int) -> list[Pattern]:
        home = scope.find(node.id)
        if home is None:
            return [_field(node)]
        if node.id in home.parameters and node.id not in home.bound:
            return [(Param(home.name, node.id),)]
        key = (id(home), node.id)
        if key in self._busy:
            return [_field(node)]
        self._busy.add(key)
        try:
            return self._variable(node, home, depth)
        finally:
            self._busy.discard(key)

    def _variable(self, node: ast.Name, home: Scope, depth: int) -> list[Pattern]:
        starts: list[Pattern] = [(Param(home.name, node.id),)] if node.id in home.parameters else []
        extras: list[Pattern] = []
        for how, value in home.bound.get(node.id, []):
            if how == "=" and value is not None and _may_be_text(value):
                starts += self.read(value, home, depth + 1)
            elif how == "+=" and value is not None and self._is_text(value, home):
                extras += self.read(value, home, depth + 1)
            elif how == "for" and isinstance(value, ast.List | ast.Tuple):
                starts += self._elements(value, home, depth + 1)
            else:
                starts.append(_field(node))
        if not starts:
            return [_field(node)]
        if not extras:
            return starts
        tail = Many(tuple(dict.fromkeys(_without_params(extra) for extra in extras)))
        return [(*start, tail) for start in starts]

    def _is_text(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        """True when the expression is certainly text: `a + b` of numbers must stay one numeric field."""
        if isinstance(node, ast.Constant):
            return isinstance(node.value, str)
        if isinstance(node, ast.JoinedStr):
            return True
        if isinstance(node, ast.BinOp):
            return self._is_text(node.left, scope, depth) or (
                isinstance(node.op, ast.Add | ast.Mult) and self._is_text(node.right, scope, depth)
            )
        if isinstance(node, ast.Call):
            return last_name(node.func) in ("str", "repr", *_TEXT_METHODS)
        if isinstance(node, ast.IfExp):
            return self._is_text(node.body, scope, depth) or self._is_text(node.orelse, scope, depth)
        if isinstance(node, ast.Name) and depth < 3:
            home = scope.find(node.id)
            values = home.bound.get(node.id, []) if home else []
            return any(how == "=" and v is not None and self._is_text(v, home, depth + 1) for how, v in values)
        return False


def _field(node: ast.AST) -> Pattern:
    return (Field(unparsed(node), ""),)


def _may_be_text(node: ast.expr) -> bool:
    """False for expressions that can only be numbers or containers: reading them as text would be a guess."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    return isinstance(node, ast.JoinedStr | ast.BinOp | ast.IfExp | ast.BoolOp | ast.Call | ast.Name | ast.NamedExpr)


def _known_text(options: list[Pattern]) -> bool:
    """True when every alternative holds literal text or asks a caller, so that it says more than one field."""
    return all(any(isinstance(part, Lit | Param | Many) for part in option) for option in options)


def _without_params(pattern: Pattern) -> Pattern:
    """Parameters inside repetitions and returned text are not followed to the callers."""
    out = []
    for part in pattern:
        if isinstance(part, Param):
            part = Field(part.name, None)
        elif isinstance(part, Many):
            part = Many(tuple(_without_params(o) for o in part.options), _without_params(part.separator))
        out.append(part)
    return tuple(out)


def _static_spec(node: ast.expr | None) -> str | None:
    """Text of a format specification, None when it holds a computed part."""
    if node is None:
        return ""
    if isinstance(node, ast.JoinedStr) and all(isinstance(v, ast.Constant) for v in node.values):
        return "".join(str(v.value) for v in node.values)
    return None


def _padded(text: Lit, spec: str) -> Pattern:
    if re.fullmatch(r"[<>^]?\d+s?", spec):
        try:
            return (Lit(format(text.text, spec)),)
        except ValueError:
            pass
    return (Field(repr(text.text), spec),)


def printf_pattern(template: str, values: list[ast.expr]) -> Pattern:
    """Pattern of a `%` format with its arguments (also what `logging` calls use)."""
    parts: list[Lit | Field] = []
    position, taken = 0, 0
    for found in _PRINTF.finditer(template):
        parts.append(Lit(template[position : found.start()]))
        position = found.end()
        if found["type"] == "%":
            parts.append(Lit("%"))
            continue
        name = found["key"] or (unparsed(values[taken]) if taken < len(values) else "?")
        taken += 1
        parts.append(Field(name, _printf_spec(found), percent=True))
    parts.append(Lit(template[position:]))
    return tidy(tuple(parts))


def _printf_spec(found: re.Match[str]) -> str | None:
    width, precision = found["width"] or "", found["prec"]
    if "*" in (width, precision):
        return None
    kind = {"i": "d", "u": "d"}.get(found["type"], found["type"])
    if kind in ("r", "a"):
        kind = "s"
    if kind == "s":
        return ""
    sign = "+" if "+" in found["flags"] else ""
    spec = f"{sign}{width}{'.' + precision if precision is not None and kind != 'd' else ''}{kind}"
    return spec


def _format_pattern(template: str, node: ast.Call) -> Pattern:
    keywords = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    parts: list[Lit | Field] = []
    automatic = 0
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError:
        return _field(node)
    for text, name, spec, _conversion in pieces:
        parts.append(Lit(text))
        if name is None:
            continue
        value: ast.expr | None = None
        if name == "":
            value = node.args[automatic] if automatic < len(node.args) else None
            automatic += 1 + (spec or "").count("{}")
        elif name.isdigit():
            value = node.args[int(name)] if int(name) < len(node.args) else None
        else:
            value = keywords.get(name)
        shown = unparsed(value) if value is not None else name
        parts.append(Field(shown, None if "{" in (spec or "") else spec or ""))
    return tidy(tuple(parts))


_TEXT_METHODS = {
    "format": TextReader._format_method,
    "join": TextReader._join,
    "strip": TextReader._same_text,
    "rstrip": TextReader._same_text,
    "lstrip": TextReader._same_text,
    "encode": TextReader._same_text,
    "ljust": TextReader._padding,
    "rjust": TextReader._padding,
    "center": TextReader._padding,
}
_READERS = {
    ast.Constant: TextReader._constant,
    ast.JoinedStr: TextReader._joined,
    ast.FormattedValue: TextReader._formatted,
    ast.BinOp: TextReader._binary,
    ast.IfExp: TextReader._either,
    ast.BoolOp: TextReader._either,
    ast.Call: TextReader._call,
    ast.Name: TextReader._name,
}
