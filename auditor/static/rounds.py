"""Positions of a later round: `(index + 1) * length` is where the next item of a loop begins.

A position that a loop's own index was moved on by a whole step is *ahead* of this round. Adding, multiplying and the
smaller of it and the end of the stream keep that; taking anything away loses it, because what is left may reach back.
What is picked from such a position on belongs to the next round (`later`), also where this one touches it.
"""

from __future__ import annotations

import ast

from auditor.static.values import FLAG, NONE, TOKENS, Facts, Iterations, Value

_PIECES = frozenset({"split", "chunk", "unfold"})
_SHAPES = frozenset({"view", "reshape"})

# (loop, whether the index was scaled to positions or still counts items, where it was moved on).
Ahead = frozenset[tuple[int, bool, tuple[str, int]]]


def stepped(left: Value, right: Value, here: tuple[str, int]) -> Ahead:
    """`index + step`: the loop whose next round this is."""
    for index, more in ((left, right), (right, left)):
        if index.counts is None:
            continue
        number, step, chunks = index.counts
        single = step.known and step.const == 1
        if more is step or (more.known and step.known and more.const == step.const):
            return frozenset({(number, not single, here)})
        whole = more.known and step.known and isinstance(more.const, int) and isinstance(step.const, int)
        # Windows that begin every `step` may be longer than that: several steps on, this one has not ended.
        if (chunks or single) and whole and step.const > 0 and more.const >= step.const:
            return frozenset({(number, not single, here)})
    return NONE


def scaled(op: ast.operator, left: Value, right: Value) -> tuple[int, Value, bool] | None:
    """`index * length` counts in steps of the length."""
    for index, by in ((left, right), (right, left)):
        if isinstance(op, ast.Mult) and index.counts is not None and by.counts is None:
            number, step, _ = index.counts
            if step.known and step.const == 1:
                return number, by, True
    return None


def computed(op: ast.operator, left: Value, right: Value, here: tuple[str, int]) -> Ahead:
    """What an operator leaves of being ahead."""
    if isinstance(op, ast.Add):
        back = any(v.known and isinstance(v.const, int | float) and v.const < 0 for v in (left, right))
        return NONE if back else stepped(left, right, here) | left.ahead | right.ahead
    if isinstance(op, ast.Mult):
        return positions(left.ahead | right.ahead)
    if isinstance(op, ast.FloorDiv):
        return frozenset(each for each in left.ahead if each[1])
    return NONE


def bounded(values: list[Value], largest: bool) -> Ahead:
    """The largest of some positions is as far ahead as any; the smallest only where the others do not move."""
    out: set[tuple[int, bool, tuple[str, int]]] = set()
    for value in values:
        others = [v for v in values if v is not value]
        for each in value.ahead:
            if largest or all(not moves(v, each[0]) or each[0] in loops(v) for v in others):
                out.add(each)
    return frozenset(out)


def positions(ahead: Ahead) -> Ahead:
    """The same, scaled: an item's number became where it begins."""
    return frozenset((number, True, where) for number, _, where in ahead)


def between(lower: Value, upper: Value | None) -> Ahead:
    """A range of positions is ahead when it begins ahead and does not end with this round."""
    if upper is None:
        return lower.ahead
    return frozenset(each for each in lower.ahead if not moves(upper, each[0]) or each[0] in loops(upper))


def moves(value: Value, number: int) -> bool:
    """True when a value differs from round to round of a loop."""
    return any(loop == number for loop, _ in value.at)


def loops(value: Value) -> set[int]:
    """Loops of which the value is ahead."""
    return {each[0] for each in value.ahead}


def later(at: Iterations, ahead: Ahead, items: bool = False) -> Iterations:
    """Iterations of what is picked at a position that is ahead; `items`: from a container of whole items."""
    numbers = {number for number, scaled, _ in ahead if scaled or items}
    return frozenset((loop, step + 1) if loop in numbers else (loop, step) for loop, step in at) if numbers else at


def cut(view: Value, method: str, arguments: int) -> Value:
    """A view of the whole stream in rows or pieces: from here on an index counts these, not tokens."""
    whole = any(f[0] == TOKENS and not f[2] for f in view.facts)
    if whole and (method in _PIECES or (method in _SHAPES and arguments > 1)):
        view.facts |= {(FLAG, "rows")}
    return view


def whole_items(facts: Facts) -> bool:
    """True for a stream that was cut into rows or pieces."""
    return (FLAG, "rows") in facts
