"""Abstract values: what the analysis knows of a run-time value without running anything.

A value carries its constant where it has one, the heap object it refers to, the loop iterations its position in the
data depends on, and a set of *facts* about where it comes from. Facts are small tuples, so that joining two values is
a set union:

    (TOKENS, split, iterations, offset)              holds tokens of a split, picked by these loop iterations
    (LEARNT, split, iterations, offset, state, how, place)   was influenced by tokens through a state that learnt them
    (SCORED, number)                                 contains the loss booked as score event `number`
    (GRAPH, owner)                                   computed with the parameters of this owner, gradients can flow
    (PARAMS, owner)                                  *is* a parameter (or a collection of parameters) of this owner
    (STATE, owner)                           shares storage with parameters of this owner: an entry of its state dict
    (COUNTS, table, reach, split, ...)               contains a count read from this table (`counting.count`)
    (FILE, split, place)                             is a path or pattern of files of this split, named at that place
    (TABLE, number, place)                           is a table that counts at token-derived keys
    (WHERE, loop, pass)                              a tensor of positions that were stored in this iteration
    (GATE, split, iterations, offset)                was selected by comparing tokens
    (FLAG, name)                                     other properties: logarithm of probabilities, byte counts, ...

`iterations` is a frozenset of (loop, pass) pairs. Two token sets that depend on different passes of a common loop are
different items of it and thereby disjoint; that is the whole arithmetic of "already scored".
"""

from __future__ import annotations

from typing import Any

TOKENS, LEARNT, SCORED, GRAPH, PARAMS = "tokens", "learnt", "scored", "graph", "params"
COUNTS, FILE, TABLE, FLAG, GATE, WHERE = "counts", "file", "table", "flag", "gate", "where"
STATE = "state"

Fact = tuple[Any, ...]
Facts = frozenset[Fact]
Iterations = frozenset[tuple[int, int]]

NONE: Facts = frozenset()
# Facts of one value are capped; what is dropped first are the oldest loop instances of train tokens.
MAX_FACTS = 160


class _NoConstant:
    def __repr__(self) -> str:
        return "?"

    def __bool__(self) -> bool:
        raise TypeError("an unknown constant has no truth value")


UNKNOWN = _NoConstant()


class Value:
    """One abstract value; tensors are values with identity, so in-place operations change `facts` for every holder.

    Attributes:
        facts: where it comes from (module docstring).
        const: its Python constant, or UNKNOWN.
        obj: heap object it refers to (`auditor.static.heap`), None for plain data.
        others: further objects it may refer to instead (branches that could not be decided).
        at: loop iterations it varies with, as an index into data.
        base: value this one is a view of.
        low: for an integer, the least it can be (None: unknown).
        offset: for a position, its distance from the position it was derived from.
        counts: for the index of a loop, (loop, what it advances by, whether it counted items before it was scaled).
        ahead: for a position, the loops whose next round it belongs to (`auditor.static.rounds`).
        solid: known not to be None.
        text: constant parts of a formatted string.
        line: where a formatted string was written, (path, line).
    """

    __slots__ = (
        "ahead", "at", "base", "const", "counts", "facts", "line", "low", "obj", "offset", "others", "solid", "text",
    )  # fmt: skip

    def __init__(
        self,
        facts: Facts = NONE,
        const: Any = UNKNOWN,
        obj: Any = None,
        at: Iterations = NONE,
        base: Value | None = None,
        solid: bool = False,
        low: float | None = None,
        offset: int = 0,
    ) -> None:
        self.facts = facts
        self.const = const
        self.obj = obj
        self.others: tuple[Any, ...] = ()
        self.at = at
        self.base = base
        self.low = low
        self.offset = offset
        self.counts: tuple[int, Value, bool] | None = None
        self.ahead: frozenset[tuple[int, bool, tuple[str, int]]] = NONE
        self.solid = solid or obj is not None
        self.text: str | None = None
        self.line: tuple[str, int] | None = None

    def __repr__(self) -> str:
        return f"Value({set(self.facts) or ''} const={self.const!r} obj={self.obj!r})"

    @property
    def known(self) -> bool:
        """True when the constant is known."""
        return self.const is not UNKNOWN


def constant(value: Any) -> Value:
    """A known Python constant."""
    return Value(const=value, solid=value is not None)


def tokens(split: str) -> Value:
    """The whole token stream of a split."""
    return Value(frozenset({(TOKENS, split, NONE, 0)}), solid=True)


