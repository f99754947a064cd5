"""PG-X-external-compute: External compute and smuggled capability."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import MAIN, edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

PRETRAINED = """
    model.load_state_dict(torch.load("pretrained.pt", map_location=device))
"""
FROM_CHECKPOINT = edited(
    MAIN, "    model = GPT().to(device)\n", "    model = GPT().to(device)\n" + PRETRAINED.lstrip("\n")
)


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(case, "whether the run starts from weights or tables that were made elsewhere", rule=RULE.id)


RULE = Rule(
    id="PG-X-external-compute",
    title="External compute and smuggled capability",
    statement=(
        "Compute outside the 10 minutes must not enter the artifact: no pre-trained weights, distilled "
        "tables, code constants produced by long runs, custom libraries that bring capability or code size. "
        "Tuning hyper-parameters offline is fine; the organisers reserve the right to refuse what is against "
        "the spirit."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=(
        "loading any checkpoint/table that is neither produced in this run nor counted",
        "packages that carry weights, vocabularies with statistics, n-gram models",
        '"artifact creation" steps outside both clocks that consume data or gradients',
    ),
    allowed=(
        "ordinary PyPI packages and FlashAttention; Triton/CUTLASS kernels",
        "seeds or constants chosen by normal tuning",
    ),
    history="Severity: illegal (by discretion).",
    legal_precedents=(1530, 1855),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/commit/9a60d1676",
        "https://github.com/openai/parameter-golf/pull/609",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Produce every weight and table inside the 600 s from the training shards, or count it and say where "
        "it comes from."
    ),
    legal=(Example("weights start at random", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "training starts from a checkpoint",
            variant(program(main=FROM_CHECKPOINT)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
