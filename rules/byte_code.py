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
from auditor.documents.metric import bytes_factor, vocabulary_of
from auditor.findings import Evidence, Finding, Status, Witness
from rules.byte_accounts import accounts
from rules.support import failed, passed, warned

MARKER_COUNTED, LONE = "marker counted", "lone space counted twice"


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
        return _broken(case, table, places)
    if decides and table.status == "correct":
        note = "The table was evaluated over pieces of every kind and the sum over pairs of tokens."
        return replace(passed(table.reason, places, note), witness=Witness.STATIC)
    executed = counted_by_run(case) if table.status in ("undecided", "none") else None
    if executed is not None and (decides or executed.status is not Status.PASS):
        return executed
    if table.status in ("undecided", "none") and table.reason:
        return replace(finding, explanation=f"{finding.explanation} The code: {table.reason}.".strip())
    return finding


def counted_by_run(case: Case) -> Finding | None:
    """What the executed count of bytes says where reading leaves it open; None without a run that shows it.

    The CPU run builds the submission's own table from a tokenizer of the usual size and scores a stream whose decoded
    bytes are known (`auditor.dynamic`): loss and BPB of one printed line give the bytes that were counted.
    """
    attribution: Any = getattr(case.facts.get("run"), "attribution", None)
    if attribution is None or not attribution.official_bytes or attribution.bits_apart:
        return None
    if attribution.matched == "loss and bpb" and attribution.printed.bpb is not None:
        words = f"the executed count is that of the decoded text: {attribution.official_bytes:,} bytes in the run"
        return replace(passed(words), witness=Witness.RUN)
    if attribution.matched == "loss" and attribution.implied_bytes:
        ratio = attribution.implied_bytes / attribution.official_bytes
        words = f"the executed count is {ratio:.4f} times the bytes of the decoded text, with the run's own tokenizer"
        return replace(warned(words, []), witness=Witness.RUN)
    return None


def with_formula(case: Case, finding: Finding, bugs: Collection[str]) -> Finding:
    """A finding that logs leave open, decided by what the printed BPBs are made of (`ByteTable.faults`).

    A fault in every BPB of the program fails; one in some of them is for a reader to judge, and so are faults that
    raise the number or move it by the difference of a few batches only.
    """
    table: Any = case.facts.get("byte_table")
    if table is None or finding.status is not Status.UNKNOWN:
        return finding
    for fault in table.faults:
        if fault.bug in bugs:
            places = [Evidence(p.path, p.line, p.excerpt, p.what) for p in fault.places]
            share = "every BPB the program prints" if fault.everywhere else "a BPB the program prints"
            make = failed if fault.everywhere and fault.bug not in MILD else warned
            return replace(make(f"{share}: {fault.bug}", places, FORMULA), witness=Witness.STATIC)
    return finding


MILD = ("divided by ln 2 twice", "rates averaged instead of sums divided")
FORMULA = (
    "The printed value was followed back to its terms. Bits per byte are summed losses / ln 2 / summed bytes, both over "
    "the same targets."
)


def _broken(case: Case, table: Any, places: list[Evidence]) -> Finding:
    # Counting too few bytes makes the score worse than it is: wrong, but nothing is gained by it.
    lowered = table.ratio is not None and table.ratio <= 1
    # A marker that stays in the piece may be stripped by a step that was not seen; without logs it is a question.
    doubtful = table.bug in (MARKER_COUNTED, LONE)
    agreeing = logs_agree(case, table.ratio)
    factor = f" (about {table.ratio:.3f} times the bytes)" if table.ratio is not None and table.ratio != 1 else ""
    said = f"; {agreeing.note}" if agreeing is not None else ""
    make = warned if lowered or (doubtful and agreeing is None) else failed
    evidence = [*places, agreeing] if agreeing is not None else places
    return replace(make(f"{table.reason}{factor}{said}", evidence), witness=Witness.STATIC)


AGREEMENT, NOTABLE = 0.03, 0.08


def logs_agree(case: Case, ratio: float | None) -> Evidence | None:
    """The log line whose loss and BPB imply the excess of bytes that the code predicts, None when there is none.

    It holds for a part of the validation set as well, where the absolute number of bytes says nothing.
    """
    if ratio is None or abs(ratio - 1) < NOTABLE:
        return None
    for account in accounts(case):
        factor = bytes_factor(account.denominator, vocabulary_of(account.run))
        if factor is not None and abs(factor.middle / ratio - 1) < AGREEMENT and factor.width < AGREEMENT:
            note = f"loss and BPB of the log imply {factor.middle:.3f} times the bytes such tokens have"
            return replace(account.evidence, note=note)
    return None
