"""Numbers of a log with the digits they were printed with, one series per run and evaluation surface.

Forensics needs the rounding of every number, so it reads the text again instead of the parsed floats.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from auditor.documents.forensics.context import LogView

_DECIMAL = r"(\d+\.\d+|\d+)"
_STEP = re.compile(r"(?:^|[\s\]:])(?:step[:=\s]\s*)?(\d+)/(\d+)\b")
_VAL_LOSS = re.compile(rf"\bval_loss\s*[:=]\s*{_DECIMAL}")
_VAL_BPB = re.compile(rf"\bval_bpb\s*[:=]\s*{_DECIMAL}")
_TRAIN_LOSS = re.compile(rf"\btrain_loss\s*[:=]\s*{_DECIMAL}")
_TIME = re.compile(rf"\btrain_time\s*[:=]\s*{_DECIMAL}\s*(ms|s|m|min)\b")
_AVERAGE = re.compile(rf"\bstep_avg\s*[:=]\s*{_DECIMAL}\s*ms\b")
_PROGRESS = re.compile(rf"\[\s*(\d+)\s*/\s*(\d+)\s*\].*?\b(?:bpb|val_bpb|running_bpb)\s*[:=]\s*{_DECIMAL}")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0}


@dataclass(frozen=True)
class Printed:
    """A number as printed: its value and half of its last digit."""

    value: float
    half: float

    @classmethod
    def read(cls, text: str, scale: float = 1.0) -> Printed:
        """From the digits in the log; `scale` converts units."""
        digits = len(text.partition(".")[2])
        return cls(float(text) * scale, 0.5 * 10.0**-digits * scale)


@dataclass(frozen=True)
class Reading:
    """What one line says (times in seconds); None where it says nothing."""

    line: int
    text: str
    step: int | None = None
    total: int | None = None
    train_loss: Printed | None = None
    val_loss: Printed | None = None
    val_bpb: Printed | None = None
    time: Printed | None = None
    average: Printed | None = None


@dataclass(frozen=True)
class Progress:
    """A running score: position i of n, and the mean so far (bits per byte)."""

    line: int
    text: str
    index: int
    total: int
    bpb: Printed
    digits: str


@dataclass
class RunReadings:
    """All readings of one run, in order."""

    first: int
    last: int
    readings: list[Reading] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)

    @property
    def steps(self) -> list[Reading]:
        """Lines that name a training step."""
        return [item for item in self.readings if item.step is not None]

    def surfaces(self) -> dict[str, list[Reading]]:
        """Lines with a loss and a score, by evaluation surface (the words before the loss, digits masked)."""
        found: dict[str, list[Reading]] = {}
        for item in self.readings:
            if item.val_loss is not None and item.val_bpb is not None:
                found.setdefault(_surface(item.text), []).append(item)
        return found


def runs(view: LogView) -> list[RunReadings]:
    """Readings of a log, split by the runs its reader found (one run when it found none)."""
    bounds = [(run.first_line, run.last_line) for run in view.log.runs] or [(1, len(view.log.lines))]
    found = [RunReadings(first, last) for first, last in bounds]
    for number, text in view.lines:
        home = next((run for run in found if run.first <= number <= run.last), None)
        if home is None:
            continue
        home.readings += _readings(number, text)
        home.progress += _progress(number, text)
    return [part for run in found for part in _restarts(run)]


def _restarts(run: RunReadings) -> Iterator[RunReadings]:
    """A log may hold several trainings in a row: cut where the step count starts again at 0 or 1."""
    cuts = [run.first]
    last = -1
    for item in run.readings:
        if item.step is None or (item.val_loss is None and item.train_loss is None):
            continue
        if (item.step <= 1 and last >= 2) or (item.step == 0 and last >= 1):
            cuts.append(item.line)
            last = -1
        last = max(last, item.step)
    for first, end in zip(cuts, [*(cut - 1 for cut in cuts[1:]), run.last], strict=True):
        yield RunReadings(
            first,
            end,
            [item for item in run.readings if first <= item.line <= end],
            [item for item in run.progress if first <= item.line <= end],
        )


def _readings(number: int, text: str) -> Iterator[Reading]:
    if not any(word in text for word in ("val_loss", "train_loss", "train_time", "val_bpb")):
        return
    loss, bpb, train = _VAL_LOSS.search(text), _VAL_BPB.search(text), _TRAIN_LOSS.search(text)
    time, average, step = _TIME.search(text), _AVERAGE.search(text), _STEP.search(text)
    if not (loss or bpb or train or time):
        return
    yield Reading(
        number,
        text.strip(),
        int(step[1]) if step else None,
        int(step[2]) if step else None,
        Printed.read(train[1]) if train else None,
        Printed.read(loss[1]) if loss else None,
        Printed.read(bpb[1]) if bpb else None,
        Printed.read(time[1], _SECONDS[time[2]]) if time else None,
        Printed.read(average[1], 1e-3) if average else None,
    )


def _progress(number: int, text: str) -> Iterator[Progress]:
    found = _PROGRESS.search(text)
    if found:
        yield Progress(number, text.strip(), int(found[1]), int(found[2]), Printed.read(found[3]), found[3])


def _surface(text: str) -> str:
    if _STEP.search(text.partition("val_loss")[0]):
        return "step"
    label = re.sub(r"\d+", "#", text.partition("val_loss")[0])
    return re.sub(r"(?:_exact|\W+$)", "", label).strip()[-60:]
