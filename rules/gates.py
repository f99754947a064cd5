"""Gate counters and boosts of n-gram hints, as logs state them (rule book, PG-C1-ngram-target-gate).

The same C source is legal or not depending on these values: the log decides, not the code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.case import Case
from auditor.documents.model import LogRun
from auditor.findings import Evidence
from rules.measures import as_number, at_log, reported_runs, setting

_COUNTER = re.compile(r"\b(within_gate|word_gate|agree2plus)\s*[=:]\s*([\d,]+)")
_BOOSTS = (
    "within_boost",
    "word_boost",
    "agree_add_boost",
    "ngram_within_beta",
    "ngram_word_beta",
    "ngram_tilt_within_boost",
    "ngram_tilt_word_boost",
)


@dataclass(frozen=True)
class Gate:
    """Gates on the current token in one run: `off` when every counter, or every boost, is zero."""

    run: LogRun
    evidence: Evidence
    off: bool
    says: str


def gate_findings(case: Case) -> list[Gate]:
    """What each reported run says of its gates; runs that print no counters are left out."""
    return [gate for run in reported_runs(case) if (gate := _of_run(case, run))]


def target_gates(case: Case) -> list[Gate]:
    """The reported runs in which a gate on the current token was active."""
    return [gate for gate in gate_findings(case) if not gate.off]


def _of_run(case: Case, run: LogRun) -> Gate | None:
    counters, line = _counters(case, run)
    if line is None:
        return None
    boosts = {name: value for name in _BOOSTS if (value := as_number(setting(run, name))) is not None}
    idle = not any(counters.values()) or (bool(boosts) and not any(boosts.values()))
    says = ", ".join(f"{name}={value:,}" for name, value in counters.items())
    if boosts:
        says += " with " + ", ".join(f"{name}={value:g}" for name, value in boosts.items())
    return Gate(run, at_log(case, run, line, "gate counters as logged"), idle, says)


def _counters(case: Case, run: LogRun) -> tuple[dict[str, int], int | None]:
    """Largest value of each counter and the line with the largest, None when none is printed."""
    lines = next((log.lines for log in case.logs if log.path == run.path), [])
    found: dict[str, int] = {}
    place = None
    for index in range(run.first_line - 1, min(run.last_line, len(lines))):
        for name, value in _COUNTER.findall(lines[index]):
            count = int(value.replace(",", ""))
            if place is None or count > max(found.values(), default=0):
                place = index + 1
            found[name] = max(found.get(name, 0), count)
    return found, place
