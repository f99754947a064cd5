"""PG-B-boundary-tokens: BOS/EOS/UNK/control tokens."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.documents.metric import DOCUMENTS, diagnose_line
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import Account, accounts, by_denominator
from rules.byte_code import with_code
from rules.examples import SP1024_BYTES, runs, variant
from rules.support import failed, number
from rules.testimony import ORDER_WITNESSES

# The spelling of a control piece has one to five bytes; an exact line gives their sum, whatever tail is cut.
CREDIT, NEAR = range(1, 6), 0.02


def decide(case: Case) -> Finding:
    """50,000 document starts with credited bytes show as a whole multiple of 50,000 bytes too many."""
    for account in accounts(case):
        size = account.denominator.bytes
        if size is None or account.denominator.accepted or size.width >= 10_000:
            continue
        credit = (size.middle - SP1024_BYTES) / DOCUMENTS
        whole = round(credit) in CREDIT and abs(credit - round(credit)) <= NEAR
        if whole and not _right_elsewhere(account):
            return failed(
                f"about {credit:.1f} bytes are credited to each of {number(DOCUMENTS)} document starts: "
                f"{number(size.middle)} bytes",
                [account.evidence],
            )
    return with_code(case, by_denominator(case, (), "", ORDER_WITNESSES), ("boundary tokens credited",))


def _right_elsewhere(account: Account) -> bool:
    """Another exact result of the same run has the right bytes: the table that credits them would be the same."""
    found = (diagnose_line(line, account.run) for line in account.run.results if line.digits >= 6)
    return any(denominator is not None and denominator.accepted for denominator in found)


RULE = Rule(
    id="PG-B-boundary-tokens",
    title="BOS/EOS/UNK/control tokens",
    statement=(
        "Control, unknown and unused ids count zero bytes. They may be scored or not as the stock pipeline "
        "does (BOS of the next document is a target in the packed stream: 50,000 of them), but bytes must not "
        "be credited for them."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="official code",
    violations=(
        "non-zero bytes for BOS/EOS",
        "dropping the loss of hard targets (document starts) while keeping their bytes",
    ),
    allowed=("per-document evaluation that does not score BOS itself: implied bytes stay 151.07-151.09 M",),
    history="Severity: illegal (if bytes are credited). LUT must skip is_control, is_unknown, is_unused.",
    legal_precedents=(1104, 1530),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/blob/main/train_gpt.py",
        "https://github.com/openai/parameter-golf/issues/1017",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy="Give control, unknown and unused ids zero bytes.",
    legal=(Example("control pieces count nothing"),),
    illegal=(Example("three bytes for each BOS", variant(done=runs(val_bytes=SP1024_BYTES + 150_000)), Status.FAIL),),
    decide=decide,
)
