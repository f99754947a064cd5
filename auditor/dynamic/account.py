"""From what was recorded to a timeline: scores that counted, updates that reached them, artifact, phases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from auditor.dynamic.attribution import POSITION, SPLIT_BITS, VAL, Attribution, Explained
from auditor.timeline import (
    DISCARDED,
    Calibrate,
    Clock,
    Event,
    Extent,
    External,
    Load,
    Phase,
    PhaseMark,
    Place,
    Read,
    Report,
    Score,
    Sequence,
    Serialize,
    Span,
    Split,
    Timeline,
    Unknown,
    Update,
    Via,
)  # fmt: skip

TRAIN = 0
_NOT_ARTIFACTS = (".txt", ".log", ".py", ".json", ".jsonl", ".csv", ".md", ".tsv")


_NONE = np.empty(0, dtype=np.int64)


@dataclass
class State:
    """Which validation positions have shaped each parameter, followed by value.

    A value seen before brings its history back (saved and restored weights); a value filled in afresh has none; any
    other new value is taken to hold everything the parameters held at that time.
    """

    tokens: int
    current: dict[int, np.ndarray] = field(default_factory=dict)
    by_value: dict[tuple[float, float], np.ndarray] = field(default_factory=dict)

    def update(self, changes: list, positions: np.ndarray) -> None:
        """An optimizer changed parameters with gradients of `positions`."""
        mask = np.zeros(self.tokens, dtype=bool)
        mask[positions[positions < self.tokens]] = True
        for key, total, norm, *_ in changes:
            before = self.current.get(key)
            self._set(key, (total, norm), mask if before is None else before | mask)

    def write(self, changes: list) -> None:
        """Parameters were overwritten."""
        everything = self.everything()
        for key, total, norm, *fresh in changes:
            known = self.by_value.get((total, norm))
            clean = (fresh and fresh[0]) or norm == 0.0
            self._set(
                key, (total, norm), np.zeros(self.tokens, bool) if clean else known if known is not None else everything
            )

    def seen(self, uses: list) -> np.ndarray:
        """Positions that have shaped the parameters a score read."""
        found = [self.current[key] for key, *_ in uses if key in self.current]
        return np.logical_or.reduce(found) if found else self.everything()

    def everything(self) -> np.ndarray:
        """Positions that have shaped any parameter."""
        return np.logical_or.reduce(list(self.current.values())) if self.current else np.zeros(self.tokens, bool)

    def _set(self, key: int, value: tuple[float, float], mask: np.ndarray) -> None:
        self.current[key] = self.by_value[value] = mask


@dataclass(frozen=True)
class Lateness:
    """Counted positions that had shaped the model when they were scored; `discarded`: updates that reached none."""

    late: np.ndarray
    discarded: frozenset[int]


def lateness(
    events: list[dict[str, Any]], attribution: Attribution | None, tokens: int, marks: np.ndarray = _NONE
) -> Lateness:
    """Follow parameters through the run and look at the state each counted score used.

    `marks` are positions of document marks. They belong to two documents: training on one to its end consumes the mark of
    the next, which has no text and no bytes and tells nothing. They count as late only beside other tokens.
    """
    counted = _counted(attribution)
    state, late = State(tokens), np.zeros(tokens, dtype=bool)
    for event in events:
        if event["kind"] == "update":
            state.update(event["changes"], _positions(event["places"], VAL))
        elif event["kind"] == "write":
            state.write(event["changes"])
        elif event["kind"] == "score" and event["n"] in counted:
            positions = counted[event["n"]]
            late[positions] |= state.seen(event["uses"])[positions]
    if not np.delete(late, marks).any():
        late[:] = False
    discarded = set()
    for event in events:
        if event["kind"] == "update":
            positions = _positions(event["places"], VAL)
            if len(positions) and not late[positions[positions < tokens]].any():
                discarded.add(event["n"])
    return Lateness(late, frozenset(discarded))


def _shaping(event: dict[str, Any]) -> bool:
    """Whether an event shapes a model or says what it was given.

    Files of the artifact and what it was calibrated on are told all the same: a headline may be printed before both.
    """
    if event["kind"] == "open":
        return not _artifact(event["path"])
    return event["kind"] in ("score", "sum", "update", "write", "clock", "table")


def _counted(attribution: Attribution | None) -> dict[int, np.ndarray]:
    """Score event -> positions of it that count."""
    if attribution is None:
        return {}
    order = np.argsort(attribution.event, kind="stable")
    numbers, starts = np.unique(attribution.event[order], return_index=True)
    parts = np.split(attribution.position[order], starts[1:])
    return {int(number): np.unique(part) for number, part in zip(numbers, parts, strict=True)}


def _positions(places: np.ndarray, split: int) -> np.ndarray:
    places = np.asarray(places, dtype=np.int64)
    kept = (places >= 0) & (places >> SPLIT_BITS == split)
    return places[kept] & POSITION


def read_on(positions: np.ndarray) -> np.ndarray:
    """The positions of tokens that went in one after the other as the stream has them, none of them otherwise.

    Text that a model makes meets pairs of the stream by chance, and one that repeats itself meets the same pair again and
    again; what was read from the stream goes on from each token to the next.
    """
    on = int((np.diff(positions) == 1).sum())
    return positions if on and 2 * on >= len(positions) - 1 else positions[:0]


def ranges(positions: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Sorted, disjoint half-open ranges of a set of positions."""
    if not len(positions):
        return ()
    sorted_ = np.unique(positions)
    breaks = np.flatnonzero(np.diff(sorted_) > 1)
    starts = np.concatenate([[0], breaks + 1])
    ends = np.concatenate([breaks, [len(sorted_) - 1]])
    return tuple((int(sorted_[a]), int(sorted_[b]) + 1) for a, b in zip(starts, ends, strict=True))


