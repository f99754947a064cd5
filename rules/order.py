"""Order of events by token position: what had changed the model before a token was scored, and how often it counted.

Works on timelines with concrete positions (the executed ones). A timeline without positions is not judged here: the
functions return None, and the rule asks its next witness.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from auditor.findings import Finding
from auditor.timeline import DISCARDED, Phase, Score, Split, Timeline, Update, Via
from rules.events import place
from rules.support import failed, number, passed, plural, warned

Ranges = tuple[tuple[int, int], ...]


class Positions:
    """A set of token positions as sorted, disjoint half-open ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, ranges: Ranges) -> None:
        """Add positions; touching ranges become one."""
        for low, high in ranges:
            if low >= high:
                continue
            first = bisect_right(self._starts, low)
            if first and self._ends[first - 1] >= low:
                first -= 1
            last = bisect_right(self._starts, high)
            if first < last:
                low, high = min(low, self._starts[first]), max(high, self._ends[last - 1])
            self._starts[first:last], self._ends[first:last] = [low], [high]

    def common(self, ranges: Ranges) -> int:
        """Number of positions of `ranges` (disjoint) that are in the set."""
        total = 0
        for low, high in ranges:
            index = max(bisect_right(self._starts, low) - 1, 0)
            while index < len(self._starts) and self._starts[index] < high:
                total += max(0, min(high, self._ends[index]) - max(low, self._starts[index]))
                index += 1
        return total

    def __len__(self) -> int:
        return sum(high - low for low, high in zip(self._starts, self._ends, strict=True))


@dataclass(frozen=True)
class Order:
    """What the positions of one executed timeline show.

    Attributes:
        scored: number of positions that count in the reported number.
        late: how many of them were scored after an update that had consumed them; `score` and `update`: the first
            such pair of events.
        repeated: positions counted more than once; `again` the first event that counts one again.
    """

    scored: int
    late: int = 0
    score: Score | None = None
    update: Update | None = None
    repeated: int = 0
    again: Score | None = None


def _ordered(timeline: Timeline) -> Iterator[Score | Update]:
    """Scores of validation tokens and updates by them, at known positions.

    Tables of counts are left out: which of them takes part in a counted score the positions do not say.
    """
    for event in timeline.events():
        if isinstance(event, Score | Update) and event.span.split is Split.VAL and event.span.positions:
            if not (isinstance(event, Update) and event.via is Via.TABLE):
                yield event


def order_of(timeline: Timeline) -> Order | None:
    """Walk a timeline once; None when no counted score of validation tokens has positions."""
    updated, counted = Positions(), Positions()
    updates: list[Update] = []
    scored = late = repeated = 0
    pair: tuple[Score, Update] | None = None
    again: Score | None = None
    for event in _ordered(timeline):
        where = event.span.positions
        if isinstance(event, Update):
            updated.add(where)
            updates.append(event)
        elif event.counted:
            scored += sum(high - low for low, high in where)
            seen = updated.common(where)
            if seen and pair is None:
                pair = event, next(update for update in updates if _overlap(update.span.positions, where))
            late += seen
            twice = counted.common(where)
            repeated += twice
            again = again or (event if twice else None)
            counted.add(where)
    if not scored:
        return None
    return Order(scored, late, *(pair or (None, None)), repeated, again)


def _overlap(one: Ranges, other: Ranges) -> bool:
    return any(low < end and start < high for low, high in one for start, end in other)


def score_before_update(timeline: Timeline) -> Finding | None:
    """Condition 3 on positions: no counted score may come after an update that consumed the same token."""
    order = order_of(timeline)
    if order is None:
        return None
    if order.late and order.score and order.update:
        return failed(
            f"{number(order.late)} of {number(order.scored)} counted tokens had already changed the model when they "
            "were scored",
            [
                place(order.score, "scores tokens that were trained on"),
                place(order.update, f"{order.update.via.value} on these tokens, earlier"),
            ],
        )
    return passed(f"all {number(order.scored)} counted tokens were scored before any update that consumed them")


def later_epoch(timeline: Timeline) -> Finding | None:
    """A counted score of tokens that the same line had scored before an update consumed them: a later round counts.

    None where counted tokens came late in another way: the rule on score and update tells that.
    """
    order = order_of(timeline)
    if order is None or not order.late:
        return order and passed(f"no later round over {number(order.scored)} counted tokens reaches the number")
    scored, learnt = Positions(), Positions()
    for event in _ordered(timeline):
        where = event.span.positions
        if isinstance(event, Score) and event.counted and scored.common(where) and learnt.common(where):
            words = (
                "tokens count with the score of a later round, after an earlier round had scored and trained on them"
            )
            return failed(words, [place(event, "scores them again"), place(order.update, "trained on them before")])
        if isinstance(event, Update):
            learnt.add(where)
        elif order.score is not None and event.place == order.score.place:
            scored.add(where)
    return None


def counted_once(timeline: Timeline) -> Finding | None:
    """Condition 4 on positions: every token enters the reported sum once."""
    order = order_of(timeline)
    if order is None:
        return None
    if order.repeated and order.again:
        return failed(
            f"{number(order.repeated)} tokens count more than once in the reported number",
            [place(order.again, "counts tokens again")],
        )
    return passed(f"each of {number(order.scored)} counted tokens enters the reported number once")


def proven(timeline: Timeline, updates: list[Update]) -> bool:
    """Whether updates prove a breach: by their positions, or in a reading that traced the claim to its scores.

    A reading that lost the claim may have lost more, and two calls of one function may have been taken for one.
    """
    counted = any(isinstance(event, Score) and event.counted for event in timeline.events())
    return counted or any(update.span.positions for update in updates)


def untouched_before_export(timeline: Timeline) -> Finding | None:
    """No update from validation tokens before evaluation begins, whatever the witness knows of positions."""
    early = [
        event
        for event in timeline.events()
        if isinstance(event, Update)
        and event.span.split is Split.VAL
        and event.state != DISCARDED
        and event.phase in (Phase.TRAINING, Phase.AFTER_TRAINING)
    ]
    if early:
        said = failed if proven(timeline, early) else warned
        return said(
            f"{plural(len(early), 'update')} from validation tokens before the artifact is written",
            [place(event, event.via.value) for event in early],
        )
    return None if order_of(timeline) is None else passed("no update from validation tokens before evaluation")
