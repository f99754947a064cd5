"""PG-D-val-in-train: No validation data in training."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from auditor.timeline import DISCARDED, Phase, Split, Timeline, Update
from rules.base import Example, Rule
from rules.calibration import calibrated_on_validation
from rules.data_builds import leaky_builds, rebuilt_cleanly
from rules.events import blind_spots, place
from rules.example_program import DATA, edited, program
from rules.examples import variant
from rules.measures import at_log, setting
from rules.order import proven
from rules.support import at_line, failed, passed, warned
from rules.testimony import ORDER_WITNESSES, from_timelines

TRAIN_ON_VAL = edited(DATA, 'fineweb_train_*.bin")):\n            shard', 'fineweb_val_*.bin")):\n            shard')
LINKED = "Before the run: `ln -s fineweb_val_000000.bin data/datasets/val_only/fineweb_train_000000.bin`."
_DISGUISE = re.compile(
    r"\b(?:ln|cp|mv|rsync)\b[^\n]*fineweb_val[^\n]*fineweb_train|fineweb_train\S*\s*(?:->|=>)\s*\S*fineweb_val"
)


def decide(case: Case) -> Finding:
    """Data paths in logs and README first, then what trains on what."""
    for run in case.runs:
        if "fineweb_val" in (setting(run, "train_files") or ""):
            return failed(
                "the training files are the validation shards",
                [at_log(case, run, run.setting_lines.get("train_files"), "training files as logged")],
            )
    text = case.readme.text if case.readme else ""
    disguise = _DISGUISE.search(text)
    if disguise:
        line = text.count("\n", 0, disguise.start()) + 1
        return failed(
            "the README makes validation shards stand in for training shards",
            [at_line(case.readme.path, line, text.splitlines()[line - 1].strip(), "validation data as train files")],
        )
    leak = leaky_builds(case)
    if leak and not rebuilt_cleanly(case):
        return failed(
            f"the training shards hold validation documents: {leak[0].note}",
            leak,
            "See PG-D-val-overlap: this build reserves 10,000 documents and trains on the rest.",
        )
    return from_timelines(
        case, "whether validation tokens reach the weights, the quantiser or a choice between them", read, rule=RULE.id
    )


def read(timeline: Timeline) -> Finding | None:
    """Updates from validation tokens while training are the breach; without blind spots, their absence is a pass."""
    trained = [
        event
        for event in timeline.events()
        if isinstance(event, Update)
        and event.span.split is Split.VAL
        and event.state != DISCARDED
        and event.phase is Phase.TRAINING
    ]
    if trained:
        said = failed if proven(timeline, trained) else warned
        return said("validation tokens update the model during training", [place(event) for event in trained])
    # Where a run collected them is certain; reading answers for statistics that reach the weights by itself.
    collected = calibrated_on_validation(timeline) if timeline.witness == Witness.RUN.value else []
    if collected:
        return failed(
            "activations of validation tokens are collected for the quantiser", [place(event) for event in collected]
        )
    if any(blind_spots(timeline)):
        return None
    return passed("no update before the export takes validation tokens")


RULE = Rule(
    id="PG-D-val-in-train",
    title="No validation data in training",
    statement=(
        "Validation tokens must not influence the trained weights, the quantiser, the tokenizer choice inside "
        "the run, or any other byte of the artifact. Train as if the validation split did not exist."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 19),
    authority="README + organiser rulings",
    violations=(
        (
            "train loader glob that matches `fineweb_val_*`; `TRAIN_ON_VAL=1`; val tokens passed to "
            "optimizer.step before export"
        ),
        (
            "early stopping, checkpoint selection, LR decisions or EMA choice inside the timed run driven by "
            "val loss (state built from validation outcomes)"
        ),
        "GPTQ/AWQ/clip search calibrated on val tokens (#728)",
    ),
    allowed=(
        (
            "periodic `VAL_LOSS_EVERY` logging during training (official baseline does it; its time is "
            "excluded from the training timer)"
        ),
        (
            "offline hyper-parameter tuning against validation across runs - see PG-X-external-compute and "
            "PG-D-val-tuning"
        ),
    ),
    history=(
        "On 2026-03-19 a Discord remark was read as allowing val-only training (#44); 0hq allowed only "
        "single-pass score-then-train. Final README wording: 2026-03-20."
    ),
    legal_precedents=(549, 1019),
    illegal_precedents=(44, 64, 152, 179, 728),
    sources=(
        "https://github.com/openai/parameter-golf/pull/44",
        "https://github.com/openai/parameter-golf/pull/64",
        "https://github.com/openai/parameter-golf/pull/179",
        "https://github.com/openai/parameter-golf/pull/262",
        "https://github.com/openai/parameter-golf/commit/2cff08e1a",
        "https://github.com/openai/parameter-golf/commit/fc6332a9c",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Train, calibrate, select checkpoints and export without the validation shards; then train again, "
        "because weights that have seen them cannot be repaired."
    ),
    legal=(Example("the train loader reads train shards", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example("validation shards linked as train shards", variant(readme_more=LINKED), Status.FAIL),
        Example(
            "the train loader reads validation shards",
            variant(program(data=TRAIN_ON_VAL)),
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
