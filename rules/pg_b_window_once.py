"""PG-B-window-once: Each target scored once with sliding windows."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import EVALUATION, edited, program
from rules.examples import variant
from rules.order import counted_once
from rules.testimony import ORDER_WITNESSES, from_timelines

# Windows overlap by half and every position of every window is counted.
OVERLAPPING = edited(
    edited(
        EVALUATION,
        "range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len)",
        "range(rank * args.seq_len // 2, val_tokens.numel() - args.seq_len, world_size * args.seq_len // 2)",
    ),
    "Every validation token is scored once",
    "Every window is counted in full",
)


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(case, "whether every target enters the sum exactly once", counted_once, rule=RULE.id)


RULE = Rule(
    id="PG-B-window-once",
    title="Each target scored once with sliding windows",
    statement=(
        "With overlapping windows only the new positions of a window enter the sums; context positions are "
        "not counted again, and none is skipped."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 19),
    authority="merged precedent",
    violations=(
        "counting all positions of every window",
        "scoring only positions with long context (omits the first tokens of documents)",
    ),
    allowed=("first window counts all its positions",),
    history="Severity: illegal (if selective).",
    legal_precedents=(50, 77, 549),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/pull/50",
        "https://github.com/openai/parameter-golf/pull/77",
        "https://github.com/openai/parameter-golf/issues/1017",
    ),
    witnesses=ORDER_WITNESSES,
    remedy="Count only the positions of a window that no earlier window counted, and none less.",
    legal=(Example("windows do not overlap", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "overlapping windows counted in full",
            variant(program(evaluation=OVERLAPPING)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
