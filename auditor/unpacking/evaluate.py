"""Static evaluation of a stub: what text reaches exec, a file that is run, or a module that is imported.

The statements are walked in order with a table of known values; both branches of an `if` and every handler are walked,
loops over known sequences are unrolled within a bound, functions are entered when called and once more at the end.
Only the operations of `auditor.unpacking.library` are carried out, all of them ours: no code of the stub runs.
"""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from auditor.errors import UnpackLimit
from auditor.unpacking import library
from auditor.unpacking.decoders import Budget, DecodeError
from auditor.unpacking.values import UNKNOWN, Name, Place, Sink, Unknown, origin, tagged

MAX_STEPS = 60_000
MAX_UNROLL = 4_096
MAX_CALLS = 24
MAX_CONTENT = 64 * 2**20


class _Stop(Exception):
    """The walk used up its steps."""


class Evaluator:
    """Walks one module.

    Attributes:
        sinks: what reached execution or a file, in order.
        troubles: decoding steps that failed, as (line, words).
    """

    def __init__(self, script: str, siblings: Mapping[str, Callable[[], bytes]], budget: Budget) -> None:
        self.script, self.siblings, self.budget = script, siblings, budget
        self.sinks: list[Sink] = []
        self.troubles: list[tuple[int, str]] = []
        self.names: dict[str, Any] = {"__file__": Place(script), "__name__": "__main__"}
        self.written: dict[str, Any] = {}
        self._locals: list[dict[str, Any]] = []
        self._called: set[str] = set()
        self._depth = self._steps = 0
        self._line = 1

    def walk(self, tree: ast.Module) -> None:
        """Walk a module, then every function nobody called.

        Raises:
            UnpackLimit: decoding passed its bound.
        """
        try:
            self._body(tree.body)
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name not in self._called:
                    self._enter(node, [], {})
        except _Stop:
            pass

    # ------------------------------------------------------------------ statements

    def _body(self, body: list[ast.stmt]) -> None:
        for node in body:
            self._statement(node)

    def _statement(self, node: ast.stmt) -> None:
        self._tick()
        handler = getattr(self, f"_do_{type(node).__name__}", None)
        if handler:
            handler(node)

    def _tick(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise _Stop

    def _do_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.split(".")[0]
            self._set(alias.asname or top, Name(alias.name if alias.asname else top))
            self._sibling_module(alias.name, node.lineno)

    def _do_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._sibling_module(node.module or "", node.lineno)
        for alias in node.names:
            self._set(alias.asname or alias.name, library.attribute(Name(node.module or ""), alias.name))

    def _sibling_module(self, dotted: str, line: int) -> None:
        place = self._module_place(dotted)
        if place:
            self.sinks.append(Sink("import", place, line))

    def _module_place(self, dotted: str) -> Place | None:
        """File of a module of the script's own folder."""
        base = posixpath.join(posixpath.dirname(self.script), dotted.replace(".", "/"))
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if dotted and path in self.siblings and path != self.script:
                return Place(path)
        return None

    def _do_Expr(self, node: ast.Expr) -> None:
        self.value(node.value)

    def _do_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            self._assign(target, value)

    def _do_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self._assign(node.target, self.value(node.value))

    def _do_AugAssign(self, node: ast.AugAssign) -> None:
        self._assign(node.target, self._operate(node.op, self.value(node.target), self.value(node.value)))

    def _assign(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self._set(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            known = isinstance(value, list | tuple) and len(value) == len(target.elts)
            for i, part in enumerate(target.elts):
                self._assign(part, value[i] if known else UNKNOWN)

    def _set(self, name: str, value: Any) -> None:
        (self._locals[-1] if self._locals else self.names)[name] = value

    def _do_If(self, node: ast.If) -> None:
        self.value(node.test)
        self._body(node.body)
        self._body(node.orelse)

    def _do_Try(self, node: ast.Try) -> None:
        self._body(node.body)
        for handler in node.handlers:
            self._body(handler.body)
        self._body(node.orelse)
        self._body(node.finalbody)

    def _do_With(self, node: ast.With) -> None:
        for item in node.items:
            value = self.value(item.context_expr)
            if item.optional_vars is not None:
                self._assign(item.optional_vars, value)
        self._body(node.body)

    def _do_For(self, node: ast.For) -> None:
        items = self.value(node.iter)
        known = list(items)[:MAX_UNROLL] if isinstance(items, list | tuple | range | bytes | str) else [UNKNOWN]
        for item in known:
            self._assign(node.target, item)
            self._body(node.body)
        self._body(node.orelse)

    def _do_While(self, node: ast.While) -> None:
        self._body(node.body)

    def _do_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._set(node.name, node)

    _do_AsyncFunctionDef = _do_FunctionDef

    def _do_ClassDef(self, node: ast.ClassDef) -> None:
        self._set(node.name, UNKNOWN)

    def _do_Return(self, node: ast.Return) -> None:
        value = self.value(node.value) if node.value else None
        if self._locals and "<returned>" not in self._locals[-1]:
            self._locals[-1]["<returned>"] = value

    # ------------------------------------------------------------------ expressions

    def value(self, node: ast.expr | None) -> Any:
        """Value of an expression, `UNKNOWN` when it takes running the program to tell."""
        if node is None:
            return None
        self._tick()
        handler = getattr(self, f"_of_{type(node).__name__}", None)
        return handler(node) if handler else UNKNOWN

    def _of_Constant(self, node: ast.Constant) -> Any:
        return tagged(node.value)

    def _of_Name(self, node: ast.Name) -> Any:
        for table in ([self._locals[-1]] if self._locals else []) + [self.names]:
            if node.id in table:
                return table[node.id]
        return Name(node.id)

    def _of_Tuple(self, node: ast.Tuple) -> Any:
        return self._items(node.elts)

    _of_List = _of_Tuple

    def _items(self, nodes: list[ast.expr]) -> list[Any]:
        items: list[Any] = []
        for node in nodes:
            value = self.value(node.value if isinstance(node, ast.Starred) else node)
            if isinstance(node, ast.Starred):
                items += value if isinstance(value, list | tuple) else [UNKNOWN]
            else:
                items.append(value)
        return items

    def _of_Dict(self, node: ast.Dict) -> Any:
        keys = [self.value(key) for key in node.keys]
        values = [self.value(value) for value in node.values]
        return {k: v for k, v in zip(keys, values, strict=True) if isinstance(k, str | int | bytes | Name)}

    def _of_JoinedStr(self, node: ast.JoinedStr) -> Any:
        parts = [self.value(v.value if isinstance(v, ast.FormattedValue) else v) for v in node.values]
        if all(isinstance(p, str | int) for p in parts):
            return tagged("".join(map(str, parts)), *parts)
        places = [p for p in parts if isinstance(p, Place)]
        if places:  # f"{HERE}/payload.bin"
            after = [p for p in parts[parts.index(places[0]) + 1 :] if isinstance(p, str)]
            return library.operate(ast.Add(), places[0], "".join(after))
        return Unknown(next((p for p in parts if isinstance(p, str) and len(p) > 64), None))

    def _of_NamedExpr(self, node: ast.NamedExpr) -> Any:
        value = self.value(node.value)
        self._assign(node.target, value)
        return value

    def _of_IfExp(self, node: ast.IfExp) -> Any:
        one, other = self.value(node.body), self.value(node.orelse)
        return other if isinstance(one, Unknown) or one is None else one

    def _of_BoolOp(self, node: ast.BoolOp) -> Any:
        values = [self.value(v) for v in node.values]
        return next((v for v in values if not isinstance(v, Unknown) and v is not None), UNKNOWN)

    def _of_Await(self, node: ast.Await) -> Any:
        return self.value(node.value)

    def _of_Compare(self, node: ast.Compare) -> Any:
        self.value(node.left)
        for part in node.comparators:
            self.value(part)
        return UNKNOWN

    def _of_UnaryOp(self, node: ast.UnaryOp) -> Any:
        value = self.value(node.operand)
        if isinstance(value, int):
            operations = {ast.USub: lambda v: -v, ast.UAdd: lambda v: v, ast.Invert: lambda v: ~v}
            operation = operations.get(type(node.op))
            return operation(value) if operation else UNKNOWN
        return UNKNOWN

    def _of_BinOp(self, node: ast.BinOp) -> Any:
        return self._operate(node.op, self.value(node.left), self.value(node.right))

    def _operate(self, op: ast.operator, left: Any, right: Any) -> Any:
        return library.operate(op, left, right)

    def _of_Lambda(self, node: ast.Lambda) -> Any:
        return node

    def _of_GeneratorExp(self, node: ast.GeneratorExp | ast.ListComp) -> Any:
        generator = node.generators[0]
        items = self.value(generator.iter)
        if len(node.generators) > 1 or generator.ifs or not isinstance(items, list | tuple | range | bytes | str):
            return Unknown(items if isinstance(items, str | bytes) else getattr(items, "source", None))
        results = []
        for item in items[:MAX_UNROLL]:
            self._assign(generator.target, item)
            results.append(self.value(node.elt))
        return results if len(items) <= MAX_UNROLL else Unknown(items)

    _of_ListComp = _of_GeneratorExp

    def _of_Subscript(self, node: ast.Subscript) -> Any:
        owner = self.value(node.value)
        if isinstance(node.slice, ast.Slice):
            index: Any = slice(*(self.value(p) for p in (node.slice.lower, node.slice.upper, node.slice.step)))
        else:
            index = self.value(node.slice)
        return library.subscript(owner, index)

    def _of_Attribute(self, node: ast.Attribute) -> Any:
        return library.attribute(self.value(node.value), node.attr)

    # ------------------------------------------------------------------ calls

    def _of_Call(self, node: ast.Call) -> Any:
        callee = self.value(node.func)
        arguments = self._items(node.args)
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            named |= {keyword.arg: value} if keyword.arg else value if isinstance(value, dict) else {}
        self._line = node.lineno
        return self._call(callee, arguments, named, node.lineno)

    def _call(self, callee: Any, arguments: list[Any], named: dict[Any, Any], line: int) -> Any:
        if isinstance(callee, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return self._enter(callee, arguments, named)
        sink = library.sink(callee, arguments, named, self._module_place)
        if sink:
            sink.line = line
            if sink.how == "write" and sink.target:
                self.written[library.normal(sink.target)] = sink.value
            self.sinks.append(sink)
            # compile and the like hand the text on: the exec that follows sees the same text
            return arguments[0] if sink.how == "compile" and arguments else UNKNOWN
        try:
            return library.call(callee, arguments, named, self)
        except DecodeError as error:
            self.troubles.append((line, f"{library.name_of(callee)} failed: {error}"))
            return Unknown(next((a for a in arguments if origin(a) != ((), "")), None))
        except UnpackLimit:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, LookupError):
            return UNKNOWN  # arguments of other types than the operation takes: the stub would fail there too

    def _enter(self, node: Any, arguments: list[Any], named: dict[Any, Any]) -> Any:
        if self._depth >= MAX_CALLS:
            return UNKNOWN
        table = self._bind(node.args, arguments, named)
        if isinstance(node, ast.Lambda):
            return self._inside(table, lambda: self.value(node.body))
        self._called.add(node.name)
        self._inside(table, lambda: self._body(node.body))
        return table.get("<returned>", UNKNOWN)

    def _inside(self, table: dict[str, Any], action: Callable[[], Any]) -> Any:
        self._locals.append(table)
        self._depth += 1
        try:
            return action()
        finally:
            self._locals.pop()
            self._depth -= 1

    def _bind(self, spec: ast.arguments, arguments: list[Any], named: dict[Any, Any]) -> dict[str, Any]:
        parameters = [p.arg for p in spec.posonlyargs + spec.args]
        table: dict[str, Any] = dict.fromkeys(parameters, UNKNOWN)
        for name, default in zip(parameters[::-1], spec.defaults[::-1], strict=False):
            table[name] = self.value(default)
        for parameter, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            table[parameter.arg] = self.value(default) if default else UNKNOWN
        table.update(zip(parameters, arguments, strict=False))
        table.update({k: v for k, v in named.items() if isinstance(k, str)})
        return table

    # ------------------------------------------------------------------ files

    def read(self, place: Place) -> Any:
        """Content of a file the stub wrote itself or of a sibling file, `UNKNOWN` when the place is neither."""
        own = self.written.get(library.normal(place.path))
        if own is not None:
            return own
        path = self.find(place)
        if path is None:
            return UNKNOWN
        content: Any = tagged(self.siblings[path]()[:MAX_CONTENT])
        content.file = path
        return content

    def find(self, place: Place) -> str | None:
        """Path of the sibling file a place means: as it stands, or below the script's folder (where it is started).

        A place of which only the last part is known is looked up by that part, when it is unique.
        """
        path = library.normal(place.path)
        for candidate in (path, library.normal(posixpath.join(posixpath.dirname(self.script), path))):
            if candidate in self.siblings:
                return candidate
        if place.known:
            return None
        tail = path.lstrip("*/")
        matches = [p for p in self.siblings if tail and f"/{p}".endswith(f"/{tail}")]
        return matches[0] if len(matches) == 1 else None
