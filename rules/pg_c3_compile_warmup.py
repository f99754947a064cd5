"""PG-C3-compile-warmup: Compile/autotune warm-up before the eval timer."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import SCORE, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

WARM_UP = '''
def warm_up(model, tokens, device):
    """Compiles the adaptation path on a copy that is thrown away."""
    import copy

    spare = copy.deepcopy(model)
    optimizer = torch.optim.SGD(spare.parameters(), lr=0.002)
    token_losses(spare, tokens[None, :-1], tokens[None, 1:]).mean().backward()
    optimizer.step()
'''
ON_RANDOM = (
    "    warm_up(scored, torch.randint(0, args.vocab_size, (args.seq_len + 1,), device=device), device)\n"
    + SCORE.strip("\n")
)
ON_VALIDATION = "    warm_up(scored, val_tokens[:args.seq_len + 1].to(device), device)\n" + SCORE.strip("\n")


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case,
        "whether a warm-up before the timer trains on validation tokens, and whether what it changed survives",
        rule=RULE.id,
    )


RULE = Rule(
    id="PG-C3-compile-warmup",
    title="Compile/autotune warm-up before the eval timer",
    statement=(
        "Warming up the compiled TTT path with backward()/step() must not use validation tokens. Accepted "
        "form: random or synthetic tokens (or training-free dummy shapes) on a throw-away LoRA and optimizer."
    ),
    severity=Severity.DISPUTED,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD}),
    since=dt.date(2026, 4, 11),
    authority="merged precedent, community flag",
    violations=(
        (
            "warm-up loop slices `val_data.val_tokens` and calls `.backward(); wo.step()` before the scoring "
            "loop (merged #1530 and #1610 do exactly this on a discarded LoRA)"
        ),
    ),
    allowed=(
        ('`torch.randint(0, vocab, ...)` warm-up ("random tokens, no val data" in #1626 and every later merged row)'),
        (
            "training warm-up steps on train tokens whose model/optimizer state is restored before the timed "
            "loop (official baseline)"
        ),
    ),
    history=(
        "dexhunter and msisovic flagged it, the author showed that state is discarded and that the score "
        "moves within noise; #1530 and #1610 stayed accepted. Report as WARN when the adapted object is "
        "discarded, as FAIL when the warmed weights survive into scoring."
    ),
    legal_precedents=(1530, 1610, 1626, 1855),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1530",
        "https://github.com/openai/parameter-golf/pull/1900",
        "https://github.com/openai/parameter-golf/pull/1902",
        "https://github.com/openai/parameter-golf/pull/1626",
    ),
    witnesses=ORDER_WITNESSES,
    remedy="Warm up on random token ids and on a copy that is thrown away.",
    legal=(
        Example("warm-up on random ids", variant(program(extra=WARM_UP, score=ON_RANDOM)), witnesses=ORDER_WITNESSES),
    ),
    illegal=(
        Example(
            "warm-up on validation tokens, discarded copy",
            variant(program(extra=WARM_UP, score=ON_VALIDATION)),
            Status.WARN,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
