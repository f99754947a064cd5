"""State that outlives the tokens it came from: warm-ups before the clock, the order of the stream, hints.

Pure functions on a symbolic timeline, beside `auditor.static.order`. A question is answered only when the claimed
number was traced to its scores; what a timeline cannot tell is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from auditor.findings import Status
from auditor.static.order import Verdict, headline_scores, loops
from auditor.timeline import Event, Loop, Place, Report, Score, Split, Timeline, Unknown, Update, Via


def carried_verdicts(timeline: Timeline, found: Mapping[str, Verdict]) -> Iterator[Verdict]:
    """Verdicts on warm-up, stream order and hints, given what the order of events has already shown."""
    counted = headline_scores(timeline)
    first = found.get("PG-C3-score-first")
    if not counted or first is None or first.status is Status.UNKNOWN:
        return
    events = list(timeline.events())
    yield from _warm_up(events, counted[0], first)
    yield from _stream_order(timeline, events, counted)
    yield from _hints(events, counted)


# -- warm-up before the evaluation's clock -----------------------------------------------------------------------------


def _warm_up(events: list[Event], score: Score, order: Verdict) -> Iterator[Verdict]:
    """Updates from validation tokens before the first counted score, whose effect does not survive.

    Where it survives the order rules have failed already and say more.
    """
    if order.status is not Status.PASS:
        return
    rule = "PG-C3-compile-warmup"
    begins = events.index(score)
    early = [
        event
        for event in events[:begins]
        if isinstance(event, Update)
        and event.span.split is Split.VAL
        and event.via in (Via.OPTIMIZER, Via.ADAPTER)
        and not _shares_loop(event, score, events)
    ]
    if early:
        words = "validation tokens train something before the first counted score; nothing of it reaches the score"
        yield Verdict(rule, Status.WARN, words, ((early[0].place, "updates"), (score.place, "scores, afterwards")))
    else:
        words = "nothing is trained on validation tokens before the first counted score"
        yield Verdict(rule, Status.PASS, words, ((score.place, "first counted score"),))


def _shares_loop(update: Update, score: Score, events: list[Event]) -> bool:
    """The same update stands behind the score too: it belongs to the evaluation's own loop."""
    return any(event.place == update.place for event in events[events.index(score) :] if isinstance(event, Update))


# -- order of the stream -----------------------------------------------------------------------------------------------


def _stream_order(timeline: Timeline, events: list[Event], counted: list[Score]) -> Iterator[Verdict]:
    """In order when nothing is carried from token to token, or when every loop around a score counts upwards."""
    rule = "PG-C4-order"
    place = ((counted[0].place, "scores the claimed number"),)
    carries = [e for e in events if isinstance(e, Update) and e.span.split is Split.VAL]
    tables = any(score.tables or score.seen for score in counted) or any(r.counts for r in _headlines(events))
    if not carries and not tables and not _native(events):
        words = "no state is carried from one scored token to the next, so their order cannot matter"
        yield Verdict(rule, Status.PASS, words, place)
        return
    around = [
        loop for loop in loops(timeline.root) if any(score in Timeline("", loop.body).events() for score in counted)
    ]
    if around and all(_counts_upwards(loop) for loop in around):
        words = "every loop around the counted scores runs through the stream in order"
        chain = tuple((Place(loop.place.path, loop.place.line), f"for ... in {loop.over}"[:90]) for loop in around[:3])
        yield Verdict(rule, Status.PASS, words, (*chain, *place))


def _counts_upwards(loop: Loop) -> bool:
    """`range(...)` with a step that is not negative, also numbered."""
    text = loop.over.strip()
    for wrapper in ("enumerate(", "tqdm("):
        if text.startswith(wrapper):
            text = text[len(wrapper) :]
    return text.startswith("range(") and ", -" not in text


# -- hints -------------------------------------------------------------------------------------------------------------


def _hints(events: list[Event], counted: list[Score]) -> Iterator[Verdict]:
    """No count, no indicator and no compiled code takes part: there is nothing that a target could gate."""
    reports = _headlines(events)
    if _native(events) or any(score.tables for score in counted) or any(r.counts or r.indicators for r in reports):
        return
    words = "no hint and no count takes part in the claimed number"
    yield Verdict("PG-C1-ngram-target-gate", Status.PASS, words, ((counted[0].place, "scores the claimed number"),))


def _headlines(events: list[Event]) -> list[Report]:
    return [event for event in events if isinstance(event, Report) and event.headline]


def _native(events: list[Event]) -> bool:
    return any(isinstance(event, Unknown) and event.reason.startswith("native code") for event in events)
