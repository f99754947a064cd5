"""PG-C1-causality: Condition 1: strict causal dependence."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import EVALUATION, MODEL, edited, program
from rules.examples import variant
from rules.gates import target_gates
from rules.reach import out_of_reach
from rules.support import at_line, failed, plural, warned
from rules.testimony import ORDER_WITNESSES, exercised, from_timelines, probed, source_line

BIDIRECTIONAL = edited(MODEL, "is_causal=True", "is_causal=False")

# The length of the document a token stands in is known only when the document has ended.
FUTURE_STATISTIC = edited(
    EVALUATION,
    "            nll = token_losses(model, inputs, targets)\n",
    "            counts = torch.bincount(targets.flatten(), minlength=args.vocab_size)\n"
    "            logits = model(inputs) + counts.float().log1p()\n"
    '            nll = F.cross_entropy(logits.view(-1, args.vocab_size), targets.flatten(), reduction="none")\n',
)


def decide(case: Case) -> Finding:
    """A gate on the current target shows in the log, so does a score out of reach; the rest needs the order of events."""
    gates = target_gates(case)
    if gates:
        return failed(
            f"hints were gated on the token being scored in {plural(len(gates), 'logged run')}: {gates[0].says}",
            [gate.evidence for gate in gates],
            "A hint that is emitted or weighted by a property of the current token makes p_t depend on x_t.",
        )
    question = "whether a score depends on its own or later tokens"
    found = from_timelines(case, question, exercised(case, probed("causality")), rule=RULE.id)
    if found.status is Status.FAIL:
        return found
    return (_unread(case) if found.status is Status.UNKNOWN else None) or out_of_reach(case) or found


def _unread(case: Case) -> Finding | None:
    """An operation that lets later tokens in unless something keeps them out, and nobody saw what does."""
    from auditor.static.causality import DOUBTS

    verdict = getattr(case.facts.get("static"), "answers", {}).get(RULE.id)
    if verdict is None or not verdict.chain or verdict.chain[0][1] not in DOUBTS:
        return None
    where, words = verdict.chain[0]
    return warned(
        f"the forward pass has {words}; what keeps later tokens out was not found",
        [at_line(where.path, where.line, source_line(case, where), words)],
        "A run on the CPU decides this: later tokens are changed there, and earlier losses must not move.",
    )


RULE = Rule(
    id="PG-C1-causality",
    title="Condition 1: strict causal dependence",
    statement=(
        "The distribution p_t used to score position t may be a function only of the submitted artifact and "
        "of the tokens x_1..x_{t-1} (through a state built from those alone). It may not depend on x_t, on "
        "any later validation token, on a statistic that was computed from later validation tokens, or on "
        "run-time side information that was not inside the artifact before evaluation began."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 20),
    authority="community text, organiser-enforced",
    violations=(
        (
            "attention without causal mask, look-ahead convolution, bidirectional pass, batch/sequence-level "
            "normalisation over positions > t at scoring time"
        ),
        (
            "any tensor entering the logits of position t that was computed from "
            "`y`/`targets`/`val_tokens[t:]` (dataflow from target ids into logits, logit bias, mixing weight, "
            "gate, temperature, hint validity)"
        ),
        (
            "corpus statistics precomputed from the whole `val_tokens` (unigram prior, document-length table, "
            "sorted difficulty) used as model input"
        ),
        "test: flip one target token at position t+k (k>=0) and any NLL at a position <= t changes",
    ),
    allowed=(
        (
            "sliding-window evaluation with any stride and any context length; KV-cache; longer eval sequence "
            "than training"
        ),
        "state built from already scored tokens (TTT, token-only n-gram hints, per-document LoRA)",
        ("reading `targets` only to gather -log p_t(target) after p_t is fixed, and after that to update state"),
    ),
    history=(
        "The text of the condition is a community document (NoesisGenesis, 2026-03-28). It is binding in "
        "practice: the organisers cite C1/C2/C3 in their audit notes of April-May 2026. The README sentence "
        "of 2026-03-20 (only tokens already evaluated) is the official root."
    ),
    legal_precedents=(549, 1493, 1514, 1855),
    illegal_precedents=(659, 1240, 2041, 2118, 1055),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1017",
        "https://github.com/openai/parameter-golf/commit/fc6332a9c",
        "https://github.com/openai/parameter-golf/pull/152",
        "https://github.com/openai/parameter-golf/pull/659",
        "https://github.com/openai/parameter-golf/issues/677",
        "https://github.com/openai/parameter-golf/pull/1240",
    ),
    witnesses=ORDER_WITNESSES,
    remedy=(
        "Mask attention causally, compute every input of the score from tokens before the scored one, and "
        "show it with a flip test: changing token t+k must not change any loss before it."
    ),
    legal=(Example("causal attention, losses gathered from fixed logits", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "attention without a causal mask",
            variant(program(model=BIDIRECTIONAL)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "logits shifted by counts of the window's own targets",
            variant(program(evaluation=FUTURE_STATISTIC)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
