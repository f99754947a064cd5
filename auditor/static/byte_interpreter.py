"""Evaluates the small part of Python that byte tables are made with, over values whose byte counts are known.

A tree walker over syntax trees: no code of a submission is ever handed to the host interpreter. Steps and sizes are
bounded; what it does not know becomes `OPAQUE`, and a branch on it stops the evaluation.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

from auditor.static.byte_library import array_call, array_method, plain_method
from auditor.static.byte_operators import BINARY, COMPARE, MAX_SIZE, Raised, Stuck, bounded, invert, spread
from auditor.static.byte_stand_in import OPAQUE, SIZE, Argument, Opaque, Table, Tokenizer, knows

MAX_STEPS = 400_000
MAX_DEPTH = 40
MAX_FIELD = 64
# What operations of the host raise for values they do not fit; the evaluated code would raise there too.
_HOST_ERRORS = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError)


class _Return(Exception):
    def __init__(self, value: Any) -> None:
        self.value = value


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class Function:
    """A function of the submission with the names around it."""

    def __init__(self, node: ast.FunctionDef | ast.Lambda, scope: dict[str, Any]) -> None:
        self.node, self.scope = node, scope


class Library:
    """A dotted name of an imported library (`numpy.zeros`)."""

    def __init__(self, name: str) -> None:
        self.name = name


class Interpreter:
    """Evaluates statements and expressions of one module.

    Args:
        tree: the module, for its functions, constants and imports.
        look: asked first for every expression; returns NotImplemented to let it be evaluated.
    """

    def __init__(self, tree: ast.Module, look: Callable[[ast.expr], Any] | None = None) -> None:
        self.look = look
        self.steps = 0
        self.depth = 0
        self.imports: dict[str, str] = {}
        self.top: dict[str, ast.AST] = {}
        self.cache: dict[str, Any] = {}
        self._collect(tree)

    def _collect(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for name in node.names:
                    self.imports[name.asname or name.name.partition(".")[0]] = (
                        name.name if name.asname else name.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                for name in node.names:
                    self.imports[name.asname or name.name] = f"{node.module or ''}.{name.name}"
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                self.top[node.name] = node
            elif isinstance(node, ast.ClassDef):  # settings, as far as tables are concerned
                self.cache[node.name] = holder = Argument()
                holder.attributes.update({f.name: Function(f, {}) for f in node.body if _static(f)})
                self.top[node.name] = node
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self.top[target.id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                self.top[node.target.id] = node.value

    # ---- statements

    def run(self, body: Sequence[ast.stmt], scope: dict[str, Any]) -> None:
        """Execute statements.

        Raises:
            Stuck: something the evaluation cannot follow.
        """
        for statement in body:
            self._step()
            method = getattr(self, f"_do_{type(statement).__name__.lower()}", None)
            if method is None:
                continue
            try:
                method(statement, scope)
            except _HOST_ERRORS as error:
                raise Raised(f"line {statement.lineno}: {type(error).__name__}") from None

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise Stuck("too many steps")

    def _do_assign(self, node: ast.Assign, scope: dict[str, Any]) -> None:
        value = self.value(node.value, scope)
        for target in node.targets:
            self._bind(target, value, scope)

    def _do_annassign(self, node: ast.AnnAssign, scope: dict[str, Any]) -> None:
        if node.value is not None:
            self._bind(node.target, self.value(node.value, scope), scope)

    def _do_augassign(self, node: ast.AugAssign, scope: dict[str, Any]) -> None:
        load = ast.copy_location(ast.BinOp(_load(node.target), node.op, node.value), node)
        self._bind(node.target, self.value(load, scope), scope)

    def _do_expr(self, node: ast.Expr, scope: dict[str, Any]) -> None:
        self.value(node.value, scope)

    def _do_return(self, node: ast.Return, scope: dict[str, Any]) -> None:
        raise _Return(self.value(node.value, scope) if node.value else None)

    def _do_if(self, node: ast.If, scope: dict[str, Any]) -> None:
        self.run(node.body if self.truth(node.test, scope) else node.orelse, scope)

    def _do_for(self, node: ast.For, scope: dict[str, Any]) -> None:
        for item in self.items(self.value(node.iter, scope)):
            self._step()
            self._bind(node.target, item, scope)
            try:
                self.run(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue
        self.run(node.orelse, scope)

    def _do_while(self, node: ast.While, scope: dict[str, Any]) -> None:
        while self.truth(node.test, scope):
            self._step()
            try:
                self.run(node.body, scope)
            except _Break:
                return
            except _Continue:
                continue

    def _do_break(self, _: ast.Break, __: dict[str, Any]) -> None:
        raise _Break

    def _do_continue(self, _: ast.Continue, __: dict[str, Any]) -> None:
        raise _Continue

    def _do_raise(self, node: ast.Raise, _: dict[str, Any]) -> None:
        raise Raised(f"raises at line {node.lineno}")

    def _do_try(self, node: ast.Try, scope: dict[str, Any]) -> None:
        try:
            self.run(node.body, scope)
        except Stuck:
            if not node.handlers or self.steps > MAX_STEPS:
                raise
            self.run(node.handlers[0].body, scope)
        else:
            self.run(node.orelse, scope)
        self.run(node.finalbody, scope)

    def _do_with(self, node: ast.With, scope: dict[str, Any]) -> None:
        for item in node.items:
            if item.optional_vars is not None:
                self._bind(item.optional_vars, self.value(item.context_expr, scope), scope)
        self.run(node.body, scope)

    def _do_functiondef(self, node: ast.FunctionDef, scope: dict[str, Any]) -> None:
        scope[node.name] = Function(node, scope)

    def _bind(self, target: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, ast.Tuple | ast.List):
            parts = [OPAQUE] * len(target.elts) if isinstance(value, Opaque) else self.items(value)
            for part, item in zip(target.elts, parts, strict=False):
                self._bind(part, item, scope)
        elif isinstance(target, ast.Attribute):
            owner = self.value(target.value, scope)
            if isinstance(owner, Argument):
                owner.attributes[target.attr] = value
        elif isinstance(target, ast.Subscript):
            self._put(self.value(target.value, scope), target.slice, value, scope)

    def _put(self, owner: Any, key: ast.expr, value: Any, scope: dict[str, Any]) -> None:
        where = self.value(key, scope)
        if isinstance(owner, dict) or (isinstance(owner, list) and not isinstance(where, Opaque | Table)):
            owner[where] = value
        elif isinstance(owner, Table):
            self._put_rows(owner, where, value)
        elif not isinstance(owner, Opaque | Argument):
            raise Stuck("a value is written to what is not an array")

    def _put_rows(self, table: Table, where: Any, value: Any) -> None:
        size = len(table.items)
        if isinstance(where, slice):
            rows = list(range(size))[where]
        elif isinstance(where, Table | list):
            given = where.items if isinstance(where, Table) else where
            masks = bool(given) and all(isinstance(item, bool) for item in given)
            rows = [i for i, item in enumerate(given) if item] if masks else [int(item) for item in given]
        elif isinstance(where, Opaque):
            raise Stuck("an array is written at an unknown place")
        else:
            rows = [SIZE if isinstance(where, Argument) else int(where)]
        values = value.items if isinstance(value, Table) else value if isinstance(value, list) else [value] * len(rows)
        for row, item in zip(rows, values, strict=False):
            if not -size <= row < size:
                raise Raised("an index is outside the table")
            table.items[row] = table.store(item)

    # ---- expressions

    def items(self, value: Any) -> list[Any]:
        """Elements of something that is iterated over."""
        if isinstance(value, Table):
            return value.items
        if isinstance(value, Argument):  # token ids that were handed in: every id once
            return list(range(SIZE))
        if isinstance(value, range) and len(value) > MAX_SIZE:
            raise Stuck("a loop is too long")
        if isinstance(value, list | tuple | range | dict | set | str | bytes):
            return list(value)
        raise Stuck("loops over something unknown")

    def truth(self, node: ast.expr, scope: dict[str, Any]) -> bool:
        """Truth of a condition.

        Raises:
            Stuck: it depends on something unknown.
        """
        value = self.value(node, scope)
        if isinstance(value, Opaque):
            raise Stuck(f"line {node.lineno} branches on something unknown")
        return bool(value.items) if isinstance(value, Table) else bool(value)

    def value(self, node: ast.expr, scope: dict[str, Any]) -> Any:
        """Value of an expression, `OPAQUE` when it is not known.

        Raises:
            Stuck: something the evaluation cannot follow; host errors of its operations are `Raised`.
        """
        self._step()
        if self.look is not None:
            found = self.look(node)
            if found is not NotImplemented:
                return found
        method = getattr(self, f"_of_{type(node).__name__.lower()}", None)
        if method is None:
            return OPAQUE
        try:
            return method(node, scope)
        except _HOST_ERRORS as error:
            raise Raised(f"line {getattr(node, 'lineno', 0)}: {type(error).__name__}") from None

    def _of_constant(self, node: ast.Constant, _: dict[str, Any]) -> Any:
        return node.value

    def _of_name(self, node: ast.Name, scope: dict[str, Any]) -> Any:
        if node.id in scope:
            return scope[node.id]
        if node.id in self.top:
            return self._module_name(node.id)
        if node.id in self.imports:
            return Library(self.imports[node.id])
        return Library(f"builtins.{node.id}") if node.id in BUILTINS else OPAQUE

    def _module_name(self, name: str) -> Any:
        if name not in self.cache:
            self.cache[name] = OPAQUE  # a name that needs itself stays unknown
            node = self.top[name]
            try:
                known = Function(node, {}) if isinstance(node, ast.FunctionDef) else self.value(node, {})  # type: ignore[arg-type]
            except Stuck:
                known = OPAQUE
            self.cache[name] = known
        return self.cache[name]

    def _of_attribute(self, node: ast.Attribute, scope: dict[str, Any]) -> Any:
        owner = self.value(node.value, scope)
        if isinstance(owner, Library):
            return {"math.pi": math.pi, "math.e": math.e}.get(
                f"{owner.name}.{node.attr}", Library(f"{owner.name}.{node.attr}")
            )
        if isinstance(owner, Argument):
            return owner.attributes.get(node.attr, Argument())
        if isinstance(owner, Table) and node.attr in ("shape", "size"):
            return (len(owner.items),) if node.attr == "shape" else len(owner.items)
        return OPAQUE

    def _of_binop(self, node: ast.BinOp, scope: dict[str, Any]) -> Any:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        apply = BINARY.get(type(node.op))
        return OPAQUE if apply is None else spread(apply, left, right)

    def _of_unaryop(self, node: ast.UnaryOp, scope: dict[str, Any]) -> Any:
        value = self.value(node.operand, scope)
        if isinstance(value, Opaque):
            return OPAQUE
        if isinstance(node.op, ast.Not):
            return not value
        if isinstance(node.op, ast.Invert):
            return invert(value)
        return spread(BINARY[ast.Mult], value, -1 if isinstance(node.op, ast.USub) else 1)

    def _of_boolop(self, node: ast.BoolOp, scope: dict[str, Any]) -> Any:
        ends_on = isinstance(node.op, ast.Or)
        value: Any = OPAQUE
        for part in node.values:
            value = self.value(part, scope)
            if isinstance(value, Opaque):
                return OPAQUE
            if bool(value) is ends_on:
                return value
        return value

    def _of_compare(self, node: ast.Compare, scope: dict[str, Any]) -> Any:
        left, answer = self.value(node.left, scope), True
        for op, part in zip(node.ops, node.comparators, strict=True):
            right = self.value(part, scope)
            if isinstance(op, ast.In | ast.NotIn):
                if isinstance(left, Opaque) or isinstance(right, Opaque | Argument):
                    return OPAQUE
                answer = COMPARE[type(op)](left, right.items if isinstance(right, Table) else right)
            elif isinstance(op, ast.Is | ast.IsNot) and isinstance(left, Argument):
                answer = isinstance(op, ast.IsNot)
            else:
                answer = spread(COMPARE[type(op)], left, right)
            if isinstance(answer, Table | Opaque) or not answer:
                return answer
            left = right
        return answer

    def _of_ifexp(self, node: ast.IfExp, scope: dict[str, Any]) -> Any:
        return self.value(node.body if self.truth(node.test, scope) else node.orelse, scope)

    def _of_tuple(self, node: ast.Tuple, scope: dict[str, Any]) -> Any:
        return tuple(self.value(item, scope) for item in node.elts)

    def _of_list(self, node: ast.List, scope: dict[str, Any]) -> Any:
        return [self.value(item, scope) for item in node.elts]

    def _of_set(self, node: ast.Set, scope: dict[str, Any]) -> Any:
        return {self.value(item, scope) for item in node.elts}

    def _of_dict(self, node: ast.Dict, scope: dict[str, Any]) -> Any:
        return {self.value(k, scope): self.value(v, scope) for k, v in zip(node.keys, node.values, strict=True) if k}

    def _of_joinedstr(self, node: ast.JoinedStr, scope: dict[str, Any]) -> Any:
        """Text of the few formats pieces are named with (`<0x{value:02X}>`)."""
        out = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                out += part.value
                continue
            value = self.value(part.value, scope)  # type: ignore[attr-defined]
            spec = self.value(part.format_spec, scope) if part.format_spec else ""  # type: ignore[attr-defined]
            if not isinstance(value, int | str) or not isinstance(spec, str) or spec.strip("0123456789xXds"):
                return OPAQUE
            digits = "".join(c for c in spec if c.isdigit())
            out += format(value, spec) if int(digits or 0) <= MAX_FIELD else ""
        return bounded(out)

    def _of_slice(self, node: ast.Slice, scope: dict[str, Any]) -> Any:
        ends = [self.value(end, scope) if end else None for end in (node.lower, node.upper, node.step)]
        return slice(*(SIZE if isinstance(end, Argument) else end for end in ends))

    def _of_subscript(self, node: ast.Subscript, scope: dict[str, Any]) -> Any:
        owner, key = self.value(node.value, scope), self.value(node.slice, scope)
        if isinstance(owner, Opaque | Argument | Library | Function) or isinstance(key, Opaque):
            return OPAQUE
        if isinstance(owner, int | float):  # one element stands for the array: its part is itself
            return owner
        key = SIZE if isinstance(key, Argument) else key
        if not isinstance(owner, Table):
            return owner[key]
        if isinstance(key, Table | list):
            rows = key.items if isinstance(key, Table) else key
            return Table([owner.items[int(row)] for row in rows], owner.numeric)
        return Table(owner.items[key], owner.numeric) if isinstance(key, slice) else owner.items[int(key)]

    def _of_listcomp(self, node: ast.ListComp, scope: dict[str, Any]) -> list[Any]:
        out: list[Any] = []
        self._comprehend(node.generators, dict(scope), lambda inner: out.append(self.value(node.elt, inner)))
        return out

    _of_generatorexp = _of_listcomp

    def _of_setcomp(self, node: ast.SetComp, scope: dict[str, Any]) -> set[Any]:
        return set(self._of_listcomp(node, scope))  # type: ignore[arg-type]

    def _of_dictcomp(self, node: ast.DictComp, scope: dict[str, Any]) -> dict[Any, Any]:
        out: dict[Any, Any] = {}

        def put(inner: dict[str, Any]) -> None:
            out[self.value(node.key, inner)] = self.value(node.value, inner)

        self._comprehend(node.generators, dict(scope), put)
        return out

    def _comprehend(
        self, parts: list[ast.comprehension], scope: dict[str, Any], emit: Callable[[dict[str, Any]], Any]
    ) -> None:
        if not parts:
            emit(scope)
            return
        for item in self.items(self.value(parts[0].iter, scope)):
            self._step()
            self._bind(parts[0].target, item, scope)
            if all(self.truth(test, scope) for test in parts[0].ifs):
                self._comprehend(parts[1:], scope, emit)

    def _of_lambda(self, node: ast.Lambda, scope: dict[str, Any]) -> Function:
        return Function(node, scope)

    # ---- calls

    def _of_call(self, node: ast.Call, scope: dict[str, Any]) -> Any:
        if isinstance(node.func, ast.Attribute):
            owner = self.value(node.func.value, scope)
            held = owner.attributes.get(node.func.attr) if isinstance(owner, Argument) else None
            if isinstance(held, Function):
                return self.call(held, *self._arguments(node, scope))
            if not isinstance(owner, Library):
                return self._method(owner, node.func.attr, node, scope)
            function: Any = Library(f"{owner.name}.{node.func.attr}")
        else:
            function = self.value(node.func, scope)
        positional, keywords = self._arguments(node, scope)
        if isinstance(function, Function):
            return self.call(function, positional, keywords)
        if isinstance(function, Argument):
            return Argument()
        if not isinstance(function, Library):
            return OPAQUE
        return bounded(self._library(function.name, positional, keywords))

    def _arguments(self, node: ast.Call, scope: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        for part in node.args:
            if isinstance(part, ast.Starred):
                positional += self.items(self.value(part.value, scope))
            else:
                positional.append(self.value(part, scope))
        return positional, {k.arg: self.value(k.value, scope) for k in node.keywords if k.arg}

    def _library(self, name: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
        short = name.rpartition(".")[2]
        if short == "SentencePieceProcessor":
            return Tokenizer()
        if name.startswith("builtins."):
            if short == "map" and len(positional) == 2:
                return [self._apply(positional[0], [item]) for item in self.items(positional[1])]
            if short in ("getattr", "hasattr", "isinstance") and isinstance(positional[0], Argument | Tokenizer):
                if short == "getattr":
                    return positional[2] if len(positional) > 2 else Argument()
                return short == "hasattr" and isinstance(positional[1], str) and knows(positional[1])
            made = BUILTINS[short]
            if made is None or any(isinstance(item, Opaque) for item in positional):
                return OPAQUE
            plain = [
                item.items if isinstance(item, Table) else SIZE if isinstance(item, Argument) else item
                for item in positional
            ]
            if short == "len" and isinstance(positional[0], Tokenizer | Argument):
                return SIZE
            if (
                short in ("list", "tuple", "sorted", "set", "sum", "bytes")
                and plain
                and isinstance(plain[0], range | int)
            ):
                self.items(plain[0] if isinstance(plain[0], range) else range(plain[0]))
            return made(*plain)
        return array_call(name, positional, keywords)

    def _apply(self, function: Any, positional: list[Any]) -> Any:
        if isinstance(function, Function):
            return self.call(function, positional, {})
        return self._library(function.name, positional, {}) if isinstance(function, Library) else OPAQUE

    def call(self, function: Function, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Result of a function of the submission.

        Raises:
            Stuck: it cannot be followed.
        """
        arguments = function.node.args
        names = [item.arg for item in (*arguments.posonlyargs, *arguments.args)]
        scope = dict(function.scope)
        defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
        defaults |= {k.arg: v for k, v in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if v}
        scope |= {name: self.value(node, {}) for name, node in defaults.items()}
        scope |= dict(zip(names, positional, strict=False)) | dict(keywords)
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                raise Stuck("calls are nested too deeply")
            if isinstance(function.node, ast.Lambda):
                return self.value(function.node.body, scope)
            self.run(function.node.body, scope)
        except _Return as returned:
            return returned.value
        finally:
            self.depth -= 1
        return None

    def _method(self, owner: Any, name: str, node: ast.Call, scope: dict[str, Any]) -> Any:
        if isinstance(owner, Opaque):
            return OPAQUE
        positional, keywords = self._arguments(node, scope)
        if isinstance(owner, Argument) and name in owner.attributes:
            owner = owner.attributes[name]
            return self.call(owner, positional, keywords) if isinstance(owner, Function) else OPAQUE
        if isinstance(owner, Tokenizer | Argument):
            if any(isinstance(item, Opaque) for item in positional[:1]):
                return OPAQUE
            if knows(name):
                return Tokenizer().call(name, [SIZE if isinstance(i, Argument) else i for i in positional])
            if isinstance(owner, Argument) and name in ("endswith", "exists", "is_file"):
                return name != "endswith" or positional[0] == ".model"
            return Argument()
        if isinstance(owner, Table | int | float):
            return array_method(owner, name, positional, keywords)
        return bounded(plain_method(owner, name, positional, keywords))


def _static(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    """A function that only lives in a class: called by the name of the class, without an object."""
    return isinstance(node, ast.FunctionDef) and any(
        isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list
    )


def _load(node: ast.expr) -> ast.expr:
    """The same place read instead of written."""
    if isinstance(node, ast.Name):
        return ast.copy_location(ast.Name(node.id, ast.Load()), node)
    return node


BUILTINS: dict[str, Callable[..., Any] | None] = {
    **{
        f.__name__: f
        for f in (abs, all, any, bool, bytes, dict, enumerate, float, int, len, list, max, min, ord, range)
    },
    **{f.__name__: f for f in (round, set, sorted, sum, tuple, zip, chr, frozenset, divmod, reversed)},
    "str": lambda value="": str(value) if isinstance(value, int | float | str) else OPAQUE,
    "enumerate": lambda items, start=0: list(enumerate(items, start)),
    "zip": lambda *items: list(zip(*items, strict=False)),
    "reversed": lambda items: list(items)[::-1],
    "bytearray": lambda value=b"": bytes(value),
    **dict.fromkeys(("print", "map", "open", "isinstance", "getattr", "hasattr", "super", "type", "repr")),
}
