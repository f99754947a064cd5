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

    def add(self, event: str, **fields: Any) -> None:
        """Appends an event with the place of the caller."""
        frame = sys._getframe(1)
        while frame.f_back is not None and Path(frame.f_code.co_filename) == Path(__file__):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        shown = path.relative_to(PACKAGE.parent).as_posix() if path.is_relative_to(PACKAGE) else path.name
        self.events.append({"seq": len(self.events), "event": event, **fields, "path": shown, "line": frame.f_lineno})

    def score(self, windows: Windows, scoring_pass: str) -> None:
        """Positions scored for the reported number."""
        ranges = merged_ranges(windows.firsts, windows.ends)
        self.add("Score", split="val", positions=[list(r) for r in ranges], counted=True, scoring_pass=scoring_pass)

    def update(self, begin: int, end: int, via: str = "optimizer step") -> None:
        """Weights changed by the targets of validation positions `begin..end-1`."""
        positions = [[begin, end]] if end > begin else []
        self.add("Update", split="val", positions=positions, state="parameters", via=via)

    def gather(self, ranks: Ranks) -> list[dict[str, Any]]:
        """Events of all ranks: those with the same number happened together and their positions are joined."""
        merged: list[dict[str, Any]] = []
        for together in zip(*ranks.gather_objects(self.events), strict=True):
            event = dict(together[0])
            if "positions" in event:
                spans = np.array([span for e in together for span in e["positions"]], dtype=np.int64).reshape(-1, 2)
                event["positions"] = [list(r) for r in merged_ranges(spans[:, 0], spans[:, 1])]
            merged.append(event)
        return merged


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
                    raise ScoringError(f"position {begin + int((~scored[begin:end]).argmax())} is trained on before "
                                       "it is scored")
    if not scored.all():
        raise ScoringError(f"position {int((~scored).argmax())} is never scored")
