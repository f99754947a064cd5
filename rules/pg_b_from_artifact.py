"""PG-B-from-artifact: The score is that of the submitted artifact."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.documents.model import EvalResult, LogRun
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import Run, variant
from rules.measures import at_log, equals, headline, matching_result, size_lines
from rules.support import failed, listed, passed, unknown
from rules.testimony import ORDER_WITNESSES

BEFORE_EXPORT = re.compile(
    r"(?i)pre[-_ ]?quant|post[-_ ]?ema|\bdiagnostic\b|\bfloat\b|raw_model|unquantized|before[-_ ]quant|ema_val"
    r"|\bbf16\b|fp32"
)
FLOAT_RESULT = "DIAGNOSTIC post_ema val_loss:1.7500 val_bpb:1.0364 eval_time:2059ms"


def decide(case: Case) -> Finding:
    """The label of the log line that carries the headline; what the code evaluates is for other witnesses."""
    claim = headline(case)
    if claim is None:
        return unknown("no val_bpb is claimed", ORDER_WITNESSES)
    lines = [(run, match[1]) for run in case.runs if (match := matching_result(case, run))]
    if not lines:
        steps = [(run, step) for run in case.runs for step in run.steps if equals(claim, step.val_bpb)]
        if steps:
            run, step = steps[-1]
            return failed(
                f"the headline {claim.value} is the validation line of training step {step.step}, "
                "not a result of the artifact",
                [at_log(case, run, step.line, "headline, before the export")],
            )
        return unknown(f"no log line carries the headline {claim.value}", (Witness.REPRODUCTION,))
    early = [(run, result) for run, result in lines if _before_export(run, result)]
    if early and len(early) == len(lines):
        run, result = early[-1]
        return failed(
            f"the headline comes from {result.label!r}, logged before the artifact was read back",
            [at_log(case, run, line.line, "headline result") for run, line in early],
        )
    labels = sorted({result.label for _, result in lines})
    return passed(
        f"the headline is {listed(labels)}, logged after the export",
        [at_log(case, run, result.line, "headline result") for run, result in lines],
    )


def _before_export(run: LogRun, result: EvalResult) -> bool:
    """Labelled as a float result, or logged before the size of the compressed model while later results exist."""
    packed = [size.line for size in size_lines(run, "model")] + [size.line for size in size_lines(run, "total")]
    if BEFORE_EXPORT.search(result.label) or BEFORE_EXPORT.search(result.text.split("val_", 1)[0]):
        return True
    return bool(packed) and result.line < min(packed) and any(r.line > max(packed) for r in run.results)


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
            variant(
                done=(Run(bpb=1.0412, before_export=(FLOAT_RESULT,)),), val_bpb=1.0364, val_loss=1.75, seed_results=None
            ),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
