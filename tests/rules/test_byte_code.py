"""Byte rules where logs and the evaluated code meet: who wins, and that a conflict is shown."""

from __future__ import annotations

import pytest

from auditor.case import Case
from auditor.findings import Finding, Status, Witness
from auditor.static.byte_verdict import BytePlace, ByteTable
from auditor.unpack import Program
from rules.byte_code import with_code
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


def test_a_defect_of_another_rule_does_not_settle_this_one() -> None:
    case = Case(None, Program(), facts={"byte_table": WRONG})  # type: ignore[arg-type]
    assert with_code(case, unknown("no line"), ("constant ratio",)).status is Status.UNKNOWN
