"""PG-ST-threshold: 0.005 nats."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.documents.statistics import Regime, describe
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.comparison import comparison, headline_evidence, record_name
from rules.examples import RUNS, variant
from rules.support import failed, passed, unknown, warned

WORSE = tuple(replace(run, bpb=run.bpb + 0.05) for run in RUNS)
SLIGHTLY_BETTER = tuple(replace(run, bpb=run.bpb + 0.0157) for run in RUNS)


def decide(case: Case) -> Finding:
    """Improvement over the standing record in BPB and nats, under the regime of the date."""
    found = comparison(case)
    if found is None:
        return unknown("no result to compare with the standing record")
    better, margin = found.delta_bpb, found.margin
    story = describe(found)
    place = headline_evidence(case)
    if better <= 0:
        # Days do not tell which of two rows came first.
        answer = warned if found.record.date == case.submission.date else failed
        return answer(
            f"not better than the standing record {record_name(found)}: "
            f"{found.new.mean:.5f} against {found.old.mean:.5f} BPB",
            place,
            story,
        )
    if margin is None:
        return unknown(
            f"better by {better:.5f} BPB; the tokenizer is unknown, so 0.005 nats cannot be converted",
            evidence=place,
            explanation=story,
        )
    if better >= margin:
        return passed(f"better by {better:.5f} BPB, the bar is {margin:.5f} BPB (0.005 nats per token)", place, story)
    if found.regime is Regime.PROGRESSION:
        return warned(
            f"better by {better:.5f} BPB, less than the {margin:.5f} BPB of the README; not enforced since 9 April",
            place,
            story,
        )
    return warned(
        f"better by {better:.5f} BPB, the bar is {margin:.5f} BPB (0.005 nats per token)",
        place,
        story + " Refused for this: #473, #589; rows below the bar were merged all the same.",
    )


RULE = Rule(
    id="PG-ST-threshold",
    title="0.005 nats",
    statement=(
        "A new record must beat the standing one by at least 0.005 nats. The organisers read nats as val_loss "
        "in nats per token (valerio-oai accepted #549: -0.0034 BPB = -0.0057 nats/token, and #1019: -0.0046 "
        "BPB = -0.0078 nats/token, as clearing the bar). In BPB the bar is 0.00296 (sp1024), 0.00217 "
        "(sp4096), 0.00194 (sp8192), 0.00228 (CaseOps); the per-byte reading would be 0.00721."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README; organiser rulings",
    violations=(("improvement < 0.005 nats/token over the chronological SOTA (#473, #589 refused for that in March)"),),
    allowed=(
        "#1019 (-0.0078) and #549 (-0.0057)",
        "systems-only submissions (PG-ST-systems-waiver)",
    ),
    history=(
        "Not enforced for the April-May leaderboard: from 2026-04-09 rows with smaller steps were merged "
        "(#1413 -0.0007 BPB, #1477 -0.0006, #1493 -0.0012 ...); codemath3000 counted < 15 % of merged records "
        "meeting it (#2148). The README text was never changed."
    ),
    legal_precedents=(549, 1019),
    illegal_precedents=(181, 374, 473, 589),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/473",
        "https://github.com/openai/parameter-golf/pull/549",
        "https://github.com/openai/parameter-golf/pull/589",
        "https://github.com/openai/parameter-golf/pull/1019",
        "https://github.com/openai/parameter-golf/pull/181",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "Improve by at least 0.005 nats per token over the record standing at the date, or file the result as "
        "non-record."
    ),
    legal=(Example("better by 0.02 BPB"),),
    illegal=(
        Example("worse than the standing record", variant(done=WORSE), Status.FAIL),
        Example("better by less than 0.005 nats", variant(done=SLIGHTLY_BETTER), Status.WARN),
    ),
    decide=decide,
)
