"""PG-D-val-tuning: Evaluation hyper-parameters fitted to validation outcomes."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import variant
from rules.support import at_line, failed, unknown

DUMPED = "Mixer order and gate were picked by an offline sweep over dumped validation log-probs."
_SWEEP = re.compile(
    r"(?i)(?:sweep|grid|search|optimi[sz]ed?|tuned?|fitted|calibrated)[^.\n]{0,60}"
    r"(?:dumped|cached|saved|stored)[^.\n]{0,30}(?:val|nll|log-?prob)"
    r"|(?:dumped|cached|saved|stored)[^.\n]{0,30}(?:val\w*)[^.\n]{0,30}(?:nll|log-?probs?|logits)[^.\n]{0,60}"
    r"(?:sweep|grid|tune|fit|optimi)"
)


def decide(case: Case) -> Finding:
    """What the README says of the way parameters were chosen; the judgement stays with the reviewer."""
    text = case.readme.text if case.readme else ""
    said = _SWEEP.search(text)
    if said:
        line = text.count("\n", 0, said.start()) + 1
        return failed(
            "the README describes a sweep over stored validation outcomes",
            [at_line(case.readme.path, line, text.splitlines()[line - 1].strip(), "how parameters were chosen")],
        )
    return unknown(
        "the package does not say how evaluation parameters were chosen",
        (Witness.STATIC,),
        "Ordinary tuning from whole-run results is tolerated; fitting on stored validation losses is not.",
    )


RULE = Rule(
    id="PG-D-val-tuning",
    title="Evaluation hyper-parameters fitted to validation outcomes",
    statement=(
        "Selecting the parameters of an eval-time mixer by an offline sweep over dumped validation log-probs "
        "is validation-outcome tuning and was given as a reason to refuse records. Ordinary hyper-parameter "
        "tuning across training runs is tolerated."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 5, 2),
    authority="organiser ruling (cocohearts)",
    violations=(
        (
            "scripts or README text that describe dumping val NLLs/probabilities and optimising gate, order, "
            "temperature, bias on them"
        ),
        "per-token/bias tables or calibrations fitted on val and hard-coded",
    ),
    allowed=(
        ("choosing LR, TTT_LR, chunk size, stride, prefix-docs from whole-run results (done by every merged row)"),
        "calibration fitted on train tokens inside the 600 s",
    ),
    history="The line between the two is one of degree; nobody ever disqualified a TTT-hyper-parameter sweep.",
    legal_precedents=(1855,),
    illegal_precedents=(1991, 2083, 2098),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1991",
        "https://github.com/openai/parameter-golf/pull/2098",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy=(
        "Fix the parameters of the mixer on training tokens inside the 600 s, and say in the README how each "
        "was chosen."
    ),
    legal=(Example("nothing said of dumped validation outcomes", expect=Status.UNKNOWN),),
    illegal=(
        Example(
            "sweep over dumped validation log-probs",
            variant(readme_more=DUMPED),
            Status.FAIL,
            dated=dt.date(2026, 5, 3),
        ),
    ),
    decide=decide,
)
