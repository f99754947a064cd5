"""Renames every identifier of a program that is its own: variables, functions, classes, parameters, attributes.

Left alone are names that somebody outside the program knows: builtins, attributes of libraries, environment variables
and everything that also occurs as a word inside a string (state dict keys, `getattr`, settings listed in a log).
"""

from __future__ import annotations

import ast
import builtins
import importlib
import keyword
import random
import re
from collections.abc import Iterable, Iterator
from functools import cache

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFLECTION = frozenset({"globals", "locals", "vars", "eval", "exec", "__dict__", "asdict"})


@cache
def external_attributes() -> frozenset[str]:
    """Attributes of the libraries that submissions use: such a name may reach an object that is not theirs."""
    torch = importlib.import_module("torch")
    numpy = importlib.import_module("numpy")
    owners: list[object] = [
        torch, torch.Tensor, torch.nn, torch.nn.Module, torch.nn.Linear, torch.nn.Embedding, torch.nn.functional,
        torch.optim, torch.optim.AdamW, torch.cuda, torch.distributed, torch.autograd.Function, torch.nn.ModuleList,
        torch.nn.Parameter, torch.utils.data.Dataset, numpy, numpy.ndarray, numpy.random,
        str, bytes, list, dict, set, tuple, int, float, object, Exception,
    ]  # fmt: skip
    for name in ("argparse", "collections", "contextlib", "copy", "functools", "glob", "io", "itertools", "json",
                 "math", "os", "os.path", "pathlib", "pickle", "random", "re", "shutil", "struct", "subprocess", "sys",
                 "threading", "time", "types", "typing", "uuid", "zlib", "lzma", "dataclasses"):  # fmt: skip
        owners.append(importlib.import_module(name))
    owners += [argparse_type for argparse_type in vars(importlib.import_module("argparse")).values()]
    owners += [importlib.import_module("pathlib").Path, importlib.import_module("subprocess").CompletedProcess]
    return frozenset(name for owner in owners for name in dir(owner)) | {"grad", "data", "defaults", "param_groups"}


def renamed(tree: ast.Module, rng: random.Random, style: str = "fresh", keep: Iterable[str] = ()) -> ast.Module:
    """The same program under other names; `tree` is changed in place.

    Args:
        style: `fresh` for meaningless names, `short` for one or two letters, `swapped` for the program's own names in
            another order (what was called the training tokens is then called the validation tokens).
        keep: further names to leave alone (compared without case).
    """
    book = _Book(tree, {name.lower() for name in keep})
    old = sorted(book.variables | book.attributes)
    new = _fresh_names(old, rng, style, taken=book.everything)
    _Renamer(book, dict(zip(old, new, strict=True))).visit(tree)
    return ast.fix_missing_locations(tree)


def _fresh_names(old: list[str], rng: random.Random, style: str, taken: frozenset[str]) -> list[str]:
    if style == "swapped":
        # Constants stay constants and classes classes to a reader's eye; nothing else tells them apart.
        shuffled = old[:]
        rng.shuffle(shuffled)
        return shuffled
    if style == "short":
        found = (name for name in _letters() if name not in taken and not keyword.iskeyword(name))
        return [next(found) for _ in old]
    numbers = rng.sample(range(1000, 1000 + 10 * len(old) + 10), len(old))
    return [f"{rng.choice('abcdefghkmnpqrstuvwxyz')}{number}" for number in numbers]


def _letters() -> Iterator[str]:
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    yield from alphabet
    yield from (a + b for a in alphabet for b in alphabet)
    yield from (a + b + c for a in alphabet for b in alphabet for c in alphabet)


