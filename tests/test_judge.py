"""Weighing of findings: track, date, crashes, and the order of the verdicts."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.case import Case
from auditor.findings import Evidence, Finding, Severity, Status, Verdict, Witness
from auditor.judge import DECIDING, ELIGIBILITY_RULES, ORDER_RULES, WEIGHTY_DISPUTES, examine, judge
from auditor.submission import Submission, Track
from auditor.unpack import Program
from rules import all_rules
from rules.base import Rule

PLACE = (Evidence("records/x/train.log", 12, "stopping_early ..."),)


def case(track: Track = Track.RECORD, date: dt.date | None = dt.date(2026, 5, 1), **known: object) -> Case:
    submission = Submission("a", "records/track_10min_16mb/a", {}, lambda path: b"", track=track, date=date)
    for name, value in known.items():
        setattr(submission, name, value)
    return Case(submission, Program(), absent={Witness.STATIC: "no static analysis witness"})


def rule(
    name: str = "PG-X-test",
    status: Status = Status.PASS,
    severity: Severity = Severity.ILLEGAL,
    since: dt.date = dt.date(2026, 3, 18),
    tracks: frozenset[Track] = frozenset(Track),
    evidence: tuple[Evidence, ...] = PLACE,
) -> Rule:
    finding = Finding("", status, f"{name} says {status}", evidence=evidence, decided_by=(Witness.STATIC,))
    return Rule(name, name, "", severity, tracks, since, "test", (), (), (), (Witness.STATIC,), f"repair {name}",
                decide=lambda _: finding)  # fmt: skip


def passing() -> list[Rule]:
    return [rule(name) for name in DECIDING]


def test_everything_decided_and_passed_is_clean() -> None:
    judgement = judge(case(), passing())
    assert judgement.verdict is Verdict.CLEAN
    assert judgement.second_line == ""


@pytest.mark.parametrize("name", DECIDING)
def test_an_open_deciding_rule_is_never_clean(name: str) -> None:
    rules = [rule(each, Status.UNKNOWN if each == name else Status.PASS) for each in DECIDING]
    judgement = judge(case(), rules)
    assert judgement.verdict is Verdict.NEEDS_REVIEW
    assert ("order of events" in judgement.reason) == (name in ORDER_RULES)
    assert "1 of" in judgement.second_line


def test_other_unknowns_do_not_stand_in_the_way() -> None:
    judgement = judge(case(), [*passing(), rule("PG-D-val-tuning", Status.UNKNOWN)])
    assert judgement.verdict is Verdict.CLEAN
    assert "static analysis" in judgement.second_line


def test_illegal_failure_with_a_place_is_a_violation() -> None:
    judgement = judge(case(), [*passing(), rule("PG-D-val-overlap", Status.FAIL)])
    assert judgement.verdict is Verdict.VIOLATION
    assert judgement.reason.startswith("PG-D-val-overlap")


def test_illegal_failure_without_a_place_is_no_violation() -> None:
    judgement = judge(case(), [*passing(), rule("PG-D-val-overlap", Status.FAIL, evidence=())])
    assert judgement.verdict is Verdict.NEEDS_REVIEW


@pytest.mark.parametrize("name", ELIGIBILITY_RULES)
def test_size_and_time_are_eligibility(name: str) -> None:
    assert judge(case(), [*passing(), rule(name, Status.FAIL)]).verdict is Verdict.NOT_ELIGIBLE


@pytest.mark.parametrize("severity", [Severity.PACKAGING, Severity.NOT_RECORD_ELIGIBLE])
def test_package_and_statistics_are_eligibility(severity: Severity) -> None:
    judgement = judge(case(), [*passing(), rule("PG-P-required-files", Status.FAIL, severity)])
    assert judgement.verdict is Verdict.NOT_ELIGIBLE


@pytest.mark.parametrize("severity", [Severity.ADVICE, Severity.DISPUTED])
def test_advice_and_disputes_alone_change_nothing(severity: Severity) -> None:
    judgement = judge(case(), [*passing(), rule("PG-S-code-count", Status.WARN, severity)])
    assert judgement.verdict is Verdict.CLEAN
    assert "1 with a warning" in judgement.reason


@pytest.mark.parametrize("name", WEIGHTY_DISPUTES)
def test_some_disputes_need_a_reviewer(name: str) -> None:
    assert judge(case(), [*passing(), rule(name, Status.WARN, Severity.DISPUTED)]).verdict is Verdict.NEEDS_REVIEW


def test_a_breach_older_than_its_rule_needs_review_and_says_so() -> None:
    late = rule("PG-C2-byte-mixer", Status.FAIL, since=dt.date(2026, 4, 28))
    judgement = judge(case(date=dt.date(2026, 4, 1)), [*passing(), late])
    finding = judgement.findings[-1]
    assert finding.status is Status.WARN
    assert "2026-04-28" in finding.explanation and "2026-04-01" in finding.explanation
    assert judgement.verdict is Verdict.NEEDS_REVIEW


def test_a_ruling_that_closed_what_was_open_binds_older_submissions_and_says_why() -> None:
    plain = rule("PG-C2-byte-mixer", Status.FAIL, since=dt.date(2026, 4, 28))
    ruling = replace(plain, reaches_back="closed as a whole on that day.")
    judgement = judge(case(date=dt.date(2026, 4, 1)), [*passing(), ruling])
    assert judgement.verdict is Verdict.VIOLATION
    explanation = judgement.findings[-1].explanation
    assert "2026-04-01" in explanation and "2026-04-28" in explanation and "closed as a whole" in explanation
    younger = judge(case(date=dt.date(2026, 5, 1)), [*passing(), ruling])
    assert "closed as a whole" not in younger.findings[-1].explanation


def test_a_head_pushed_after_the_ruling_knows_of_it() -> None:
    late = rule("PG-C2-byte-mixer", Status.FAIL, since=dt.date(2026, 4, 28))
    pushed = case(date=dt.date(2026, 4, 1), pr=7, head_date=dt.datetime(2026, 4, 29, tzinfo=dt.UTC))
    assert judge(pushed, [late]).verdict is Verdict.VIOLATION
    on_main = case(date=dt.date(2026, 4, 1), head_date=dt.datetime(2026, 4, 29, tzinfo=dt.UTC))
    assert judge(on_main, [late]).verdict is Verdict.NEEDS_REVIEW


def test_rules_of_the_record_track_do_not_bind_others() -> None:
    record_only = rule("PG-T-train", Status.FAIL, tracks=frozenset({Track.RECORD}))
    finding = examine(record_only, case(Track.NON_RECORD))
    assert finding.status is Status.NOT_APPLICABLE and "non-record" in finding.summary
    unclear = examine(record_only, case(Track.UNKNOWN))
    assert unclear.status is Status.WARN and "track cannot be told" in unclear.explanation


def test_a_crash_in_a_rule_is_an_unknown_that_names_it() -> None:
    def crash(_: Case) -> Finding:
        raise ValueError("no such line")

    broken = rule("PG-S-cap")
    object.__setattr__(broken, "decide", crash)
    judgement = judge(case(), [*(r for r in passing() if r.id != "PG-S-cap"), broken])
    finding = judgement.findings[-1]
    assert (finding.rule, finding.status) == ("PG-S-cap", Status.UNKNOWN)
    assert "ValueError: no such line" in finding.summary
    assert judgement.verdict is Verdict.NEEDS_REVIEW


def test_failures_carry_severity_and_remedy_of_their_rule() -> None:
    finding = examine(rule("PG-S-cap", Status.FAIL), case())
    assert (finding.rule, finding.severity, finding.remedy) == ("PG-S-cap", Severity.ILLEGAL, "repair PG-S-cap")


def test_a_case_in_which_nobody_saw_anything_is_never_clean() -> None:
    judgement = judge(case())
    assert len(judgement.findings) == len(all_rules())
    assert judgement.verdict is not Verdict.CLEAN
    assert all(finding.status is not Status.PASS for finding in judgement.findings if finding.rule in DECIDING)


STATUSES = [Status.PASS, Status.FAIL, Status.WARN, Status.UNKNOWN, Status.NOT_APPLICABLE]


@given(st.lists(st.sampled_from(list(itertools.product([r.id for r in all_rules()], STATUSES, Severity))), max_size=12))
def test_no_verdict_hides_a_failure(picked: list[tuple[str, Status, Severity]]) -> None:
    """CLEAN means: no failure that weighs, and nothing deciding left open; order of the rules does not matter."""
    rules = [rule(name, status, severity) for name, status, severity in picked]
    judgement = judge(case(), rules)
    assert judge(case(), rules[::-1]).verdict is judgement.verdict
    if judgement.verdict is Verdict.CLEAN:
        for finding in judgement.findings:
            assert not (finding.status is Status.FAIL and finding.severity in
                        (Severity.ILLEGAL, Severity.PACKAGING, Severity.NOT_RECORD_ELIGIBLE))  # fmt: skip
            assert not (finding.status is Status.UNKNOWN and finding.rule in DECIDING)
    if judgement.verdict is Verdict.VIOLATION:
        assert any(
            f.status is Status.FAIL and f.severity is Severity.ILLEGAL and f.evidence for f in judgement.findings
        )
