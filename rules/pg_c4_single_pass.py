"""PG-C4-single-pass: Condition 4: one left-to-right pass, no re-scoring, no selection."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import SCORE, program
from rules.examples import variant
from rules.order import counted_once
from rules.testimony import ORDER_WITNESSES, from_timelines

ADAPTIVE = '''
def evaluate(model, val_tokens, tables, rank, world_size, device):
    """Chunk by chunk: score, book the score, then train on what has been scored."""
    size, space, control = tables
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    starts = range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len)
    for start in starts:
        window = val_tokens[start:start + args.seq_len + 1].to(device)
        inputs, targets = window[None, :-1], window[None, 1:]
        with torch.no_grad():
            nll = token_losses(model, inputs, targets)
            nbytes = size[targets] + (space[targets] & ~control[inputs])
            totals[0] += nll.double().sum()
            totals[1] += targets.numel()
            totals[2] += nbytes.double().sum()
        for _ in range(3):
            optimizer.zero_grad()
            token_losses(model, inputs, targets).mean().backward()
            optimizer.step()
    if dist.is_initialized():
        dist.all_reduce(totals)
    return (totals[0] / totals[1]).item(), (totals[0] / math.log(2) / totals[2]).item()
'''

SECOND_PASS = SCORE + SCORE
BETTER_OF_TWO = """
    first = evaluate(scored, val_tokens, tables, rank, world_size, device)
    scored.norm.weight.data.mul_(1.02)
    second = evaluate(scored, val_tokens, tables, rank, world_size, device)
    val_loss, val_bpb = min(first, second)
"""


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case,
        "how often each token enters the reported sum, and whether a pass was chosen by its outcome",
        counted_once,
        rule=RULE.id,
        weak=Witness.RUN,  # it sees how often a token counts, not what a table of counts held
    )


RULE = Rule(
    id="PG-C4-single-pass",
    title="Condition 4: one left-to-right pass, no re-scoring, no selection",
    statement=(
        "Each validation token contributes exactly one score, from one pass. No second pass with a warmer "
        "cache/model, no revision of earlier probabilities, no choice among several executions, passes, "
        "experts or epochs after seeing the outcomes."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 24),
    authority="organiser ruling (valerio-oai)",
    violations=(
        'cache/TTT filled over all chunks, then "full rescore"/"pass 2" and pass 2 reported',
        ("`min(nll_model, nll_cache)`, best-of-k, choosing the better of two evals in code (`val_bpb = min(a, b)`)"),
        "ensembling or temperature chosen per run from validation results of that run",
    ),
    allowed=(
        "overlapping sliding windows where only the last `stride` positions of each window are counted",
        (
            "diagnostic evaluations (pre-quant, roundtrip, sliding) printed besides the headline, if the "
            "headline method is fixed in advance"
        ),
        (
            "post-hoc choice of which legal eval method to submit, made by the author before submission (see "
            "PG-D-val-tuning for the limit)"
        ),
    ),
    history="",
    legal_precedents=(549, 1493, 1855),
    illegal_precedents=(573, 611, 614, 659, 685, 846, 853, 868, 869, 870, 881, 888, 893, 907, 921, 959, 991),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1017",
        "https://github.com/openai/parameter-golf/pull/573",
        "https://github.com/openai/parameter-golf/pull/614",
        "https://github.com/openai/parameter-golf/pull/659",
        "https://github.com/openai/parameter-golf/pull/685",
        "https://github.com/openai/parameter-golf/pull/846",
        "https://github.com/openai/parameter-golf/pull/881",
        "https://github.com/openai/parameter-golf/pull/907",
        "https://github.com/openai/parameter-golf/pull/959",
        "https://github.com/openai/parameter-golf/pull/991",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Report the first and only score of each token from a method fixed in advance; print other passes as "
        "diagnostics."
    ),
    legal=(Example("one pass, score first", variant(program(evaluation=ADAPTIVE)), witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "second pass with the adapted model is reported",
            variant(program(evaluation=ADAPTIVE, score=SECOND_PASS)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "the better of two evaluations is reported",
            variant(program(score=BETTER_OF_TWO)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
