"""PG-P-cutoff-grace: Deadline and grace policy."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.support import at_line, passed, unknown, warned

CUTOFF = dt.datetime(2026, 5, 2, tzinfo=dt.UTC)


def decide(case: Case) -> Finding:
    """Date of the head against the cut-off."""
    head = case.submission.head_date if case.submission.pr is not None else None
    if head is None:
        date = case.submission.date
        if date is None:
            return unknown("the date of the submission is not known")
        if date <= CUTOFF.date():
            return passed(f"dated {date.isoformat()}, before the cut-off of {CUTOFF.date().isoformat()}")
        return warned(f"dated {date.isoformat()}, after the cut-off of {CUTOFF.date().isoformat()}", [_place(case)])
    if head.tzinfo is None:
        head = head.replace(tzinfo=dt.UTC)
    if head <= CUTOFF:
        return passed(f"head of {head:%Y-%m-%d %H:%M} UTC, before the cut-off")
    return warned(
        f"head of {head:%Y-%m-%d %H:%M} UTC, after the cut-off of 2026-05-02 00:00 UTC",
        [_place(case)],
        "Grace covers validation, results and narrow repairs of work that was public before; compare the heads.",
    )


def _place(case: Case) -> Evidence:
    return at_line(
        case.submission.folder or ".", None, "", f"head {case.submission.head[:10]}" if case.submission.head else "date"
    )


RULE = Rule(
    id="PG-P-cutoff-grace",
    title="Deadline and grace policy",
    statement=(
        "The challenge ran 18 March - 30 April 2026; the effective cut-off used was 1 May 2026 17:00 Pacific "
        "(2026-05-02T00:00:00Z). Grace: if idea/code was public before, later commits that only supply "
        "validation/results or narrowly restore compliance can count."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 5, 2),
    authority="organiser policy (cocohearts)",
    violations=(
        (
            "new idea, new data build or new configuration after the cut-off (#2109 canonical rebuild, #2118 "
            "corrected state in the first pass)"
        ),
    ),
    allowed=("#2135: scaffold before, three logs after; #2140: token-only correction",),
    history="Scope disputed by andrewbaggio1 (2026-05-03).",
    legal_precedents=(2135, 2140),
    illegal_precedents=(2109, 2118, 2130),
    sources=(
        "https://github.com/openai/parameter-golf/pull/2146",
        "https://github.com/openai/parameter-golf/pull/2109",
        "https://github.com/openai/parameter-golf/pull/2118",
        "https://github.com/openai/parameter-golf/pull/2135",
        "https://github.com/openai/parameter-golf/pull/2140",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "After the cut-off only logs, metadata and narrow repairs of compliance count; new ideas, data or "
        "settings do not."
    ),
    legal=(Example("before the cut-off", dated=dt.date(2026, 5, 2)),),
    illegal=(Example("after the cut-off", dated=dt.date(2026, 5, 6), expect=Status.WARN),),
    decide=decide,
)