class Account:
    """Builds one timeline. `folder` and `main` name the record folder and the readable main script;
    `tail` is the length of a window, in tokens; `marks` are positions of document marks; `spared` is by how many seconds
    the clock of the submitted run ends later than that of this one, None where this run was not ended by that clock."""

    def __init__(
        self,
        events: list[dict[str, Any]],
        explained: Explained,
        tokens: int,
        folder: str,
        main: str,
        tail: int = 256,
        marks: np.ndarray = _NONE,
        spared: float | None = 0.0,
    ) -> None:
        self.spared = spared
        self.events, self.explained, self.folder, self.main = events, explained, folder, main
        self.frames = {event["site"]: event["frames"] for event in events if event["kind"] == "site"}
        claim = explained.claim
        self.attribution = claim[1] if claim else None
        self.counted = _counted(self.attribution)
        self.fate = lateness(events, self.attribution, tokens, marks)
        self.marked = marks if not self.fate.late.any() else _NONE
        self.before = np.zeros(tokens, dtype=bool)
        self.tail = tail
        # What a program does once the headline is printed (another model, a second program in the same file) made no part of it.
        self.over = claim[0].event if claim else 1 << 60
        self.marks = self._phases()
        self.written: set[str] = set()
        self.tabled: dict[tuple, Update] = {}
        self.reported = {result.event: result for result, _ in explained.results}

    def timeline(self, settings: dict[str, str]) -> Timeline:
        """The timeline, neighbouring events of one line joined."""
        return Timeline("CPU run", Sequence(tuple(_joined(self._events()))), settings)

    def _phases(self) -> tuple[int, int]:
        """Numbers of the events that end training and begin evaluation (a read of a file the run wrote)."""
        trained = [e["n"] for e in self.events if e["kind"] == "update" and len(_positions(e["places"], TRAIN))]
        end = max((number for number in trained if number < self.over), default=0)
        written: set[str] = set()
        first_counted = min(self.counted, default=1 << 60)
        for event in self.events:
            if event["kind"] != "open" or not _artifact(event["path"]):
                continue
            if event["write"]:
                written.add(_name(event["path"]))
            elif event["n"] > end and _name(event["path"]) in written:
                return end, event["n"]
        return end, max(first_counted, end)

    def _phase(self, number: int) -> Phase:
        end, begin = self.marks
        return Phase.TRAINING if number <= end else Phase.AFTER_TRAINING if number < begin else Phase.EVALUATION

    def _events(self) -> Iterator[Event]:
        phase = None
        for event in self.events:
            if event["kind"] == "site" or (event["n"] > self.over and _shaping(event)):
                continue
            now = self._phase(event["n"])
            if event["kind"] == "table":
                self._tabled(event, now)
                continue
            yield from self._tables()
            if now is not phase:
                phase = now
                yield PhaseMark(self.place(event), now, phase=now)
            make = getattr(self, f"_{event['kind']}", None)
            if make is not None:
                yield from make(event, now)
        yield from self._tables()
        claim = self.explained.claim
        if claim is None:
            yield Unknown(Place(self.main, 1), "the run printed no result", phase=Phase.EVALUATION)
        elif claim[1] is None:
            place = self.place(next(e for e in self.events if e.get("n") == claim[0].event))
            text = f"no combination of recorded losses gives the printed result {claim[0].text[:120]!r}"
            yield Unknown(place, text, phase=Phase.EVALUATION)

    # -- one kind each ---------------------------------------------------------------------------------------------

    def _score(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        positions = self.counted.get(event["n"])
        why = self.why(event)
        if positions is not None:
            again = positions[self.before[positions]]
            if len(again) and again.min() >= len(self.before) - self.tail:
                # Windows that run over the end of the stream count its last tokens again: an artefact of a few tokens
                # that grows with nothing, not a second pass.
                positions = positions[~self.before[positions]]
                span = Span(Split.VAL, Extent.PART, positions=ranges(again))
                yield Score(self.place(event), span, None, "end of the stream again", phase=phase, why=why)
            self.before[positions] = True
            if len(positions):
                span = Span(Split.VAL, Extent.PART, positions=ranges(positions))
                yield Score(self.place(event), span, True, phase=phase, why=why)
        elif not event["grad"] and len(found := _positions(event["places"], VAL)):
            known = None if self.attribution is None else False
            yield Score(
                self.place(event), Span(Split.VAL, Extent.PART, positions=ranges(found)), known, phase=phase, why=why
            )

    def _update(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        via = Via.WRITE if event["via"] == "write" else Via.OPTIMIZER
        found = _positions(event["places"], VAL)
        found = found[~np.isin(found, self.marked)]
        if len(found):
            gone = (
                event["n"] in self.fate.discarded
                and self.attribution is not None
                and self._was_scored_later(event, found)
            )
            state = DISCARDED if gone else "parameters"
            span = Span(Split.VAL, Extent.PART, positions=() if gone else ranges(found))
            yield Update(self.place(event), span, state, via, phase=phase, why=self.why(event))
        if len(_positions(event["places"], TRAIN)):
            yield Update(
                self.place(event), Span(Split.TRAIN, Extent.PART), "parameters", via, phase=phase, why=self.why(event)
            )

    def _was_scored_later(self, event: dict[str, Any], found: np.ndarray) -> bool:
        return any(n > event["n"] and np.isin(found, p, assume_unique=False).any() for n, p in self.counted.items())

    def _tabled(self, event: dict[str, Any], phase: Phase) -> None:
        """Writes to tables of counts that come one after the other (orders of n-grams, counts of contexts and of pairs)
        become one event for each line."""
        for split, code in ((Split.VAL, VAL), (Split.TRAIN, TRAIN)):
            found = _positions(event["places"], code)
            if not len(found) or (split is Split.VAL and phase is not Phase.EVALUATION):
                continue  # what a validation before the final one counts is gone when the headline comes
            place = self.place(event)
            span = Span(split, Extent.PART, positions=ranges(found) if split is Split.VAL else ())
            new = Update(place, span, "counts", Via.TABLE, phase=phase, why=self.why(event))
            old = self.tabled.get((place, split, phase))
            self.tabled[place, split, phase] = new if old is None else replace(old, span=_union(old.span, span))

    def _tables(self) -> Iterator[Event]:
        yield from self.tabled.values()
        self.tabled = {}

    def _forward(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        span = self._source(event)
        if event["hooks"]:
            yield Calibrate(self.place(event), span, phase=phase, why=self.why(event))
        elif span.split is Split.TRAIN and phase is not Phase.TRAINING and event["n"] < self.over:
            yield Read(self.place(event), span, phase=phase, why=self.why(event))
        self._last = span

    def _moments(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        yield Calibrate(
            self.place(event), getattr(self, "_last", Span(Split.UNKNOWN)), phase=phase, why=self.why(event)
        )

    def _source(self, event: dict[str, Any]) -> Span:
        val, train = (read_on(_positions(event["places"], split)) for split in (VAL, TRAIN))
        if max(len(val), len(train)) * 4 < event["tokens"]:
            return Span(Split.GENERATED)
        if len(val) > len(train):
            return Span(Split.VAL, Extent.PART, positions=ranges(val))
        return Span(Split.TRAIN, Extent.PART)

    def _open(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        path = event["path"]
        if not _artifact(path):
            return
        if event["write"]:
            self.written.add(_name(path))
            yield Serialize(self.place(event), phase=phase, why=self.why(event))
        elif _name(path) in self.written:
            yield Load(self.place(event), _name(path), phase=phase, why=self.why(event))

    def _process(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        yield External(self.place(event), "process", event["command"], phase=phase)

    def _clock(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        if self.spared is not None:
            yield Clock(self.place(event), event["limit"] + self.spared, phase=phase, why=self.why(event))

    def _network(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        yield External(self.place(event), "network", event["detail"], phase=phase)

    def _print(self, event: dict[str, Any], phase: Phase) -> Iterator[Event]:
        result = self.reported.get(event["n"])
        if result is not None and result.bpb is not None:
            yield Report(self.place(event), result.label, result.bpb, phase=phase)

    # -- places ----------------------------------------------------------------------------------------------------

    def place(self, event: dict[str, Any]) -> Place:
        """Innermost line of the submission; the main script's first line where the stack shows none."""
        chain = self._chain(event)
        return chain[0] if chain else Place(self.main, 1)

    def why(self, event: dict[str, Any]) -> tuple[Place, ...]:
        """The calls that lead there, innermost first."""
        return self._chain(event)[1:]

    def _chain(self, event: dict[str, Any]) -> tuple[Place, ...]:
        frames = self.frames.get(event.get("site"), [])
        kept = [f for i, f in enumerate(frames) if not (i == len(frames) - 1 and f[0] == "<string>")]
        return tuple(Place(self._path(file), line) for file, line, _ in kept)

    def _path(self, file: str) -> str:
        if not file.startswith("/repo/"):
            return self.main
        inside = file.removeprefix("/repo/")
        if not inside.startswith(f"{self.folder}/"):
            inside = "/".join(filter(None, (self.folder, inside.removeprefix("records/track/run/"))))
        return self.main if inside == self.main.partition("!")[0] else inside


def _artifact(path: str) -> bool:
    name = _name(path)
    return not path.startswith(("/data", "/repo")) and not name.lower().endswith(_NOT_ARTIFACTS) and "." in name


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _joined(events: Iterator[Event]) -> Iterator[Event]:
    """Neighbours of the same kind, place, phase and split become one event with the positions of both."""
    last: Event | None = None
    for event in events:
        if last is not None and _alike(last, event):
            last = replace(last, span=_union(last.span, event.span))
            continue
        if last is not None:
            yield last
        last = event
    if last is not None:
        yield last


def _alike(one: Event, other: Event) -> bool:
    if type(one) is not type(other) or not isinstance(one, Score | Update | Calibrate | Read):
        return False
    same = one.place == other.place and one.phase == other.phase and one.span.split == other.span.split
    if isinstance(one, Score):
        # Positions counted twice must stay visible as two events.
        return same and one.counted == other.counted and not (one.counted and _meet(one.span, other.span))
    if isinstance(one, Update):
        return same and one.via == other.via and one.state == other.state
    return same


def _meet(one: Span, other: Span) -> bool:
    return any(a < d and c < b for a, b in one.positions for c, d in other.positions)


def _union(one: Span, other: Span) -> Span:
    if not other.positions or one.positions == other.positions:
        return one
    merged: list[tuple[int, int]] = []
    for low, high in sorted({*one.positions, *other.positions}):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return replace(one, positions=tuple(merged))
