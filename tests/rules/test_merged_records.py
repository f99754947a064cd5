"""Merged records as calibration: no rule may call one of them dishonest. Needs a clone of the public repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.casefile import build_case
from auditor.findings import Status, Verdict
from auditor.judge import judge
from auditor.submission import Submission


@pytest.mark.corpus
@pytest.mark.slow
def test_no_merged_record_is_a_violation_by_its_documents(repo: Path) -> None:
    accused = {}
    for submission in Submission.main_records(repo):
        judgement = judge(build_case(submission))
        broken = [f.summary for f in judgement.findings if f.summary.startswith("the rule itself failed")]
        assert broken == [], submission.label
        if judgement.verdict is Verdict.VIOLATION:
            accused[submission.label] = judgement.reason
    assert accused == {}


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("number", "verdict", "rules"),
    [
        (598, Verdict.NEEDS_REVIEW, set()),
        (612, Verdict.NEEDS_REVIEW, set()),
        (644, Verdict.NEEDS_REVIEW, set()),
        (610, Verdict.NOT_ELIGIBLE, {"PG-T-train", "PG-B-full-val", "PG-ST-seeds"}),
        (861, Verdict.NOT_ELIGIBLE, {"PG-S-cap", "PG-T-train", "PG-ST-seeds", "PG-P-log-provenance"}),
    ],
)
def test_submissions_with_known_answers(repo: Path, number: int, verdict: Verdict, rules: set[str]) -> None:
    judgement = judge(build_case(Submission.from_git(repo, number)[0]))
    failed = {finding.rule for finding in judgement.findings if finding.status is Status.FAIL}
    assert rules <= failed
    assert (
        judgement.verdict in (verdict, Verdict.CLEAN)
        if verdict is Verdict.NEEDS_REVIEW
        else (judgement.verdict is verdict)
    )
