"""What the program's own byte count says, beside what the logs prove.

`case.facts["byte_table"]` is the verdict of `auditor.static.byte_table`: the table and the sum of the shipped code,
evaluated. The logs come first: a denominator they prove wrong is wrong whatever the code says, and a right one beside
code that counts otherwise is a conflict somebody has to look at.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from auditor.case import Case
from auditor.findings import Evidence, Finding, Status, Witness
from rules.support import failed, passed, warned

MARKER_COUNTED = "marker counted"


def with_code(case: Case, finding: Finding, bugs: Collection[str], decides: bool = True) -> Finding:
    """A finding from the logs, completed by the evaluated byte count.

    Args:
        bugs: names of the defects that break the rule (`ByteTable.bug`).
        decides: whether a right table and sum settle the rule where the logs cannot.
    """
    table: Any = case.facts.get("byte_table")
    if table is None or finding.status is Status.NOT_APPLICABLE:
        return finding
    places = [Evidence(p.path, p.line, p.excerpt, p.what) for p in table.places]
    wrong = table.status == "wrong" and table.bug in bugs
    if finding.status is Status.FAIL:
        return replace(finding, evidence=(*finding.evidence, *places)[:12]) if wrong else finding
    if finding.status is Status.PASS:
        if not wrong:
            return finding
        return warned(
            f"logs and code disagree: {table.reason}; {finding.summary}",
            [*places, *finding.evidence],
            "The logged numbers have the right denominator, the code shipped with them counts otherwise.",
        )
    if wrong:
        return _broken(table, places)
    if decides and table.status == "correct":
        note = "The table was evaluated over pieces of every kind and the sum over pairs of tokens."
        return replace(passed(table.reason, places, note), witness=Witness.STATIC)
    return finding


def _broken(table: Any, places: list[Evidence]) -> Finding:
    # Counting too few bytes makes the score worse than it is: wrong, but nothing is gained by it.
    lowered = table.ratio is not None and table.ratio <= 1
    # A marker that stays in the piece may be stripped by a step that was not seen; without logs it is a question.
    doubtful = table.bug == MARKER_COUNTED
    factor = f" (about {table.ratio:.3f} times the bytes)" if table.ratio is not None else ""
    make = warned if lowered or doubtful else failed
    return replace(make(f"{table.reason}{factor}", places), witness=Witness.STATIC)
