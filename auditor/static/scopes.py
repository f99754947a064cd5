"""Where names are bound and functions are called, from one walk over a syntax tree.

A deliberately small index for reading text and settings: flow-insensitive, a superset of what can happen.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass
class Scope:
    """A function (or the module): its node, enclosing scope, and every value bound to each name in it.

    `bound` maps a name to (how, expression): how is "=" (assigned), "+=" (extended), "for" (element of the
    expression), "other" (with, import, unpacking of something unknown).
    """

    node: ast.AST
    name: str
    parent: Scope | None = None
    bound: dict[str, list[tuple[str, ast.expr | None]]] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    keyword_defaults: dict[str, ast.expr] = field(default_factory=dict)
    in_class: str = ""

    def find(self, name: str) -> Scope | None:
        """The nearest enclosing scope that binds `name`."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.bound or name in scope.parameters:
                return scope
            scope = scope.parent
        return None


@dataclass(frozen=True)
class Guard:
    """A condition under which a statement runs; `holds` False for an else branch."""

    test: ast.expr
    holds: bool
    line: int


@dataclass(frozen=True)
class CallSite:
    """A call with its scope and the conditions, loops and handler it stands in (outermost first)."""

    node: ast.Call
    scope: Scope
    guards: tuple[Guard, ...] = ()
    loops: tuple[ast.For | ast.While, ...] = ()
    in_handler: bool = False

    @property
    def name(self) -> str:
        """Last component of the called name, "" when the callee is not a name."""
        return last_name(self.node.func)


