"""PG-C3-last-chunk: is_last_chunk guard."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import program
from rules.examples import variant
from rules.support import not_applicable

WITHOUT_GUARD = '''
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
    """Informational: neither the guard nor its absence proves anything about the order."""
    return not_applicable(
        "a guard on the last chunk is custom, not a rule; the order of events decides (PG-C3-score-first)"
    )


RULE = Rule(
    id="PG-C3-last-chunk",
    title="is_last_chunk guard",
    statement=(
        "Customary, not required: no adaptation after the last chunk of the stream/document, because no later "
        "token could profit. Its absence wastes eval time; it is not a violation. Its presence proves nothing "
        "about order."
    ),
    severity=Severity.ADVICE,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 22),
    authority="merged precedent",
    violations=("none by itself; treat a missing guard as INFO",),
    allowed=("training after the final chunk when nothing is scored afterwards",),
    history="Community reviewers use the guard as a marker of the legal pattern; an auditor must not.",
    legal_precedents=(549, 1413, 1493),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/pull/461",
        "https://github.com/openai/parameter-golf/pull/549",
        "https://github.com/openai/parameter-golf/pull/1413",
    ),
    witnesses=(Witness.STATIC,),
    remedy="Nothing to repair: skip the adaptation after the last chunk if you want to save time.",
    legal=(
        Example(
            "training after the last chunk, nothing scored afterwards",
            variant(program(evaluation=WITHOUT_GUARD)),
            Status.NOT_APPLICABLE,
        ),
    ),
    illegal=(Example("no breach exists: the clean package", expect=Status.NOT_APPLICABLE),),
    decide=decide,
)
