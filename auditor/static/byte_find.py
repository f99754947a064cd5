"""Finds, by what they do, the code that builds a byte table and the places that sum with it.

A builder asks a tokenizer about every id of a vocabulary. A sum looks a table up at the scored token (`base[tgt]`) and
adds a space where another table says so and the token before is no boundary (`space[tgt] & ~boundary[prev]`).
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

ASKS = frozenset(
    (
        "is_control",
        "is_unknown",
        "is_unused",
        "is_byte",
        "id_to_piece",
        "IdToPiece",
        "IsControl",
        "IsUnknown",
        "IsUnused",
        "IsByte",
        "decode_single_token_bytes",
        "decode_ids",
        "convert_ids_to_tokens",
    )
)
_LOOPS = (ast.For, ast.ListComp, ast.GeneratorExp, ast.DictComp, ast.SetComp, ast.While)
_CONVERTS = frozenset(
    (
        "to",
        "long",
        "int",
        "cpu",
        "cuda",
        "numpy",
        "reshape",
        "view",
        "flatten",
        "ravel",
        "clone",
        "float",
        "contiguous",
        "item",
        "astype",
        "squeeze",
        "double",
        "short",
        "tolist",
    )
)
Scope = ast.FunctionDef | ast.Module


@dataclass
class Builder:
    """Code that makes byte tables.

    Attributes:
        scope: the function it stands in, or the module.
        statements: None to call the function as a whole; else the part of its body that makes the tables.
    """

    scope: Scope
    line: int
    statements: list[ast.stmt] | None = None


@dataclass
class Site:
    """A place that counts the bytes of a scored token.

    Attributes:
        function: function it stands in (or the module).
        run: statements to evaluate, the last of them an expression statement or the assignment to `result`.
        result: name that holds the bytes afterwards, "" when the last expression is the count.
        target, previous: source of the two indices.
        roles: source of each table looked up -> "base", "lead", "bound".
        partial: only the added space stands here, the rest was counted elsewhere.
    """

    function: Scope
    run: list[ast.stmt | ast.expr]
    result: str
    target: str
    previous: str
    roles: dict[str, str]
    partial: bool = False
    line: int = 0
    names: set[str] = field(default_factory=set)


@dataclass
class Outline:
    """Nodes of a module: `all` in source order, `own` those of each scope without inner functions and classes."""

    all: list[ast.AST] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    own: dict[int, list[ast.AST]] = field(default_factory=dict)


@functools.lru_cache(maxsize=24)
def outline(tree: ast.Module) -> Outline:
    """One walk over a module, shared by everything here (walking is most of the cost)."""
    found = Outline()

    def visit(node: ast.AST, into: list[ast.AST]) -> None:
        for name in node._fields:
            value = getattr(node, name, None)
            for child in value if isinstance(value, list) else (value,):
                if not isinstance(child, ast.AST) or isinstance(child, ast.expr_context):
                    continue
                found.all.append(child)
                rows = into
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                    rows = []
                    if isinstance(child, ast.FunctionDef):
                        found.scopes.append(child)
                        found.own[id(child)] = rows
                else:
                    into.append(child)
                visit(child, rows)

    found.own[id(tree)] = top = []
    visit(tree, top)
    found.scopes.append(tree)
    return found


def asks(node: ast.AST) -> bool:
    """Whether a node questions a tokenizer about ids."""
    return any(isinstance(n, ast.Attribute) and n.attr in ASKS for n in ast.walk(node))


def decoded_sums(tree: ast.Module) -> list[ast.AST]:
    """Sums that grow by `len(tokenizer.decode(tokens).encode())`: the bytes of the text itself, no table needed."""
    found: list[ast.AST] = []
    seen = outline(tree)
    for scope in seen.scopes:
        nodes = seen.own[id(scope)]
        texts = {
            target.id
            for n in nodes
            if isinstance(n, ast.Assign) and _decodes(n.value)
            for target in n.targets
            if isinstance(target, ast.Name)
        }
        texts |= {  # text that a tokenizer encodes here: `ids = tokenizer.encode(text)`
            n.args[0].id
            for n in nodes
            if isinstance(n, ast.Call)
            and getattr(n.func, "attr", "") in ("encode", "encode_ordinary", "EncodeAsIds", "encode_as_ids")
            and n.args
            and isinstance(n.args[0], ast.Name)
        }
        found += [
            n for n in nodes if isinstance(n, ast.AugAssign) and any(_text_bytes(c, texts) for c in ast.walk(n.value))
        ]
    return found


_DECODERS = frozenset(("decode", "decode_ids", "DecodeIds", "Decode"))


def _decodes(node: ast.AST) -> bool:
    """A call that decodes more than one token (`[i]` is one)."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _DECODERS):
        return False
    many = bool(node.args) and not isinstance(node.args[0], ast.Constant)
    return many and not (isinstance(node.args[0], ast.List) and len(node.args[0].elts) == 1)


