"""Plots of a document as inline SVG: training curves, running score, bytes against the cap, time against the budgets.

Colours, line widths and text sizes come from the page's style sheet, so one drawing reads in the light and in the dark
theme and on paper. Runs differ by colour (a palette safe for colour-blind readers) AND by dash or place, never by
colour alone. Claimed values are drawn as dashed lines across the evidence. Every text is escaped by `markupsafe`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape

from auditor.report.text import clip, number

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 16, 46
MAX_ROWS = 16  # bars of one chart
Point = Sequence[float]
_SHORT = {"training": "train", "evaluation": "eval"}


@dataclass
class Axis:
    """A linear axis: data range, pixel range, ticks, label."""

    low: float
    high: float
    start: float
    end: float
    label: str = ""
    ticks: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.high > self.low:
            self.low, self.high = self.low - 0.5, self.low + 0.5
        self.ticks = self.ticks or nice_ticks(self.low, self.high)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, -0.02), 1.02) * (self.end - self.start), 1)


def nice_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round values within [low, high], 1, 2 or 5 times a power of ten apart, about `target` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / target
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    """A tick as short as it can be without two ticks reading alike."""
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(value) or 1)
    if value == 0:
        return "0"
    if step >= 1e6:
        return f"{value / 1e6:g}M"
    if step >= 1000:
        return f"{value / 1e3:g}k"
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:,.{digits}f}"


def training_plot(series: dict[str, Any]) -> Markup:
    """Validation BPB by step, a line per run; the claimed BPB dashed. Empty when nothing was logged."""
    curves = [curve for curve in series["training"] if curve["val_bpb"]]
    if not curves:
        return _loss_plot(series)
    claimed = series.get("claimed_bpb")
    tails = [point[1] for curve in curves for point in curve["val_bpb"][1:]] or [curves[0]["val_bpb"][0][1]]
    low = min([*tails, *([claimed["value"]] if claimed else [])])
    high = min(max(tails), low + 0.6)
    chart = Chart(
        "Validation BPB during training",
        "training step",
        "bits per byte",
        (0, max(curve["val_bpb"][-1][0] for curve in curves)),
        (low, high),
    )
    for i, curve in enumerate(curves):
        chart.line(i, curve["val_bpb"], curve["label"], "step {x}: {y} BPB (line {line})", marks=True)
    if claimed:
        chart.level(claimed["value"], f"claimed {clip(claimed['text'], 24)}", "claim")
    return chart.svg(
        "The first evaluation, before training, lies above the frame."
        if any(curve["val_bpb"][0][1] > high for curve in curves)
        else ""
    )


def _loss_plot(series: dict[str, Any]) -> Markup:
    curves = [curve for curve in series["training"] if len(curve["train_loss"]) > 1]
    if not curves:
        return Markup("")
    tails = [p[1] for curve in curves for p in curve["train_loss"][len(curve["train_loss"]) // 10 :]]
    chart = Chart(
        "Training loss",
        "training step",
        "nats per token",
        (0, max(curve["train_loss"][-1][0] for curve in curves)),
        (min(tails), max(tails)),
    )
    for i, curve in enumerate(curves):
        chart.line(i, curve["train_loss"], curve["label"], "step {x}: {y} nats (line {line})")
    return chart.svg("")


def running_plot(series: dict[str, Any]) -> Markup:
    """Running BPB during evaluation, by share of the chunks; the claimed BPB dashed."""
    curves = series["running"]
    if not curves:
        return Markup("")
    claimed = series.get("claimed_bpb")
    late = [p[1] for curve in curves for p in curve["bpb"][max(1, len(curve["bpb"]) // 20) :]]
    values = late + [c["final"] for c in curves if c["final"] is not None] + ([claimed["value"]] if claimed else [])
    chart = Chart(
        "Running BPB during evaluation",
        "share of the stream scored, %",
        "bits per byte",
        (0, 100),
        (min(values), max(values)),
    )
    for i, curve in enumerate(curves):
        total = curve["total"] or curve["bpb"][-1][0] or 1
        points = [[100 * p[0] / total, p[1], p[2]] for p in curve["bpb"]]
        chart.line(
            i, points, curve["label"], curve["name"] + " at {x} %: {y} BPB (line {line})", marks=len(points) < 12
        )
    if claimed:
        chart.level(claimed["value"], f"claimed {clip(claimed['text'], 24)}", "claim")
    return chart.svg("")


def bytes_plot(series: dict[str, Any]) -> Markup:
    """Model and code bytes stacked, a bar per run and one for the claim, against the cap."""
    rows = [
        {
            "label": bar["label"],
            "claimed": bar["claimed"],
            "parts": _byte_parts(bar),
            "total": bar["total"],
            "text": f"{bar['total']:,.0f}",
        }
        for bar in series["bytes"]
    ]
    return bars(
        "Artifact against the cap",
        "bytes",
        rows,
        series["cap_bytes"],
        f"cap {series['cap_bytes']:,}",
        ("model", "code", "total"),
    )


def _byte_parts(bar: dict[str, Any]) -> list[tuple[str, float]]:
    if bar["model"] is None:
        return [("total", bar["total"])]
    code = bar["code"] if bar["code"] is not None else max(bar["total"] - bar["model"], 0)
    return [("model", bar["model"]), ("code", code)]


def time_plot(series: dict[str, Any]) -> Markup:
    """Two bars per run: what counts as training (with calibration) and as evaluation, against 600 s each."""
    rows = []
    for bar in series["time"]:
        for phase in ("training", "evaluation"):
            segments = bar[phase]
            if not segments:
                continue
            total = sum(segment["seconds"] for segment in segments)
            parts = [(segment["name"], segment["seconds"]) for segment in segments]
            kinds = [phase if phase == "evaluation" or name == "training" else "after training" for name, _ in parts]
            rows.append(
                {
                    "label": f"{bar['label']}, {_SHORT[phase]}",
                    "parts": parts,
                    "total": total,
                    "kinds": kinds,
                    "claimed": bar["claimed"],
                    "text": _seconds_text(parts, kinds),
                    "binds": series["budget_binds"],
                }
            )
    return bars(
        "Time against the budgets",
        "seconds",
        rows,
        series["budget_seconds"],
        f"{series['budget_seconds']:g} s each" + ("" if series["budget_binds"] else " (record track)"),
        ("training", "after training", "evaluation"),
    )


def _seconds_text(parts: list[tuple[str, float]], kinds: list[str]) -> str:
    """`599.9 s + 4.2 s` where something follows training: whether it counts is for a rule to say, not for a plot."""
    after = sum(seconds for (_, seconds), kind in zip(parts, kinds, strict=True) if kind == "after training")
    first = sum(seconds for _, seconds in parts) - after
    return f"{first:,.1f} s" + (f" + {after:,.1f} s" if after else "")


class Chart:
    """Axes, grid, lines and a legend on one canvas."""

    def __init__(
        self, title: str, x_label: str, y_label: str, xs: tuple[float, float], ys: tuple[float, float]
    ) -> None:
        room = (ys[1] - ys[0]) * 0.06 or 0.01
        self.title = title
        self.x = Axis(*xs, LEFT, WIDTH - RIGHT, x_label)
        self.y = Axis(ys[0] - (room if ys[0] else 0), ys[1] + room, HEIGHT - BOTTOM, TOP, y_label)
        self.body: list[Markup] = []
        self.legend: list[tuple[str, str]] = []

    def line(self, index: int, points: Sequence[Point], label: str, hint: str, marks: bool = False) -> None:
        """A run's curve; `hint` describes a point with {x}, {y} and {line}."""
        inside = [p for p in points if p[1] <= self.y.high + 1e-9] or points[-1:]
        path = "M" + "L".join(f"{self.x(p[0])},{self.y(p[1])}" for p in inside)
        self.body.append(Markup('<path class="run r{}" d="{}"/>').format(index % 6, path))
        for p in inside if marks or len(inside) == 1 else inside[-1:]:
            words = hint.format(x=number(p[0], 1), y=number(p[1], 5), line=p[2])
            self.body.append(
                Markup('<circle class="dot r{}" cx="{}" cy="{}" r="3"><title>{}, {}</title></circle>').format(
                    index % 6, self.x(p[0]), self.y(p[1]), label, words
                )
            )
        self.legend.append((f"run r{index % 6}", label))

    def level(self, value: float, label: str, kind: str) -> None:
        """A dashed line across the frame with its label at the right."""
        y = self.y(value)
        self.body.append(Markup('<path class="level {}" d="M{},{}H{}"/>').format(kind, LEFT, y, WIDTH - RIGHT))
        text_y = y - 6 if y > TOP + 24 else y + 16
        self.body.append(
            Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, LEFT + 8, round(text_y, 1), label)
        )

    def svg(self, note: str) -> Markup:
        """The finished figure with its legend and note."""
        grid = []
        for tick in self.y.ticks:
            grid.append(
                Markup('<path class="grid" d="M{},{}H{}"/><text x="{}" y="{}" text-anchor="end">{}</text>').format(
                    LEFT, self.y(tick), WIDTH - RIGHT, LEFT - 6, self.y(tick) + 4, tick_text(tick, self.y.ticks)
                )
            )
        for tick in self.x.ticks:
            grid.append(
                Markup('<path class="tick" d="M{},{}v5"/><text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                    self.x(tick), HEIGHT - BOTTOM, self.x(tick), HEIGHT - BOTTOM + 19, tick_text(tick, self.x.ticks)
                )
            )
        axes = Markup('<path class="axis" d="M{},{}V{}H{}"/>').format(LEFT, TOP, HEIGHT - BOTTOM, WIDTH - RIGHT)
        names = Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x.label
        )
        unit = Markup(
            '<text class="name" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>'
        ).format((TOP + HEIGHT - BOTTOM) / 2, self.y.label)
        return figure(self.title, (WIDTH, HEIGHT), [*grid, axes, *self.body, names, unit], self.legend, note)


