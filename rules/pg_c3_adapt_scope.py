"""PG-C3-adapt-scope: Scope, reset and parallelism of adaptation state."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import program
from rules.examples import variant
from rules.order import score_before_update
from rules.testimony import ORDER_WITNESSES, from_timelines, unless_failed

# Every document of a batch trains one shared adapter, which then scores all of them.
PEERS = """
def evaluate(model, val_tokens, tables, rank, world_size, device):
    size, space, control = tables
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    bias = torch.zeros(args.vocab_size, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([bias], lr=0.01)
    for start in range(rank * args.seq_len, val_tokens.numel() - 8 * args.seq_len - 1, 8 * world_size * args.seq_len):
        batch = val_tokens[start:start + 8 * args.seq_len + 1].to(device)
        inputs, targets = batch[:-1].view(8, -1), batch[1:].view(8, -1)
        logits = model(inputs).detach()
        F.cross_entropy((logits + bias).flatten(0, 1), targets.flatten()).backward()
        optimizer.step()
        nll = F.cross_entropy((logits + bias).flatten(0, 1), targets.flatten(), reduction="none").detach()
        totals[0] += nll.double().sum()
        totals[1] += targets.numel()
        totals[2] += (size[targets] + (space[targets] & ~control[inputs])).double().sum()
    if dist.is_initialized():
        dist.all_reduce(totals)
    return (totals[0] / totals[1]).item(), (totals[0] / math.log(2) / totals[2]).item()
"""

PER_RANK = '''
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


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case,
        "whether every rank adapts only on tokens that are already scored",
        unless_failed(score_before_update),
        rule=RULE.id,
    )


RULE = Rule(
    id="PG-C3-adapt-scope",
    title="Scope, reset and parallelism of adaptation state",
    statement=(
        "No rule forces a reset: adaptation may persist over the corpus (global SGD at phase boundaries, "
        "#1610/#1626) or be reset per document (#77, #1530). What must hold on every rank is that the state "
        "used for a token was built from tokens that were scored earlier. State shared across a batch of "
        "documents must not let one document's still unscored tokens influence another's."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 20),
    authority="merged precedent; organiser note (cocohearts)",
    violations=(
        (
            "LoRAs trained on the same batch of validation documents and then used together for the final "
            'scoring of that batch ("peer-LoRA ensemble", #2139)'
        ),
        ("global SGD on prefix documents whose scoring is not finished on all ranks (missing barrier/all_reduce)"),
        "phase 2 re-scoring the prefix documents of phase 1",
    ),
    allowed=(
        "per-batch LoRA reset; warm-started A with B zeroed at each batch (#1787)",
        "rank-local adaptation on rank-local shards, each in order (#549)",
    ),
    history=(
        "Severity: illegal (when the invariant fails). An early Discord proposal to restrict TTT to one "
        "document was never made a rule."
    ),
    legal_precedents=(77, 1530, 1610, 1626, 1736, 1787, 1855),
    illegal_precedents=(2139,),
    sources=(
        "https://github.com/openai/parameter-golf/pull/77",
        "https://github.com/openai/parameter-golf/pull/1530",
        "https://github.com/openai/parameter-golf/pull/1610",
        "https://github.com/openai/parameter-golf/pull/1626",
        "https://github.com/openai/parameter-golf/pull/2139",
        "https://github.com/openai/parameter-golf/issues/402",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Let the state that scores a token hold nothing but what was scored before, on every rank: reset per "
        "document batch, or wait at a barrier until the documents to be trained on are scored everywhere."
    ),
    legal=(
        Example(
            "each rank adapts on its own scored windows",
            variant(program(evaluation=PER_RANK)),
            witnesses=ORDER_WITNESSES,
        ),
    ),
    illegal=(
        Example(
            "an adapter trained on a batch scores the same batch",
            variant(program(evaluation=PEERS)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
