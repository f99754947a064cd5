"""PG-T-no-third-phase: Everything belongs to training or evaluation."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.calibration import calibrations
from rules.examples import runs, variant
from rules.support import failed, warned
from rules.testimony import ORDER_WITNESSES, from_timelines

AFTER_THE_CAP = ("gptq:calibrating with training data...", "gptq:calibrated 54 layers in 4.3s")
SELF_GENERATED = (
    "gptq:generating autoregressive calibration data (64 seqs x 2048 tokens, temp=0.8)...",
    "gptq:generated 64 sequences in 196.7s",
    "gptq:collected hessians for 54 layers (AR self-gen)",
)
CAP = 600.2


def decide(case: Case) -> Finding:
    """Data-driven work between the training clock and evaluation, as the logs show it."""
    found = calibrations(case)
    data_driven = [
        each
        for each in found
        if each.after_stop
        and each.source not in ("generated", "random")
        and (each.end > CAP or (each.seconds is None and each.trained >= 599.8))
    ]
    if data_driven and not all(each.reserve for each in data_driven):
        first = next(each for each in data_driven if not each.reserve)
        return failed(
            f"calibration on data after the clock stopped at {first.trained:.1f} s, in neither budget", first.evidence
        )
    if data_driven:
        first = max(data_driven, key=lambda each: each.end)
        return warned(
            f"calibration on data ends at {first.end:.1f} s with {first.reserve:g} s reserved",
            first.evidence,
            "Accepted in April and May with a reserve of 0.5 s (#1787, #1855); see PG-D-gptq-calibration.",
        )
    own = [each for each in found if each.after_stop and each.source == "generated"]
    if own:
        return warned(
            "calibration on self-generated text after the clock stopped, in neither budget",
            own[0].evidence,
            "Accepted with 197-242 s (#1019, #1204); whether it belongs to a budget was never settled.",
        )
    return from_timelines(case, "whether data or gradients are used between training and evaluation", rule=RULE.id)


RULE = Rule(
    id="PG-T-no-third-phase",
    title="Everything belongs to training or evaluation",
    statement=(
        "There is no untimed phase: artifact creation that consumes data or compute of substance must be "
        "inside one of the two budgets, and may not use the other phase's data."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 24),
    authority="organiser ruling (valerio-oai)",
    violations=(
        (
            '"post-training" stage with gradient steps, data-driven calibration, search over quantisation '
            "settings scored on val"
        ),
    ),
    allowed=("entropy coding, packing, weight-only quantisation (tolerated, see PG-T-train)",),
    history="Severity: illegal (record track). valerio-oai to saml212 on #609.",
    legal_precedents=(634, 1060),
    illegal_precedents=(593, 606, 609, 656),
    sources=(
        "https://github.com/openai/parameter-golf/pull/609",
        "https://github.com/openai/parameter-golf/pull/656",
        "https://github.com/openai/parameter-golf/pull/593",
        "https://github.com/openai/parameter-golf/issues/1017",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Move every step that uses data or gradients into the 600 s of training, or into evaluation on tokens "
        "already scored."
    ),
    legal=(Example("export right after training", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example(
            "calibration on training data in neither budget",
            variant(done=runs(train_ms=600_031, before_export=AFTER_THE_CAP)),
            Status.FAIL,
        ),
        Example(
            "self-generated calibration: accepted, shown as a warning",
            variant(done=runs(before_export=SELF_GENERATED)),
            Status.WARN,
        ),
    ),
    decide=decide,
)
