"""PG-B-leading-space: Leading-space byte counted exactly once."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import by_denominator
from rules.byte_code import with_code
from rules.example_program import DATA, edited, program
from rules.examples import runs, variant
from rules.testimony import ORDER_WITNESSES

TWICE = edited(
    DATA, 'len(piece.removeprefix("\\u2581").encode("utf-8"))', 'len(piece.replace("\\u2581", " ").encode("utf-8"))'
)


def decide(case: Case) -> Finding:
    """A space counted twice inflates the bytes by a sixth, and the log shows it."""
    logged = by_denominator(case, ("double leading space",), "the leading space is counted twice", ORDER_WITNESSES)
    return with_code(case, logged, ("double leading space", "marker counted", "leading space not counted"))


RULE = Rule(
    id="PG-B-leading-space",
    title="Leading-space byte counted exactly once",
    statement=(
        "SentencePiece piece starting with U+2581: table entry = bytes of the piece without the marker; one "
        "byte is added in the accumulator when the target has a leading space and the previous token is not a "
        "boundary token."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 4, 18),
    authority="official code; community audit accepted",
    violations=(
        (
            "`base_bytes[i] = len(piece[1:].encode())+1` in the LUT and again `+ (has_space[tgt] & "
            "~is_boundary[prev])` in the loop: +16.7 % denominator (176,332,748 instead of 151,080,891 on "
            "sp8192), BPB too low by the same factor"
        ),
        "adding the space byte unconditionally, or using len(piece) with the marker (3 bytes)",
    ),
    allowed=("counting the +1 in the LUT and never in the loop differs only at document starts (tiny) - INFO",),
    reaches_back=(
        "the official script has counted bytes this way since the launch; the date is that of the first audit that "
        "was accepted, not of a new demand."
    ),
    history="GatedDeltaNet lineage #1698/#1711/#1712/#1734 etc.; most were self-closed.",
    legal_precedents=(1019, 1394),
    illegal_precedents=(1545, 1576, 1632, 1672, 1698, 1711, 1712, 1734),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1719",
        "https://github.com/openai/parameter-golf/pull/1804",
        "https://github.com/openai/parameter-golf/pull/1734",
        "https://github.com/openai/parameter-golf/pull/1545",
        "https://github.com/openai/parameter-golf/pull/1576",
        "https://github.com/openai/parameter-golf/pull/1632",
        "https://github.com/openai/parameter-golf/blob/main/train_gpt.py",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Count the space of a piece once: bytes of the piece without its marker in the table, plus one in the "
        "sum when the previous token is not a boundary. Score again."
    ),
    legal=(Example("space counted once"),),
    illegal=(
        Example(
            "space in the table and again in the sum",
            variant(program(data=TWICE), done=runs(val_tokens=40_540_160, val_bytes=176_332_748)),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
