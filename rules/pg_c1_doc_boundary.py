"""PG-C1-doc-boundary: Position-mixing gates must not leak across document boundaries."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import MODEL, edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

SMEARED = edited(
    MODEL,
    "        for block in self.blocks:\n",
    "        x = torch.cat([x[:, :1], x[:, 1:] + self.smear * x[:, :-1]], dim=1)\n        for block in self.blocks:\n",
).replace(
    "        self.norm = nn.RMSNorm(args.model_dim)\n",
    "        self.norm = nn.RMSNorm(args.model_dim)\n        self.smear = nn.Parameter(torch.zeros(args.model_dim))\n",
)
MASKED = edited(SMEARED, "self.smear * x[:, :-1]", "self.smear * x[:, :-1] * (tokens[:, 1:, None] != 1)")


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case, "whether a module that mixes neighbouring positions is masked at document starts", rule=RULE.id
    )


RULE = Rule(
    id="PG-C1-doc-boundary",
    title="Position-mixing gates must not leak across document boundaries",
    statement=(
        "In a packed validation stream, a module that mixes the previous token into the current one "
        "(SmearGate and kin) must be masked where the current token is BOS, in the normal forward and in the "
        "TTT forward. cocohearts blocked #1797 for it; the fixed descendants are the accepted rows."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 4, 26),
    authority="organiser ruling (cocohearts)",
    violations=(
        (
            "`x = cat([x[:,:1], x[:,1:] + g*x[:,:-1]], 1)` with no `input_ids[:,1:] != BOS_ID` mask in "
            "`_forward_hidden` or in `forward_ttt`"
        ),
    ),
    allowed=(
        "`not_bos` mask applied in both paths",
        (
            "plain causal attention that runs over document boundaries inside a fixed-length window (baseline "
            "behaviour) - never ruled illegal; it is the per-document TTT/varlen stacks that were held to it"
        ),
    ),
    history=(
        "Not an information leak from the future; it was treated as a validity blocker for that score only. "
        "#1667 (same unmasked SmearGate, folder merged 2026-04-29) stayed on the leaderboard - so the rule "
        "was applied to new rows, not retroactively. The date given is that of the audit comment on #1797 as "
        "far as it can be inferred (its number lies between comments of 26 and 28 April)."
    ),
    legal_precedents=(1851, 1855, 1868),
    illegal_precedents=(1797,),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1797#issuecomment-4322526174",
        "https://github.com/openai/parameter-golf/pull/1851",
        "https://github.com/openai/parameter-golf/pull/1855",
        "https://github.com/openai/parameter-golf/pull/1902",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Mask the mixing term where the current token is BOS, in the normal forward and in the one used for adaptation."
    ),
    legal=(
        Example("previous token mixed in, masked at BOS", variant(program(model=MASKED)), witnesses=ORDER_WITNESSES),
    ),
    illegal=(
        Example(
            "previous token mixed in across documents",
            variant(program(model=SMEARED)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
