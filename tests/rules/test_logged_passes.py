"""Passes that a log shows between training and the score."""

from __future__ import annotations

from dataclasses import replace

import pytest

from auditor.casefile import build_case
from auditor.findings import Finding, Status
from auditor.submission import Submission
from rules import rule
from rules.example_program import SCORE, program
from rules.examples import FOLDER, RUNS, overlaid, variant

EPOCHS = tuple(f"adapt_epoch:{n}/4 loss:1.{980 - n} time:{17 * n}.3s" for n in range(1, 5))


def finding(before_score: tuple[str, ...], script: str | None = None) -> Finding:
    done = tuple(replace(run, before_score=before_score) for run in RUNS)
    files = overlaid(variant(script, done=done))
    found = {path: text.encode() for path, text in files.items() if isinstance(text, str)}
    return rule("PG-C3-score-first").decide(build_case(Submission.from_files(found, label="a", folder=FOLDER)))


def test_passes_that_the_program_cannot_make_leave_the_order_open() -> None:
    found = finding(EPOCHS)
    assert found.status is Status.WARN
    assert "4 passes" in found.summary and len(found.evidence) == 3


@pytest.mark.parametrize(
    "lines",
    [(), EPOCHS[:1], EPOCHS[:3], (*EPOCHS, *EPOCHS), tuple(line.replace("loss", "size") for line in EPOCHS)],
)
def test_other_lines_say_nothing_about_passes(lines: tuple[str, ...]) -> None:
    assert finding(lines).status is Status.PASS


def test_passes_of_the_program_are_judged_by_reading_it() -> None:
    told = '    for n in range(1, 5):\n        log(f"adapt_epoch:{n}/4 loss:{val_tokens[n]:.3f} time:{n * 17:.1f}s")\n'
    assert finding(EPOCHS, program(score=told + SCORE.strip("\n"))).status is Status.PASS
