"""What a rule is: its text, its sources, its examples, and the predicate that decides it.

One file per rule. A rule sees a `Case` (claims, measurements, forensic facts, timelines) and returns a `Finding`.
Its own legal and illegal examples are small submissions that the test suite runs through the whole review.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track


@dataclass(frozen=True)
class Example:
    """A small submission that shows a rule at work.

    Attributes:
        title: what it shows, a phrase.
        files: path -> text, laid over `rules.examples.package()` (a complete, clean record submission); a value of
            None removes the file of that name. Paths without a slash are relative to the record folder.
        expect: status the rule must report.
        pull_request: changes outside the folder ("M train_gpt.py"), for rules about the file list.
        witnesses: witnesses that must have testified for the example to be decided.
        folder: record folder the files lie in, "" for the record track's.
        dated: date of the submission, None for the package's own (examples of rules that came later).
    """

    title: str
    files: Mapping[str, str | bytes | None] = field(default_factory=dict)
    expect: Status = Status.PASS
    pull_request: tuple[str, ...] = ()
    witnesses: tuple[Witness, ...] = (Witness.DOCUMENTS,)
    folder: str = ""
    dated: dt.date | None = None


@dataclass(frozen=True)
class Rule:
    """A rule of the rule book.

    Attributes:
        id: stable identifier (`PG-S-cap`).
        title, statement: in our words.
        severity: what a failure means; `tracks` where it binds; `since` the date it took effect.
        reaches_back: how organisers applied it to submissions older than `since`; "" when those are judged by their
            own date.
        authority: who says so.
        violations, allowed: what breaks it and what does not, at the level of code or documents.
        history: exceptions, disputes, changes.
        legal_precedents, illegal_precedents: pull request numbers on both sides.
        sources: addresses.
        witnesses: who can decide it, the first that can is asked first.
        remedy: what makes it right.
        legal, illegal: examples, run by the tests.
        decide: the predicate; None for a rule whose witnesses do not exist yet.
    """

    id: str
    title: str
    statement: str
    severity: Severity
    tracks: frozenset[Track]
    since: dt.date
    authority: str
    violations: tuple[str, ...]
    allowed: tuple[str, ...]
    sources: tuple[str, ...]
    witnesses: tuple[Witness, ...]
    remedy: str
    reaches_back: str = ""
    history: str = ""
    legal_precedents: tuple[int, ...] = ()
    illegal_precedents: tuple[int, ...] = ()
    legal: tuple[Example, ...] = ()
    illegal: tuple[Example, ...] = ()
    decide: Callable[[Case], Finding] | None = None
