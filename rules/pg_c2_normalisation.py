"""PG-C2-normalisation: Condition 2: one full normalised distribution, fixed before the target is known."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import EVALUATION, edited, program
from rules.examples import variant
from rules.testimony import ORDER_WITNESSES, exercised, from_timelines, probed

# Both components are distributions over the vocabulary and the weight is a constant: so is their mixture.
MIXED_OVER_VOCABULARY = edited(
    EVALUATION,
    "            nll = token_losses(model, inputs, targets)\n",
    "            p = 0.9 * model(inputs).softmax(-1) + 0.1 / args.vocab_size\n"
    "            nll = -p.gather(-1, targets[..., None]).squeeze(-1).log()\n",
)
# `repeats` counts how often the target itself occurred before: a number for the target, no distribution.
MIXED_AT_TARGET_ONLY = edited(
    EVALUATION,
    "            nll = token_losses(model, inputs, targets)\n",
    "            p = model(inputs).softmax(-1).gather(-1, targets[..., None]).squeeze(-1)\n"
    "            repeats = (targets[..., None] == inputs[:, None, :]).any(-1).float()\n"
    "            nll = -(0.8 * p + 0.2 * repeats).log()\n",
)


def decide(case: Case) -> Finding:
    """Needs the order of events; a table of counts that never fired in the run passes nothing."""
    question = "whether each token is scored from one distribution that sums to one"
    return from_timelines(case, question, exercised(case, probed("normalisation")), rule=RULE.id, weak=Witness.RUN)


RULE = Rule(
    id="PG-C2-normalisation",
    title="Condition 2: one full normalised distribution, fixed before the target is known",
    statement=(
        "Before x_t is revealed the method must define one probability distribution over the whole official "
        "token alphabet (p_t(a) >= 0 for every a, sum 1), determined independently of which token is "
        "realised. Evaluating only the realised token and treating the rest as implied is not a distribution; "
        "normalising over hash bins, buckets, experts or other latent structures does not count."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 27),
    authority="organiser ruling (valerio-oai)",
    violations=(
        (
            "blend computed only at the gold index: `p = (1-a)*p_model.gather(y) + a*p_cache(y)` where "
            "p_cache is not a proper distribution over V"
        ),
        "mixing weight, temperature or expert choice that is a function of the target",
        (
            "denominator that is not the sum over the V candidates (`(pair_c[gold]+b*p)/(ctx_count+b)` "
            "instead of `/(pair_c.sum()+b)`)"
        ),
        'an "entropy expert" or other scalar in a mixer that is not itself a distribution over V',
        "top-k truncation that drops mass without renormalising",
    ),
    allowed=(
        (
            "softmax/cross_entropy over full vocab, softcap, global or per-position temperature or affine "
            "logit calibration that is independent of the target"
        ),
        (
            "convex mixture of two full-vocab distributions with prefix-only weights, even when only the gold "
            "entry is evaluated, if both components provably sum to 1"
        ),
        "closed-form exponential tilt of one prefix-chosen hint token with exact Z",
    ),
    reaches_back=(
        "unnormalised caches were closed as a class on that day, submissions of the days before included (#769, #779), "
        "and no such score was ever accepted."
    ),
    history=(
        "valerio-oai, #1185 (2026-03-31): an n-gram mix that computes and renormalises over the whole "
        "vocabulary, or uses no oracle knowledge of the eval token, would be looked on as legal."
    ),
    legal_precedents=(549, 1145, 1514, 1855),
    illegal_precedents=(727, 779, 853, 944, 982, 1026, 1185, 972),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1017",
        "https://github.com/openai/parameter-golf/issues/677",
        "https://github.com/openai/parameter-golf/pull/779#issuecomment-4145781641",
        "https://github.com/openai/parameter-golf/pull/886",
        "https://github.com/openai/parameter-golf/pull/1185",
        "https://github.com/openai/parameter-golf/pull/1026",
        "https://github.com/openai/parameter-golf/pull/978",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Compute the mixture over the whole vocabulary and take the loss with log_softmax or an exact "
        "normaliser; mixing weights may depend on the prefix only. Show at sampled positions that the "
        "probabilities sum to one."
    ),
    legal=(
        Example("softmax over the vocabulary", witnesses=ORDER_WITNESSES),
        Example(
            "constant mixture of two distributions",
            variant(program(evaluation=MIXED_OVER_VOCABULARY)),
            witnesses=ORDER_WITNESSES,
        ),
    ),
    illegal=(
        Example(
            "a count is blended in at the target only",
            variant(program(evaluation=MIXED_AT_TARGET_ONLY)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