#: Iterations that were left out of a fact: some item, nobody knows which. No loop has the number 0.
FORGOTTEN: Iterations = frozenset({(0, 0)})


def limited(facts: Facts) -> Facts:
    """`facts` within `MAX_FACTS`: iterations are forgotten (which can only make token sets larger), inner loops first."""
    if len(facts) <= MAX_FACTS:
        return facts
    # Loops are numbered as they are entered: an outer loop has a smaller number than the loops inside it.
    loops = sorted({number for f in facts if f[0] in (TOKENS, LEARNT) for number, _ in f[2]} - {0})
    out = facts
    while loops and len(out) > MAX_FACTS:
        inner = frozenset(loops[-max(1, len(loops) // 4) :])
        del loops[-len(inner) :]
        out = frozenset(_without(fact, inner) for fact in out)
    return out


def _without(fact: Fact, loops: frozenset[int]) -> Fact:
    if fact[0] not in (TOKENS, LEARNT) or not any(number in loops for number, _ in fact[2]):
        return fact
    kept = frozenset(each for each in fact[2] if each[0] not in loops)
    return (*fact[:2], kept or FORGOTTEN, *fact[3:])


def join(a: Value | None, b: Value | None) -> Value:
    """The value that is either `a` or `b`; an absent one (unset on that path) adds nothing."""
    if a is b or b is None:
        return a if a is not None else Value()
    if a is None:
        return b
    same = a.known and b.known and type(a.const) is type(b.const) and a.const == b.const
    out = Value(limited(a.facts | b.facts), a.const if same else UNKNOWN, a.obj or b.obj, a.at | b.at)
    out.base = a.base or b.base
    out.solid = a.solid and b.solid
    out.offset = max(a.offset, b.offset)
    out.ahead = a.ahead & b.ahead
    if a.low is not None and b.low is not None:
        out.low = min(a.low, b.low)
    others = [o for o in (b.obj, *a.others, *b.others) if o is not None and o is not out.obj]
    if others:
        out.others = tuple(dict.fromkeys(others))[:4]
    out.text, out.line = a.text or b.text, a.line or b.line
    return out


def disjoint(a: Iterations, b: Iterations) -> bool:
    """True when token sets picked by these iterations cannot overlap: some common loop is at different passes."""
    if not a or not b:
        return False
    passes: dict[int, set[int]] = {}
    for loop, number in a:
        passes.setdefault(loop, set()).add(number)
    other: dict[int, set[int]] = {}
    for loop, number in b:
        other.setdefault(loop, set()).add(number)
    return any(loop in other and not (numbers & other[loop]) for loop, numbers in passes.items())


def picked(facts: Facts, at: Iterations, offset: int = 0) -> Facts:
    """Facts of an item picked at these iterations: token sets shrink, the rest is unchanged.

    What a table has counted does not shrink: its entries mix everything that was counted.
    """
    if (not at and not offset) or any(f[0] == TABLE for f in facts):
        return facts
    return frozenset((TOKENS, f[1], f[2] | at, f[3] + offset) if f[0] == TOKENS else f for f in facts)


def moved_back(facts: Facts, offset: int) -> Facts:
    """Facts of what is stored `offset` positions further on: `out[:, 1:] = f(x[:, 1:])` is in step with `x`."""
    if offset <= 0:
        return facts
    return frozenset((TOKENS, f[1], f[2], max(0, f[3] - offset)) if f[0] == TOKENS and f[3] > 0 else f for f in facts)


def owners(facts: Facts, kind: str) -> set[Any]:
    """Second fields of the facts of a kind."""
    return {f[1] for f in facts if f[0] == kind}


def named_file(facts: Facts, split: str, place: tuple[str, int]) -> Facts:
    """Facts of a path that is now known to name files of `split`; where it was named first is kept."""
    named = frozenset(f for f in facts if f[0] == FILE and f[1] == split)
    return frozenset(f for f in facts if f[0] != FILE) | (named or {(FILE, split, place)})


def file_parts(facts: Facts) -> tuple[str, ...]:
    """Parts of a dict that an unknown key belongs to: those of the splits whose files it names, if any."""
    return tuple(sorted(f"files of {split}" for split in {f[1] for f in facts if f[0] == FILE}))


def flagged(facts: Facts, name: str) -> bool:
    """True when the flag is set."""
    return (FLAG, name) in facts
