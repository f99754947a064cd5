"""PG-C2-byte-mixer: PPM / byte-level mixers on top of a token model."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import EVALUATION, edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, from_timelines

# The token's log-probability is spread evenly over its own bytes and mixed with a byte model of the realised bytes.
SPREAD_OVER_BYTES = edited(
    EVALUATION,
    "            nll = token_losses(model, inputs, targets)\n",
    "            nll = token_losses(model, inputs, targets)\n"
    "            nbytes_each = (size[targets] + space[targets]).clamp_min(1)\n"
    "            byte_logp = -nll / nbytes_each\n"
    "            nll = -nbytes_each * (0.7 * byte_logp.exp() + 0.3 / 64).log()\n",
)


def decide(case: Case) -> Finding:
    """Needs the order of events; documents cannot show it."""
    return from_timelines(
        case, "whether a byte model is mixed with a token model on the realised bytes only", rule=RULE.id
    )


RULE = Rule(
    id="PG-C2-byte-mixer",
    title="PPM / byte-level mixers on top of a token model",
    statement=(
        "A byte-PPM mixture that spreads the realised token's log-prob over its own bytes (p^(1/n), or "
        "uniform per-byte log-prob) and mixes it with a byte model scores only the realised path; it does not "
        "define a full distribution over the next token or over the next byte before the target is known. Not "
        "valid as a record score."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD}),
    since=dt.date(2026, 4, 28),
    authority="organiser ruling (cocohearts, valerio-oai)",
    violations=(
        ("`nn_byte_logp = token_logp / n_bytes` repeated per byte, then `log(lam*exp(nn)+ (1-lam)*exp(ppm))`"),
        (
            "lambda gate, PPM order or thresholds picked by an offline sweep over dumped validation log-probs "
            "(also PG-D-val-tuning)"
        ),
        "PPM run on a subset of the tokens while the headline is presented as full-val (#1835: 3M tokens)",
    ),
    allowed=(
        (
            "PPM whose byte-string scores are computed for every vocabulary token, normalised over V and "
            "mixed with the softmax with a prefix-only weight (no accepted example; mathematically clean)"
        ),
        (
            "exact byte marginalisation of the token model (256-way distribution at each byte) mixed with a "
            "256-way PPM - clean as a code, accepted only as non-record methodology so far (#1916: 1.5221 "
            "BPB)"
        ),
    ),
    reaches_back=(
        "the whole cluster was left out of the leaderboard, submissions of the days before included (#1835), and none "
        "was ever accepted."
    ),
    history=(
        "valerio-oai questioned #1835 (coverage and validity); cocohearts excluded the whole cluster in #1902 "
        "(2026-04-28) and ruled eight PRs invalid on 2026-05-02. Whether a correctly marginalised byte "
        "alphabet would be acceptable on the record track was never ruled: #2039 was refused on its "
        "denominator, not on its marginalisation."
    ),
    legal_precedents=(1916,),
    illegal_precedents=(
        1785,
        1795,
        1835,
        1850,
        1854,
        1858,
        1877,
        1881,
        1933,
        1959,
        1991,
        2039,
        2076,
        2080,
        2083,
        2098,
        2103,
        2138,
    ),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1872",
        "https://github.com/openai/parameter-golf/pull/1835",
        "https://github.com/openai/parameter-golf/pull/1902",
        "https://github.com/openai/parameter-golf/pull/1959",
        "https://github.com/openai/parameter-golf/pull/1991",
        "https://github.com/openai/parameter-golf/pull/2039",
        "https://github.com/openai/parameter-golf/pull/2076",
        "https://github.com/openai/parameter-golf/pull/2083",
        "https://github.com/openai/parameter-golf/pull/2098",
        "https://github.com/openai/parameter-golf/pull/2103",
        "https://github.com/openai/parameter-golf/pull/1916",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Score with the token model alone, or mix over the full alphabet: for every vocabulary entry (or "
        "every one of 256 bytes) a probability from both components, summing to one before the target is "
        "read."
    ),
    legal=(Example("token model alone", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "token probability spread over its bytes and mixed",
            variant(program(evaluation=SPREAD_OVER_BYTES)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
