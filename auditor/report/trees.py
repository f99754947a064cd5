"""Timelines as JSON trees, with source lines, and the order of score and update marks as a list.

The tree keeps loops, branches and calls because they are the argument: the same inner loop is legal or not by what
encloses it. A run can hold a hundred thousand events; what is cut is counted, never silently dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor import timeline as tl
from auditor.findings import Witness
from auditor.report.places import Places

MAX_NODES = 400
MAX_CHILDREN = 60
MAX_MARKS = 600
MAX_DEPTH = 40
MAX_STOPS = 60


def timelines(found: Mapping[Witness, tl.Timeline], places: Places) -> dict[str, Any]:
    """`{"static": tree | None, "run": tree | None}`."""
    keys = {"static": Witness.STATIC, "run": Witness.RUN}
    return {key: tree(found[who], places) if who in found else None for key, who in keys.items()}


def tree(timeline: tl.Timeline, places: Places) -> dict[str, Any]:
    """One witness's timeline: settings, root node, marks (executed timelines), counts of events by kind."""
    counts: dict[str, int] = {}
    drawn = marks(timeline)
    for event in timeline.events():
        kind = _kind(event)
        counts[kind] = counts.get(kind, 0) + 1
    return {
        "witness": timeline.witness,
        "settings": dict(sorted(timeline.settings.items())),
        "counts": dict(sorted(counts.items())),
        "root": _Writer(places).node(timeline.root, 0),
        "marks": drawn[:MAX_MARKS],
        "marks_total": len(drawn),
        "stops": stops(timeline),
    }


def marks(timeline: tl.Timeline) -> list[dict[str, Any]]:
    """Score, update and calibration events on validation tokens with concrete positions, in order; between them the
    updates from training tokens, without positions.

    `late` marks a counted score of positions that an earlier update or calibration had already seen. What a table has counted
    makes nothing late: whether it takes part in a score the order does not say.
    """
    seen: list[tuple[int, int]] = []
    found: list[dict[str, Any]] = []
    for order, event in enumerate(timeline.events()):
        if not isinstance(event, (tl.Score, tl.Update, tl.Calibrate)):
            continue
        positions = [list(part) for part in event.span.positions] if event.span.split is tl.Split.VAL else []
        training = isinstance(event, tl.Update) and event.span.split is tl.Split.TRAIN
        if not positions and not (training and timeline.witness == Witness.RUN.value):
            continue
        is_score = isinstance(event, tl.Score)
        late = is_score and event.counted is True and any(_overlaps(seen, a, b) for a, b in positions)
        in_table = isinstance(event, tl.Update) and event.via is tl.Via.TABLE
        if not is_score and not in_table:
            seen = _merge(seen, event.span.positions)
        found.append(
            {
                "order": order,
                "kind": "Table" if in_table else _kind(event),
                "phase": event.phase.value,
                "positions": positions[:8],
                "late": late,
                "counted": event.counted if is_score else None,
                "line": event.place.line,
            }
        )
    return found


def stops(timeline: tl.Timeline) -> list[dict[str, Any]]:
    """Where an executed timeline writes the artifact, reads it back and prints results, in order."""
    if timeline.witness != Witness.RUN.value:
        return []
    found = []
    for order, event in enumerate(timeline.events()):
        words = _stop(event)
        if words and len(found) < MAX_STOPS:
            found.append({"order": order, "kind": _kind(event), "text": words, "line": event.place.line})
    return found


def _stop(event: tl.Event) -> str:
    if isinstance(event, tl.Serialize):
        return "artifact written"
    if isinstance(event, tl.Load):
        return "artifact read back"
    if isinstance(event, tl.Report) and event.value is not None:
        return f"printed {event.value:.4f}"
    return ""