def _text_bytes(node: ast.AST, texts: set[str]) -> bool:
    """`len(text.encode(...))` of a decoded text."""
    if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "len" and node.args):
        return False
    inner = node.args[0]
    if not (isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute) and inner.func.attr == "encode"):
        return False
    text = inner.func.value
    return _decodes(text) or getattr(text, "id", "") in texts


def builders(tree: ast.Module) -> list[Builder]:
    """Code that questions a tokenizer about ids in a loop, smallest functions first, then parts of larger ones."""
    found: list[Builder] = []
    seen = outline(tree)
    for scope in seen.scopes:
        nodes = seen.own[id(scope)]
        if not any(isinstance(n, ast.Attribute) and n.attr in ASKS for n in nodes):
            continue
        loops = [n for n in nodes if isinstance(n, _LOOPS) and asks(n)]
        if not loops:
            continue
        if isinstance(scope, ast.FunctionDef):
            found.append(Builder(scope, scope.lineno))
        found.append(Builder(scope, loops[0].lineno, part_of(nodes, loops)))
    return sorted(found, key=lambda b: (b.statements is not None, isinstance(b.scope, ast.Module)))


def part_of(nodes: list[ast.AST], loops: list[ast.AST]) -> list[ast.stmt]:
    """The statements around `loops` and the assignments they need, in source order."""
    simple = [n for n in nodes if isinstance(n, ast.Assign | ast.AnnAssign | ast.AugAssign)]
    around = [n for n in nodes if isinstance(n, ast.stmt) and _holds(n, loops) and not _inner(n)]
    outer = [n for n in around if isinstance(n, ast.For | ast.While) or not isinstance(n, ast.If | ast.Try | ast.With)]
    outer = [n for n in outer if not any(n is not o and _holds(o, [n]) for o in outer)]
    needed = {n.id for o in outer for n in ast.walk(o) if isinstance(n, ast.Name)}
    last = max((o.end_lineno or o.lineno for o in outer), default=0)
    chosen: list[ast.stmt] = []
    for statement in sorted(simple, key=lambda s: -s.lineno):
        if statement.lineno > last + 40 or any(_holds(o, [statement]) for o in outer):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if names & needed:
            chosen.append(statement)
            needed |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
    return sorted({id(s): s for s in (*chosen, *outer)}.values(), key=lambda s: s.lineno)


def _inner(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def _holds(node: ast.AST, wanted: list[ast.AST]) -> bool:
    return any(n is w for n in ast.walk(node) for w in wanted)


def strip(node: ast.expr) -> ast.expr:
    """An expression without conversions of type, device and shape around it."""
    while True:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CONVERTS:
            node = node.func.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.args
            and node.func.id in ("int", "bool", "float")
        ):
            node = node.args[0]
        else:
            return node


def lookup(node: ast.AST) -> tuple[str, str] | None:
    """Table and index, as source, of a look-up: `table[index]`, `table.index_select(0, index)`, `take(table, index)`."""
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice | ast.Tuple | ast.Constant):
        return ast.unparse(strip(node.value)), ast.unparse(strip(node.slice))
    if not (isinstance(node, ast.Call) and node.args):
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name in ("index_select", "gather") and len(node.args) == 2 and isinstance(node.func, ast.Attribute):
        return ast.unparse(strip(node.func.value)), ast.unparse(strip(node.args[1]))
    if name == "take" and len(node.args) == 2:
        return ast.unparse(strip(node.args[0])), ast.unparse(strip(node.args[1]))
    if name == "embedding" and len(node.args) >= 2:
        return ast.unparse(strip(node.args[1])), ast.unparse(strip(node.args[0]))
    return None


def _negated(node: ast.expr) -> tuple[str, str] | None:
    """The look-up whose opposite `node` is."""
    node = strip(node)
    inner: ast.expr | None = None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert | ast.Not):
        inner = node.operand
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("logical_not", "bitwise_not"):
        inner = node.args[0] if node.args else node.func.value  # type: ignore[attr-defined]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Constant):
        inner = node.right
    elif isinstance(node, ast.Compare) and isinstance(node.comparators[0], ast.Constant):
        inner = node.left
    return lookup(strip(inner)) if inner is not None else None


