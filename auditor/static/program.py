"""Modules of a submission as syntax trees, with what can be told of them without following values.

Which functions are worth walking, which loops need a second look, which names a loop increments: answered once per
tree and looked up by node.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from auditor.static.library import INTEREST, MODULE_INTEREST
from auditor.static.parse import parse_module
from auditor.unpack import Program

# Functions up to this many syntax nodes are always walked: summarising them would save nothing.
SMALL = 120
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Sources:
    """The modules of one submission.

    Attributes:
        main: path of the main module.
        texts: path -> source.
    """

    def __init__(self, program: Program) -> None:
        self.texts: dict[str, str] = {}
        self._trees: dict[str, ast.Module | None] = {}
        self._error: dict[str, int] = {}
        self._interest: dict[int, bool] = {}
        self._names: dict[int, frozenset[str]] = {}
        self._by_name: dict[str, list[FunctionNode]] | None = None
        self._classes: set[str] = set()
        self._loops: dict[int, bool] = {}
        self._reach: dict[str, frozenset[str]] = {}
        self.main = ""
        for layer in program.layers:
            self.texts.setdefault(layer.name, layer.text)
        if program.main is not None:
            self.main = program.main.name
            self.texts[self.main] = program.main.text

    def tree(self, path: str) -> ast.Module | None:
        """Syntax tree of a module, None when it does not parse."""
        if path not in self._trees:
            parsed = parse_module(self.texts.get(path, ""))
            self._trees[path] = parsed.tree
            self._error[path] = parsed.line or 1
        return self._trees[path]

    def error_line(self, path: str) -> int:
        """Line of the syntax error of a module that does not parse."""
        return self._error.get(path, 1)

    def find(self, module: str, importer: str) -> str | None:
        """Path of the submission's module of that dotted name, None when it is a library."""
        last = module.replace(".", "/")
        if not last:
            return None
        folder = importer.split("!")[0].rsplit("/", 1)[0] if "/" in importer else ""
        for wanted in (f"{folder}/{last}.py" if folder else f"{last}.py", f"{last}.py"):
            if wanted in self.texts:
                return self.innermost(wanted)
        for path in self.texts:
            if path.split("!")[0].endswith((f"/{last}.py", f"/{last}/__init__.py")):
                return self.innermost(path)
        return None

    def innermost(self, path: str) -> str:
        """The last layer of a packed module: its wrapper only unpacks and runs it."""
        return max((name for name in self.texts if name.startswith(f"{path}!")), key=len, default=path)

    # -- interest --------------------------------------------------------------------------------------------------

    def _functions(self) -> dict[str, list[FunctionNode]]:
        """Functions of every module that has been parsed, by name."""
        if self._by_name is None:
            self._by_name = {}
            for path in self.texts:
                if path != self.main and not path.split("!")[0].endswith(".py"):
                    continue
                tree = self._trees.get(path)
                if tree is None and path == self.main:
                    tree = self.tree(path)
                for node in ast.walk(tree) if tree is not None else ():
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                        self._by_name.setdefault(node.name, []).append(node)
                    elif isinstance(node, ast.ClassDef):
                        self._classes.add(node.name)
        return self._by_name

    def _made(self) -> set[str]:
        """Names of the classes of every module that has been parsed."""
        self._functions()
        return self._classes

    def parsed(self) -> None:
        """A further module was parsed: forget what depends on the set of functions."""
        self._by_name = None

    def names(self, node: ast.AST) -> frozenset[str]:
        """Every name and attribute used inside a node."""
        found = self._names.get(id(node))
        if found is None:
            found = frozenset(interesting_names(node))
            self._names[id(node)] = found
        return found

    def reaches(self, node: ast.AST, wanted: frozenset[str], limit: int = 400) -> bool:
        """True when the node, or a function of the submission it names, uses one of `wanted`."""
        functions = self._functions()
        seen: set[str] = set()
        queue = [self.names(node)]
        while queue and len(seen) < limit:
            names = queue.pop()
            if names & wanted:
                return True
            for name in names - seen:
                seen.add(name)
                queue += [self.names(function) for function in functions.get(name, ())[:3]]
        return False

    def worth_walking(self, node: FunctionNode, module: bool) -> bool:
        """True when a call of the function should be followed rather than summarised."""
        key = id(node) * 2 + module
        known = self._interest.get(key)
        if known is None:
            if module:
                known = self.reaches(node, MODULE_INTEREST, 60)
            else:
                known = _size(node) <= SMALL or self.reaches(node, INTEREST) or _sets_settings(node)
                known = known or bool(self.names(node) & self._made())  # what makes a model is followed to the model
            self._interest[key] = known
        return known

    def loop_matters(self, node: ast.stmt) -> bool:
        """True when the body of a loop can change state that its next iteration reads."""
        known = self._loops.get(id(node))
        if known is None:
            known = self.reaches(node, _STATEFUL)
            self._loops[id(node)] = known
        return known

    def advancing(self, node: ast.stmt) -> frozenset[str]:
        """Names that the body of a loop changes from their own previous value (`pos += n`)."""
        return frozenset(_advanced(node, ast.Name))

    def advancing_attributes(self, node: ast.ClassDef) -> frozenset[str]:
        """Attributes of `self` that methods of the class change from their own previous value."""
        return frozenset(_advanced(node, ast.Attribute))


_STATEFUL = frozenset(
    {"backward", "step", "cross_entropy", "nll_loss", "log_softmax", "gather", "copy_", "add_", "zero_", "lerp_",
     "scatter_add_", "index_add_", "at", "bincount", "load_state_dict", "sub_", "mul_", "append", "update", "$aug",
     "extend", "log", "exp", "fill_"}
)  # fmt: skip


def interesting_names(node: ast.AST) -> Iterator[str]:
    """Names and attributes in a node; `$aug` when it adds in place at an index."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.AugAssign) and isinstance(inner.target, ast.Subscript):
            yield "$aug"


def _size(node: ast.AST) -> int:
    count = 0
    for _ in ast.walk(node):
        count += 1
        if count > SMALL:
            break
    return count


def _sets_settings(node: FunctionNode) -> bool:
    """A preset: the function gives attributes of an argument (`config.eval.epochs = 3`) plain values."""
    arguments = {argument.arg for argument in node.args.args} - {"self", "cls"}
    return any(
        isinstance(inner, ast.Assign)
        and isinstance(inner.value, ast.Constant)
        and isinstance(inner.targets[0], ast.Attribute)
        and _root(inner.targets[0]) in arguments
        for inner in ast.walk(node)
    )


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _advanced(node: ast.AST, kind: type[ast.expr]) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.AugAssign) and isinstance(inner.target, kind):
            yield inner.target.attr if isinstance(inner.target, ast.Attribute) else inner.target.id  # type: ignore[union-attr]
        elif isinstance(inner, ast.Assign) and len(inner.targets) == 1 and isinstance(inner.targets[0], kind):
            target = inner.targets[0]
            name = target.attr if isinstance(target, ast.Attribute) else target.id  # type: ignore[attr-defined]
            if isinstance(inner.value, ast.BinOp) and any(
                isinstance(part, kind) and (part.attr if isinstance(part, ast.Attribute) else part.id) == name  # type: ignore[attr-defined]
                for part in ast.walk(inner.value)
            ):
                yield name