class _Writer:
    """Turns nodes into JSON until the budget of nodes is spent."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._left = MAX_NODES

    def node(self, node: tl.Node, depth: int) -> dict[str, Any]:
        self._left -= 1
        if depth > MAX_DEPTH:
            return _omitted(1)
        if isinstance(node, tl.Sequence):
            return {"type": "sequence", "items": self._items(node, depth)}
        if isinstance(node, tl.Loop):
            return {
                "type": "loop",
                "label": node.label,
                "over": node.over,
                "place": self._place(node.place),
                "items": self._items(node.body, depth),
            }
        if isinstance(node, tl.Call):
            return {
                "type": "call",
                "function": node.function,
                "place": self._place(node.place),
                "items": self._items(node.body, depth),
            }
        if isinstance(node, tl.Branch):
            return {
                "type": "branch",
                "condition": node.condition,
                "taken": node.taken,
                "place": self._place(node.place),
                "items": self._items(node.then, depth),
                "otherwise": self._items(node.otherwise, depth),
            }
        return self._event(node)

    def _items(self, sequence: tl.Sequence, depth: int) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        for i, item in enumerate(sequence.items):
            if self._left <= 0 or i >= MAX_CHILDREN:
                written.append(_omitted(len(sequence.items) - i))
                break
            written.append(self.node(item, depth + 1))
        return written

    def _event(self, event: tl.Event) -> dict[str, Any]:
        return {
            "type": "event",
            "kind": _kind(event),
            "phase": event.phase.value,
            "text": describe(event),
            "place": self._place(event.place),
            "counted": getattr(event, "counted", None),
            "why": [self._place(place) for place in event.why[:6]],
        }

    def _place(self, place: tl.Place) -> dict[str, Any]:
        return self._places.place(place.path, place.line)


def describe(event: tl.Event) -> str:
    """An event in words: `score item i of val (counted)`."""
    if isinstance(event, tl.Score):
        fate = {True: "counted", False: "not counted", None: "counting unknown"}[event.counted]
        return f"score {span(event.span)} ({fate}{', ' + event.scoring_pass if event.scoring_pass else ''})"
    if isinstance(event, tl.Update):
        by = "" if event.via is tl.Via.OPTIMIZER else f" by {event.via.value}"
        return f"update {event.state}{by} from {span(event.span)}"
    if isinstance(event, tl.Calibrate):
        return f"calibrate on {span(event.span)}"
    if isinstance(event, tl.Read):
        return f"read {span(event.span)}"
    if isinstance(event, tl.Serialize):
        return "write the artifact" + (f", {event.size:,} bytes" if event.size is not None else "")
    if isinstance(event, tl.Load):
        return f"load {event.artifact or 'a file'}"
    if isinstance(event, tl.Report):
        return f"report {event.metric}" + (f" = {event.value:.6g}" if event.value is not None else "")
    if isinstance(event, tl.PhaseMark):
        return f"{event.begins.value} begins"
    if isinstance(event, tl.External):
        return f"{event.kind}: {event.detail}" if event.detail else event.kind
    if isinstance(event, tl.Probed):
        return f"{event.question} probed: {event.finding}"
    if isinstance(event, tl.Unknown):
        return f"could not follow: {event.reason}"
    return type(event).__name__.lower()


def span(span: tl.Span) -> str:
    """A span in words: `item i of val`, `val 0–8,192`."""
    if span.positions:
        parts = [f"{a:,}–{b:,}" for a, b in span.positions[:3]]
        return f"{span.split.value} {', '.join(parts)}" + (" …" if len(span.positions) > 3 else "")
    if span.extent is tl.Extent.UNKNOWN:
        return f"an unknown part of {span.split.value}"
    return f"{span.extent.value} of {span.split.value}" + (f" [{span.loop}]" if span.loop else "")


def _kind(event: tl.Event) -> str:
    return {"PhaseMark": "Phase"}.get(type(event).__name__, type(event).__name__)


def _omitted(count: int) -> dict[str, Any]:
    return {"type": "omitted", "count": count}


def _overlaps(ranges: list[tuple[int, int]], start: int, end: int) -> bool:
    from bisect import bisect_left

    i = bisect_left(ranges, (end, -1))
    return i > 0 and ranges[i - 1][1] > start


def _merge(ranges: list[tuple[int, int]], new: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Sorted disjoint ranges of both."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted([*ranges, *new]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
