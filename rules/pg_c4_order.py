"""PG-C4-order: Order of the validation stream."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

IN_ORDER = '''
def evaluate(model, val_tokens, tables, rank, world_size, device):
    """Chunk by chunk: score, book the score, then train on what has been scored."""
    size, space, control = tables
    totals = torch.zeros(3, dtype=torch.float64, device=device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    for start in range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len):
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

EASY_FIRST = edited(
    IN_ORDER,
    "    for start in range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len):\n",
    "    starts = range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len)\n"
    "    lengths = {s: int(val_tokens[s:s + args.seq_len].unique().numel()) for s in starts}\n"
    "    for start in sorted(starts, key=lengths.get):\n",
)


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(case, "whether the stream is reordered while state is carried over", rule=RULE.id)


RULE = Rule(
    id="PG-C4-order",
    title="Order of the validation stream",
    statement=(
        "The field guide asks that the validation set be evaluated in its default shard/token order, without "
        "reordering; the organisers asked for strict original order when adaptation crosses documents "
        "(#2139). Merged per-document stacks sort documents by length for batching."
    ),
    severity=Severity.DISPUTED,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 28),
    authority="community text; merged precedent",
    violations=(
        (
            "reordering documents so that cross-document adaptation profits (similarity sort, easy-first, "
            "train-on-short-first) with state carried over"
        ),
        ("n-gram/PPM state per rank that does not represent the canonical prefix, presented as a sequential code"),
    ),
    allowed=(
        ("length-sorted batches with state reset per document (the score of a document is independent of the order)"),
        "splitting the stream over 8 ranks with rank-local state (#549)",
    ),
    history=(
        "In the #1530 lineage documents are processed longest first while a global SGD step runs at phase "
        "boundaries on the first PREFIX_DOCS documents: each document is still scored before it is trained "
        "on, so C3 holds, but a decoder would need the permutation. Accepted in practice."
    ),
    legal_precedents=(549, 1530, 1610, 1855),
    illegal_precedents=(2139,),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1017",
        "https://github.com/openai/parameter-golf/pull/1530",
        "https://github.com/openai/parameter-golf/pull/2139",
    ),
    witnesses=ORDER_WITNESSES,
    remedy="Evaluate in stream order when state crosses documents, or reset the state at every document.",
    legal=(
        Example("stream order", variant(program(evaluation=IN_ORDER)), witnesses=ORDER_WITNESSES),
        Example("nothing is carried from window to window", variant(program()), witnesses=ORDER_WITNESSES),
    ),
    illegal=(
        Example(
            "windows sorted while the adapted model carries over",
            variant(program(evaluation=EASY_FIRST)),
            Status.WARN,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