def _conjunction(node: ast.AST) -> list[ast.expr]:
    """The parts that must all hold: of `a & b`, `a and b`, `a * b`, `logical_and(a, b)`."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.Mult):
        return [node.left, node.right]
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        return node.values
    if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("logical_and", "bitwise_and"):
        if len(node.args) == 2:
            return node.args
        return [node.func.value, *node.args]  # type: ignore[attr-defined]
    return []


def sites(tree: ast.Module) -> list[Site]:
    """Every place that adds a space under a condition on the token before."""
    found: list[Site] = []
    seen = outline(tree)
    for scope in seen.scopes:
        nodes = seen.own[id(scope)]
        if any(any(_negated(p) for p in _conjunction(n)) for n in nodes):
            parents = {id(c): n for n in (scope, *nodes) for c in ast.iter_child_nodes(n)}
            found += [s for n in nodes if (s := _site(scope, n, nodes, parents)) is not None]
    return found


def _site(scope: Scope, node: ast.AST, nodes: list[ast.AST], parents: dict[int, ast.AST]) -> Site | None:
    parts = _conjunction(node)
    negated = [(p, n) for p in parts if (n := _negated(p)) is not None]
    plain = [lookup(strip(p)) for p in parts]
    for _, bound in negated:
        for lead in plain:
            if lead is not None and lead[1] != bound[1] and lead[0] != bound[0]:
                roles = {lead[0]: "lead", bound[0]: "bound"}
                return _around(scope, node, nodes, parents, Site(scope, [], "", lead[1], bound[1], roles))
    return None


def _around(scope: Scope, node: ast.AST, nodes: list[ast.AST], parents: dict[int, ast.AST], site: Site) -> Site:
    """Completes a site with the statements that hold the rest of the count."""
    site.line = getattr(node, "lineno", 0)
    whole, top = _with_base(node, parents, site)
    if whole is not None:
        site.run = [whole]
        return site
    if isinstance(top, ast.AugAssign | ast.Assign):
        return _over_statements(top, node, nodes, site)
    holder: ast.AST | None = node
    while holder is not None and not isinstance(holder, ast.If):
        holder = parents.get(id(holder))
    if isinstance(holder, ast.If) and any(n is node for n in ast.walk(holder.test)):
        return _over_branch(holder, nodes, site)
    site.run, site.partial = [node], True  # type: ignore[list-item]
    return site


def _with_base(node: ast.AST, parents: dict[int, ast.AST], site: Site) -> tuple[ast.expr | None, ast.AST | None]:
    """The smallest expression around `node` that looks a third table up at the target; else the statement around."""
    current: ast.AST | None = node
    while current is not None and not isinstance(current, ast.stmt):
        if isinstance(current, ast.expr) and _base_in([current], site):
            return current, None
        current = parents.get(id(current))
    return None, current


def _base_in(nodes: Iterable[ast.AST], site: Site) -> bool:
    for node in nodes:
        for inner in ast.walk(node):
            found = lookup(inner)
            if (
                found
                and found[1] == site.target
                and found[0] not in site.roles
                and found[0].isidentifier() | ("." in found[0])
            ):
                site.roles[found[0]] = "base"
                return True
    return False


def _target(statement: ast.AST) -> str:
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return ast.unparse(targets[0]) if targets and targets[0] is not None else ""


def _over_statements(top: ast.stmt, node: ast.AST, nodes: list[ast.AST], site: Site) -> Site:
    name = _target(top)
    before = [
        n
        for n in nodes
        if isinstance(n, ast.Assign | ast.AnnAssign) and n is not top and n.lineno <= top.lineno and _target(n) == name
    ]
    for first in sorted(before, key=lambda n: -n.lineno):
        if first.value is not None and _base_in([first.value], site):
            site.run, site.result = [first, top], name
            return site
    after = [n for n in nodes if isinstance(n, ast.BinOp) and n.lineno >= top.lineno and _loads(n, name)]
    for expression in after:
        if isinstance(top, ast.Assign) and _base_in([expression], site):
            site.run = [top, expression]
            return site
    # tb = base[tgt] under another name, then added: follow the names the later sum is made of.
    for expression in after:
        for other in {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)} - {name}:
            for first in (
                n for n in nodes if isinstance(n, ast.Assign) and _target(n) == other and n.lineno < expression.lineno
            ):
                if isinstance(top, ast.Assign) and _base_in([first.value], site):
                    site.run = [first, top, expression]
                    return site
    site.run, site.partial = [node], True  # type: ignore[list-item]
    return site


def _loads(node: ast.AST, name: str) -> bool:
    return any(isinstance(n, ast.Name | ast.Attribute) and ast.unparse(n) == name for n in ast.walk(node))


def _over_branch(holder: ast.If, nodes: list[ast.AST], site: Site) -> Site:
    """`if space[t] and not boundary[p]: n += 1` after `n = base[t]`, or the reverse order."""
    adds = [n for n in holder.body if isinstance(n, ast.AugAssign | ast.Assign)]
    for add in adds:
        name = _target(add)
        near = [
            n
            for n in nodes
            if isinstance(n, ast.Assign | ast.AugAssign)
            and n is not add
            and _target(n) == name
            and abs(n.lineno - holder.lineno) < 12
        ]
        for first in sorted(near, key=lambda n: abs(n.lineno - holder.lineno)):
            if _base_in([first.value], site):
                site.run, site.result = [first, holder], name
                return site
    site.run, site.partial = [holder.test], True
    return site
