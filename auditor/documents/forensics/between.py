"""Numbers of several logs held against each other: runs of one program on one validation set share a quotient."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from auditor.documents.forensics.context import CONTRADICTION, NOTABLE, LogView, at, fact, short
from auditor.documents.forensics.readings import Reading, runs
from auditor.documents.model import ForensicFact

# Honest seeds differ by up to 4e-6 (sums in single precision, incomplete last batches); 3e-5 was seen where an
# adaptation leaves a different tail out. Relative.
_NEAR, _FAR = 1e-5, 1e-4
_EXACT = 1e-6  # half of the last digit of a number that is printed with six decimals


@dataclass(frozen=True)
class _Result:
    """An exact result line with the name of its evaluation and the validation tokens its run announces."""

    view: LogView
    reading: Reading
    surface: str
    tokens: float

    @property
    def quotient(self) -> float:
        """Loss over BPB: ln 2 times bytes per token."""
        assert self.reading.val_loss is not None and self.reading.val_bpb is not None
        return self.reading.val_loss.value / self.reading.val_bpb.value


def between_logs(views: list[LogView]) -> list[ForensicFact]:
    """Loss over BPB of one evaluation is the same number in every log that announces the same validation tokens.

    A BPB that was changed by hand in some of the logs shows as a quotient of its own.
    """
    odd: list[tuple[_Result, float]] = []
    for _, group in groupby(sorted(_results(views), key=_surface), key=_surface):
        odd += _deviating(list(group))
    if not odd:
        return []
    worst = max(deviation for _, deviation in odd)
    surfaces = {item.surface for item, _ in odd}
    logs = sorted({short(item.view.log.path) for item, _ in odd})
    strength = CONTRADICTION if worst > _FAR and len(surfaces) > 1 else NOTABLE
    summary = (
        f"loss/BPB of the same evaluation differs between logs by up to {worst:.1e} of its value "
        f"({len(odd)} result lines of {', '.join(logs)})"
    )
    sources = [at(item.view.log, item.reading.line) for item, _ in sorted(odd, key=lambda pair: -pair[1])]
    return [fact("quotient-between-logs", strength, summary, sources, _TEXT)]


_TEXT = (
    "val_loss and val_bpb of one evaluation differ by a constant factor (ln 2 x bytes per token), which the validation "
    "set and the tokenizer fix; honest seeds agree on it to 4e-6. A program cannot print two such factors for the same "
    "tokens; a number changed afterwards gives one."
)


def _surface(item: _Result) -> tuple[str, float]:
    return item.surface, item.tokens


def _results(views: list[LogView]) -> list[_Result]:
    """Lines with a loss and a BPB of six digits and more, of runs that announce how many tokens they evaluate."""
    found = []
    for view in views:
        announced = [(run.first_line, run.last_line, run.val_tokens.value) for run in view.log.runs if run.val_tokens]
        for run in runs(view):
            for surface, readings in run.surfaces().items():
                for reading in readings:
                    tokens = next((n for first, last, n in announced if first <= reading.line <= last), None)
                    if tokens is not None and _exact(reading):
                        found.append(_Result(view, reading, surface, tokens))
    return found


def _exact(item: Reading) -> bool:
    loss, bpb = item.val_loss, item.val_bpb
    return loss is not None and bpb is not None and bpb.value > 0.05 and loss.half < _EXACT and bpb.half < _EXACT


def _deviating(items: list[_Result]) -> list[tuple[_Result, float]]:
    """Results away from the quotient that most logs share; where none is shared, from the lowest.

    The lowest is the one with the highest BPB for its loss: nobody changes a score for the worse.
    """
    if len({item.view.log.path for item in items}) < 2:
        return []
    ordered = sorted(items, key=lambda item: item.quotient)
    centre = max(ordered, key=lambda item: len({o.view.log.path for o in items if _apart(o, item) <= _NEAR}))
    return [(item, _apart(item, centre)) for item in items if _apart(item, centre) > _NEAR]


def _apart(a: _Result, b: _Result) -> float:
    return abs(a.quotient / b.quotient - 1)
