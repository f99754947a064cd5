"""Events of a timeline as rules look at them: where they are, which belong to evaluation, what nobody could follow."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.case import Case
from auditor.findings import Evidence, Witness
from auditor.timeline import Event, Phase, Report, Score, Serialize, Timeline, Unknown, Update, Via
from rules.support import at_line


def place(event: Event, note: str = "") -> Evidence:
    """Evidence from the line of an event."""
    return at_line(event.place.path, event.place.line, note=note)


def evaluation_events(timeline: Timeline) -> list[Event]:
    """Events of the evaluation phase after the artifact was last written.

    A script that loads a checkpoint before it trains enters the phase too early; what precedes an export is training.
    """
    events = list(timeline.events())
    written = max((index for index, event in enumerate(events) if isinstance(event, Serialize)), default=-1)
    return [event for event in events[written + 1 :] if event.phase is Phase.EVALUATION]


def blind_spots(timeline: Timeline) -> Iterator[Unknown]:
    """What the witness could not follow; a rule that found nothing wrong must not pass over them."""
    return (event for event in timeline.events() if isinstance(event, Unknown))


def may_idle(case: Case) -> bool:
    """Whether reading found a table of counts or compiled code that takes part in scores, or there is no reading."""
    timeline = case.timelines.get(Witness.STATIC)
    return timeline is None or any(_counts(event) for event in timeline.events())


def _counts(event: Event) -> bool:
    if isinstance(event, Update):
        return event.via is Via.TABLE
    if isinstance(event, Score):
        return bool(event.tables)
    if isinstance(event, Report):
        return bool(event.counts or event.native or event.indicators or event.choices)
    return isinstance(event, Unknown) and event.reason.startswith("native code")