def bars(
    title: str, unit: str, rows: list[dict[str, Any]], limit: float, limit_text: str, kinds: tuple[str, ...]
) -> Markup:
    """Horizontal stacked bars with a limit line; a row over the limit is marked in words and colour."""
    if not rows:
        return Markup("")
    shown, left = rows[:MAX_ROWS], 138
    height = 34 * len(shown) + 74
    x = Axis(0, max(limit, *(row["total"] for row in shown)) * 1.02, left, WIDTH - RIGHT, unit)
    bottom = height - 42
    late = x(limit) > WIDTH / 2  # room for the limit's label lies on the other side
    body: list[Markup] = []
    for tick in x.ticks:
        body.append(
            Markup('<path class="grid" d="M{},{}V{}"/><text x="{}" y="{}" text-anchor="middle">{}</text>').format(
                x(tick), 26, bottom, x(tick), bottom + 17, tick_text(tick, x.ticks)
            )
        )
    for i, row in enumerate(shown):
        body += _bar(row, 34 * i + 34, x, limit, kinds)
    body.append(
        Markup(
            '<path class="level cap" d="M{},{}V{}"/><text class="cap" x="{}" y="16" text-anchor="{}">{}</text>'
        ).format(x(limit), 22, bottom, min(x(limit) + 4, WIDTH - 2), "end" if late else "start", limit_text)
    )
    body.append(
        Markup('<text class="name" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (left + WIDTH - RIGHT) / 2, height - 6, unit
        )
    )
    used = {kind for row in shown for kind in row.get("kinds", [name for name, _ in row["parts"]])}
    legend = [("b-" + kind.replace(" ", "-"), kind) for kind in kinds if kind in used]
    note = f"{len(rows) - len(shown)} further bars are left out." if len(rows) > len(shown) else ""
    return figure(title, (WIDTH, height), body, legend, note)


