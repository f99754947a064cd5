"""The executed timeline as a picture: which tokens were scored and learnt from, in the order in which it happened.

Every column is one step of the run. Scores that count are filled, what is learnt from is outlined, and a score that came
after its own tokens had been learnt from is filled in the colour of a violation. Honest adaptation climbs like stairs.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from markupsafe import Markup

from auditor.report.plots import Axis, figure, tick_text
from auditor.report.text import clip, number

WIDTH, HEIGHT = 1120, 380
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 40, 74
_NAMES = (
    ("score", "scored, and this score counts"),
    ("late", "counted score of tokens the model had already learnt from"),
    ("uncounted", "scored, does not count"),
    ("update", "learnt from (validation tokens)"),
    ("table", "counted in a table (validation tokens)"),
    ("calibrate", "calibrated on"),
    ("train", "learnt from (training tokens)"),
)
_WORDS = {
    "score": "scored, counts",
    "late": "scored AFTER an update saw it, counts",
    "uncounted": "scored, does not count",
    "update": "learnt from",
    "table": "counted in a table",
    "calibrate": "calibrated on",
    "train": "trained on training tokens",
}


def order_plot(tree: dict[str, Any]) -> Markup:
    """Token positions scored and learnt from in the order of events; "" when the timeline has no positions."""
    marks = tree["marks"]
    if not any(mark["positions"] for mark in marks):
        return Markup("")
    top = max(part[1] for mark in marks for part in mark["positions"])
    x = Axis(0, len(marks), LEFT, WIDTH - RIGHT)
    y = Axis(0, top, HEIGHT - BOTTOM, TOP)
    body = [*_bands(marks, x), *_grid(y), *_stops(tree.get("stops", []), marks, x)]
    for index, mark in enumerate(marks):
        body += _mark(mark, index, x, y)
    body += [
        Markup('<path class="axis" d="M{},{}V{}H{}"/>').format(LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT),
        Markup(
            '<text class="name" x="{}" y="{}" text-anchor="middle">steps of the run, from left to right</text>'
        ).format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6),
        Markup(
            '<text class="name" transform="translate(14 {}) rotate(-90)" text-anchor="middle">validation token</text>'
        ).format((TOP + HEIGHT - BOTTOM) / 2),
    ]
    seen = {_kind(mark) for mark in marks}
    legend = [(f"o-{kind}", words) for kind, words in _NAMES if kind in seen]
    left_out = tree["marks_total"] - len(marks)
    note = f"{left_out:,} later steps are left out. " if left_out > 0 else ""
    note += "A token may be learnt from only after the score that counts for it: outlined blocks belong to the right of filled ones."
    return figure("Which tokens, in which order", (WIDTH, HEIGHT), body, legend, note, "wide")


def _kind(mark: dict[str, Any]) -> str:
    if mark["kind"] in ("Update", "Table") and not mark["positions"]:
        return "train"
    if mark["late"]:
        return "late"
    return "uncounted" if mark["kind"] == "Score" and not mark["counted"] else mark["kind"].lower()


def _bands(marks: list[dict[str, Any]], x: Axis) -> list[Markup]:
    """The phases as shaded stretches with their names."""
    body: list[Markup] = []
    for number_, (phase, group) in enumerate(groupby(enumerate(marks), key=lambda item: item[1].get("phase", ""))):
        columns = [index for index, _ in group]
        start, end = x(columns[0]), x(columns[-1] + 1)
        if not phase:
            continue
        body.append(
            Markup('<rect class="band b{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                number_ % 2, start, TOP - 24, round(end - start, 1), HEIGHT - BOTTOM - TOP + 24
            )
        )
        if end - start > 7 * len(phase):
            body.append(Markup('<text class="phase" x="{}" y="{}">{}</text>').format(start + 5, TOP - 8, phase))
    return body


def _grid(y: Axis) -> list[Markup]:
    return [
        Markup('<path class="grid" d="M{},{}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>').format(
            LEFT, y(tick), WIDTH - RIGHT, LEFT - 6, y(tick) + 4, tick_text(tick, y.ticks)
        )
        for tick in y.ticks
    ]


def _stops(stops: list[dict[str, Any]], marks: list[dict[str, Any]], x: Axis) -> list[Markup]:
    """Lines where the artifact is written, read back, and a result printed, named below the axis."""
    body: list[Markup] = []
    free = [0.0, 0.0]  # where the next label of each row may begin
    told: set[tuple[int, str]] = set()
    for stop in stops:
        column = sum(mark["order"] < stop["order"] for mark in marks)
        if (column, stop["text"]) in told:
            continue
        told.add((column, stop["text"]))
        at = x(column)
        words = clip(stop["text"], 34)
        width = 6.6 * len(words)
        row = next((index for index, edge in enumerate(free) if at - width / 2 >= edge), None)
        body.append(
            Markup('<path class="stop s-{}" d="M{},{}V{}"><title>{}, line {}</title></path>').format(
                stop["kind"].lower(), at, TOP - 4, HEIGHT - BOTTOM + 4, stop["text"], stop["line"]
            )
        )
        if row is None:
            continue
        middle = min(max(at, LEFT + width / 2 - 40), WIDTH - RIGHT - width / 2)
        free[row] = middle + width / 2 + 8
        body.append(
            Markup('<text class="stop" x="{}" y="{}" text-anchor="middle">{}</text>').format(
                round(middle, 1), HEIGHT - BOTTOM + 19 + 16 * row, words
            )
        )
    return body


def _mark(mark: dict[str, Any], index: int, x: Axis, y: Axis) -> list[Markup]:
    kind = _kind(mark)
    step = max(x(index + 1) - x(index), 1.0)
    title = f"step {index + 1}: {_WORDS[kind]}, line {mark['line']}"
    if kind == "train":
        shape = '<rect class="o-train" x="{}" y="{}" width="{}" height="9"><title>{}</title></rect>'
        return [Markup(shape).format(x(index), HEIGHT - BOTTOM - 9, round(step * 0.9, 2), title)]
    shapes = []
    for start, end in mark["positions"]:
        high = y(end)
        shapes.append(
            Markup(
                '<rect class="o-{}" x="{}" y="{}" width="{}" height="{}"><title>{}: tokens {}–{}</title></rect>'
            ).format(
                kind,
                x(index),
                high,
                round(step * 0.9, 2),
                max(round(y(start) - high, 1), 1.4),
                title,
                number(start),
                number(end),
            )
        )
    return shapes
