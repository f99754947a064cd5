"""PG-P-chronology: Chronological acceptance."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.comparison import comparison, headline_evidence, record_name
from rules.examples import RUNS, variant
from rules.support import passed, unknown, warned

WORSE = tuple(replace(run, bpb=run.bpb + 0.05) for run in RUNS)


def decide(case: Case) -> Finding:
    """Whether a better row stood at the date of the evidence."""
    found = comparison(case)
    if found is None:
        return unknown("no result or date to place the submission in time")
    place = headline_evidence(case)
    if found.delta_bpb <= 0:
        return warned(
            f"{record_name(found)} with {found.old.mean:.5f} BPB stood already on {found.record.date.isoformat()}",
            place,
            "A later pull request does not become a row when an earlier one is already lower.",
        )
    return passed(f"better than {record_name(found)}, the frontier on {found.record.date.isoformat()}", place)


RULE = Rule(
    id="PG-P-chronology",
    title="Chronological acceptance",
    statement=(
        "Records are judged in order of PR creation against the SOTA at that time; what counts is when code "
        "AND evidence of the claimed score were public, later score updates take the later place. A later PR "
        "does not become a row if an earlier one is already lower. Do not edit a locked submission: open a "
        "new PR, or keep it as draft."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 19),
    authority="README + rulings",
    violations=(
        "claim against an outdated SOTA",
        "score updated after a better PR landed (#1518 after #1530); #2019 after #2014; #2140 after #2135",
    ),
    allowed=("rebased claim in a new PR",),
    history=(
        "Contested: April-9 batch merged ten PRs of 31 March-9 April while 495 scored PRs from before April "
        "were open (#1522)."
    ),
    legal_precedents=(1529, 1530, 2014, 2135),
    illegal_precedents=(46, 48, 1518, 2019, 2140),
    sources=(
        "https://github.com/openai/parameter-golf/commit/535352463",
        "https://github.com/openai/parameter-golf/pull/48",
        "https://github.com/openai/parameter-golf/pull/63",
        "https://github.com/openai/parameter-golf/pull/53",
        "https://github.com/openai/parameter-golf/pull/1902",
        "https://github.com/openai/parameter-golf/pull/2146",
        "https://github.com/openai/parameter-golf/issues/1522",
        "https://github.com/openai/parameter-golf/issues/2148",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "Compare with the record standing when code and evidence became public, and claim a place after "
        "earlier, better pull requests."
    ),
    legal=(Example("better than the frontier at its date"),),
    illegal=(Example("a better row stood already", variant(done=WORSE), Status.WARN),),
    decide=decide,
)
