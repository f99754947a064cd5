"""Ledger of an evaluation: which spans were scored and which were trained on, in order.

One JSON object a line, in the vocabulary auditors use: `event` is Score, Update, Load, Calibrate, Serialize, Report or
PhaseMark; `split` is train or val; `positions` are half-open ranges of positions (position p predicts token p+1);
`path` and `line` say which line did it. Ranks keep their own ledgers; `gather` merges them by sequence number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reference.errors import ScoringError
from reference.ranks import Ranks
from reference.runlog import PACKAGE
from reference.windows import Windows, merged_ranges


class Ledger:
    """Events of one rank in order."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def add(self, event: str, *, again: bool = False, **fields: Any) -> None:
        """Appends an event with the place of the caller; `again` keeps the number of the event before."""
        frame = sys._getframe(1)
        while frame.f_back is not None and Path(frame.f_code.co_filename) == Path(__file__):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        shown = path.relative_to(PACKAGE.parent).as_posix() if path.is_relative_to(PACKAGE) else path.name
        number = self.events[-1]["seq"] + (not again) if self.events else 0
        self.events.append({"seq": number, "event": event, **fields, "path": shown, "line": frame.f_lineno})

    def score(self, windows: Windows, scoring_pass: str) -> None:
        """Positions scored for the reported number; windows that score some again (legacy tail) get own events."""
        before = np.concatenate(([-1], np.maximum.accumulate(windows.ends)[:-1])) if len(windows) else np.zeros(0)
        new = windows.firsts >= before
        ranges = merged_ranges(windows.firsts[new], windows.ends[new])
        fields = {"split": "val", "counted": True, "scoring_pass": scoring_pass}
        self.add("Score", positions=[list(r) for r in ranges], **fields)
        for first, end in zip(windows.firsts[~new], windows.ends[~new], strict=True):
            self.add("Score", again=True, positions=[[int(first), int(end)]], **fields)

    def update(self, begin: int, end: int, via: str = "optimizer step") -> None:
        """Weights changed by the targets of validation positions `begin..end-1`."""
        positions = [[begin, end]] if end > begin else []
        self.add("Update", split="val", positions=positions, state="parameters", via=via)

    def gather(self, ranks: Ranks) -> list[dict[str, Any]]:
        """Events of all ranks: those with the same number happened together and their positions are joined.

        Positions that ranks share, or that one rank scored again, stay visible as events of their own.
        """
        numbered: dict[int, list[dict[str, Any]]] = {}
        for events in ranks.gather_objects(self.events):
            for event in events:
                numbered.setdefault(event["seq"], []).append(event)
        return [event for number in sorted(numbered) for event in _joined(numbered[number])]


def _joined(together: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One event for all positions, then one for each span of a score that overlaps another."""
    first = dict(together[0])
    if "positions" not in first:
        return [first]
    spans = sorted((begin, end) for event in together for begin, end in event["positions"])
    kept: list[tuple[int, int]] = []
    repeats: list[tuple[int, int]] = []
    for begin, end in spans:
        overlaps = first["event"] == "Score" and bool(kept) and begin < kept[-1][1]
        (repeats if overlaps else kept).append((begin, end))
    array = np.array(kept, dtype=np.int64).reshape(-1, 2)
    first["positions"] = [list(r) for r in merged_ranges(array[:, 0], array[:, 1])]
    return [first, *({**first, "positions": [list(span)]} for span in repeats)]


def write(path: Path, events: Sequence[dict[str, Any]]) -> None:
    """Writes events as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")


def check(events: Sequence[dict[str, Any]], positions: int, scoring_pass: str, *, allow_repeats: bool = False) -> None:
    """The two laws of score-first evaluation, checked on a ledger.

    Every position is scored exactly once in `scoring_pass` (unless the legacy tail repeats some), and none is scored
    after, or trained on before, its counted score.

    Raises:
        ScoringError: naming the first position that breaks a law.
    """
    scored = np.zeros(positions, dtype=bool)
    for event in events:
        spans = event.get("positions", ())
        if event["event"] == "Score" and event["scoring_pass"] == scoring_pass:
            for begin, end in spans:
                if scored[begin:end].any() and not allow_repeats:
                    raise ScoringError(f"position {begin + int(scored[begin:end].argmax())} is scored twice")
                scored[begin:end] = True
        elif event["event"] == "Update" and event["split"] == "val":
            for begin, end in spans:
                if not scored[begin:end].all():
                    raise ScoringError(
                        f"position {begin + int((~scored[begin:end]).argmax())} is trained on before it is scored"
                    )
    if not scored.all():
        raise ScoringError(f"position {int((~scored).argmax())} is never scored")
