"""PG-B-from-artifact: The score is that of the submitted artifact."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.documents.ledger.common import says
from auditor.documents.ledger.headline import FLOAT, UNSTATED, evaluations, validation_lines
from auditor.documents.model import Quantity
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.artifact import artifact_before_headline
from rules.base import Example, Rule
from rules.examples import Run, variant
from rules.measures import at_log, claim_is_logged, headline, matched_by, reported
from rules.support import failed, listed, passed, unknown
from rules.testimony import ORDER_WITNESSES, from_timelines, stated

FLOAT_RESULT = "DIAGNOSTIC post_ema val_loss:1.7500 val_bpb:1.0364 eval_time:2059ms"
FLOAT_RUN = Run(bpb=1.0412, before_export=(FLOAT_RESULT,))


def decide(case: Case) -> Finding:
    """The label of the log line that carries the headline, then whether a run read the artifact back before it."""
    logged = _by_label(case)
    seen = from_timelines(case, "whether the artifact is read back", artifact_before_headline, (Witness.RUN,))
    if seen.status is Status.UNKNOWN or logged.status is Status.FAIL:
        # What a label says outweighs the program, which may have run under other settings.
        read = stated(case, RULE.id) if logged.status is Status.UNKNOWN else None
        return read or logged
    if logged.status is Status.UNKNOWN or seen.status is Status.WARN:
        return replace(seen, evidence=(*seen.evidence, *logged.evidence), explanation=f"By the log: {logged.summary}.")
    return logged


def _by_label(case: Case) -> Finding:
    claim = headline(case)
    if claim is None:
        return unknown("no val_bpb is claimed", ORDER_WITNESSES)
    if not claim_is_logged(case):
        return unknown(f"no log line carries the headline {claim.text or claim.value}", (Witness.REPRODUCTION,))
    training = _training_lines(case, claim)
    if training:
        return failed(
            f"the headline {claim.text or claim.value} is the last validation line of training, "
            "the score of weights before the export",
            training,
        )
    lines = reported(case)
    evidence = [at_log(case, item.run, item.line, "headline result") for item in lines]
    if lines and all(item.kind == FLOAT for item in lines) and matched_by(case) != "float line":
        return failed(
            f"the headline {claim.text or claim.value} is {lines[0].label!r}, the score of weights before the export",
            evidence,
        )
    labels = sorted({item.label for item in lines})
    if all(item.kind == UNSTATED for item in lines) or matched_by(case) == "float line":
        return unknown(
            f"the label of the headline ({listed(labels)}) does not say which model was scored",
            ORDER_WITNESSES,
            evidence=evidence,
        )
    return passed(f"the headline is {listed(labels)}, a result of the quantised model", evidence)


def _training_lines(case: Case, claim: Quantity) -> list[Evidence]:
    """Last validation lines of training that state the headline, when no result line does.

    Only the last one of a run: with sixty of them, some earlier one has the digits of any claim.
    """
    if matched_by(case) != "float line" or any(says(claim, i.bpb) for run in case.runs for i in evaluations(run)):
        return []
    return [
        at_log(case, run, item.line, "validation during training")
        for run in case.runs
        for item in validation_lines(run)[-1:]
        if says(claim, item.bpb)
    ]


RULE = Rule(
    id="PG-B-from-artifact",
    title="The score is that of the submitted artifact",
    statement=(
        "The headline val_bpb must come from the model decoded from the compressed artifact whose size is "
        "reported (round trip), not from the bf16/EMA weights before export."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README/official code",
    violations=(
        "reporting the pre-quant/EMA line as val_bpb",
        "eval of `base_model` instead of the object rebuilt from file",
        "artifact of one seed/config and score of another",
    ),
    allowed=("several lines in the log; the last quantised (+TTT) one is the score",),
    history="",
    legal_precedents=(549, 1855),
    illegal_precedents=(1981,),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/train_gpt.py",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.REPRODUCTION),
    remedy="Report the score of the model read back from the compressed artifact.",
    legal=(Example("the round-trip line is the headline"),),
    illegal=(
        Example(
            "the float EMA line is the headline",
            {
                **variant(done=(FLOAT_RUN,), val_bpb=1.0364, val_loss=1.75, seed_results=None),
                "README.md": "# Small by the book\n\nval_bpb 1.0364 on seed 42.\n",
            },
            Status.FAIL,
        ),
    ),
    decide=decide,
)
