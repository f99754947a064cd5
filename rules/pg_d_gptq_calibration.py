"""PG-D-gptq-calibration: GPTQ/AWQ calibration: where, when and on what."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from auditor.timeline import Calibrate, Phase, Split, Timeline
from rules.base import Example, Rule
from rules.calibration import Calibration, calibrated_on_validation, calibrations
from rules.events import blind_spots, place
from rules.examples import runs, variant
from rules.support import failed, passed, plural, warned
from rules.testimony import from_timelines

AFTER_THE_CAP = ("gptq:calibrating with training data...", "gptq:calibrated 54 layers in 4.3s")
RESERVED = (
    "gptq:reserving 8.0s, effective=592000ms",
    "GPTQ:collecting Hessians from calibration data...",
    "GPTQ:collected 54 Hessians in 3.6s",
)
SHORT_RESERVE = (
    "gptq:reserving 0.5s, effective=599500ms",
    "GPTQ:collecting Hessians from calibration data...",
    "GPTQ:collected 54 Hessians in 3.6s",
)
SELF_GENERATED = (
    "gptq:generating autoregressive calibration data (64 seqs x 2048 tokens, temp=0.8)...",
    "gptq:generated 64 sequences in 196.7s",
    "gptq:collected hessians for 54 layers (AR self-gen)",
)
ON_VALIDATION = ("gptq:calibrating on validation data...", "gptq:calibrated 54 layers in 4.3s")

CAP = 600.0
TOLERANCE = 0.2
# Beyond this nobody trained for the clock of the record track; when the calibration ran decides nothing then, seconds.
LONG_RUN = 660.0
# Overruns of accepted records with a reserve went up to 6.9 s; nothing beyond was ever accepted.
ACCEPTED_OVERRUN = 10.0


def decide(case: Case) -> Finding:
    """The order in the logs and its seconds; sources the logs do not name are left to the code."""
    heard = from_timelines(case, "on which data the quantiser is calibrated, and when", read, rule=RULE.id)
    found = calibrations(case)
    if not found or heard.status is Status.FAIL:  # what was read from weighs more than when
        return heard
    verdicts = [_judge(each) for each in found]
    worst = min(verdicts, key=lambda finding: _ORDER.index(finding.status))
    return replace(worst, summary=f"{worst.summary} ({plural(len(found), 'run')} with logged calibration)")


_ORDER = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS)


def _judge(found: Calibration) -> Finding:
    took = "an unlogged time" if found.seconds is None else f"{found.seconds:.1f} s"
    story = f"training stopped at {found.trained:.1f} s, calibration took {took}"
    if found.source == "validation":
        return failed(f"the log says that calibration reads validation data; {story}", found.evidence)
    if found.source in ("generated", "random"):
        return passed(f"calibrated on {found.source} tokens, no data set is read", found.evidence)
    if not found.after_stop or (found.end <= CAP + TOLERANCE and found.seconds is not None):
        return passed(f"{story}: inside the {CAP:.0f} s", found.evidence)
    if found.trained > LONG_RUN:
        return warned(f"{story}: training itself did not keep to the {CAP:.0f} s (PG-T-train)", found.evidence)
    over = found.end - CAP
    if found.seconds is None and found.trained < CAP - TOLERANCE:
        # Without its seconds the end is open: 4 s and more before the cap have always been enough.
        spare = f"{story}, {CAP - found.trained:.1f} s before the cap"
        return passed(spare, found.evidence) if CAP - found.trained >= 4 else warned(spare, found.evidence)
    if found.reserve and over <= ACCEPTED_OVERRUN:
        return warned(
            f"{story}: {over:.1f} s past the cap, with {found.reserve:g} s reserved", found.evidence, _PRECEDENTS
        )
    return failed(
        f"{story}: data-driven calibration after the {CAP:.0f} s without a reserve that covers it",
        found.evidence,
        _PRECEDENTS,
    )


_PRECEDENTS = (
    "Refused in March for 3.6 s after the cap (#606, #706); accepted in April and May with a 0.5 s reserve and "
    "3.5-6.9 s of Hessians (#1787, #1855, #2135). #1868 repeated it with 8 s reserved and lost 0.00004 BPB."
)


def read(timeline: Timeline) -> Finding | None:
    """Calibration on validation tokens is a breach at any time; on training tokens only after the clock."""
    events = [event for event in timeline.events() if isinstance(event, Calibrate)]
    on_val = calibrated_on_validation(timeline)
    if on_val and timeline.witness == Witness.STATIC.value:
        # Statistics that reach the weights have an answer of their own; what becomes of these was not seen.
        return warned(
            "activations of validation tokens are collected before the artifact is written",
            [place(event) for event in on_val],
        )
    if on_val:
        return failed("the quantiser is calibrated on validation tokens", [place(event) for event in on_val])
    late = [event for event in events if event.span.split is Split.TRAIN and event.phase is not Phase.TRAINING]
    if late:
        return warned(
            "calibration on training data stands after the training loop; the time decides",
            [place(event) for event in late],
        )
    if any(blind_spots(timeline)):
        return None
    return passed("no calibration reads validation data or training data after training")


RULE = Rule(
    id="PG-D-gptq-calibration",
    title="GPTQ/AWQ calibration: where, when and on what",
    statement=(
        "Calibration that consumes training data belongs to the 600 s of training and must be provably inside "
        "it. Calibration on validation tokens that have not been scored is illegal. Calibration on text the "
        "model generates itself is accepted and was merged although it ran ~200 s after the training clock "
        "had stopped."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 23),
    authority="organiser rulings (valerio-oai)",
    violations=(
        (
            "log order `stopping_early: ... train_time:600xxxms` followed by Hessian collection from "
            "`train_loader` (3.6-46 s in the closed PRs)"
        ),
        "Hessians collected with hooks while running eval batches of val tokens",
    ),
    allowed=(
        (
            "`GPTQ_RESERVE_SECONDS`/`gptq_reserve_ms` such that train_time + calibration <= 600 s (#634, "
            "#1060: 586 s + 10-14 s; #1868 rerun: 592 s + 3.5 s)"
        ),
        (
            'AR self-generated calibration (#1019: 64x2048 tokens, 196.7 s after the cap; ruled "probably '
            'legal" on #728 and merged)'
        ),
        "random-token calibration",
        (
            "data-free post-processing: quantisation arithmetic, entropy coding, pruning by weights only "
            "(10-118 s seen after the cap in merged rows)"
        ),
    ),
    history=(
        "Severity: illegal (train data after 600 s, or val data). Tolerance in practice: merged #1787 and "
        "#1855 reserved 0.5 s while the log shows Hessian collection of 3.5-4.9 s after 599.4-599.6 s of "
        "training, i.e. 603-604.5 s; the organisers accepted them, #1868 added a compliant rerun with 8 s "
        "reserve (difference 0.00004 BPB) and #1950 exists only to repair this. Report as WARN with the "
        "measured overrun, FAIL when the reserve is absent. valerio-oai on #609: artifact creation is not "
        "untimed, everything must fit into training or evaluation."
    ),
    legal_precedents=(634, 1019, 1060, 1204, 1868, 1950),
    illegal_precedents=(529, 535, 544, 545, 569, 576, 585, 593, 606, 609, 615, 626, 631, 639, 656, 674, 706, 728, 1028),
    sources=(
        "https://github.com/openai/parameter-golf/pull/529",
        "https://github.com/openai/parameter-golf/pull/569",
        "https://github.com/openai/parameter-golf/pull/593",
        "https://github.com/openai/parameter-golf/pull/606",
        "https://github.com/openai/parameter-golf/pull/609",
        "https://github.com/openai/parameter-golf/pull/706",
        "https://github.com/openai/parameter-golf/pull/728",
        "https://github.com/openai/parameter-golf/pull/1019",
        "https://github.com/openai/parameter-golf/pull/1028",
        "https://github.com/openai/parameter-golf/pull/634",
        "https://github.com/openai/parameter-golf/pull/1868",
        "https://github.com/openai/parameter-golf/pull/1950",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Stop training early enough that training plus calibration end within 600 s (GPTQ_RESERVE_SECONDS), "
        "or calibrate on text the model generates itself; never on validation tokens."
    ),
    legal=(
        Example("8 s reserved, Hessians inside the cap", variant(done=runs(train_ms=592_012, before_export=RESERVED))),
        Example("self-generated calibration after the cap", variant(done=runs(before_export=SELF_GENERATED))),
    ),
    illegal=(
        Example(
            "a run of an hour, whose training time is the matter",
            variant(done=runs(train_ms=3_600_012, before_export=AFTER_THE_CAP)),
            Status.WARN,
        ),
        Example(
            "Hessians from training data after the cap",
            variant(done=runs(train_ms=600_031, before_export=AFTER_THE_CAP)),
            Status.FAIL,
        ),
        Example(
            "0.5 s reserved, 3.6 s used: accepted, shown as a warning",
            variant(done=runs(train_ms=599_560, before_export=SHORT_RESERVE)),
            Status.WARN,
        ),
        Example(
            "calibration on validation data",
            variant(done=runs(train_ms=592_012, before_export=ON_VALIDATION)),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
