"""PG-P-reviewability: Reviewable submission."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import variant
from rules.support import at, passed, plural, unknown, warned


def decide(case: Case) -> Finding:
    """Documents against each other, from the ledger."""
    conflicts = [claim for claim in case.ledger if claim.status == "conflicts"]
    if conflicts:
        first = conflicts[0]
        places = [
            at(quantity, f"{claim.subject}, {claim.scope}")
            for claim in conflicts
            for quantity in (*claim.claimed[:2], *claim.evidence[:2])
        ]
        return warned(
            f"{plural(len(conflicts), 'conflict')} between documents: {first.subject}, {first.scope}: {first.note}",
            places,
        )
    if not case.ledger:
        return unknown("the claims were not compared")
    return passed(f"{plural(len(case.ledger), 'claim')} compared, no conflict")


RULE = Rule(
    id="PG-P-reviewability",
    title="Reviewable submission",
    statement=(
        "Title, README, submission.json and logs agree; the code is free of dead variants; one claim per PR; "
        "draft until ready; state what changed against the parent."
    ),
    severity=Severity.ADVICE,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 19),
    authority="organiser requests",
    violations=(
        ("title 1.1574, header 1.2154 (#61); huge scripts with unused branches (#1028, #769: 99 kB kitchen sink)"),
    ),
    allowed=("long scripts are not disqualifying",),
    history="",
    legal_precedents=(265,),
    illegal_precedents=(61, 1028),
    sources=(
        "https://github.com/openai/parameter-golf/pull/61",
        "https://github.com/openai/parameter-golf/pull/63",
        "https://github.com/openai/parameter-golf/pull/545",
        "https://github.com/openai/parameter-golf/pull/1028",
        "https://github.com/openai/parameter-golf/pull/1031",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy="Let title, README, submission.json and logs state the same numbers.",
    legal=(Example("all documents agree"),),
    illegal=(Example("README and metadata state different results", variant(val_bpb=1.0301), Status.WARN),),
    decide=decide,
)
