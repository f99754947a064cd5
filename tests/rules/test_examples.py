"""Every rule's own legal and illegal examples, run through the whole review."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pytest

from auditor.casefile import build_case
from auditor.findings import Finding, Severity, Status, Verdict, Witness
from auditor.judge import examine, judge, soften_by_date
from auditor.submission import Change, Submission
from rules import Rule, all_rules
from rules.base import Example
from rules.examples import FOLDER, overlaid, package

DOCUMENT_ORDER = (Witness.DOCUMENTS, Witness.STATIC, Witness.RUN, Witness.REPRODUCTION)


def submission_of(example: Example) -> Submission:
    """The clean package with the example laid over it, as a submission."""
    folder = example.folder or FOLDER
    files = {
        path: text.encode() if isinstance(text, str) else text for path, text in overlaid(example.files, folder).items()
    }
    known: dict = {"folder": folder}
    if example.dated:
        known["date"] = example.dated
    if example.pull_request:
        entries = [entry.split(" ", 1) for entry in example.pull_request]
        known["changes"] = [Change("A", path) for path in files] + [Change(status, path) for status, path in entries]
    return Submission.from_files(files, label=example.title, **known)


def cases() -> Iterator[tuple[Rule, str, Example]]:
    for rule in all_rules():
        for side, examples in (("legal", rule.legal), ("illegal", rule.illegal)):
            for example in examples:
                yield rule, side, example


def finding_of(rule: Rule, example: Example) -> Finding:
    case = build_case(submission_of(example))
    finding = soften_by_date(examine(rule, case), rule, case)
    missing = [w for w in example.witnesses if w is not Witness.DOCUMENTS and w not in case.timelines]
    if missing and finding.status is Status.UNKNOWN:
        assert finding.decided_by, "an unknown names the witnesses that would decide it"
        pytest.skip(f"awaits {missing[0].value}")
    return finding


@pytest.mark.parametrize(
    ("rule", "side", "example"), [pytest.param(*each, id=f"{each[0].id}-{each[1]}-{each[2].title}") for each in cases()]
)
def test_example_gets_the_status_it_declares(rule: Rule, side: str, example: Example) -> None:
    finding = finding_of(rule, example)
    assert finding.status is example.expect, f"{finding.summary} | {finding.explanation}"
    if finding.status is Status.FAIL:
        assert finding.evidence and finding.evidence[0].path, "a failure names the place that proves it"
        assert finding.remedy
    if side == "legal":
        assert finding.status not in (Status.FAIL, Status.WARN)


@pytest.mark.parametrize("rule", all_rules(), ids=lambda rule: rule.id)
def test_rule_is_complete(rule: Rule) -> None:
    assert rule.legal and rule.illegal, "a rule brings examples on both sides"
    assert rule.statement and rule.remedy and rule.authority and rule.witnesses and rule.decide
    assert rule.sources and all(source.startswith("https://") for source in rule.sources)
    assert rule.tracks and dt.date(2026, 3, 18) <= rule.since <= dt.date(2026, 5, 2)
    assert isinstance(rule.severity, Severity)


def test_clean_package_fails_and_warns_nowhere() -> None:
    files = {path: text.encode() for path, text in package().items()}
    case = build_case(Submission.from_files(files, label="clean"))
    judgement = judge(case)
    assert case.submission.problems == []
    bad = {f.rule: f.summary for f in judgement.findings if f.status in (Status.FAIL, Status.WARN)}
    assert bad == {}
    assert judgement.verdict in (Verdict.CLEAN, Verdict.NEEDS_REVIEW)


def test_clean_package_is_decided_by_documents_where_they_can() -> None:
    files = {path: text.encode() for path, text in package().items()}
    judgement = judge(build_case(Submission.from_files(files, label="clean")))
    status = {finding.rule: finding.status for finding in judgement.findings}
    for rule in (
        "PG-S-cap",
        "PG-T-train",
        "PG-T-eval",
        "PG-T-hardware",
        "PG-B-full-val",
        "PG-B-bpb-formula",
        "PG-B-from-artifact",
        "PG-ST-seeds",
        "PG-P-required-files",
        "PG-P-submission-json",
    ):
        assert status[rule] is Status.PASS, rule
