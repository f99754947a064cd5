"""PG-ST-seed-search: No seed brute forcing."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from statistics import stdev

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import RUNS, variant
from rules.measures import at_log, claim_is_logged, reported, who
from rules.support import unknown, warned

TIGHT = tuple(replace(run, bpb=1.0412 + shift) for run, shift in zip(RUNS, (0.0, 0.000004, 0.000009), strict=True))
TYPICAL_LOWEST = 0.0002


def decide(case: Case) -> Finding:
    """A hint at most: a spread far below what seeds usually show."""
    lines = reported(case) if claim_is_logged(case) else []
    if len(lines) < 3:
        return unknown("fewer than three logged seeds: the spread says nothing")
    spread = stdev(item.value for item in lines)
    place = [at_log(case, item.run, item.line, who(item.run)) for item in lines]
    if spread < TYPICAL_LOWEST / 10:
        return warned(
            f"the seeds differ by {spread:.6f} BPB (SD); merged rows show 0.0002 to 0.0011",
            place,
            "An unusually small spread is a hint, not proof: ask for the runs that were not reported.",
        )
    return unknown(f"cannot be proved from a package; the spread of {spread:.5f} BPB is ordinary", evidence=place)


RULE = Rule(
    id="PG-ST-seed-search",
    title="No seed brute forcing",
    statement="Searching seeds for a lucky result is external compute and not allowed.",
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=("seed loops over many values with selection; odd seed sets without disclosure of discarded runs",),
    allowed=(
        (
            "re-running a failed or over-cap seed when disclosed (contested: andrewbaggio1 on #2146 about "
            "closing sibling PRs after seeing results)"
        ),
    ),
    history="Severity: illegal (by discretion). Cannot be proved from a package; only hints.",
    legal_precedents=(),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy="Name every run that was made and discarded, and why.",
    legal=(Example("ordinary spread: nothing can be said", expect=Status.UNKNOWN),),
    illegal=(Example("three seeds within 0.00001 BPB", variant(done=TIGHT), Status.WARN),),
    decide=decide,
)
