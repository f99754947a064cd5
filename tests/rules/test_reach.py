"""Scores that nothing of this size has come near."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest

from auditor.case import Case
from auditor.casefile import build_case
from auditor.documents.records import record_at, records
from auditor.findings import Status
from auditor.submission import Submission
from rules import rule
from rules.examples import FOLDER, RUNS, overlaid, variant
from rules.reach import OUT_OF_REACH, out_of_reach


def case_of(bpb: float) -> Case:
    """The clean package, all seeds of which log this score."""
    done = tuple(replace(run, bpb=bpb + 0.0001 * n) for n, run in enumerate(RUNS))
    files = {path: text.encode() for path, text in overlaid(variant(done=done)).items() if isinstance(text, str)}
    return build_case(Submission.from_files(files, label="a", folder=FOLDER))


@pytest.mark.parametrize("bpb", [0.0235, 0.41, 0.97])
def test_a_score_far_below_the_frontier_is_doubted_however_clean_the_program_reads(bpb: float) -> None:
    finding = rule("PG-C1-causality").decide(case_of(bpb))
    assert finding.status is Status.WARN
    assert f"{bpb:.4f}" in finding.summary and finding.evidence[0].line


@pytest.mark.parametrize("bpb", [1.02, 1.0412, 1.3])
def test_what_is_near_the_frontier_is_not(bpb: float) -> None:
    case = case_of(bpb)
    assert out_of_reach(case) is None
    assert rule("PG-C1-causality").decide(case).status is Status.PASS


def test_no_accepted_row_was_ever_out_of_reach_of_the_one_before() -> None:
    rows = [row for row in records() if row.track == "record" and row.pr is not None]
    for row in rows:
        standing = record_at(row.date - dt.timedelta(days=1))
        assert standing is None or row.score > OUT_OF_REACH * standing.score
