"""What rules report, and what follows from it: statuses, evidence, findings, verdicts.

The four verdicts and their exit codes are those of the project's design: VIOLATION and NOT ELIGIBLE exit with 1,
CLEAN with 0, NEEDS REVIEW with 3, ERROR (could not be audited) with 4.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Status(enum.StrEnum):
    """Outcome of one rule. `UNKNOWN` is an honest "could not see" and never counts as a pass."""

    PASS = "pass"
    FAIL = "fail"
    WARN = "warn"
    UNKNOWN = "unknown"
    NOT_APPLICABLE = "not applicable"


class Severity(enum.StrEnum):
    """What a failure means (rule book, section 0)."""

    ILLEGAL = "illegal"
    NOT_RECORD_ELIGIBLE = "not record-eligible"
    PACKAGING = "packaging"
    DISPUTED = "disputed"
    ADVICE = "advice"


class Verdict(enum.StrEnum):
    """The one-word answer of a review."""

    VIOLATION = "VIOLATION"
    NOT_ELIGIBLE = "NOT ELIGIBLE"
    NEEDS_REVIEW = "NEEDS REVIEW"
    CLEAN = "CLEAN"
    ERROR = "ERROR"

    @property
    def exit_code(self) -> int:
        """Process exit code: 0 clean, 1 violation or not eligible, 3 needs review, 4 could not be audited."""
        return {"CLEAN": 0, "VIOLATION": 1, "NOT ELIGIBLE": 1, "NEEDS REVIEW": 3, "ERROR": 4}[self.value]


class Witness(enum.StrEnum):
    """Who saw it (design: four witnesses, one timeline)."""

    DOCUMENTS = "documents"
    STATIC = "static analysis"
    RUN = "CPU run"
    REPRODUCTION = "reproduction"


@dataclass(frozen=True)
class Evidence:
    """One place a reader can look at: a line of a file with its text, or a number with its source.

    Attributes:
        path: file, relative to the repository root (for a decoded layer `train_gpt.py!lzma`).
        line: 1-based line in that file, or None when the evidence is the file itself or its absence.
        excerpt: the line(s) as they stand, untrusted text: every renderer escapes it.
        note: what this place shows, in our words.
    """

    path: str
    line: int | None = None
    excerpt: str = ""
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """Outcome of one rule on one submission.

    Attributes:
        rule: rule id, e.g. `PG-S-cap`.
        status: see `Status`.
        summary: one line with the numbers that decide it.
        explanation: a few sentences for a reader who has not read the rule.
        evidence: places that prove it, the strongest first; a FAIL of illegal severity has at least one.
        remedy: what would make it right, or what to supply so that an unknown can be decided.
        witness: who saw it.
        severity: of the rule, for the submission's track and date (a rule may soften itself, never sharpen).
        decided_by: for UNKNOWN, the witnesses that would decide it.
    """

    rule: str
    status: Status
    summary: str
    explanation: str = ""
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""
    witness: Witness = Witness.DOCUMENTS
    severity: Severity = Severity.ADVICE
    decided_by: tuple[Witness, ...] = field(default=())
