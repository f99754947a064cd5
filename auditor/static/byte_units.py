"""What a printed BPB is made of: its terms are multiplied out and each is known by what it sums.

    bits per byte = losses / ln 2 / bytes

A value printed under the label of the metric is followed back through assignments, calls and results to a product of
terms. A term that grows by a look-up in a byte table counts bytes, one that grows by sizes and lengths counts tokens,
one that grows by one counts batches; ln 2 and numbers are factors. Whatever is none of these stays a term of its own,
and a formula with such a term in a decisive place is not judged.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from auditor.static import byte_find as find
from auditor.static.byte_roles import bare, bound_arguments, defined, last

LN2 = "ln 2"
BYTES, TOKENS, BATCHES, LOSS, OTHER = "bytes", "tokens", "batches", "losses", "other"
MAX_DEPTH = 14
_LABEL = re.compile(r"(?:bpb|bits[ _-]?per[ _-]?byte)[\"'\])]*\s*[:=\u2248~(]*\s*$", re.IGNORECASE)
_KEY = re.compile(r"(?:^|_)bpb(?:$|_)|bits_per_byte", re.IGNORECASE)
_LOSSES = frozenset(("cross_entropy", "nll_loss", "log_softmax", "logsumexp", "CrossEntropyLoss", "NLLLoss"))
_SIZES = frozenset(("numel", "size", "shape", "len", "nelement"))
_SAME = frozenset(("float", "int", "max", "abs", "tensor", "as_tensor", "round", "sum", "mean", "clamp", "clamp_min"))
_NOTHING = (0, 0.0, None, float("inf"))
Scope = find.Scope


@dataclass(frozen=True)
class Term:
    """A factor that is no number: a kind, and the place that makes it one of its own."""

    kind: str
    name: str = ""
    natural: bool = False  # a loss known to be in nats


@dataclass
class Product:
    """A number times powers of terms, with the lines that led there."""

    factor: float = 1.0
    powers: Counter[Term] = field(default_factory=Counter)
    lines: tuple[int, ...] = ()
    averaged: int = 0  # line where rates are averaged, 0 when they are not

    def times(self, other: Product, sign: int = 1) -> Product:
        """Product with, or quotient by (`sign` -1), another."""
        powers = Counter(self.powers)
        for term, power in other.powers.items():
            powers[term] += sign * power
        factor = self.factor * (other.factor if sign > 0 else 1 / other.factor if other.factor else math.nan)
        lines = tuple(dict.fromkeys((*self.lines, *other.lines)))
        left = Counter({t: p for t, p in powers.items() if p})
        return Product(factor, left, lines, self.averaged or other.averaged)

    def power(self, kind: str) -> int:
        """Summed power of the terms of a kind."""
        return sum(p for t, p in self.powers.items() if t.kind == kind)


@dataclass(frozen=True)
class Formula:
    """One printed BPB: its line, what is wrong with it ("" when right, None when not known), all lines behind it."""

    path: str
    line: int
    fault: str | None
    lines: tuple[tuple[str, int], ...] = ()


TOKENS_FOR_BYTES = "tokens counted as bytes"
INVERTED = "ratio of tokens and bytes inverted"
NO_LN2 = "not divided by ln 2"
LN2_TWICE = "divided by ln 2 twice"
AVERAGED = "rates averaged instead of sums divided"
NUMBER = "constant ratio"


def formulas(modules: Sequence[tuple[str, ast.Module]], bases: frozenset[str]) -> list[Formula]:
    """Every printed BPB of a program.

    Args:
        modules: (path, tree).
        bases: names that hold tables of bytes, or bytes per token from a file.
    """
    reader = _Reader([tree for _, tree in modules], bases)
    found = []
    for path, tree in modules:
        for scope in find.outline(tree).scopes:
            for value in _printed(find.outline(tree).own[id(scope)]):
                product = reader.product(value, scope)
                fault = None if product is None else judged(product)
                lines = () if product is None else tuple((path, n) for n in product.lines[:4])
                found.append(Formula(path, value.lineno, fault, lines))
    return found


def _printed(nodes: Sequence[ast.AST]) -> Iterator[ast.expr]:
    """Values under a label of the metric: in f-strings and in dictionaries that are written out."""
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            for before, after in zip(node.values, node.values[1:], strict=False):
                if isinstance(after, ast.FormattedValue) and _LABEL.search(str(getattr(before, "value", ""))):
                    yield after.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(key.value, str) and _KEY.search(key.value):
                    yield value


def judged(product: Product) -> str | None:
    """The fault of a formula, "" when it is losses / ln 2 / bytes, None when a term is not known."""
    size, logs = product.power(BYTES), product.power(LN2)
    tokens = product.power(TOKENS)
    losses = [t for t, p in product.powers.items() if t.kind in (LOSS, OTHER) and p == 1]
    strange = [t for t, p in product.powers.items() if t.kind in (LOSS, OTHER) and p != 1]
    if strange or len(losses) != 1 or math.isnan(product.factor):
        return None
    if size == 1 and tokens < 0:
        return INVERTED
    if size == -1 and tokens in (0, 1) and product.factor == 1:
        if logs == -1:
            return AVERAGED if product.averaged else ""
        if logs == 0 and losses[0].natural:
            return NO_LN2
        return LN2_TWICE if logs == -2 else None
    counts = [t for t in product.powers if t.kind == TOKENS]
    if size == 0 and logs == -1 and tokens in (0, -1) and len(counts) <= 1:
        if product.factor == 1:
            known = losses[0].kind == LOSS and (counts or losses[0].natural)
            return TOKENS_FOR_BYTES if known else None
        ratio = 1 / product.factor
        return NUMBER if 1.2 <= ratio <= 7.5 else None
    return None


Writes = tuple[list[ast.expr], list[tuple[ast.expr, int | None]]]


def _index(nodes: Sequence[ast.AST]) -> dict[str, Writes]:
    """Name -> what it grows by, what it is given."""
    found: dict[str, Writes] = {}

    def of(name: str) -> Writes:
        return found.setdefault(name, ([], []))

    for node in nodes:
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            of(last(node.target))[0].append(node.value)
        elif isinstance(node, ast.Call) and last(node.func) in ("add_", "append") and node.args:
            of(last(getattr(node.func, "value", None)))[0].append(node.args[0])
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                _given(target, node.value, of)
    found.pop("", None)
    return found


def _given(target: ast.expr, value: ast.expr, of: Callable[[str], Writes]) -> None:
    if isinstance(target, ast.Tuple):
        for place, part in enumerate(target.elts):
            of(last(part))[1].append((value, place))
    elif isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add) and last(value.left) == last(target):
        of(last(target))[0].append(value.right)
    elif not (isinstance(value, ast.Constant) and value.value in _NOTHING):
        of(last(target))[1].append((value, None))


class _Reader:
    """Follows values of a program back to what they are made of."""

    def __init__(self, trees: list[ast.Module], bases: frozenset[str]) -> None:
        self.bases = bases
        self.functions = defined(trees)
        self.own: dict[int, list[ast.AST]] = {}
        self.around: dict[int, Scope] = {}
        self.calls: dict[str, list[tuple[ast.Call, Scope]]] = {}
        for tree in trees:
            for scope in find.outline(tree).scopes:
                nodes = self.own[id(scope)] = find.outline(tree).own[id(scope)]
                if isinstance(scope, ast.FunctionDef):
                    self.around.setdefault(id(scope), tree)
                    self.around |= {
                        id(inner): scope
                        for inner in ast.walk(scope)
                        if isinstance(inner, ast.FunctionDef) and inner is not scope
                    }
                for node in nodes:
                    if isinstance(node, ast.Call) and last(node.func) in self.functions:
                        self.calls.setdefault(last(node.func), []).append((node, scope))
        self.busy: set[tuple[int, str]] = set()
        self.written: dict[int, dict[str, Writes]] = {}
        self.memory: dict[tuple[int, str], Product | None] = {}
        self.steps = 0

    def product(self, node: ast.expr, scope: Scope, depth: int = 0) -> Product | None:
        """The value as a product, None when it is a sum or goes too deep."""
        self.steps += 1
        if depth > MAX_DEPTH or self.steps > 20_000:
            return None
        if isinstance(node, ast.Constant):
            known = isinstance(node.value, int | float) and not isinstance(node.value, bool)
            if known and abs(node.value - math.log(2)) < 1e-3:
                return Product(powers=Counter({Term(LN2): 1}))
            return Product(factor=float(node.value)) if known else None
        if isinstance(node, ast.BinOp):
            return self._operation(node, scope, depth)
        if isinstance(node, ast.IfExp):
            usual = node.orelse if isinstance(node.body, ast.Constant | ast.Call) else node.body
            return self.product(usual, scope, depth + 1) or self.product(node.body, scope, depth + 1)
        if isinstance(node, ast.Call):
            return self._call(node, scope, depth)
        if isinstance(node, ast.Subscript):
            return self._element(node, scope, depth)
        if isinstance(node, ast.Name):
            return self._name(node, scope, depth)
        if isinstance(node, ast.Attribute):
            return self._name(ast.copy_location(ast.Name(node.attr, ast.Load()), node), scope, depth)
        return None

    def _operation(self, node: ast.BinOp, scope: Scope, depth: int) -> Product | None:
        if isinstance(node.op, ast.Add) and isinstance(node.right, ast.Constant):
            return self.product(node.left, scope, depth + 1)  # + 1e-9 against a division by zero
        if not isinstance(node.op, ast.Mult | ast.Div):
            return None
        left, right = self._part(node.left, scope, depth + 1), self._part(node.right, scope, depth + 1)
        if left is None or right is None:
            return None
        made = left.times(right, 1 if isinstance(node.op, ast.Mult) else -1)
        made.lines = tuple(dict.fromkeys((node.lineno, *made.lines)))
        return made

    def _part(self, node: ast.expr, scope: Scope, depth: int) -> Product | None:
        """A factor; one that is no product is known by what it holds (`size[y].sum()`)."""
        made = self.product(node, scope, depth)
        if made is None and isinstance(node, ast.Call | ast.Subscript):
            leaf = self._leaf([node], ast.unparse(node)[:80], scope)
            divided = any(isinstance(n, ast.Div) for n in ast.walk(node))
            return None if divided or leaf is None or leaf.power(OTHER) else leaf
        return made

    def _call(self, node: ast.Call, scope: Scope, depth: int) -> Product | None:
        name = last(node.func)
        if name in ("log", "log2") and len(node.args) == 1 and isinstance(node.args[0], ast.Constant | ast.Attribute):
            if name == "log" and getattr(node.args[0], "value", None) in (2, 2.0):
                return Product(powers=Counter({Term(LN2): 1}))
            if name == "log2" and last(node.args[0]) == "e":
                return Product(powers=Counter({Term(LN2): -1}))
        if name in self.functions and (isinstance(node.func, ast.Name) or last(node.func.value) in ("self", "cls")):  # type: ignore[attr-defined]
            return self._returned(self.functions[name], None, depth)
        inner = bare(node)
        if inner is not node:
            return self.product(inner, scope, depth + 1)
        if name in _SAME:
            if isinstance(node.func, ast.Attribute) and last(node.func.value) not in ("np", "torch", "math", "numpy"):
                inside: ast.expr | None = node.func.value
            else:
                inside = node.args[0] if node.args else None
            if inside is None:
                return None
            made = self.product(inside, scope, depth + 1)
            if name == "mean" and made is not None and made.power(BYTES) == -1:
                made.averaged = node.lineno
            return made
        return None

    def _returned(self, function: ast.FunctionDef, index: int | None, depth: int) -> Product | None:
        for node in self.own.get(id(function), ()):
            if isinstance(node, ast.Return) and node.value is not None:
                value: ast.expr | None = node.value
                if index is not None:
                    value = value.elts[index] if isinstance(value, ast.Tuple) and index < len(value.elts) else None
                if value is None or (isinstance(value, ast.Call) and last(value.func) in ("float", "inf")):
                    if (
                        index is not None
                        and isinstance(node.value, ast.Call)
                        and last(node.value.func) in self.functions
                    ):
                        return self._returned(self.functions[last(node.value.func)], index, depth + 1)
                    if value is None:
                        continue
                made = self.product(value, function, depth + 1)
                if made is not None and made.powers:
                    return made
        return None

    def _element(self, node: ast.Subscript, scope: Scope, depth: int) -> Product | None:
        index = node.slice.value if isinstance(node.slice, ast.Constant) else None
        if not isinstance(index, int) or not isinstance(node.value, ast.Name):
            return None
        for other in self.own[id(scope)]:
            if isinstance(other, ast.AugAssign) and last(other.target) == node.value.id:
                parts = _elements(other.value)
                if parts and index < len(parts):
                    return self._sum([parts[index]], f"{node.value.id}[{index}]", scope, depth, node.lineno)
        for other in self.own[id(scope)]:
            if isinstance(other, ast.Assign) and any(last(t) == node.value.id for t in other.targets):
                parts = _elements(other.value)
                if parts and index < len(parts):
                    return self.product(parts[index], scope, depth + 1)
        return None

    def _name(self, node: ast.Name, scope: Scope, depth: int) -> Product | None:
        key = (id(scope), node.id)
        if key in self.memory:
            return self.memory[key]
        if key in self.busy:
            return None
        self.busy.add(key)
        try:
            self.memory[key] = self._known(node.id, scope, depth, node.lineno)
        finally:
            self.busy.discard(key)
        return self.memory[key]

    def _known(self, name: str, scope: Scope, depth: int, line: int) -> Product | None:
        grown, given = self._writes(name, scope)
        if grown:
            return self._sum(grown, name, scope, depth, line)
        for value, index in given:
            made = self._assigned(value, index, scope, depth)
            if made is not None and (made.powers or made.factor not in _NOTHING):
                return made
        if given:
            return self._leaf([v for v, _ in given], name, scope)
        if isinstance(scope, ast.FunctionDef):
            handed = self._handed(name, scope, depth)
            if handed is not None:
                return handed
            if name not in {a.arg for a in ast.walk(scope.args) if isinstance(a, ast.arg)}:
                return self._known(name, self.around[id(scope)], depth + 1, line)
        return None

    def _assigned(self, value: ast.expr, index: int | None, scope: Scope, depth: int) -> Product | None:
        if index is None:
            return self.product(value, scope, depth + 1)
        call = bare(value)
        if isinstance(call, ast.Call) and last(call.func) in self.functions:
            return self._returned(self.functions[last(call.func)], index, depth + 1)
        parts = _elements(value)
        return self.product(parts[index], scope, depth + 1) if parts and index < len(parts) else None

    def _writes(self, name: str, scope: Scope) -> Writes:
        """What a name grows by in a scope, and what it is given otherwise (with the place in a tuple)."""
        index = self.written.get(id(scope))
        if index is None:
            index = self.written[id(scope)] = _index(self.own[id(scope)])
        return index.get(name, ([], []))

    def _handed(self, name: str, function: ast.FunctionDef, depth: int) -> Product | None:
        for call, scope in self.calls.get(function.name, ())[:4]:
            for parameter, value in bound_arguments(call, function):
                if parameter == name:
                    made = self.product(value, scope, depth + 1)
                    if made is not None:
                        return made
        return None

    def _sum(self, grown: list[ast.expr], name: str, scope: Scope, depth: int, line: int) -> Product | None:
        """A name that grows: what it counts, with the factors all its increments share."""
        made = [p for value in grown if (p := self.product(value, scope, depth + 1)) is not None]
        rates = [p for p in made if p.power(BYTES) == -1 and p.power(LN2) == -1]
        if rates and len(rates) == len(grown):
            rates[0].averaged = line
            return rates[0]
        return self._leaf(grown, name, scope)

    def _leaf(self, values: list[ast.expr], name: str, scope: Scope) -> Product | None:
        kind, natural, bits = self._kind(values, scope)
        powers = Counter({Term(kind, f"{id(scope)}.{name}" if kind in (LOSS, OTHER, TOKENS) else "", natural): 1})
        if bits:
            powers[Term(LN2)] -= 1
        return Product(1.0, powers, tuple(v.lineno for v in values[:1]))

    def _kind(self, values: list[ast.expr], scope: Scope) -> tuple[str, bool, bool]:
        """(kind, a loss in nats, already divided by ln 2) of what a sum grows by."""
        if all(isinstance(v, ast.Constant) and v.value == 1 for v in values):
            return BATCHES, False, False
        nodes = list(self._closure(values, scope))
        names = {last(n.func) for n in nodes if isinstance(n, ast.Call)} | {
            n.attr for n in nodes if isinstance(n, ast.Attribute)
        }
        loss = bool(names & _LOSSES)
        bits = "log2" in names or any(_over_ln2(n) for n in nodes)
        looked = any((pair := find.lookup(n)) and pair[0].rpartition(".")[2] in self.bases for n in nodes)
        looked = looked or any(last(n) in self.bases for n in nodes)
        looked = looked or any(
            find._text_bytes(n, set()) or (isinstance(n, ast.Call) and last(n.func) == "encode") for n in nodes
        )
        if looked and (loss or bits):
            return OTHER, False, False
        if loss or bits:
            return LOSS, loss and not bits, bits
        if looked:
            return BYTES, False, False
        if all(self._sized(value, scope) for value in values):
            return TOKENS, False, False
        return OTHER, False, False

    def _sized(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        """Whether a value is made of sizes, lengths and positions only."""
        node = bare(node)
        if depth > 8:
            return False
        if isinstance(node, ast.Constant):
            return isinstance(node.value, int | float)
        if isinstance(node, ast.BinOp):
            return self._sized(node.left, scope, depth + 1) and self._sized(node.right, scope, depth + 1)
        if isinstance(node, ast.Call):
            name = last(node.func)
            return name in _SIZES or (
                name in ("min", "max") and all(self._sized(a, scope, depth + 1) for a in node.args)
            )
        if isinstance(node, ast.Subscript):
            return last(node.value) in _SIZES
        if isinstance(node, ast.Attribute):
            return node.attr in _SIZES
        if isinstance(node, ast.Name):
            grown, given = self._writes(node.id, scope)
            values = [*grown, *(value for value, index in given if index is None)]
            if not values:
                return node.id in self._loops(scope)
            return all(self._sized(value, scope, depth + 1) for value in values)
        return False

    def _loops(self, scope: Scope) -> set[str]:
        """Names that run over a range."""
        return {
            last(node.target)
            for node in self.own[id(scope)]
            if isinstance(node, ast.For) and isinstance(node.iter, ast.Call) and last(node.iter.func) == "range"
        }

    def _closure(self, values: list[ast.expr], scope: Scope) -> Iterator[ast.AST]:
        """Nodes of expressions, of what their names were given in the same scope, of what functions they call return."""
        queue: list[tuple[ast.expr, Scope]] = [(value, scope) for value in values]
        seen: set[tuple[int, str]] = set()
        while queue:
            value, inside = queue.pop()
            for node in ast.walk(value):
                yield node
                name = last(node.func) if isinstance(node, ast.Call) else getattr(node, "id", "")
                key = (id(inside), f"{name}()" if isinstance(node, ast.Call) else name)
                if not name or key in seen or len(seen) > 60:
                    continue
                seen.add(key)
                if not isinstance(node, ast.Call):
                    grown, given = self._writes(name, inside)
                    queue += [(v, inside) for v in (*grown, *(v for v, _ in given))]
                elif name in self.functions:
                    called = self.functions[name]
                    queue += [
                        (n.value, called)
                        for n in self.own.get(id(called), ())
                        if isinstance(n, ast.Return) and n.value is not None
                    ]


def _elements(value: ast.expr) -> list[ast.expr]:
    """Elements of a list or tuple, or of the array made of one."""
    while isinstance(value, ast.Call) and value.args:
        value = value.args[0] if isinstance(value.args[0], ast.List | ast.Tuple | ast.Call) else ast.Constant(None)
    return value.elts if isinstance(value, ast.List | ast.Tuple) else []


def _over_ln2(node: ast.AST) -> bool:
    """A division by ln 2."""
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Call)
        and last(node.right.func) == "log"
        and bool(node.right.args)
        and getattr(node.right.args[0], "value", None) in (2, 2.0)
    )
