"""What differs from one round of a loop to the next: counters, and the elements that a round is handed."""

from __future__ import annotations

import ast

from auditor.static.heap import Listing
from auditor.static.values import UNKNOWN, Value, picked


class Iteration:
    """Mixed into `Machine`."""

    def increments(self, node: ast.For | ast.While, names: frozenset[str]) -> dict[str, Value]:
        """Name -> what `name += step` in the body adds, where that is a plain name, attribute or number."""
        out: dict[str, Value] = {}
        for inner in ast.walk(node) if names else ():
            if (
                isinstance(inner, ast.AugAssign)
                and isinstance(inner.op, ast.Add)
                and isinstance(inner.target, ast.Name)
            ):
                plain = isinstance(inner.value, ast.Name | ast.Constant) or (
                    isinstance(inner.value, ast.Attribute) and isinstance(inner.value.value, ast.Name)
                )
                if inner.target.id in names and plain:
                    out[inner.target.id] = self.eval(inner.value)
        return out

    def advance(
        self, names: frozenset[str], number: int, step: int, numeric: set[str], steps: dict[str, Value]
    ) -> None:
        """Positions that the body increments (`pos += n`) differ from one iteration to the next."""
        for name in names:
            held = self.frame.slots.get(name)
            if not isinstance(held, Value) or held.obj is not None:
                continue
            if (step == 1 and (held.known and isinstance(held.const, int | float))) or name in numeric:
                numeric.add(name)
                at = frozenset(p for p in held.at if p[0] != number) | {(number, step)}
                fresh = Value(held.facts, held.const if step == 1 else UNKNOWN, None, at, low=0 if step == 1 else 1)
                fresh.solid = True
                fresh.counts = (number, steps[name], False) if name in steps else None
                self.journal.put(self.frame.slots, name, fresh)

    def item(self, value: Value, number: int, step: int) -> Value:
        """An element met in iteration `step` of loop `number`."""
        at = value.at | {(number, step)}
        # Tuples that a loop put into a list differ from round to round: an element may be any of them.
        items = self.known_items(value) if isinstance(value.obj, Listing) and value.const is UNKNOWN else None
        if items is not None:
            parts = [self.item(part, number, step) for part in items]
            for part, known in zip(parts, items, strict=True):
                part.counts = (number, *known.counts[1:]) if known.counts is not None else None
            return Value(obj=Listing(parts), at=at)
        out = Value(picked(value.facts, frozenset({(number, step)})), value.const, value.obj, at, value.base)
        out.solid, out.low, out.others, out.offset = value.solid, value.low, value.others, value.offset
        out.text, out.ahead = value.text, value.ahead
        out.counts = (number, *value.counts[1:]) if value.counts is not None else None
        return out