def _bar(row: dict[str, Any], y: int, x: Axis, limit: float, kinds: tuple[str, ...]) -> Iterable[Markup]:
    # A single part over the limit is over whatever one counts; a sum of parts is judged by the rules, not here.
    over = (max(amount for _, amount in row["parts"]) if "kinds" in row else row["total"]) > limit
    over = over and row.get("binds", True)
    label = clip(row["label"], 20)
    yield Markup('<text class="{}" x="{}" y="{}" text-anchor="end">{}</text>').format(
        "claim" if row["claimed"] else "", x.start - 8, y + 15, label
    )
    position = 0.0
    for i, (name, amount) in enumerate(row["parts"]):
        kind = row["kinds"][i] if "kinds" in row else name
        width = max(x(position + amount) - x(position), 0.8)
        yield Markup('<rect class="b-{}{}" x="{}" y="{}" width="{}" height="20"><title>{}: {}</title></rect>').format(
            kind.replace(" ", "-") if kind in kinds else "other",
            " claimed" if row["claimed"] else "",
            x(position),
            y,
            round(width, 1),
            name,
            number(amount, 1),
        )
        position += amount
    inside = x(row["total"]) - x.start > 120
    at = x(row["total"]) - 6 if inside else x(row["total"]) + 6
    words = f"{row['text']} OVER" if over else row["text"]
    yield Markup('<text class="value{}{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        " in" if inside and not row["claimed"] else "",
        " over" if over and not row["claimed"] else "",
        round(at, 1),
        y + 15,
        "end" if inside else "start",
        words,
    )


def figure(
    title: str,
    size: tuple[int, int],
    body: Sequence[Markup],
    legend: Sequence[tuple[str, str]],
    note: str,
    kind: str = "",
) -> Markup:
    """A drawing of `size` with title, legend (class of the key, words) and note; `kind` is a class of the figure."""
    keys = Markup("").join(
        Markup('<span><svg class="key" width="26" height="12" aria-hidden="true">{}</svg>{}</span>').format(
            _key(key), name
        )
        for key, name in legend
    )
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        *size, title, Markup("").join(body)
    )
    tail = Markup('<p class="note">{}</p>').format(note) if note else Markup("")
    head = Markup('<figure class="{}">').format(kind) if kind else Markup("<figure>")
    return head + Markup('<figcaption>{}</figcaption>{}<p class="legend">{}</p>{}</figure>').format(
        escape(title), svg, keys, tail
    )


def _key(kind: str) -> Markup:
    if kind.startswith("run"):
        return Markup('<path class="{}" d="M1,6H25"/>').format(kind)
    return Markup('<rect class="{}" x="2" y="1" width="22" height="10"/>').format(kind)
