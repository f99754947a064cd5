"""From the records of the abstract machine to the shared timeline."""

from __future__ import annotations

from auditor.static.counting import OWN, PERHAPS
from auditor.static.machine import Machine
from auditor.static.records import (
    BranchRecord,
    CallRecord,
    LoopRecord,
    Record,
    ReportRecord,
    ScoreRecord,
    UpdateRecord,
    Where,
)
from auditor.static.values import COUNTS, FLAG, FORGOTTEN, LEARNT, SCORED, TOKENS, Iterations
from auditor.timeline import (
    Branch,
    Calibrate,
    Call,
    Counted,
    Event,
    Extent,
    External,
    Load,
    Loop,
    Node,
    Phase,
    PhaseMark,
    Place,
    Read,
    Report,
    Score,
    Seen,
    Sequence,
    Serialize,
    Span,
    Split,
    Timeline,
    Unknown,
    Update,
    Via,
)

_SPLITS = {
    "val": Split.VAL,
    "train": Split.TRAIN,
    "unknown": Split.UNKNOWN,
    "generated": Split.GENERATED,
    "dataset": Split.OTHER,
    "artifact": Split.ARTIFACT,
}
_VIA = {
    "optimizer": Via.OPTIMIZER,
    "write": Via.WRITE,
    "gradient write": Via.WRITE,
    "calibration": Via.WRITE,
    "table": Via.TABLE,
}


def build_timeline(machine: Machine, headline: list[ReportRecord]) -> Timeline:
    """The tree of events; `headline` are the reports of the claimed number."""
    builder = _Builder(machine, headline)
    return Timeline("static analysis", Sequence(tuple(builder.nodes(machine.records))))


