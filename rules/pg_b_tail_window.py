"""PG-B-tail-window: Last partial window must be scored."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts, by_denominator
from rules.examples import SP1024_BYTES, runs, variant
from rules.support import warned
from rules.testimony import ORDER_WITNESSES


def decide(case: Case) -> Finding:
    """The logged target count is the full or the stock-truncated one, or the tail is missing."""
    found = accounts(case)
    short = [
        a
        for a in found
        if a.denominator.accepted is False
        and a.denominator.kind == "partial"
        and a.denominator.bytes
        and a.denominator.bytes.middle > 0.995 * SP1024_BYTES
    ]
    if short:
        return warned(
            f"a little less than the full set is scored: {short[0].denominator.reason}",
            [account.evidence for account in short],
        )
    return by_denominator(case, (), "", ORDER_WITNESSES, ratio_decides=False)


RULE = Rule(
    id="PG-B-tail-window",
    title="Last partial window must be scored",
    statement=(
        "Sliding-window evaluation must not drop the tail that is shorter than the stride; 0hq asked for it "
        "on #50, the fix was merged in #124."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 19),
    authority="organiser request (0hq)",
    violations=("`window_starts = [s for s in range(0, n, stride) if ... >= stride]` without final window",),
    allowed=("dropping fewer than seq_len tokens at the very end through the stock truncation",),
    history=(
        "Severity: not record-eligible (if it moves the score). #50 itself was merged with that nit. Effect "
        "is ~1e-6 relative; keep at WARN."
    ),
    legal_precedents=(50, 124),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/pull/50",
        "https://github.com/openai/parameter-golf/pull/124",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy="Add a final window that ends at the last target and counts what earlier windows left.",
    legal=(Example("all targets of the truncated stream"),),
    illegal=(
        Example(
            "the last 0.1 % is not scored",
            variant(done=runs(val_tokens=61_950_976, val_bytes=150_908_250)),
            Status.WARN,
        ),
    ),
    decide=decide,
)
