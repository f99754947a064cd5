"""Byte rules where logs and the evaluated code meet: who wins, and that a conflict is shown."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from types import SimpleNamespace

import pytest

from auditor.case import Case
from auditor.documents.model import EvalResult, LogRun, Metadata, Quantity, Source, StepLine, TrainLog
from auditor.findings import Finding, Status, Witness
from auditor.static.byte_verdict import BytePlace, ByteTable, FormulaFault
from auditor.submission import Submission, Track
from auditor.unpack import Program
from rules import rule
from rules.byte_code import with_code, with_formula
from rules.pg_b_bpb_formula import FAULTS
from rules.support import failed, passed, unknown

BUG = "double leading space"
PLACES = [BytePlace("train_gpt.py", 7, "size[i] = n + 1", "table of bytes")]
WRONG = ByteTable("wrong", BUG, "counted twice", PLACES, 1.167)
LOWERED = ByteTable("wrong", BUG, "counted too little", PLACES, 0.83)
RIGHT = ByteTable("correct", "", "as decoded", PLACES, 1.0)
BLIND = ByteTable("undecided", "external table", "from a file", PLACES)


@pytest.mark.parametrize(
    ("logged", "table", "expected"),
    [
        (unknown("no line"), WRONG, Status.FAIL),
        (unknown("no line"), LOWERED, Status.WARN),
        (unknown("no line"), RIGHT, Status.PASS),
        (unknown("no line"), BLIND, Status.UNKNOWN),
        (unknown("no line"), None, Status.UNKNOWN),
        (passed("canonical"), WRONG, Status.WARN),
        (passed("canonical"), RIGHT, Status.PASS),
        (failed("too many bytes"), RIGHT, Status.FAIL),
        (failed("too many bytes"), WRONG, Status.FAIL),
    ],
)
def test_who_is_believed(logged: Finding, table: ByteTable | None, expected: Status) -> None:
    case = Case(None, Program(), facts={"byte_table": table})  # type: ignore[arg-type]
    found = with_code(case, logged, (BUG,))
    assert found.status is expected
    if table is WRONG:
        assert any(item.line == 7 for item in found.evidence)
    if expected is not logged.status and logged.status is Status.UNKNOWN:
        assert found.witness is Witness.STATIC


def ran(matched: str, implied: float) -> SimpleNamespace:
    """A testimony whose headline is made of losses as `matched` says, its bits over `implied` bytes."""
    import numpy as np

    from auditor.dynamic.attribution import Attribution, Printed

    none, printed = np.empty(0), Printed(1, "final_exact", 3.0, 1.9, 8, "final_exact")
    explained = Attribution(
        printed, "all", none, none, none, 1, 3.0, 1.9, 50_000, False, 0.0, matched, implied
    )  # fmt: skip
    return SimpleNamespace(attribution=explained)


NO_COUNT = ByteTable("none", reason="what counts its bytes was not found")


@pytest.mark.parametrize("table", [BLIND, NO_COUNT])
@pytest.mark.parametrize(
    ("matched", "implied", "expected"),
    [
        ("loss and bpb", 50_000.0, Status.PASS),
        ("loss", 58_400.0, Status.WARN),
        ("bpb", 50_000.0, Status.UNKNOWN),
        ("loss", 58_400.4, Status.UNKNOWN),  # bits of another origin say nothing about bytes
    ],
)
def test_what_reading_leaves_open_is_settled_by_the_executed_count(
    table: ByteTable, matched: str, implied: float, expected: Status
) -> None:
    case = Case(None, Program(), facts={"byte_table": table, "run": ran(matched, implied)})  # type: ignore[arg-type]
    found = with_code(case, unknown("no line"), (BUG,))
    assert found.status is expected
    if expected is Status.UNKNOWN:
        assert table.reason in found.explanation
    else:
        assert found.witness is Witness.RUN
    if expected is Status.WARN:
        assert "1.1680 times" in found.summary


def test_an_executed_count_does_not_overrule_the_evaluated_one() -> None:
    facts = {"byte_table": WRONG, "run": ran("loss and bpb", 50_000.0)}
    assert with_code(Case(None, Program(), facts=facts), unknown("no line"), (BUG,)).status is Status.FAIL  # type: ignore[arg-type]


def test_a_defect_of_another_rule_does_not_settle_this_one() -> None:
    case = Case(None, Program(), facts={"byte_table": WRONG})  # type: ignore[arg-type]
    assert with_code(case, unknown("no line"), ("constant ratio",)).status is Status.UNKNOWN


def logged(loss: float, bpb: float, tokens: int | None, label: str = "final_int8_roundtrip_exact", claim: float = 0.0,
           settings: dict[str, str] | None = None) -> Case:  # fmt: skip
    """A case with one run that prints one result, and a claim (the result's own by default)."""
    text = f"{label} val_loss:{loss:.8f} val_bpb:{bpb:.8f}"
    lines = ["stopping_early: wallclock_cap train_time:599000ms step:7000/20000", text]
    run = LogRun("train.log", 1, len(lines), seed=42, settings={"data_path": "./fineweb10B_sp1024"} | (settings or {}))
    run.stop = StepLine(1, 7000, train_seconds=599.0, text=lines[0])
    run.val_tokens = Quantity(tokens, Source("train.log", 1)) if tokens else None
    run.results = [EvalResult(2, label, loss, bpb, digits=8, text=text)]
    submission = Submission("a", "records/track_10min_16mb/a", {}, lambda path: b"", track=Track.RECORD,
                            date=dt.date(2026, 4, 30))  # fmt: skip
    claimed = Quantity(claim or bpb, Source("submission.json", 1))
    return Case(
        submission,
        Program(),
        [Metadata("submission.json", val_bpb=claimed)],
        logs=[TrainLog("train.log", lines, [run])],
    )


MARKED = ByteTable("wrong", "marker counted", "three bytes for a marker", PLACES, 1.334)


def test_a_doubtful_defect_is_proved_by_a_log_that_has_the_same_excess() -> None:
    part = logged(3.40875376, 1.51106031, 261_120)  # 0.4 % of the set: only the ratio can speak
    part.facts["byte_table"] = MARKED
    found = with_code(part, unknown("no line"), ("marker counted",))
    assert found.status is Status.FAIL and "1.336 times" in found.summary
    assert any(item.path == "train.log" for item in found.evidence)
    usual = logged(3.40875376, 3.40875376 * 0.41052 / 0.6931472, 261_120)
    usual.facts["byte_table"] = MARKED
    assert with_code(usual, unknown("no line"), ("marker counted",)).status is Status.WARN


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (FormulaFault("not divided by ln 2", tuple(PLACES), True), Status.FAIL),
        (FormulaFault("not divided by ln 2", tuple(PLACES), False), Status.WARN),
        (FormulaFault("rates averaged instead of sums divided", tuple(PLACES), True), Status.WARN),
        (FormulaFault("constant ratio", tuple(PLACES), True), Status.UNKNOWN),
    ],
)
def test_faults_of_the_formula(fault: FormulaFault, expected: Status) -> None:
    case = logged(2.5, 1.0, None)
    case.facts["byte_table"] = ByteTable("none", faults=[fault])
    assert with_formula(case, unknown("no line"), FAULTS).status is expected
    assert with_formula(case, passed("canonical"), FAULTS).status is Status.PASS  # the logs prove the result


def test_a_claim_corrected_by_hand_names_the_line_behind_it() -> None:
    wrong, right = 164_594_398, 151_074_309
    case = logged(2.33544778, 0.97954725, 47_851_520, claim=0.97954725 * wrong / right)
    found = rule("PG-B-sidecar").decide(case)
    assert found.status is Status.WARN and "corrected by hand" in found.summary
    assert found.evidence[0].line == 2
    assert rule("PG-B-sidecar").decide(logged(2.33544778, 0.97954725, 47_851_520)).status is Status.FAIL


def test_a_sidecar_switched_off_on_transformed_data() -> None:
    data = {"datasets_dir": "./fineweb10B_sp8192_lossless_caps", "caseops_enabled": "0"}
    case = logged(2.4, 1.07, None, settings=data)
    run = case.logs[0].runs[0]
    run.results = [replace(run.results[0], val_loss=None)]
    assert rule("PG-B-sidecar").decide(case).status is Status.WARN
    case.logs[0].runs[0].settings["caseops_enabled"] = "1"
    assert rule("PG-B-sidecar").decide(case).status is Status.UNKNOWN
