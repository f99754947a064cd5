"""PG-S-cap: 16,000,000 bytes, decimal."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import RUNS, runs, variant
from rules.measures import (
    Measured,
    claimed_total,
    counts_packed_code,
    largest,
    logged_model,
    logged_total,
    reported_runs,
    size_lines,
)
from rules.support import failed, number, passed, unknown, warned

CAP = 16_000_000


def decide(case: Case) -> Finding:
    """The largest total a reported run logs, then the shipped files, then what the author states."""
    logged = largest(logged_total(case, run) for run in reported_runs(case))
    shipped = _as_shipped(case)
    stated = claimed_total(case)
    for total, how in ((logged, "logged by"), (shipped, "as shipped, model of"), (stated, "stated in")):
        if total is not None and total.value > CAP:
            return failed(
                f"{number(total.value)} bytes {how} {total.who}: {number(total.value - CAP)} over {number(CAP)}",
                _evidence(logged, shipped, stated),
                _mebibytes(total.value),
            )
    known = logged or shipped or stated
    if known is None:
        return unknown("no log, file or metadata states the size of the artifact", (Witness.RUN, Witness.REPRODUCTION))
    if logged is None and shipped is None:
        return warned(f"{number(known.value)} bytes are stated, but no log shows them", [known.evidence])
    top = largest((logged, shipped)) or known
    return passed(
        f"{number(top.value)} bytes at most ({top.who}), {number(CAP - top.value)} to spare",
        _evidence(logged, shipped, stated),
    )


def _evidence(*totals: Measured | None) -> list[Evidence]:
    return [total.evidence for total in totals if total is not None]


def _mebibytes(value: float) -> str:
    mib = value / 2**20
    return f"It is {mib:.2f} MiB: below 16 MiB, but the cap counts decimal bytes." if mib <= 16 else ""


def _as_shipped(case: Case) -> Measured | None:
    """Largest logged model plus `train_gpt.py` as shipped; only where the log counts the script raw (convention a)."""
    code = case.program.counted_bytes
    runs_raw = [run for run in reported_runs(case) if size_lines(run, "total") and not counts_packed_code(run)]
    models = [model for run in runs_raw if (model := logged_model(case, run))]
    top = largest(models)
    if top is None or not code:
        return None
    note = f"model as logged plus the {number(code)} bytes of the shipped script"
    return replace(top, value=top.value + code, evidence=replace(top.evidence, note=note))


RULE = Rule(
    id="PG-S-cap",
    title="16,000,000 bytes, decimal",
    statement=(
        "compressed model bytes + code bytes <= 16,000,000 (not 16,777,216). Each seed must fit; non-record "
        "submissions too."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README; enforced by regina-openai, cocohearts",
    violations=(
        (
            "bytes_total > 16,000,000 for any reported seed (#1809: 16,024,793; #1835 log: 16,071,321; #1959: "
            "16,042,632 once code is counted)"
        ),
        '"16 MB" judged with 1024*1024, or the cap compared with the model alone',
        "size taken from the mean or best seed only",
    ),
    allowed=(
        'bytes_total == 16,000,000 exactly (no example; reading "cap")',
        "unlimited-compute runs of any duration within the cap",
    ),
    history=(
        "regina-openai applies it mechanically to the total printed in the log: an over-cap number in a log "
        "is a reason for refusal even when the author can explain it (#1835)."
    ),
    legal_precedents=(1412, 1855),
    illegal_precedents=(1809, 1835, 1959),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
        "https://github.com/openai/parameter-golf/pull/1809",
        "https://github.com/openai/parameter-golf/pull/1835",
        "https://github.com/openai/parameter-golf/pull/1959",
        "https://github.com/openai/parameter-golf/pull/1902",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.RUN, Witness.REPRODUCTION),
    remedy=(
        "Shrink the model or the code until the largest logged total of any reported seed is at most "
        "16,000,000 bytes (decimal), and ship the logs of those runs."
    ),
    legal=(
        Example("15,621,157 bytes at most"),
        Example("just under the cap", variant(done=runs(total_bytes=15_999_370, model_bytes=15_989_370))),
    ),
    illegal=(
        Example(
            "16,265,723 bytes, which the author calls 15.51 MiB",
            variant(done=runs(model_bytes=16_255_723, total_bytes=16_265_723)),
            Status.FAIL,
        ),
        Example(
            "one seed over the cap",
            variant(done=(RUNS[0], RUNS[1], replace(RUNS[2], total_bytes=16_024_793))),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
