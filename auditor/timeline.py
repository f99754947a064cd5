"""The shared vocabulary of the witnesses: events, spans, and a timeline as a tree.

Static analysis writes symbolic spans (chunk i, the whole stream), the CPU run concrete ones (token positions);
both use the same event kinds so that a rule is written once (design, "Four witnesses, one timeline").
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field


class Split(enum.StrEnum):
    """Which data a read, calibration or update consumed."""

    TRAIN = "train"
    VAL = "val"
    GENERATED = "generated"
    RANDOM = "random"
    ARTIFACT = "artifact"
    OTHER = "other"
    UNKNOWN = "unknown"


class Extent(enum.StrEnum):
    """How much of a split a symbolic span covers, relative to the enclosing loop."""

    ALL = "all"
    ITEM = "item i"
    BEFORE = "items before i"
    SCORED = "already scored"
    PART = "part"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Span:
    """Tokens an event touches.

    Attributes:
        split: the data set.
        extent: symbolic size; `ITEM` and `BEFORE` refer to the loop named in `loop`.
        loop: identity of the loop whose item is meant (a `Loop.label`), empty when none.
        positions: concrete half-open ranges of token positions, only from an executed timeline.
    """

    split: Split
    extent: Extent = Extent.UNKNOWN
    loop: str = ""
    positions: tuple[tuple[int, int], ...] = ()


# State of an `Update` whose result was thrown away (a warm-up, weights restored): it shaped no counted score.
DISCARDED = "state that is discarded before these tokens are scored"


class Phase(enum.StrEnum):
    """Part of the run. Training ends when its clock stops, evaluation begins when the artifact is read back."""

    SETUP = "setup"
    TRAINING = "training"
    AFTER_TRAINING = "after training"
    EVALUATION = "evaluation"
    UNKNOWN = "unknown"


class Via(enum.StrEnum):
    """How state was changed."""

    OPTIMIZER = "optimizer step"
    WRITE = "parameter write"
    ADAPTER = "adapter"
    TABLE = "count table"
    SEARCH = "gradient-free search"


@dataclass(frozen=True)
class Place:
    """Source line an event comes from: module path and 1-based line."""

    path: str
    line: int


@dataclass(frozen=True)
class Event:
    """Leaf of a timeline. `place` is the line that does it; `why` the chain of lines that shows what it touches."""

    place: Place
    phase: Phase = field(default=Phase.UNKNOWN, kw_only=True)
    why: tuple[Place, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True)
class Read(Event):
    """Tokens are read from a split."""

    span: Span


@dataclass(frozen=True)
class Seen:
    """What a score's own targets had already changed when they were scored (symbolic timelines).

    Attributes:
        place: the line that made the change. `state` names what was changed.
        via, how: by which means; `how` in the words of the witness.
        span: the tokens it consumed.
        table: the state is a count table, not parameters.
        within_loop: change and score stand in one loop: an earlier round of it made the change.
        calls: the calls that led to the change and to the score, where the two ways part.
        scored: lines that had scored the same tokens before the change; losses that only trained are none.
        ahead: where its tokens were picked from a later round of the loop than the one that made the change.
        rows: the score uses a selection of rows of the state; whether its tokens changed these is open.
        forgotten: which tokens made the change was lost; they may be other ones than those that are scored.
    """

    place: Place
    state: str
    via: Via
    how: str
    span: Span
    table: bool = False
    within_loop: bool = False
    calls: tuple[Place, Place] | None = None
    scored: tuple[Place, ...] = ()
    ahead: Place | None = None
    rows: bool = False
    forgotten: bool = False


@dataclass(frozen=True)
class Score(Event):
    """A loss is computed for the tokens of `span`; `counted` when it reaches the reported number (None: unknown).

    `seen` holds the changes that its own targets had made before, `tables` the lines where counts were read that take
    part in it, `own_target` that its logits were computed from the targets themselves, `from_artifact` whether the
    scoring parameters were read back from the artifact (None: unknown), `partial` why its targets are only a part of the
    validation stream, or none of it: (line, what happens there), `with_train` whether training tokens take part in its
    logits otherwise than through the weights (None: unknown), `mixed` whether it meets counts of tokens in one number.
    """

    span: Span
    counted: bool | None = None
    scoring_pass: str = ""
    seen: tuple[Seen, ...] = ()
    tables: tuple[Place, ...] = ()
    own_target: bool = False
    from_artifact: bool | None = None
    partial: tuple[tuple[Place, str], ...] = ()
    with_train: bool | None = None
    mixed: bool = False


@dataclass(frozen=True)
class Update(Event):
    """State is changed by tokens of `span`. `state` names what: parameters, an adapter, a table."""

    span: Span
    state: str
    via: Via = Via.OPTIMIZER


@dataclass(frozen=True)
class Calibrate(Event):
    """Statistics for quantisation are collected from `span`."""

    span: Span


@dataclass(frozen=True)
class Serialize(Event):
    """The artifact is written; `size` in bytes where known, `learnt` where it learnt from validation tokens."""

    size: int | None = None
    learnt: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Load(Event):
    """The artifact (or another file) is read back into a model."""

    artifact: str = ""


@dataclass(frozen=True)
class Counted:
    """Counts of tokens that take part in a reported number.

    Attributes:
        place: the line that reads the table.
        split: tokens the table was filled with.
        target_in_key: the key holds the token being scored.
        own_tokens: the table already holds the tokens being scored when it is read.
        entered: where the token being scored enters the key, None when that is not a line of its own.
        form: "single" for a number about one token, "row" for part of a row over the vocabulary that sums to one,
            "loose" for part of a row whose sum nobody can tell, "entry" for one number out of the row of its context,
            "rates" for one of a table that was divided before it was read.
        own_perhaps: the table was filled before it is read, with tokens that may be those being scored.
        table: state of the updates that filled it, "" when not known.
        joined: tokens were joined to the key by arithmetic (None: unknown).
    """

    place: Place
    split: Split
    target_in_key: bool
    own_tokens: bool
    entered: Place | None = None
    form: str = "single"
    own_perhaps: bool = False
    table: str = ""
    joined: bool | None = None


@dataclass(frozen=True)
class Report(Event):
    """A metric is reported; `value` only from an executed timeline.

    `headline`: it is the claimed number. `counts`: tables whose counts are part of it. `choices`: lines where the
    better of two losses was kept. `spread`: lines where the loss of a token was divided over its bytes. `indicators`:
    lines where a comparison with the target itself was added to its probability. `native`: compiled code that takes
    part in it and that nobody read. `revealed`: (read, comparison) lines where what a file holds for a position was
    compared with the validation token there, and the outcome is part of the number. `perhaps_choices`: lines where one
    of two losses was kept by a number that may be a loss.
    """

    metric: str
    value: float | None = None
    headline: bool = False
    counts: tuple[Counted, ...] = ()
    choices: tuple[Place, ...] = ()
    spread: tuple[Place, ...] = ()
    indicators: tuple[Place, ...] = ()
    native: tuple[Place, ...] = ()
    revealed: tuple[tuple[Place, Place], ...] = ()
    perhaps_choices: tuple[Place, ...] = ()


@dataclass(frozen=True)
class PhaseMark(Event):
    """A phase begins at this line."""

    begins: Phase


@dataclass(frozen=True)
class Clock(Event):
    """The program compares its clock with a limit, in seconds of the submitted run (executed timelines only)."""

    limit: float


@dataclass(frozen=True)
class External(Event):
    """Contact with the world outside: network, a process, a path."""

    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Probed(Event):
    """What an experiment on the running program showed (executed timelines only).

    Attributes:
        question: "causality", "normalisation" or "repeatability".
        holds: None when the experiment could not tell; `doubt`: it showed something that somebody has to look at.
        finding: the result in words, with its numbers.
    """

    question: str
    holds: bool | None
    finding: str
    doubt: bool = False


@dataclass(frozen=True)
class Unknown(Event):
    """Something the witness could not follow, with the reason; rules must not read it as innocence."""

    reason: str


@dataclass(frozen=True)
class Sequence:
    """Nodes in the order in which they happen."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Loop:
    """A loop: its label, where it stands, what it iterates over, and one iteration as its body.

    `first` is the first iteration where it differs in what counts, None where the body stands for all.
    """

    label: str
    place: Place
    over: str
    body: Sequence
    first: Sequence | None = None


@dataclass(frozen=True)
class Branch:
    """A branch with its condition as text and what is known of it under the effective settings."""

    place: Place
    condition: str
    taken: bool | None
    then: Sequence
    otherwise: Sequence


@dataclass(frozen=True)
class Call:
    """A call of a function of the submission, with its own events as body."""

    place: Place
    function: str
    body: Sequence


Node = Sequence | Loop | Branch | Call | Event


@dataclass(frozen=True)
class Timeline:
    """One witness's account of a run."""

    witness: str
    root: Sequence
    settings: dict[str, str] = field(default_factory=dict)

    def events(self) -> Iterator[Event]:
        """Every event, in order, dead branches (taken is False) left out of neither side that may run."""
        yield from _events(self.root)


def _events(node: Node) -> Iterator[Event]:
    if isinstance(node, Event):
        yield node
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _events(item)
    elif isinstance(node, Branch):
        if node.taken is not False:
            yield from _events(node.then)
        if node.taken is not True:
            yield from _events(node.otherwise)
    else:
        if isinstance(node, Loop) and node.first is not None:
            yield from _events(node.first)
        yield from _events(node.body)
