"""What the abstract machine writes down while it walks a program: events in a tree, still mutable.

`timeline_builder` turns them into the shared vocabulary (`auditor.timeline`) once it is known which scores were
reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from auditor.static.values import NONE, Facts, Iterations

Where = tuple[str, int]


@dataclass
class Record:
    """One event: `kind` is the event's class name in lower case, `where` its line, `named` the line that names the
    files of a read, `stack` the call sites above it.

    `learnt` of what is written to a file: the lines where it learnt from validation tokens.
    """

    kind: str
    where: Where
    stack: tuple[Where, ...] = ()
    split: str = "unknown"
    at: Iterations = NONE
    loops: tuple[tuple[int, int], ...] = ()
    detail: str = ""
    order: int = 0
    named: Where | None = None
    learnt: frozenset[Where] = frozenset()


@dataclass
class ScoreRecord(Record):
    """A loss computed for tokens. `influences` are the learnt facts that overlap its targets, `partial`
    flags that say which part of the stream the targets are."""

    number: int = 0
    offset: int = 0
    influences: Facts = NONE
    owners: frozenset[int] = NONE
    counted: bool = False
    artifact: bool = False
    own_target: bool = False
    facts: Facts = NONE
    partial: Facts = NONE


@dataclass
class UpdateRecord(Record):
    """State changed: owner number, how (`optimizer`, `write`, `calibration`, `table`), from which facts."""

    owner: int = 0
    how: str = ""
    facts: Facts = NONE
    adapter: bool = False
    after: Where | None = None


@dataclass
class ReportRecord(Record):
    """Something printed or written to a log: the facts it contains and the literal text around the values."""

    facts: Facts = NONE
    text: str = ""


@dataclass
class LoopRecord:
    """A loop entry: number of this entry, its line, source text of what it runs over, trip count if known."""

    number: int
    where: Where
    over: str
    trips: int | None
    passes: list[list] = field(default_factory=list)


@dataclass
class BranchRecord:
    """A branch; `taken` None when the condition could not be decided."""

    where: Where
    condition: str
    taken: bool | None
    then: list = field(default_factory=list)
    otherwise: list = field(default_factory=list)


@dataclass
class CallRecord:
    """A call of a function of the submission with the events inside."""

    where: Where
    function: str
    body: list = field(default_factory=list)
