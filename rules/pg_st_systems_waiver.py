"""PG-ST-systems-waiver: Systems-only waiver."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import variant
from rules.support import at_line, not_applicable, warned

WAIVED = "This is a systems-only submission: fused kernels, no ML changes."
_CLAIM = re.compile(r"(?i)systems?[- ]only|systems? (?:waiver|submission|optimi[sz]ation only)|pure(?:ly)? systems?")


def decide(case: Case) -> Finding:
    """Whether the waiver is claimed; the comparison with the parent needs its code."""
    text = case.readme.text if case.readme else ""
    said = _CLAIM.search(text)
    if not said:
        return not_applicable("the waiver is not claimed")
    line = text.count("\n", 0, said.start()) + 1
    return warned(
        "the waiver is claimed: compare code and settings with the parent record",
        [at_line(case.readme.path, line, text.splitlines()[line - 1].strip(), "waiver claimed")],
    )


RULE = Rule(
    id="PG-ST-systems-waiver",
    title="Systems-only waiver",
    statement="A submission that only makes the code faster without changing the ML need not show 0.005 nats.",
    severity=Severity.ADVICE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=("claiming the waiver while hyper-parameters, data or eval change",),
    allowed=("fused kernels, loader, compile changes",),
    history=(
        "#1584 was first marked as systems-only progression row, then left out because it was never the frontier."
    ),
    legal_precedents=(1584,),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/issues/1587",
        "https://github.com/openai/parameter-golf/pull/1584",
        "https://github.com/openai/parameter-golf/pull/1902",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy=(
        "Show the diff against the parent record: kernels and loaders only, no setting, data or evaluation changed."
    ),
    legal=(Example("waiver not claimed", expect=Status.NOT_APPLICABLE),),
    illegal=(Example("waiver claimed, parent not shown", variant(readme_more=WAIVED), Status.WARN),),
    decide=decide,
)