@dataclass
class Index:
    """Everything the walk found: scopes by function name, call sites by callee, attributes set on objects.

    `appended` maps (scope identity, list name) to what is appended to that list; `imports` a bound name to the
    module or `module.name` it stands for.
    """

    module: Scope
    functions: dict[str, list[Scope]] = field(default_factory=dict)
    calls: list[CallSite] = field(default_factory=list)
    calls_by_name: dict[str, list[CallSite]] = field(default_factory=dict)
    attributes: dict[str, list[ast.expr]] = field(default_factory=dict)
    appended: dict[tuple[int, str], list[tuple[ast.expr, Scope]]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


def last_name(node: ast.AST) -> str:
    """`c` of `a.b.c`, `f` of `f`; "" for anything that is not a name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names, "" otherwise."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def index(tree: ast.Module) -> Index:
    """Index a module. The result is kept on the tree, so it is computed once per parse."""
    found = getattr(tree, "_auditor_index", None)
    if found is None:
        found = _Walk(tree).result
        tree._auditor_index = found  # type: ignore[attr-defined]
    return found


@dataclass(frozen=True)
class _Context:
    scope: Scope
    guards: tuple[Guard, ...] = ()
    loops: tuple[ast.For | ast.While, ...] = ()
    in_handler: bool = False
    in_class: str = ""


class _Walk:
    """One pass in source order; recursion follows statements and expressions, contexts are immutable."""

    def __init__(self, tree: ast.Module) -> None:
        self.result = Index(Scope(tree, ""))
        self._block(tree.body, _Context(self.result.module))

    def _block(self, body: list[ast.stmt], here: _Context) -> None:
        for node in body:
            self._statement(node, here)

    def _statement(self, node: ast.stmt, here: _Context) -> None:
        handler = _STATEMENTS.get(type(node))
        if handler is not None:
            handler(self, node, here)
        else:
            self._expressions(node, here)

    def _expressions(self, node: ast.AST, here: _Context) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child, here)
            else:
                self._expression(child, here)

    def _expression(self, node: ast.AST, here: _Context) -> None:
        if isinstance(node, ast.Call):
            self._call(node, here)
        elif isinstance(node, ast.Lambda):
            scope = _scope_of(node, "<lambda>", here)
            self._expression(node.body, _Context(scope))
            return
        elif isinstance(node, ast.NamedExpr):
            _bind(here.scope, node.target, "=", node.value)
        elif isinstance(node, ast.comprehension):
            _bind(here.scope, node.target, "for", node.iter)
        for child in ast.iter_child_nodes(node):
            self._expression(child, here)

    def _call(self, node: ast.Call, here: _Context) -> None:
        site = CallSite(node, here.scope, here.guards, here.loops, here.in_handler)
        self.result.calls.append(site)
        self.result.calls_by_name.setdefault(site.name, []).append(site)
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr in ("append", "extend", "insert") and node.args:
            owner = last_name(func.value)
            home = here.scope.find(owner) or here.scope
            self.result.appended.setdefault((id(home), owner), []).append((node.args[-1], here.scope))

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, here: _Context) -> None:
        scope = _scope_of(node, node.name, here)
        here.scope.bound.setdefault(node.name, []).append(("other", None))
        self.result.functions.setdefault(node.name, []).append(scope)
        for outer in (*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)):
            self._expression(outer, here)
        self._block(node.body, _Context(scope))

    def _class(self, node: ast.ClassDef, here: _Context) -> None:
        inner = Scope(node, node.name, here.scope, in_class=node.name)
        here.scope.bound.setdefault(node.name, []).append(("other", None))
        for base in node.bases:
            self._expression(base, here)
        # Names of a class body are reached as attributes, not through the scope chain.
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                self._function(statement, _Context(here.scope, in_class=node.name))
            else:
                self._statement(statement, _Context(inner))
        for name, values in inner.bound.items():
            self.result.attributes.setdefault(name, []).extend(value for _, value in values if value is not None)

    def _assign(self, node: ast.Assign, here: _Context) -> None:
        self._expression(node.value, here)
        for target in node.targets:
            self._target(target, node.value, here)

    def _target(self, target: ast.expr, value: ast.expr, here: _Context) -> None:
        if isinstance(target, ast.Attribute):
            self.result.attributes.setdefault(target.attr, []).append(value)
        elif isinstance(target, ast.Subscript):
            self._expression(target, here)
        _bind(here.scope, target, "=", value)

    def _annotated(self, node: ast.AnnAssign, here: _Context) -> None:
        if node.value is not None:
            self._expression(node.value, here)
            self._target(node.target, node.value, here)

    def _augmented(self, node: ast.AugAssign, here: _Context) -> None:
        self._expression(node.value, here)
        _bind(here.scope, node.target, "+=" if isinstance(node.op, ast.Add) else "other", node.value)

    def _if(self, node: ast.If, here: _Context) -> None:
        self._expression(node.test, here)
        for body, holds in ((node.body, True), (node.orelse, False)):
            guards = (*here.guards, Guard(node.test, holds, node.lineno))
            self._block(body, _Context(here.scope, guards, here.loops, here.in_handler, here.in_class))

    def _loop(self, node: ast.For | ast.While, here: _Context) -> None:
        if isinstance(node, ast.For):
            self._expression(node.iter, here)
            _bind(here.scope, node.target, "for", node.iter)
        else:
            self._expression(node.test, here)
        inside = _Context(here.scope, here.guards, (*here.loops, node), here.in_handler, here.in_class)
        self._block(node.body, inside)
        self._block(node.orelse, here)

    def _try(self, node: ast.Try, here: _Context) -> None:
        self._block(node.body, here)
        for handler in node.handlers:
            inside = _Context(here.scope, here.guards, here.loops, True, here.in_class)
            self._block(handler.body, inside)
        self._block(node.orelse, here)
        self._block(node.finalbody, here)

    def _import(self, node: ast.Import | ast.ImportFrom, here: _Context) -> None:
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                self.result.imports[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
            else:
                self.result.imports[alias.asname or alias.name.partition(".")[0]] = alias.name

    def _with(self, node: ast.With, here: _Context) -> None:
        for item in node.items:
            self._expression(item.context_expr, here)
            if item.optional_vars is not None:
                _bind(here.scope, item.optional_vars, "with", item.context_expr)
        self._block(node.body, here)


_STATEMENTS = {
    ast.FunctionDef: _Walk._function,
    ast.AsyncFunctionDef: _Walk._function,
    ast.ClassDef: _Walk._class,
    ast.Assign: _Walk._assign,
    ast.AnnAssign: _Walk._annotated,
    ast.AugAssign: _Walk._augmented,
    ast.If: _Walk._if,
    ast.For: _Walk._loop,
    ast.AsyncFor: _Walk._loop,
    ast.While: _Walk._loop,
    ast.Try: _Walk._try,
    ast.TryStar: _Walk._try,
    ast.With: _Walk._with,
    ast.Import: _Walk._import,
    ast.ImportFrom: _Walk._import,
    ast.AsyncWith: _Walk._with,
}


def _scope_of(node: Function, name: str, here: _Context) -> Scope:
    args = node.args
    positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    defaults = dict(zip(reversed(positional), reversed(args.defaults), strict=False))
    defaults |= {a.arg: d for a, d in zip(args.kwonlyargs, args.kw_defaults, strict=True) if d is not None}
    names = (*positional, *(arg.arg for arg in args.kwonlyargs))
    return Scope(node, name, here.scope, parameters=names, keyword_defaults=defaults, in_class=here.in_class)


def _bind(scope: Scope, target: ast.expr, how: str, value: ast.expr | None) -> None:
    if isinstance(target, ast.Name):
        scope.bound.setdefault(target.id, []).append((how, value))
    elif isinstance(target, ast.Starred):
        _bind(scope, target.value, "other", None)
    elif isinstance(target, ast.Tuple | ast.List):
        for position, item in enumerate(target.elts):
            element_how, element = _element(how, value, position, len(target.elts))
            _bind(scope, item, element_how, element)


def _element(how: str, value: ast.expr | None, position: int, count: int) -> tuple[str, ast.expr | None]:
    """What the item at `position` of an unpacked target receives, where the value is written out."""
    if how == "=" and isinstance(value, ast.Tuple | ast.List) and len(value.elts) == count:
        return "=", value.elts[position]
    if how == "for" and isinstance(value, ast.Tuple | ast.List):
        rows = [row for row in value.elts if isinstance(row, ast.Tuple | ast.List) and len(row.elts) == count]
        if rows and len(rows) == len(value.elts):
            return "for", ast.List(elts=[row.elts[position] for row in rows], ctx=ast.Load())
    return "other", None


def unparsed(node: ast.AST) -> str:
    """Source text of an expression on one line, shortened to 60 characters. Kept on the node: printing is slow."""
    text = getattr(node, "_auditor_text", None)
    if text is None:
        text = " ".join(ast.unparse(node).split())
        text = text if len(text) <= 60 else text[:57] + "..."
        node._auditor_text = text  # type: ignore[attr-defined]
    return text
