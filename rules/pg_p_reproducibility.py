"""PG-P-reproducibility: Reproducibility."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

from auditor.case import Case
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.support import failed, passed, unknown, warned
from rules.testimony import not_examined


def decide(case: Case) -> Finding:
    """What a re-run showed; without one, or with a rehearsal that contradicts nothing, the claim stays open."""
    found = case.facts.get("reproduction")
    if not found:
        return not_examined(case, "whether a re-run on 8xH100 reproduces the claim", (Witness.REPRODUCTION,))
    finding = _at_full_scale(found) if found["comparable"] else _otherwise(found)
    return replace(finding, witness=Witness.REPRODUCTION)


def _at_full_scale(found: dict[str, Any]) -> Finding:
    """A re-run on eight H100 decides by the bands of this rule."""
    words = f"re-run {found['verdict']}: {found['reason']}"
    if found["verdict"] == "REPRODUCED":
        return passed(words, _places(found, "agrees"))
    if found["verdict"] == "WITHIN NOISE":
        return warned(words, _places(found, "within noise"), "Worse than claimed by more than 0.001 BPB.")
    if found["verdict"] == "NOT REPRODUCED":
        return failed(words, _places(found, "differs"), "A measurement contradicts what was claimed or printed.")
    return unknown(words, (Witness.REPRODUCTION,))


def _otherwise(found: dict[str, Any]) -> Finding:
    """On other machines or at small scale a re-run cannot confirm the claim, but it can catch a misreport."""
    what = "rehearsal at small scale" if found["scale"] == "small" else "re-run on other hardware"
    words = f"{what} {found['verdict']}: {found['reason']}"
    if found["verdict"] == "NOT REPRODUCED":
        told = "What the program prints is not what was measured outside it. A re-run on eight H100 decides about the claim."
        return warned(words, _places(found, "differs"), told)
    told = "It says nothing about the claimed number: that takes a re-run on eight H100."
    return unknown(words, (Witness.REPRODUCTION,), told)


def _places(found: dict[str, Any], status: str) -> list[Evidence]:
    chosen = [check for check in found["checks"] if check["status"] == status]
    folder = found["folder"]
    return [
        Evidence(f"{folder}/reproduction.json", None, "", f"{check['scope']}, {check['subject']}: {check['note']}")
        for check in chosen[:6]
    ]


RULE = Rule(
    id="PG-P-reproducibility",
    title="Reproducibility",
    statement="Results must reproduce on 8xH100; non-reproducible ones can be disqualified, also after merging.",
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README; maintainer repro notes",
    violations=(
        (
            "rerun mean worse than claimed by much more than seed noise: #86 claimed 1.1502, rerun 1.1864 "
            "(4,080 instead of 10,070 steps); #1334 claimed 1.0897, rerun 1.0922 (5,247 instead of 5,453 "
            'steps) was "not closely enough"'
        ),
    ),
    allowed=("differences within seed SD (about 0.0002-0.0011 BPB); slightly fewer steps on a slower pod",),
    history=(
        "Independent reproductions helped acceptance (#1855 by okezue, #1851 by #1868). The number of steps "
        "in 600 s is the first thing to compare."
    ),
    legal_precedents=(1855, 1868),
    illegal_precedents=(86, 1334),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/commit/535352463",
        "https://github.com/openai/parameter-golf/pull/86",
        "https://github.com/openai/parameter-golf/pull/1334",
        "https://github.com/openai/parameter-golf/pull/1855",
    ),
    witnesses=(Witness.REPRODUCTION,),
    remedy="Run one seed again on eight H100 and compare steps, size and BPB with the claim.",
    legal=(Example("re-run within 0.001 BPB", witnesses=(Witness.REPRODUCTION,)),),
    illegal=(Example("re-run 0.03 BPB worse", expect=Status.FAIL, witnesses=(Witness.REPRODUCTION,)),),
    decide=decide,
)