class _Builder:
    def __init__(self, machine: Machine, headline: list[ReportRecord]) -> None:
        self.machine = machine
        self.headline = {id(report) for report in headline}
        self.phase = Phase.SETUP
        self.depth = 0
        self.trained = False

    def nodes(self, records: list) -> list[Node]:
        out: list[Node] = []
        for record in records:
            node = self.node(record)
            if node is not None:
                out.append(node)
        return out

    def node(self, record: object) -> Node | None:
        if isinstance(record, LoopRecord):
            return self.loop(record)
        if isinstance(record, BranchRecord):
            then, otherwise = self.nodes(record.then), self.nodes(record.otherwise)
            if not then and not otherwise:
                return None
            if record.taken is not None:
                return Sequence(tuple(then if record.taken else otherwise))
            return Branch(
                _place(record.where), record.condition, None, Sequence(tuple(then)), Sequence(tuple(otherwise))
            )
        if isinstance(record, CallRecord):
            body = self.nodes(record.body)
            return Call(_place(record.where), record.function, Sequence(tuple(body))) if body else None
        if isinstance(record, Record):
            return self.event(record)
        return None

    def loop(self, record: LoopRecord) -> Node | None:
        """The later iteration stands for the loop; the first only when it alone holds events."""
        self.depth += 1
        passes = [self.nodes(events) for events in record.passes]
        self.depth -= 1
        if self.depth == 0 and self.phase is Phase.TRAINING:
            self.phase = Phase.AFTER_TRAINING
        body = next((p for p in reversed(passes) if p), None)
        if body is None:
            return None
        first = Sequence(tuple(passes[0]))
        apart = body is not passes[0] and _counts(first) - _counts(Sequence(tuple(body)))
        return Loop(
            f"L{record.number}", _place(record.where), record.over, Sequence(tuple(body)), first if apart else None
        )  # fmt: skip

    def event(self, record: Record) -> Event | None:
        place = _place(record.where)
        if isinstance(record, ScoreRecord):
            return self.score(record, place)
        if isinstance(record, UpdateRecord):
            if record.split == "train" and self.phase in (Phase.SETUP, Phase.AFTER_TRAINING):
                self.phase = Phase.TRAINING
            return Update(
                place, self.span(record.split, record.at, record), self.state(record.owner),
                _VIA.get(record.how, Via.OPTIMIZER), phase=self.phase,
            )  # fmt: skip
        if isinstance(record, ReportRecord):
            return self.report(record, place)
        return self.plain(record, place)

    def plain(self, record: Record, place: Place) -> Event | None:
        kind = record.kind
        if kind == "read":
            why = (_place(record.named),) if record.named and record.named != record.where else ()
            span = Span(_SPLITS.get(record.split, Split.OTHER), Extent.ALL)
            return Read(place, span, phase=self.phase, why=why)
        if kind == "calibrate":
            return Calibrate(place, self.span(record.split, record.at, record), phase=self.phase)
        if kind == "serialize":
            return Serialize(place, phase=self.phase, learnt=tuple(_place(where) for where in sorted(record.learnt)))
        if kind == "load":
            if record.detail and self.phase is Phase.AFTER_TRAINING:
                self.phase = Phase.EVALUATION
            return Load(place, record.detail, phase=self.phase)
        if kind == "external":
            what, _, detail = record.detail.partition(" ")
            return External(place, what, detail, phase=self.phase)
        if kind == "unknown":
            return Unknown(place, record.detail, phase=self.phase)
        return None

    def score(self, record: ScoreRecord, place: Place) -> Score:
        seen = []
        drawn = {self.root(f[2]) for f in record.facts if f[:2] == (FLAG, "some rows")}
        for fact in sorted((f for f in record.influences if f[0] == LEARNT), key=repr):
            _, split, at, _, owner, how, where = fact
            if owner > 0 and self.free(owner):
                how = "tensor of its own" if self.renewed(owner, record) else "shared tensor"
            seen.append(
                Seen(_place(where), self.state(owner), _VIA.get(how, Via.OPTIMIZER), how,
                     self.span(split, at, record), owner < 0, self.shares_loop(where, owner, record, at),
                     self.parting(where, owner, at, record), self.scored_before(where, owner, at, record),
                     self.ahead(at), self.root(owner) in drawn, at == FORGOTTEN)
            )  # fmt: skip
        tables = tuple(_place(f[4]) for f in record.facts if f[0] == COUNTS)
        # Of several rounds that made the same change, the one that was reached another way says most.
        seen.sort(key=lambda s: (not s.forgotten, s.calls is not None))
        unique = tuple({(s.place, s.state): s for s in seen}.values())
        return Score(
            place, self.span(record.split, record.at, record), record.counted, seen=unique, tables=tables,
            own_target=record.own_target, from_artifact=record.artifact, phase=self.phase,
            with_train=any(f[0] == TOKENS and f[1] == "train" for f in record.facts),
            partial=tuple(sorted(((_place(f[2]), f[3]) for f in record.partial), key=repr)),
            mixed=record.number in self.machine.mixed_losses,
        )  # fmt: skip

    def report(self, record: ReportRecord, place: Place) -> Report:
        label = " ".join(record.text.replace("\0", "{}").split())[:100]
        numbers = {f[1] for f in record.facts if f[0] == SCORED}
        reach = min((s.offset for s in self.machine.scores if s.number in numbers and s.split == "val"), default=1)
        counts = {
            (f[4], f[3], f[2] >= reach, f[5], f[7], f[1]): Counted(
                _place(f[4]),
                _SPLITS.get(f[3], Split.OTHER),
                f[2] >= reach,
                f[5] == OWN,
                next((_place(place) for place, latest in sorted(f[6], reverse=True) if latest == f[2]), None),
                f[7],
                f[5] == PERHAPS,
                f"count table {f[1]}",
                bool(f[6]),
            )
            for f in sorted(record.facts, key=repr)
            if f[0] == COUNTS
        }
        # A loss is repeated for each byte before it is divided: the last line says most.
        spread = _flagged(record, "spread")[::-1]
        native, indicators = _flagged(record, "native"), _flagged(record, "indicator")
        choices, perhaps = _flagged(record, "choice"), _flagged(record, "choice perhaps")
        revealed = tuple((_place(f[3]), _place(f[2])) for f in record.facts if f[:2] == (FLAG, "revealed"))
        return Report(
            place, label, phase=self.phase, headline=id(record) in self.headline,
            counts=tuple(counts[key] for key in sorted(counts)), choices=choices, spread=spread, perhaps_choices=perhaps,
            indicators=indicators, native=native, revealed=revealed,
        )  # fmt: skip

    def state(self, owner: int) -> str:
        if owner < 0:
            return f"count table {-owner}"
        instance = self.machine.instances.get(owner)
        if instance is not None and instance.what == "submodule" and instance.owner is not None:
            return f"a part of {self.state(instance.owner.number)}"
        return f"{instance.what} (made at line {instance.place[1]})" if instance else "parameters"

    def free(self, owner: int) -> bool:
        """A parameter that belongs to no module: optimised on its own."""
        instance = self.machine.instances.get(owner)
        return instance is not None and instance.what == "parameter" and instance.owner is None

    def root(self, owner: int) -> int:
        """Number of the outermost module that holds this one."""
        return self.machine.root(owner).number if abs(owner) in self.machine.instances else owner

    def shares_loop(self, where: Where, owner: int, record: ScoreRecord, at: Iterations) -> bool:
        """True when an earlier round over the same tokens made the change at `where`.

        Rounds are those of a loop around both that does not pick the tokens: a loop over chunks is none.
        """
        around = {number for number, _ in record.loops} - {number for number, _ in (*at, *record.at)}
        return any(
            update.where == where and abs(update.owner) == abs(owner) and at <= update.at
            and update.order < record.order
            and around & {number for number, _ in update.loops}
            for update in self.machine.updates
        )  # fmt: skip

    def change(self, where: Where, owner: int, at: Iterations, record: ScoreRecord) -> UpdateRecord | None:
        """The update through which tokens picked `at` reached the state that scores them."""
        return next(
            (u for u in self.machine.updates
             if u.where == where and abs(u.owner) == abs(owner) and u.at == at and u.order < record.order),
            None,
        )  # fmt: skip

    def scored_before(self, where: Where, owner: int, at: Iterations, record: ScoreRecord) -> tuple[Place, ...]:
        """Lines that had scored the tokens before they made the change; the loss that made it is no score."""
        changed = self.change(where, owner, at, record)
        if changed is None:
            return ()
        trained = self.machine.trained_losses
        found = (
            s for s in self.machine.scores
            if s.split == "val" and s.order < changed.order and (s.counted or s.number not in trained)
            and (not s.at or not at or s.at & at)
        )  # fmt: skip
        return tuple(_place(where) for where in sorted({s.where for s in found}))

    def parting(self, where: Where, owner: int, at: Iterations, record: ScoreRecord) -> tuple[Place, Place] | None:
        """The calls through which the change and the score were reached, where their ways part."""
        changed = self.change(where, owner, at, record)
        if changed is None:
            return None
        for one, other in zip(changed.stack, record.stack, strict=False):
            if one != other:
                return _place(one), _place(other)
        return None

    def ahead(self, at: Iterations) -> Place | None:
        """Where a position was moved on to the round these tokens belong to."""
        where = next((self.machine.moved[each] for each in sorted(at) if each in self.machine.moved), None)
        return _place(where) if where is not None else None

    def renewed(self, owner: int, record: ScoreRecord) -> bool:
        """True when the tensor is made anew for every item that is scored."""
        varying = {number for number, _ in record.at}
        depth = next((n for n, (number, _) in enumerate(record.loops) if number in varying), len(record.loops))
        return self.machine.instances[owner].depth > depth

    def span(self, split: str, at: Iterations, record: Record) -> Span:
        inside = {number for number, _ in record.loops}
        common = [number for number, _ in at if number in inside]
        extent = Extent.ITEM if common else (Extent.PART if at else Extent.ALL)
        loop = f"L{min(common)}" if common else ""
        return Span(_SPLITS.get(split, Split.OTHER), extent, loop)


def _counts(body: Sequence) -> set[tuple[Place, bool]]:
    """Places whose scores count, and whether their tokens had been learnt from."""
    events = Timeline("", body).events()
    return {(e.place, bool(e.seen)) for e in events if isinstance(e, Score) and e.counted}


def _flagged(record: ReportRecord, name: str) -> tuple[Place, ...]:
    """Lines that a property of the reported number comes from."""
    return tuple(_place(where) for where in sorted(f[2] for f in record.facts if f[:2] == (FLAG, name)))


def _place(where: Where) -> Place:
    return Place(where[0], where[1])


__all__ = ["PhaseMark", "build_timeline"]
