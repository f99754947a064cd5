"""PG-B-byte-fallback: Byte fallback and U+2581 outside the vocabulary."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import by_denominator
from rules.byte_code import with_code
from rules.examples import runs, variant
from rules.testimony import ORDER_WITNESSES


def decide(case: Case) -> Finding:
    """Byte pieces counted as three bytes inflate the denominator by about 4 %."""
    what = "byte-fallback pieces are counted as three bytes"
    logged = by_denominator(case, ("byte fallback",), what, ORDER_WITNESSES)
    return with_code(case, logged, ("byte tokens counted wrongly",))


RULE = Rule(
    id="PG-B-byte-fallback",
    title="Byte fallback and U+2581 outside the vocabulary",
    statement=(
        "A byte-fallback token is one byte, never the UTF-8 length of its replacement character. If the "
        "tokenizer has no standalone U+2581 piece, SentencePiece encodes a space as three byte tokens that "
        "the stock LUT counts as 3 bytes: the denominator is then inflated and the score void."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 26),
    authority="organiser action (#1806)",
    violations=(
        "`len(tok.decode([i]).encode())` (gives 3 for invalid single bytes)",
        ("metadata npz with base_bytes=3 for byte tokens (Scylla: 157,319,833 instead of 151,073,604 bytes, +4.1 %)"),
        "custom SP model without piece U+2581",
    ),
    allowed=("sp.is_byte(i) -> 1; corrected Scylla (#1314: 151,080,891)",),
    reaches_back=(
        "the official script has counted bytes this way since the launch; the date is that of the first audit that "
        "was accepted, not of a new demand."
    ),
    history=(
        "#1184 (0.9485 claimed) was listed on the README on 2026-04-24 and removed in the same PR #1806 after "
        "community proof."
    ),
    legal_precedents=(1314,),
    illegal_precedents=(1143, 1184, 1242, 1274, 1289),
    sources=(
        "https://github.com/openai/parameter-golf/issues/897",
        "https://github.com/openai/parameter-golf/pull/1143",
        "https://github.com/openai/parameter-golf/pull/1271",
        "https://github.com/openai/parameter-golf/pull/1289",
        "https://github.com/openai/parameter-golf/pull/1314",
        "https://github.com/openai/parameter-golf/pull/1806",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Give byte-fallback pieces one byte each and keep a standalone U+2581 piece in the vocabulary; score again."
    ),
    legal=(Example("byte pieces count one byte"),),
    illegal=(
        Example(
            "4.1 % more bytes than the text has",
            variant(done=runs(val_tokens=55_103_488, val_bytes=157_319_833)),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
