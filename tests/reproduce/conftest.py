"""A rehearsal of a small program, made once for every test that looks at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from auditor.case import Case
from auditor.casefile import Call, build_case
from auditor.reproduce.compare import Reproduction, reproduce
from auditor.reproduce.measure import Measured
from auditor.reproduce.plan import make_rerun_plan
from auditor.reproduce.rerun import rerun
from auditor.submission import Submission
from rules.examples import overlaid, variant

Rehearse = Callable[..., tuple[Reproduction, list[Measured]]]


def case_of(source: str) -> Case:
    """Case of a complete record package around a program."""
    files = overlaid(variant(source), "records/track_10min_16mb/2026-05-01_Small")
    contents = {path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}
    return build_case(Submission.from_files(contents), Call())


@pytest.fixture
def rehearse(tmp_path: Path) -> Rehearse:
    """Runs a program at small scale and compares; needs torch and a working sandbox."""
    pytest.importorskip("torch")

    def run(source: str, seeds: tuple[str, ...] = ("42",), ranks: int = 1) -> tuple[Reproduction, list[Measured]]:
        case = case_of(source)
        plan = make_rerun_plan(case, seeds, ranks=ranks, scale="small")
        measured = rerun(case, plan, tmp_path)
        return reproduce(case, plan, measured, json.loads((tmp_path / "environment.json").read_text())), measured

    return run