class _Book:
    """Which names of a program are its own, and who takes which keywords."""

    def __init__(self, tree: ast.Module, keep: set[str]) -> None:
        self.tree = tree
        self.imported: set[str] = set()
        self.functions: dict[str, list[set[str]]] = {}
        stored: set[str] = set()
        attributes: set[str] = set()
        words: set[str] = set()
        used: set[str] = set()
        for node in ast.walk(tree):
            self._enter(node, stored, attributes)
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words |= set(_WORD.findall(node.value))
            if isinstance(node, ast.Name):
                used.add(node.id)
            elif isinstance(node, ast.Attribute):
                used.add(node.attr)
        self.everything = frozenset(used | stored | words)
        fixed = set(dir(builtins)) | {name for name in used | stored if name.startswith("__")}
        fixed |= {name for name in stored | attributes if name.lower() in keep}
        outside = external_attributes()
        # A name bound by an import is an attribute of that module; what a string holds may be looked up by name.
        self.attributes = {a for a in attributes - fixed - words if a not in outside and a not in self.imported}
        reflected = words if used & _REFLECTION else set()
        shared = attributes - self.attributes
        self.variables = {name for name in stored - fixed - reflected if name not in shared or name in self.imported}
        # The same word used for a variable and for an attribute that stays must keep its meaning as the attribute.
        self.fixed_attributes = shared
        self.parameters = {name for sets in self.functions.values() for each in sets for name in each}

    def _enter(self, node: ast.AST, stored: set[str], attributes: set[str]) -> None:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            stored.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            attributes.add(node.attr)
        elif isinstance(node, ast.arg):
            stored.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stored.add(node.name)
            self.functions.setdefault(node.name, []).append(_parameters(node))
        elif isinstance(node, ast.ClassDef):
            stored.add(node.name)
            self._class(node, attributes)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound = {a.asname or a.name for a in node.names if a.name != "*" and (a.asname or "." not in a.name)}
            stored |= bound
            self.imported |= bound
        elif isinstance(node, ast.ExceptHandler) and node.name:
            stored.add(node.name)

    def _class(self, node: ast.ClassDef, attributes: set[str]) -> None:
        fields = set()
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                attributes.add(item.name)
                if item.name == "__init__":
                    self.functions.setdefault(node.name, []).append(_parameters(item))
            elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                fields.add(item.target.id)
            elif isinstance(item, ast.Assign):
                attributes |= {n.id for t in item.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        attributes |= fields
        self.functions.setdefault(node.name, []).append(fields)


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}


class _Renamer(ast.NodeTransformer):
    def __init__(self, book: _Book, names: dict[str, str]) -> None:
        self.book = book
        self.names = {old: new for old, new in names.items() if old in book.variables}
        self.attrs = {old: new for old, new in names.items() if old in book.attributes}
        self.in_class: list[bool] = [False]

    def _bound(self, name: str) -> str:
        """New name of something bound in the present scope: in a class body it is an attribute."""
        if self.in_class[-1]:
            return self.attrs.get(name, name)
        return self.names.get(name, name)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if self.in_class[-1] and (node.id in self.attrs or node.id in self.book.fixed_attributes):
            node.id = self.attrs.get(node.id, node.id)
        else:
            node.id = self.names.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        node.attr = self.attrs.get(node.attr, node.attr)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        self.generic_visit(node)
        node.arg = self.names.get(node.arg, node.arg)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        name = self._bound(node.name)
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.args.defaults = [self.visit(item) for item in node.args.defaults]
        node.args.kw_defaults = [self.visit(item) if item is not None else None for item in node.args.kw_defaults]
        self.in_class.append(False)
        for arg in ast.walk(node.args):
            if isinstance(arg, ast.arg):
                self.visit_arg(arg)
        node.body = [self.visit(item) for item in node.body]
        if node.returns is not None:
            node.returns = self.visit(node.returns)
        self.in_class.pop()
        node.name = name
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self.in_class.append(False)
        self.generic_visit(node)
        self.in_class.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        name = self._bound(node.name)
        node.bases = [self.visit(item) for item in node.bases]
        node.keywords = [self.visit(item) for item in node.keywords]
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        self.in_class.append(True)
        node.body = [self.visit(item) for item in node.body]
        self.in_class.pop()
        node.name = name
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        own = [self._takes(node, item.arg) for item in node.keywords]
        self.generic_visit(node)
        for item, takes in zip(node.keywords, own, strict=True):
            if takes and item.arg is not None:
                item.arg = self.names.get(item.arg, self.attrs.get(item.arg, item.arg))
        return node

    def _takes(self, node: ast.Call, word: str | None) -> bool:
        """Whether the called thing is the program's own and has a parameter of that name."""
        if word is None or word not in self.book.parameters:
            return False
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "partial":
            return True
        root = node.func
        while isinstance(root, ast.Attribute | ast.Call | ast.Subscript):
            root = root.func if isinstance(root, ast.Call) else root.value
        if name in self.book.functions:
            return any(word in each for each in self.book.functions[name])
        if isinstance(root, ast.Name) and (root.id in self.book.imported or hasattr(builtins, root.id)):
            return False
        return not (isinstance(node.func, ast.Attribute) and name in external_attributes())

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        self.generic_visit(node)
        if node.name:
            node.name = self._bound(node.name)
        return node

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self.names.get(name, name) for name in node.names]
        return node

    visit_Nonlocal = visit_Global  # type: ignore[assignment]

    def _import(self, node: ast.Import | ast.ImportFrom) -> ast.AST:
        for alias in node.names:
            bound = alias.asname or alias.name
            if bound in self.names and alias.name != "*":
                alias.asname = self.names[bound]
        return node

    visit_Import = _import
    visit_ImportFrom = _import
