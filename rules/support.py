"""Short forms for rules: a finding in one call, evidence from a typed line, numbers as people read them.

Rules leave `rule`, `severity` and `remedy` of a finding empty; the judge fills them from the rule.
"""

from __future__ import annotations

from collections.abc import Iterable

from auditor.documents.model import Quantity, Source
from auditor.findings import Evidence, Finding, Severity, Status, Witness

MAX_EVIDENCE = 12


def passed(summary: str, evidence: Iterable[Evidence] = (), explanation: str = "") -> Finding:
    """The rule is met; `summary` names the numbers."""
    return _finding(Status.PASS, summary, evidence, explanation)


def failed(
    summary: str, evidence: Iterable[Evidence] = (), explanation: str = "", severity: Severity = Severity.ADVICE
) -> Finding:
    """The rule is broken. `severity` softens the rule's own for this case (left out: the rule's own)."""
    return _finding(Status.FAIL, summary, evidence, explanation, severity)


def warned(summary: str, evidence: Iterable[Evidence] = (), explanation: str = "") -> Finding:
    """Something a reviewer has to look at, not proof of a breach."""
    return _finding(Status.WARN, summary, evidence, explanation)


def unknown(
    summary: str, decided_by: Iterable[Witness] = (), explanation: str = "", evidence: Iterable[Evidence] = ()
) -> Finding:
    """Could not see; `decided_by` names the witnesses that could."""
    return Finding(
        "", Status.UNKNOWN, summary, explanation, tuple(evidence)[:MAX_EVIDENCE], decided_by=tuple(decided_by)
    )


def not_applicable(summary: str) -> Finding:
    """The rule has nothing to say about this submission."""
    return Finding("", Status.NOT_APPLICABLE, summary)


def _finding(
    status: Status, summary: str, evidence: Iterable[Evidence], explanation: str, severity: Severity = Severity.ADVICE
) -> Finding:
    return Finding("", status, summary, explanation, tuple(evidence)[:MAX_EVIDENCE], severity=severity)


def at(place: Source | Quantity, note: str = "") -> Evidence:
    """Evidence from where a value was read."""
    source = place.source if isinstance(place, Quantity) else place
    return Evidence(source.path, source.line, source.excerpt, note or source.key)


def at_line(path: str, line: int | None, text: str = "", note: str = "") -> Evidence:
    """Evidence from a line of a log or document."""
    return Evidence(path, line, text, note)


def number(value: float) -> str:
    """1234567 as `1,234,567`."""
    return f"{value:,.0f}"


def plural(count: int, noun: str) -> str:
    """`1 log`, `3 logs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listed(items: Iterable[object], limit: int = 5) -> str:
    """Items in words, the tail counted: `a, b, c and 4 more`."""
    names = [str(item) for item in items]
    head = ", ".join(names[:limit])
    return head if len(names) <= limit else f"{head} and {len(names) - limit} more"
