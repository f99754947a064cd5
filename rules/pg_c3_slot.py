"""PG-C3-slot: SLOT: optimising a delta/logit bias on the window that is then scored."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

SLOT = '''
def evaluate(model, val_tokens, tables, rank, world_size, device):
    """A logit bias is fitted on each window's targets, then the same targets are scored with it."""
    size, space, control = tables
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    for start in range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len):
        window = val_tokens[start:start + args.seq_len + 1].to(device)
        inputs, targets = window[None, :-1], window[None, 1:]
        logits = model(inputs).detach()
        delta = torch.zeros(args.vocab_size, device=device, requires_grad=True)
        optimizer = torch.optim.AdamW([delta], lr=0.01)
        for _ in range(8):
            optimizer.zero_grad()
            F.cross_entropy((logits + delta).flatten(0, 1), targets.flatten()).backward()
            optimizer.step()
        nll = F.cross_entropy((logits + delta).flatten(0, 1), targets.flatten(), reduction="none").detach()
        totals[0] += nll.double().sum()
        totals[1] += targets.numel()
        totals[2] += (size[targets] + (space[targets] & ~control[inputs])).double().sum()
    if dist.is_initialized():
        dist.all_reduce(totals)
    return (totals[0] / totals[1]).item(), (totals[0] / math.log(2) / totals[2]).item()
'''


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case, "whether something is optimised on the targets that are then scored with it", rule=RULE.id
    )


RULE = Rule(
    id="PG-C3-slot",
    title="SLOT: optimising a delta/logit bias on the window that is then scored",
    statement=(
        "Optimising a hidden-state delta or logit bias by gradient on the targets of the window and scoring "
        "the same targets with it makes p_t depend on x_t and later tokens. No organiser ever ruled on SLOT "
        "in so many words; every SLOT submission stayed unmerged or was closed, and the C1/C3 criteria the "
        "organisers apply exclude it."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 28),
    authority="community analysis; organiser silence",
    violations=(
        (
            "`delta.requires_grad_(); for s in range(steps): loss = ce(compute_logits(H+delta), y[mask]); "
            "loss.backward(); opt.step()` with mask covering scored positions [s:wlen], then NLL of the same "
            "positions"
        ),
        "per-sample logit bias [B,1,V] optimised the same way; LBFGS / torch.linalg.solve variants",
    ),
    allowed=(
        "nothing merged uses any SLOT",
        (
            'context-only ("causal") SLOT, mask = positions scored in earlier windows: satisfies score-first '
            "on paper; asked in #1336, never answered -> report as DISPUTED"
        ),
    ),
    history=(
        'Severity: illegal by C1/C3 (no explicit ruling). Claims of "legal SLOT" in READMEs (e.g. #1465) rest '
        "on score-once, which does not cure C1. Without a ruling the finding is a warning: it sends the submission to "
        "review, and does not call it a violation."
    ),
    legal_precedents=(),
    illegal_precedents=(
        1084,
        1128,
        1150,
        1172,
        1176,
        1209,
        1229,
        1263,
        1278,
        1291,
        1319,
        1321,
        1324,
        1329,
        1333,
        1376,
        1430,
        1488,
        1647,
        1722,
    ),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1336",
        "https://github.com/openai/parameter-golf/pull/1240",
        "https://github.com/openai/parameter-golf/pull/1172",
        "https://github.com/openai/parameter-golf/pull/1176",
        "https://github.com/openai/parameter-golf/issues/1017",
    ),
    witnesses=ORDER_WITNESSES,
    remedy="Fit the delta on positions scored earlier only, or drop it.",
    legal=(Example("no optimisation inside the scored window", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "logit bias fitted on the targets it scores: excluded by C1 and C3, ruled on by nobody, so for review",
            variant(program(evaluation=SLOT)),
            Status.WARN,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
