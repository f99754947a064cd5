"""PG-S-units: Consistent size reporting."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import variant
from rules.measures import claimed_total, largest, logged_total, main_metadata, reported_runs
from rules.support import at, at_line, not_applicable, number, passed, warned


def decide(case: Case) -> Finding:
    """A total in bytes, that adds up and equals the logs."""
    data = main_metadata(case)
    if data is None or data.raw is None:
        return not_applicable("there is no readable submission.json (see PG-P-submission-json)")
    total = claimed_total(case)
    if total is None:
        return warned("submission.json states no total in bytes", [at_line(data.path, None, "", "no size in bytes")])
    if total.value < 100_000:
        return warned(f"the stated size {total.value:g} is not a number of bytes", [total.evidence])
    parts = (data.model_bytes, data.code_bytes)
    if data.artifact_bytes and all(parts) and abs(sum(p.value for p in parts) - data.artifact_bytes.value) > 0.5:
        together = sum(p.value for p in parts)
        if together <= total.value + 0.5 and together >= 0.98 * total.value:
            return passed(f"{number(total.value)} bytes stated (model and code of the largest seeds)", [total.evidence])
        return warned(
            f"model plus code are {number(together)} bytes, the stated total is {number(data.artifact_bytes.value)}",
            [at(data.artifact_bytes), *(at(part) for part in parts)],
        )
    logged = largest(logged_total(case, run) for run in reported_runs(case))
    if logged and logged.value > total.value + 0.5:
        return warned(
            f"{number(total.value)} bytes are stated, the logs show up to {number(logged.value)} ({logged.who})",
            [total.evidence, logged.evidence],
        )
    return passed(f"{number(total.value)} bytes stated", [total.evidence])


RULE = Rule(
    id="PG-S-units",
    title="Consistent size reporting",
    statement="State bytes, not MB; bytes_total = bytes_model + bytes_code; one value per seed, and the maximum.",
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="practice",
    violations=(
        "bytes_total missing or null (#1981)",
        '"15.9 MB" only; MiB printed as MB',
    ),
    allowed=("extra fields",),
    history="",
    legal_precedents=(1855,),
    illegal_precedents=(1981,),
    sources=(
        "https://github.com/openai/parameter-golf/blob/main/README.md",
        "https://github.com/openai/parameter-golf/pull/1981",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "State bytes_total as a number of bytes for every seed, with bytes_model and bytes_code that add up to it."
    ),
    legal=(Example("total, model and code in bytes"),),
    illegal=(
        Example(
            "no total", variant(bytes_total=None, bytes_model=None, bytes_code=None, seed_results=None), Status.WARN
        ),
        Example(
            "the largest seed is left out",
            variant(bytes_total=15_400_000, bytes_model=None, bytes_code=None, seed_results=None),
            Status.WARN,
        ),
    ),
    decide=decide,
)
