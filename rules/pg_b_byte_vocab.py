"""PG-B-byte-vocab: Byte-level vocabularies."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts
from rules.examples import runs, variant
from rules.support import not_applicable, passed, warned


def decide(case: Case) -> Finding:
    """For a byte vocabulary the targets nearly equal the bytes: by 50,000 document starts, or exactly."""
    found = [a for a in accounts(case) if a.denominator.tokens and a.denominator.tokens > 140_000_000]
    if not found:
        return not_applicable("not a byte-level vocabulary")
    if all(account.denominator.accepted for account in found):
        return passed(found[0].denominator.reason, [account.evidence for account in found])
    return warned(
        f"a byte vocabulary whose bytes do not fit: {found[0].denominator.reason}",
        [account.evidence for account in found],
    )


RULE = Rule(
    id="PG-B-byte-vocab",
    title="Byte-level vocabularies",
    statement=(
        "Allowed. Each byte token is one byte; special tokens zero. The number of scored tokens then nearly "
        "equals the bytes."
    ),
    severity=Severity.ADVICE,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 30),
    authority="merged precedent",
    violations=("counting specials as bytes; scoring a transformed byte stream",),
    allowed=("byte260 (H-Net study, 151,130,112 tokens for 151,080,112 bytes = 50,000 BOS)",),
    reaches_back=(
        "the official script has counted bytes this way since the launch; the date is that of the first audit that "
        "was accepted, not of a new demand."
    ),
    history="ByteJEPA (#1443) counted 151,076,864 tokens = bytes.",
    legal_precedents=(1104, 1443),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1104",
        "https://github.com/openai/parameter-golf/pull/1443",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy="Count one byte for every byte token and none for special tokens.",
    legal=(
        Example(
            "byte tokens, 50,000 document starts", variant(done=runs(val_tokens=151_130_112, val_bytes=151_080_112))
        ),
    ),
    illegal=(
        Example(
            "document starts counted as bytes",
            variant(done=runs(val_tokens=151_130_112, val_bytes=151_330_112)),
            Status.WARN,
        ),
    ),
    decide=decide,
)
