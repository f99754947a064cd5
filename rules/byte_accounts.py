"""Byte accounting of the reported results: loss and BPB of one line reveal the denominator they were made with.

The arithmetic is `auditor.documents.metric`; here each kind of wrong denominator is led to the rule it breaks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from auditor.case import Case
from auditor.documents.ledger.headline import with_loss
from auditor.documents.metric import Denominator, diagnose_line, tokenizers
from auditor.documents.model import EvalResult, LogRun, StepLine
from auditor.findings import Evidence, Finding, Witness
from rules.measures import at_log, claim_is_logged, headline, matched_by, reported, reported_runs
from rules.support import failed, passed, plural, unknown, warned


@dataclass(frozen=True)
class Account:
    """Denominator behind the headline result of one run."""

    run: LogRun
    result: EvalResult | StepLine
    denominator: Denominator
    evidence: Evidence

    @property
    def exact(self) -> bool:
        """Whether the line has the digits that give the bytes to a few units."""
        return getattr(self.result, "digits", 4) >= 6


def accounts(case: Case) -> list[Account]:
    """One account for every reported run that prints loss and BPB of its headline.

    Lines that contradict the other logs of the submission are left out: what is odd about them is the number, not how
    the program counts bytes (PG-P-log-provenance).
    """
    contradicted = {
        (source.path, source.line)
        for fact in case.forensics
        if fact.kind == "quotient-between-logs" and fact.strength == "contradiction"
        for source in fact.sources
    }
    found = []
    for item in reported(case):
        result = with_loss(item)
        if (item.run.path, result.line) in contradicted:
            continue
        denominator = diagnose_line(result, item.run)
        if denominator is not None:
            evidence = at_log(case, item.run, result.line, denominator.reason)
            found.append(Account(item.run, result, denominator, evidence))
    return found


def canonical(case: Case) -> bool:
    """Whether every reported result has the bytes of the full validation set."""
    found = accounts(case)
    return bool(found) and all(account.denominator.accepted for account in found)


def unclaimed(case: Case, kinds: Collection[str]) -> list[Account]:
    """Results of the reported runs with a denominator of one of `kinds`, where no log line is the claim.

    The claim then belongs to a line nobody can name, and a right result elsewhere in the log says nothing about it.
    """
    if claim_is_logged(case):
        return []
    found = []
    for run in reported_runs(case):
        for result in run.results:
            denominator = diagnose_line(result, run)
            if denominator is not None and denominator.accepted is False and denominator.kind in kinds:
                evidence = at_log(case, run, result.line, denominator.reason)
                found.append(Account(run, result, denominator, evidence))
    return found


#: Denominators that leave coverage open and count bytes rightly, or to the author's loss.
RIGHT_RATIO = ("right ratio, coverage unknown", "fewer bytes")
RESCALED = 2e-4  # relative; a mean over seeds differs from each of them by about this much


def rescaled(case: Case, wrong: Collection[Account]) -> str:
    """The claim said as a logged result with its bytes exchanged, "" when it is none."""
    claim = headline(case)
    for account in wrong:
        size, value = account.denominator.bytes, account.result.val_bpb
        right = next((t.bytes for t in tokenizers() if t.name == account.denominator.tokenizer), None)
        if claim is None or size is None or value is None or right is None:
            continue
        expected = value * size.middle / right
        if abs(expected / claim.value - 1) < RESCALED:
            return (
                f"the claimed {claim.value:g} is the logged {value:g} times {round(size.middle):,} / {right:,} bytes: "
                "corrected by hand, printed by no run"
            )
    return ""


def by_denominator(
    case: Case, kinds: Collection[str], what: str, decided_by: tuple[Witness, ...], ratio_decides: bool = True
) -> Finding:
    """Fail when a reported result has a denominator of one of `kinds`, pass when all are right, unknown else.

    Args:
        what: the defect in words, for the summary.
        ratio_decides: whether the right ratio of tokens to bytes suffices (it says nothing about coverage).
    """
    found = accounts(case)
    wrong = [account for account in found if account.denominator.kind in kinds]
    doubtful = unclaimed(case, kinds)
    how = rescaled(case, doubtful)
    if how or (doubtful and not wrong and not matched_by(case)):
        how = how or "no log line is the claim, and this result of the same run is counted so"
        return warned(f"{what}: {doubtful[0].denominator.reason}; {how}", [a.evidence for a in doubtful])
    if wrong:
        return failed(f"{what}: {wrong[0].denominator.reason}", [account.evidence for account in wrong])
    if not found:
        return unknown(
            "no log states loss and BPB of the reported result together",
            decided_by,
            "The byte denominator follows from the two; without them only the code can show it.",
        )
    right = [
        a
        for a in found
        if a.denominator.accepted or (ratio_decides and a.denominator.kind in RIGHT_RATIO and a.denominator.tokenizer)
    ]
    if len(right) == len(found):
        return passed(
            f"{found[0].denominator.reason} ({plural(len(found), 'reported run')} checked)",
            [account.evidence for account in found],
        )
    odd = next(account for account in found if account not in right)
    return unknown(f"cannot tell from the log: {odd.denominator.reason}", decided_by, evidence=[odd.evidence])
