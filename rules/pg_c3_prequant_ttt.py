"""PG-C3-prequant-ttt: Pre-quantisation TTT on validation tokens."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import program
from rules.examples import variant
from rules.order import untouched_before_export
from rules.testimony import ORDER_WITNESSES, from_timelines

FINE_TUNE = """
def fine_tune(model, tokens, epochs, device):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0005)
    for _ in range(epochs):
        for start in range(0, tokens.numel() - 1, args.seq_len):
            window = tokens[start:start + args.seq_len + 1].to(device)
            token_losses(model, window[None, :-1], window[None, 1:]).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
"""
BEFORE_EXPORT = "    fine_tune(model, val_tokens, 6, device)"


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case,
        "whether validation tokens train the model before the artifact is written",
        untouched_before_export,
        rule=RULE.id,
    )


RULE = Rule(
    id="PG-C3-prequant-ttt",
    title="Pre-quantisation TTT on validation tokens",
    statement=(
        "Fine-tuning the full-precision model on val_tokens (epochs of AdamW over the validation stream) "
        "before GPTQ/serialisation and then scoring the same tokens violates score-first, whatever it is "
        'called ("artifact generation", "Track A because the final predictor is frozen").'
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD}),
    since=dt.date(2026, 4, 10),
    authority="organiser ruling (closures; cocohearts)",
    violations=(
        (
            "`prequant_ttt_adapt_adamw(h, model, val_data.val_tokens, ...)` / `ttt_adapt_adamw(... val_tokens "
            "...)` called between training and `serialize()`"
        ),
        "federated averaging of per-rank fine-tunes on val shards before quantisation",
    ),
    allowed=(
        "any fine-tuning on train tokens inside the 600 s",
        "score-first TTT after deserialisation of the quantised artifact",
    ),
    history=(
        "Ruled by the closure of #1376 (MatoTeziTanka cites it as valerio-oai's, 2026-04-10) and by "
        'cocohearts in #1902 ("pre-quant/future-validation leakage") and #1972. #1423 is named in hundreds of '
        "community reviews as a model of legal TTT although its title and its author describe a pre-quant "
        "TTT: never use #1416/#1423 as reference shape, use #549/#1413/#1493."
    ),
    legal_precedents=(549, 1413),
    illegal_precedents=(672, 1376, 1423, 1485, 1487, 1488, 1489, 1517, 1550, 1735, 1738, 1758, 1911, 1958, 1972, 1992),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1376",
        "https://github.com/openai/parameter-golf/issues/677",
        "https://github.com/openai/parameter-golf/pull/1972",
        "https://github.com/openai/parameter-golf/pull/1902",
        "https://github.com/openai/parameter-golf/pull/1735",
        "https://github.com/openai/parameter-golf/pull/1738",
        "https://github.com/openai/parameter-golf/pull/1550",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Remove the fine-tuning on validation tokens before the export; fine-tune on training tokens inside "
        "the 600 s, or adapt after the artifact is read back, score first."
    ),
    legal=(Example("the artifact is written right after training", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "six epochs over the validation tokens before the export",
            variant(program(extra=FINE_TUNE, after_training=BEFORE_EXPORT)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
