"""Sizes that a program writes out where no setting reaches them: made smaller in its syntax tree before it is compiled.

Only whole numbers change, never structure: constants of a module with the name of a size, the defaults and keywords of
functions that generate or collect calibration data or that evaluate, and rows of tables of counts wherever they are written
down. Lines stay what they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from auditor.dynamic.plan import Scale, planned, scaled_rows, table_rows

_COLLECTING = re.compile(r"calib|gptq|hessian|selfgen|self_gen|autoreg|ar_|generat", re.I)
_COUNTS = re.compile(
    r"^(num|n|max|total)?_?(calib\w*_)?(seqs|sequences|samples|batches|docs|windows|steps|prompts)$|^nsamples$"
)
_LENGTHS = re.compile(r"^(max_)?(seq|ctx|context|gen|new|block)_?(len|length|size|tokens)$")
_BATCHES = re.compile(r"^(gen_)?batch_?(size|seqs)$|^bs$")
_FEW = 4
# At evaluation caches and weights learn between batches and chunks: there must be several.
_EVALUATING = re.compile(r"eval|score|scoring|ttt|slid|ngram|n_gram|cache|adapt|valid", re.I)
_EVAL_BATCHES = re.compile(r"^(eval_|val_|ttt_)?batch_?(size|seqs|windows|docs)$|^bs$")
_CHUNKS = re.compile(r"^(\w+_)?chunk(_tokens|_size|_sz|_len)?$")
_HASHES = re.compile(r"hash|key|bucket|n_?gram|ctx|slot", re.I)
_TABLES = re.compile(r"n_?gram|cache|table|mixer|hash|count", re.I)
_SEEN = re.compile(r"^(total|seen|num|n)_tokens(_seen)?$|^tokens_seen$|^(total|num|n)_seen$")
# Masks with so many bits number rows of a table; wider ones are the width of a machine word or of a packed field.
_MASK_BITS = (17, 23)
# Batches whose gradients are added up, shared out among the ranks: `96 // world_size`. One rank makes them all here.
_ACCUMULATED = re.compile(r"grad_accum(ulation)?(_steps)?$")
_RANKS = 8
# Rounds of compilation before training; nothing is compiled here.
_WARMING = re.compile(r"^(\w+_)?warm_?up_(\w+_)?(iters|rounds|repeats)$")
# What a dictionary that describes a model calls its parts; first match wins.
_PARTS: tuple[tuple[re.Pattern, Callable[[Scale], int]], ...] = (
    (re.compile(r"(^|_)(model_dim|d_model|n_embd|hidden_size|embed_dim)$"), lambda s: s.width),
    (re.compile(r"(^|_)(num_|n_)?kv_heads?$"), lambda s: s.kv_heads),
    (re.compile(r"(^|_)((num_|n_)heads?|heads|n_head)$"), lambda s: s.heads),
    (re.compile(r"(^|_)head_(dim|size)$"), lambda s: s.width // s.heads),
    (re.compile(r"(bigram|trigram|ngram|hash).*(buckets|vocab_size|size|rows)$"), lambda s: 64),
    (re.compile(r"(bigram|trigram|ve|value|engram|hash).*_dim$"), lambda s: 16),
)


class Shrinker:
    """Changes syntax trees of the submission. `tell` is called with (name, full value, value of this run)."""

    def __init__(self, scale: Scale, wanted: dict[str, str], tell: Callable[[str, Any, Any], None]) -> None:
        self.scale, self.wanted, self.tell = scale, wanted, tell
        self.changed = False

    def shrink(self, tree: ast.Module) -> bool:
        """Change a tree in place; whether anything changed."""
        self.changed = False
        for statement in tree.body:
            self._module_constant(statement)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                self._function(node)
            elif isinstance(node, ast.Call):
                self._call(node)
                if _called(node.func) == "dict":
                    self._described([(item.arg or "", item, "value") for item in node.keywords])
            elif isinstance(node, ast.Dict):
                named = zip(node.keys, range(len(node.keys)), strict=True)
                self._described([(str(key.value), node.values, i) for key, i in named if isinstance(key, ast.Constant)])
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                self._assignment(node)
            elif isinstance(node, ast.Compare):
                self._waited(node)
        return self.changed

    def _module_constant(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, value = statement.target, statement.value
        else:
            return
        # `WIDTH = 512`, and `Settings.width = 512` behind the class.
        of_another = isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name)
        if not (isinstance(target, ast.Name) or of_another) or not _whole(value):
            return
        name = _called(target)
        full, new = planned(name, value.value, self.wanted, self.scale)
        if isinstance(new, int) and str(full) == str(value.value):
            self._set(name, statement, "value", new)

    def _function(self, node: ast.FunctionDef) -> None:
        """Defaults of a function, and of a class's `__init__`, which may hold a table."""
        for name, values, index in _defaults(node.args):
            new = self._sized(name, node.name, values[index])
            if new is not None:
                self._put(name, values, index, new)
        if _EVALUATING.search(node.name):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Assign) and _CHUNKS.search(name := _called(inner.targets[0]).lower()):
                    full = constant(inner.value)
                    if full is not None and full > self.scale.chunk:
                        self._set(name, inner, "value", self.scale.chunk)

    def _call(self, node: ast.Call) -> None:
        called = _called(node.func)
        for keyword in node.keywords:
            new = self._sized(keyword.arg or "", called, keyword.value)
            if new is not None:
                self._set(keyword.arg or "", keyword, "value", new)
        if _TABLES.search(called):
            for index, value in enumerate(node.args):
                full = constant(value)
                if full is not None and full >= 1 << 17 and full & (full - 1) == 0:
                    self._put(called, node.args, index, scaled_rows(full, self.scale))

    def _described(self, entries: list[tuple[str, Any, Any]]) -> None:
        """Sizes in a dictionary that says what a model is made of: it names a width and a number of heads.

        Entries: (key, keyword or list of values, "value" or index).
        """
        sizes = {name: (owner, where) for name, owner, where in entries if constant(_entry(owner, where))}
        if self.scale.whole or not all(any(part.search(name) for name in sizes) for part, _ in (_PARTS[0], _PARTS[2])):
            return
        for name, (owner, where) in sizes.items():
            new = next((size(self.scale) for part, size in _PARTS if part.search(name.lower())), None)
            if new is None or constant(_entry(owner, where)) <= new:
                continue
            if isinstance(owner, list):
                self._put(name, owner, where, new)
            else:
                self._set(name, owner, where, new)

    def _sized(self, name: str, owner: str, value: ast.expr) -> int | None:
        """Value of this run for a default or keyword of a function, None to leave it alone."""
        full = constant(value)
        if full is None:
            return None
        rows = table_rows(name, full, self.scale)
        if rows is not None:
            return rows
        limits = []
        if _COLLECTING.search(owner):
            limits += [(_COUNTS, _FEW), (_LENGTHS, self.scale.seq), (_BATCHES, _FEW)]
        if _EVALUATING.search(owner):
            limits += [(_EVAL_BATCHES, _FEW), (_CHUNKS, self.scale.chunk)]
        return next((limit for pattern, limit in limits if pattern.search(name) and full > limit), None)

    def _assignment(self, node: ast.Assign | ast.AnnAssign) -> None:
        """Rows of a table given a name, and hashes brought down to them."""
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        name = _called(targets[0])
        full = constant(node.value) if node.value is not None else None
        if full is not None:
            rows = table_rows(name, full, self.scale)
            if rows is None and _WARMING.search(name.lower()) and full > self.scale.warmup:
                rows = self.scale.warmup
            if rows is None and "mask" in name.lower() and self._masks(full):
                rows = scaled_rows(full + 1, self.scale) - 1
            if rows is not None:
                self._set(name, node, "value", rows)
        elif (
            isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.FloorDiv) and _ACCUMULATED.search(name)
        ):
            if (shared := constant(node.value.left)) is not None and shared > _RANKS:
                self._set(name, node.value, "left", _RANKS)
        elif node.value is not None and _HASHES.search(name):
            for part in ast.walk(node.value):
                self._hashed(name, part)

    def _waited(self, node: ast.Compare) -> None:
        """`self.total_tokens < 10000`: how many tokens a cache waits for."""
        name, full = _called(node.left), constant(node.comparators[0])
        if full is not None and _SEEN.search(name) and self.scale.seq // 2 < full < 1 << 20:
            self._put(name, node.comparators, 0, self.scale.seq // 2)

    def _hashed(self, name: str, node: ast.AST) -> None:
        """`hash & 0x3FFFFF` and `hash % 1000003`."""
        if not isinstance(node, ast.BinOp) or (full := constant(node.right)) is None:
            return
        if isinstance(node.op, ast.BitAnd) and self._masks(full):
            self._set(name, node, "right", scaled_rows(full + 1, self.scale) - 1)
        elif isinstance(node.op, ast.Mod) and 1 << _MASK_BITS[0] <= full < 1 << 25:
            self._set(name, node, "right", scaled_rows(full, self.scale))

    def _masks(self, value: int) -> bool:
        return value & (value + 1) == 0 and _MASK_BITS[0] <= value.bit_length() <= _MASK_BITS[1]

    def _set(self, name: str, owner: Any, field: str, value: int) -> None:
        node = getattr(owner, field)
        if constant(node) != value:
            self._tell(name, node, value)
            setattr(owner, field, ast.copy_location(ast.Constant(value), node))

    def _put(self, name: str, values: list, index: int, value: int) -> None:
        if constant(values[index]) != value:
            self._tell(name, values[index], value)
            values[index] = ast.copy_location(ast.Constant(value), values[index])

    def _tell(self, name: str, node: ast.expr, value: int) -> None:
        self.changed = True
        self.tell(f"{name} in line {node.lineno}", constant(node), value)


def constant(node: ast.AST) -> int | None:
    """Value of a whole number written out, also as `1 << 22`, `2**22`, `4 * 1024 * 1024` or `(1 << 22) - 1`."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if not isinstance(node, ast.BinOp):
        return None
    left, right = constant(node.left), constant(node.right)
    if left is None or right is None or max(abs(left), abs(right)) > 1 << 40:
        return None
    if isinstance(node.op, ast.LShift | ast.Pow) and not 0 <= right <= 40:
        return None
    make = _OPERATIONS.get(type(node.op))
    return make(left, right) if make is not None else None


_OPERATIONS: dict[type, Callable[[int, int], int]] = {
    ast.LShift: lambda a, b: a << b,
    ast.Pow: lambda a, b: a**b,
    ast.Mult: lambda a, b: a * b,
    ast.Sub: lambda a, b: a - b,
    ast.Add: lambda a, b: a + b,
}


def _entry(owner: Any, where: Any) -> ast.expr:
    return owner[where] if isinstance(owner, list) else getattr(owner, where)


def _whole(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, list, int]]:
    """Name of every parameter with a default, with the list that holds it and its index there."""
    positional = [*arguments.posonlyargs, *arguments.args]
    with_default = positional[len(positional) - len(arguments.defaults) :]
    yield from ((item.arg, arguments.defaults, index) for index, item in enumerate(with_default))
    for index, (item, value) in enumerate(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)):
        if value is not None:
            yield item.arg, arguments.kw_defaults, index


def _called(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
