"""Subscripts of the abstract machine: items of tensors, lists and dicts, and counts read from tables."""

from __future__ import annotations

import ast

from auditor.static import rounds
from auditor.static.heap import Instance, Library, Listing, Mapping
from auditor.static.values import (
    COUNTS,
    FLAG,
    GRAPH,
    LEARNT,
    NONE,
    TABLE,
    TOKENS,
    UNKNOWN,
    WHERE,
    Facts,
    Value,
    constant,
    file_parts,
    join,
    limited,
    picked,
)

# A constant bound below this is a batch or a context, above the other no published vocabulary has as many tokens left
# out (the stream has 40.5 million tokens at 8,192 pieces).
MIN_PREFIX, FULL_STREAM = 4096, 30_000_000
_SIMPLE = (int, float, str, bool, type(None))


class Subscripts:
    """Mixed into `Machine`."""

    def eval_index(self, node: ast.expr) -> Value:
        """Value of an index or slice; a slice keeps the offset of its start."""
        if isinstance(node, ast.Slice):
            parts = [self.eval(part) for part in (node.lower, node.upper, node.step) if part is not None]
            lower = self.eval(node.lower) if node.lower is not None else constant(0)
            at = frozenset().union(*(p.at for p in parts)) if parts else NONE
            facts = frozenset().union(*(p.facts for p in parts)) if parts else NONE
            out = Value(facts, UNKNOWN, None, at, solid=True)
            start = lower.const if lower.known and isinstance(lower.const, int) and 0 < lower.const <= 4 else 0
            # A number that was kept with counts (an order, a size) is no position: its distance from itself says nothing.
            out.offset = start + (0 if any(f[0] == COUNTS for f in lower.facts) else lower.offset)
            out.ahead = rounds.between(lower, self.eval(node.upper) if node.upper is not None else None)
            return out
        if isinstance(node, ast.Tuple):
            parts = [self.eval_index(part) for part in node.elts]
            value = Value(obj=Listing(parts), at=frozenset().union(*(p.at for p in parts)) if parts else NONE)
            value.offset = max((p.offset for p in parts), default=0)
            value.ahead = frozenset().union(*(p.ahead for p in parts)) if parts else NONE
            return value
        value = self.eval(node)
        return value

    def do_subscript(self, node: ast.Subscript) -> Value:
        held = self.eval(node.value)
        if isinstance(node.slice, ast.Slice) and held.known and isinstance(held.const, str):
            bounds = [self.eval(part) if part is not None else constant(None) for part in _bounds(node.slice)]
            if all(bound.known and isinstance(bound.const, int | None) for bound in bounds):
                return self.spelt(held.const[slice(*(bound.const for bound in bounds))], held)
        index = self.eval_index(node.slice)
        if isinstance(node.slice, ast.Slice) and held.obj is None:
            held = self.beginning(held, node.slice, index)
        if isinstance(node.slice, ast.Slice) and held.obj is None and self.is_zero(node.slice.upper):
            return Value(solid=True)
        return self.subscript(held, index, isinstance(node.slice, ast.Slice))

    def beginning(self, held: Value, cut: ast.Slice, index: Value) -> Value:
        """`stream[:100_000]`, `stream[:n // 2]`, `stream[n // 10:]`: whole but for a fixed number or share."""
        whole = any(f[0] == TOKENS and f[1] == "val" and not f[2] for f in held.facts)
        ends = [end for end in (cut.lower, cut.upper) if end is not None]
        if not whole or index.at or len(ends) != 1 or cut.step is not None:
            return held
        bound = self.eval(ends[0])
        front = cut.upper is not None
        proven = bound.known and isinstance(bound.const, int) and (FLAG, "default") not in bound.facts
        if proven and MIN_PREFIX < bound.const < FULL_STREAM:
            words = f"takes the first {bound.const:,} tokens" if front else f"leaves {bound.const:,} tokens out"
        elif _share(ends[0]):
            words = f"{'takes' if front else 'leaves out'} a share of the stream: {ast.unparse(ends[0])}"[:100]
        else:
            return held
        facts = held.facts | {(FLAG, "partial", self.here(), words)}
        return Value(facts, UNKNOWN, None, held.at, held.base or held, solid=True)

    def is_zero(self, node: ast.expr | None) -> bool:
        """`x[:0]` is empty."""
        return isinstance(node, ast.Constant) and node.value == 0 and node.value is not False

    def subscript(self, held: Value, index: Value, is_slice: bool = False) -> Value:
        """`held[index]`."""
        obj = held.obj
        if isinstance(obj, Listing):
            return self.element(held, obj, index, is_slice)
        if isinstance(obj, Mapping):
            return self.lookup(held, obj, index)
        if isinstance(obj, Instance):
            if obj.cls is not None and (found := obj.cls.find("__getitem__")) is not None:
                return self.call_function(found.obj, [held, index], {}, None)
            if obj.is_module and obj.children:
                if (
                    index.known
                    and isinstance(index.const, int)
                    and -len(obj.children) <= index.const < len(obj.children)
                ):
                    return Value(obj=obj.children[index.const])
                return Value(obj=obj.children[0]) if obj.children else held
        if isinstance(obj, Library) and obj.name.endswith("environ"):
            return self.environment_value(index, None)
        if isinstance(obj, Library) and obj.receiver is None:
            return held
        return self.pick(held, index)

    def pick(self, held: Value, index: Value) -> Value:
        """Item of a tensor or of an unknown container."""
        keys = self.spread(index)
        rows = rounds.whole_items(held.facts)
        at = self.later(index.at, index.ahead, rows) | frozenset((f[1], f[2]) for f in keys if f[0] == WHERE)
        facts = picked(held.facts, at, 0 if rows else index.offset)
        if (FLAG, "random") in keys and any(f[0] == TOKENS and f[1] == "val" for f in held.facts):
            facts |= {(FLAG, "partial", self.here(), "draws positions at random")}
        key_tokens = frozenset(f for f in keys if f[0] in (TOKENS, LEARNT, COUNTS))
        if key_tokens and _mixed_in(facts):
            return self.score_at(held, self.counts_in_row(facts, [f for f in keys if f[0] == TOKENS]), index)
        if any(f[0] == TABLE for f in facts):
            # Without a token in the index it is a slice or one of several tables: nothing was looked up yet.
            entry = in_row(facts) or _entry(index)
            facts = self.table_read(facts, _unjoined(keys) if entry else keys, entry) if key_tokens else facts
        else:
            facts = self.reread(facts, keys)
            if key_tokens and any(f == (FLAG, "distribution") for f in facts):
                return self.score_at(held, facts, index)
            facts |= key_tokens
        out = Value(limited(facts), UNKNOWN, None, held.at | index.at, held.base or held, solid=True)
        out.offset = held.offset + index.offset
        return out

    def method_narrow(self, receiver: Value, args: list[Value], keywords: dict[str, Value]) -> Value | None:
        """`stream.narrow(0, begin, length)`: a slice by another name."""
        if receiver.obj is not None or len(args) != 3 or not args[0].known or args[0].const != 0:
            return None
        begin = Value(args[1].facts, UNKNOWN, None, args[1].at, offset=args[1].offset)
        begin.ahead = args[1].ahead
        return self.pick(receiver, begin)

    def element(self, held: Value, obj: Listing, index: Value, is_slice: bool) -> Value:
        items = obj.items
        if is_slice:
            out = Listing(None, self.merged(items) if items is not None else obj.slots["sum"])
            if items is not None and not index.at:
                out = Listing(list(items))
            return Value(held.facts, UNKNOWN, out, held.at | self.later(index.at, index.ahead, items=True))
        if (
            items is not None
            and index.known
            and isinstance(index.const, int)
            and -len(items) <= index.const < len(items)
        ):
            return self.placed(items[index.const], held.at)
        value = (self.merged(items) if items is not None else obj.slots["sum"]) or Value(held.facts)
        out = self.placed(value, index.at | held.at, index.ahead)
        keys = frozenset(f for f in index.facts if f[0] in (TOKENS, LEARNT))
        if keys and out.obj is None:
            # A property looked up by token id says which token it was.
            out = Value(out.facts | keys, UNKNOWN, None, out.at, solid=out.solid)
        return out

    def table_of(self, obj: Mapping) -> tuple:
        """The table fact of a dict with token-derived keys."""
        if "$table" not in obj.slots:
            self.table_count += 1
            self.journal.put(obj.slots, "$table", (TABLE, self.table_count, self.here()))
        return obj.slots["$table"]

    def merged(self, items: tuple[Value, ...] | None) -> Value | None:
        """One value for all elements."""
        out: Value | None = None
        for item in (items or ())[:64]:
            out = item if out is None else join(out, item)
        return out

    def lookup(self, held: Value, obj: Mapping, index: Value) -> Value:
        if index.known and isinstance(index.const, _SIMPLE):
            found = obj.slots.get(("k", index.const))
            if found is not None:
                return found
        keys = self.spread(index)
        out: Value | None = obj.slots.get("sum")
        parts = file_parts(keys)
        if parts:
            # A cache by file: what was read from the files of one split is not found under those of another.
            out = self.merged(tuple(obj.slots[part] for part in (*parts, "other keys") if part in obj.slots))
        elif not index.known:
            for key, value in obj.slots.items():
                if key != "sum" and isinstance(key, tuple):
                    out = join(out, value) if out is not None else value
        out = out if out is not None else Value(held.facts)
        key_facts = frozenset(f for f in keys if f[0] in (TOKENS, LEARNT, COUNTS))
        counted = {f for f in out.facts if f[0] == TABLE}
        if counted and not key_facts and obj.slots.get("$table") not in counted:
            # A dict of tables, one for each order: the row is a table that nobody has read yet.
            return self.placed(out, index.at)
        entry = in_row(held.facts)
        keys = _unjoined(keys) if entry else keys
        if counted:
            facts = self.table_read(out.facts, NONE if isinstance(out.obj, Mapping) else keys, entry)
        elif key_facts:
            facts = picked(out.facts, index.at) | key_facts
        else:
            return self.placed(out, index.at)
        # A row of the dict is the row itself: what is added to it is there at the next look.
        fresh = Value(facts, out.const, out.obj, out.at | index.at, out.base or out, out.solid)
        fresh.others = out.others
        return fresh


