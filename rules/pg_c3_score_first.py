"""PG-C3-score-first: Condition 3: score before update (test-time training)."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import SCORE, program
from rules.examples import variant
from rules.logged_passes import foreign_passes
from rules.order import score_before_update
from rules.testimony import ORDER_WITNESSES, from_timelines

SCORE_FIRST = '''
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

ADAPT = """
def adapt(model, val_tokens, device):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0005)
    for start in range(0, val_tokens.numel() - 1, args.seq_len):
        window = val_tokens[start:start + args.seq_len + 1].to(device)
        token_losses(model, window[None, :-1], window[None, 1:]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
"""
ADAPT_THEN_SCORE = "    adapt(scored, val_tokens, device)\n" + SCORE.strip("\n")


def decide(case: Case) -> Finding:
    """Needs the order of events; a log can only show that it was not this program's."""
    question = "which validation tokens had changed the model before they were scored"
    found = from_timelines(case, question, score_before_update, rule=RULE.id)
    return found if found.status is Status.FAIL else foreign_passes(case) or found


RULE = Rule(
    id="PG-C3-score-first",
    title="Condition 3: score before update (test-time training)",
    statement=(
        "The loss of a token is fixed with the state that existed before that token had any influence on it. "
        "Only after the score of a chunk is final may that chunk be used to change weights, LoRA, caches or "
        "counters. Training on a validation token and later reporting a loss for that token is training on "
        "the test set."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 20),
    authority="organiser ruling (0hq, valerio-oai)",
    violations=(
        (
            "a function that loops over `val_tokens` with `loss.backward(); optimizer.step()` and is called "
            "before the reported evaluation (`ttt_adapt(..., val_tokens, ...)` then `eval_val_sliding`)"
        ),
        ("inside the chunk loop the accumulation `loss_sum += nll` comes after `optimizer.step()` on the same chunk"),
        ("the reported metric comes from the last epoch / second pass / re-evaluation with the adapted model"),
        "score accumulated from the training forward of the second or later epoch",
    ),
    allowed=(
        (
            "per chunk: forward under no_grad/inference_mode, add to the global sums, then train on that "
            "chunk (any number of epochs), adapted weights used for later chunks only (#77, #461, #549, "
            "#1413, #1493)"
        ),
        (
            "the forward whose graph is later used for backward may itself be the scoring forward, if its "
            "loss value is recorded before step() (phased LoRA TTT: per_tok_loss accumulated, then "
            "cur_opt.step())"
        ),
        "per-document LoRA trained chunk by chunk with the same discipline",
    ),
    history=(
        "cocohearts wrote on #317 (2026-03-21) that TTT was not in the spirit of the challenge; superseded by "
        "0hq in #402 and by the merges of #77 and #549."
    ),
    legal_precedents=(77, 461, 473, 549, 1413, 1477, 1493, 1530, 1610, 1626, 1855),
    illegal_precedents=(
        152,
        410,
        415,
        417,
        442,
        462,
        481,
        486,
        512,
        518,
        548,
        555,
        568,
        581,
        595,
        672,
        771,
        991,
        1127,
        1193,
        2139,
    ),
    sources=(
        "https://github.com/openai/parameter-golf/commit/fc6332a9c",
        "https://github.com/openai/parameter-golf/pull/152",
        "https://github.com/openai/parameter-golf/issues/402",
        "https://github.com/openai/parameter-golf/issues/677",
        "https://github.com/openai/parameter-golf/pull/462",
        "https://github.com/openai/parameter-golf/pull/568",
        "https://github.com/openai/parameter-golf/pull/771",
        "https://github.com/openai/parameter-golf/pull/991",
        "https://github.com/openai/parameter-golf/pull/549",
        "https://github.com/openai/parameter-golf/issues/1082",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Score a chunk under the state left by earlier chunks, add it to the sums, and only then train on it; "
        "no pass over validation tokens may change the model before the pass that is reported."
    ),
    legal=(
        Example("score a chunk, then train on it", variant(program(evaluation=SCORE_FIRST)), witnesses=ORDER_WITNESSES),
    ),
    illegal=(
        Example(
            "train on the validation set, then score it",
            variant(program(extra=ADAPT, score=ADAPT_THEN_SCORE)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
