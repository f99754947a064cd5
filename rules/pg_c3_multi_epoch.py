"""PG-C3-multi-epoch: Several epochs over already scored tokens."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import program
from rules.examples import variant
from rules.order import later_epoch
from rules.testimony import ORDER_WITNESSES, from_timelines

SCORED_ONCE = '''
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

LAST_EPOCH = '''
def evaluate(model, val_tokens, tables, rank, world_size, device):
    """Every epoch scores and trains; the sums are cleared, so the last epoch's score is what remains."""
    size, space, control = tables
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    for _ in range(4):
        totals = torch.zeros(3, dtype=torch.float64, device=device)
        for start in range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len):
            window = val_tokens[start:start + args.seq_len + 1].to(device)
            inputs, targets = window[None, :-1], window[None, 1:]
            nll = token_losses(model, inputs, targets)
            totals[0] += nll.detach().double().sum()
            totals[1] += targets.numel()
            totals[2] += (size[targets] + (space[targets] & ~control[inputs])).double().sum()
            optimizer.zero_grad()
            nll.mean().backward()
            optimizer.step()
    if dist.is_initialized():
        dist.all_reduce(totals)
    return (totals[0] / totals[1]).item(), (totals[0] / math.log(2) / totals[2]).item()
'''


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case,
        "whether a later epoch over a chunk contributes to its score",
        later_epoch,
        rule=RULE.id,
    )


RULE = Rule(
    id="PG-C3-multi-epoch",
    title="Several epochs over already scored tokens",
    statement=(
        "Training for several epochs on a chunk that has already been scored is accepted; what is illegal is "
        "to let a later epoch contribute to the score of that chunk (last-epoch loss, minimum over epochs, "
        "re-score)."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 23),
    authority="organiser ruling (valerio-oai) + merged precedent",
    violations=(
        "`for ep in range(E): nll = forward(chunk); step()` and only the last `nll` enters val_loss",
        '`best = torch.minimum(best, nll)` over epochs or passes ("min-NLL")',
    ),
    allowed=(
        (
            "TTT_EPOCHS=3 in merged #549 and #1493; 2-4 entropy-adaptive epochs in #1148; 4 epochs in #1812 "
            "drew only a remark on the small gain"
        ),
    ),
    history=(
        "Severity: illegal (when a later epoch is scored). dexhunter raised multi-epoch against C4 on #1698; "
        "no organiser ruling exists, the merged precedents decide."
    ),
    legal_precedents=(461, 549, 1413, 1493, 1039, 1148),
    illegal_precedents=(568, 573, 596, 605, 611, 614, 642, 684, 685),
    sources=(
        "https://github.com/openai/parameter-golf/pull/568#issuecomment-4119903415",
        "https://github.com/openai/parameter-golf/pull/642",
        "https://github.com/openai/parameter-golf/pull/596",
        "https://github.com/openai/parameter-golf/pull/605",
        "https://github.com/openai/parameter-golf/pull/611",
        "https://github.com/openai/parameter-golf/pull/614",
        "https://github.com/openai/parameter-golf/pull/684",
        "https://github.com/openai/parameter-golf/pull/685",
        "https://github.com/openai/parameter-golf/pull/549",
        "https://github.com/openai/parameter-golf/pull/1493",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Book the score of a chunk before its first training step and never again; further epochs may train "
        "but not score."
    ),
    legal=(
        Example(
            "scored once, then three epochs of training",
            variant(program(evaluation=SCORED_ONCE)),
            witnesses=ORDER_WITNESSES,
        ),
    ),
    illegal=(
        Example(
            "the last of four epochs is the score",
            variant(program(evaluation=LAST_EPOCH)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