def in_row(held: Facts) -> bool:
    """Whether what is looked up is the row of a context already."""
    tables = {f[1] for f in held if f[0] == TABLE}
    return any(f[0] == COUNTS and f[1] not in tables for f in held)


def _mixed_in(facts: Facts) -> bool:
    """Whether counts were added to the logits of a model before these became a distribution."""
    kinds = {f[0] for f in facts}
    return TABLE in kinds and GRAPH in kinds and (FLAG, "distribution") in facts


def _entry(index: Value) -> bool:
    """`counts[context, token]`: two axes, one for each."""
    parts = index.obj.items if isinstance(index.obj, Listing) else None
    return parts is not None and len(parts) > 1 and all(any(f[0] == TOKENS for f in part.facts) for part in parts)


def _unjoined(keys: Facts) -> Facts:
    """A token in the row of its context is found by its id: what the id was made of is no key."""
    return frozenset(f for f in keys if f[:2] != (FLAG, "joined"))


def _bounds(cut: ast.Slice) -> tuple[ast.expr | None, ...]:
    return cut.lower, cut.upper, cut.step


def _share(bound: ast.expr) -> bool:
    """A length divided by a written-out number, or multiplied by one below 1: `len(x) // 2`, `int(x.numel() * 0.1)`.

    `n // length * length` cuts an incomplete row off and is no share; neither is the part of one of several ranks.
    """
    if isinstance(bound, ast.Call) and getattr(bound.func, "id", "") == "int" and len(bound.args) == 1:
        return _share(bound.args[0])
    if not isinstance(bound, ast.BinOp):
        return False
    sides = (bound.left, bound.right)
    if not any(_measures(side) for side in sides):
        return False
    factor = next((s.value for s in sides if isinstance(s, ast.Constant) and isinstance(s.value, int | float)), None)
    if isinstance(bound.op, ast.FloorDiv | ast.Div):
        return isinstance(bound.right, ast.Constant) and factor is not None and 1 < factor <= 1000
    return isinstance(bound.op, ast.Mult) and factor is not None and 0 < factor < 1


def _measures(node: ast.expr) -> bool:
    """`x.numel()`, `len(x)`, `x.size(0)`, `x.shape[0]`."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        return name in ("numel", "len", "size")
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape"
