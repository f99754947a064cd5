"""PG-ST-p25-progression: p < 0.25 chronological progression (final leaderboard)."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.documents.statistics import PROGRESSION_P, Deviation, Regime, describe
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.comparison import comparison, headline_evidence, record_name
from rules.examples import RUNS, variant
from rules.support import failed, not_applicable, passed, plural, unknown, warned

NOISY = tuple(replace(run, bpb=1.0574 + shift) for run, shift in zip(RUNS, (-0.004, 0.0, 0.004), strict=True))


def decide(case: Case) -> Finding:
    """One-sided Welch test against the frontier at the date, no margin, p < 0.25."""
    found = comparison(case)
    if found is None:
        return unknown("no per-seed results to test")
    if found.regime is not Regime.PROGRESSION:
        return not_applicable("before 9 April 2026 rows were judged by the README's 0.005 nats")
    story, place = describe(found), headline_evidence(case)
    test, other = found.plain[Deviation.SAMPLE], found.plain[Deviation.POPULATION]
    if found.delta_bpb <= 0:
        return failed(f"not better than the frontier {record_name(found)}", place, story)
    if test.p is None or found.new.n < 2:
        return warned(f"{plural(found.new.n, 'seed')}: p cannot be computed", place, story)
    values = f"p = {test.p:.3f} (n-1), {other.p:.3f} (n)" if other.p is not None else f"p = {test.p:.3f}"
    if test.p < PROGRESSION_P:
        return passed(f"{values} against {record_name(found)}", place, story)
    if other.p is not None and other.p < PROGRESSION_P:
        return warned(f"{values}: the convention of the deviation decides", place, story)
    return failed(f"{values}: not below 0.25 against {record_name(found)}", place, story)


RULE = Rule(
    id="PG-ST-p25-progression",
    title="p < 0.25 chronological progression (final leaderboard)",
    statement=(
        "Leaderboard passes of 2026-04-28/29 (#1900, #1902) and 2026-05-02 (#2146): going through the PRs in "
        "chronological order of code+evidence, a row is added when its mean beats the current frontier with p "
        '< 0.25, one-sided Welch t-test on per-seed val_bpb, null hypothesis "no difference" (no 0.005 '
        "margin)."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 4, 28),
    authority="organiser policy (cocohearts)",
    violations=(
        'p >= 0.25 against the frontier row ("p-fail rows"; #1784 and #1797 stayed out)',
        "single-seed rows with a tiny margin",
    ),
    allowed=(
        (
            "support runs by others may be pooled (#1855: six samples p=0.127, or p=0.188 vs the #1868 rerun; "
            "its three own seeds alone give p=0.32-0.36)"
        ),
        "more than three seeds (#1769: five)",
    ),
    history=(
        "Reproduced by us from per-seed values: #1514/#1493 0.020, #1529/#1514 0.001, #1769/#1736 0.063, "
        "#2135/#2014 0.014 match one-sided Welch with sample SD (n-1). #1945/#1855 0.034, #1953/#1945 0.063, "
        "#2014/#1953 0.011 match only when the population SD (val_bpb_std as reported, n) is put into Welch; "
        "with n-1 they are 0.056, 0.090, 0.020 - all still < 0.25. Closest calls: #1610 0.202, #1667 0.228. "
        "Therefore always recompute from per-seed values."
    ),
    legal_precedents=(
        1514,
        1529,
        1530,
        1610,
        1626,
        1667,
        1729,
        1736,
        1769,
        1787,
        1851,
        1868,
        1855,
        1945,
        1953,
        2014,
        2135,
    ),
    illegal_precedents=(1784, 1797),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1900",
        "https://github.com/openai/parameter-golf/pull/1902",
        "https://github.com/openai/parameter-golf/pull/2146",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy="Run more seeds, or pool an independent reproduction, until p < 0.25 against the frontier row.",
    legal=(Example("far below the frontier row"),),
    illegal=(Example("p above 0.25", variant(done=NOISY), Status.FAIL),),
    decide=decide,
)
