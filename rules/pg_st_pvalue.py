"""PG-ST-pvalue: p < 0.01 with enough runs."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.documents.statistics import README_P, Deviation, describe
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.comparison import comparison, headline_evidence
from rules.examples import RUNS, variant
from rules.support import not_applicable, passed, plural, unknown, warned

NOISY = tuple(replace(run, bpb=1.0412 + shift) for run, shift in zip(RUNS, (-0.02, 0.0, 0.02), strict=True))


def decide(case: Case) -> Finding:
    """One-sided Welch tests from per-seed values, with and without the margin."""
    found = comparison(case)
    if found is None:
        return unknown("no per-seed results to test")
    story, place = describe(found), headline_evidence(case)
    test = found.plain[Deviation.SAMPLE]
    if found.delta_bpb <= 0:
        return not_applicable("not better than the standing record, there is nothing to test (see PG-ST-threshold)")
    if found.new.n < 2 or test.p is None:
        return warned(f"{plural(found.new.n, 'seed')}: no test is possible", place, story)
    shifted = found.shifted[Deviation.SAMPLE].p if found.shifted else None
    with_margin = f", {shifted:.2g} with the 0.005-nat margin" if shifted is not None else ""
    if test.p >= README_P:
        return warned(f"p = {test.p:.2g} for any improvement{with_margin}; the README asks for p < 0.01", place, story)
    return passed(f"p = {test.p:.2g} for any improvement{with_margin}", place, story)


RULE = Rule(
    id="PG-ST-pvalue",
    title="p < 0.01 with enough runs",
    statement=(
        "Run logs must show at p < 0.01 that the required improvement was achieved; an average over three "
        "runs usually suffices. The README does not name the test."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=("single run, or p computed against a point value of the predecessor",),
    allowed=("one-sided tests; pooled or Welch - none prescribed",),
    history=(
        "Strictly the hypothesis includes the 0.005-nat margin (shifted test); nobody applied the shift after March."
    ),
    legal_precedents=(549, 1019),
    illegal_precedents=(374,),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/commit/d2bd76079",
        "https://github.com/openai/parameter-golf/pull/114",
        "https://github.com/openai/parameter-golf/pull/374",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=("Run at least three seeds of the final code and ship their logs; if the test still fails, run more seeds."),
    legal=(Example("three seeds far below the record"),),
    illegal=(
        Example("one seed", variant(done=(RUNS[0],)), Status.WARN),
        Example("spread larger than the improvement", variant(done=NOISY), Status.WARN),
    ),
    decide=decide,
)
