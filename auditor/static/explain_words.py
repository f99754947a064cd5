"""Facts of the analysis in words: where a value comes from, what an event does."""

from __future__ import annotations

from collections.abc import Iterator

from auditor import timeline as tl
from auditor.static.heap import Bound, Class, Function, Instance, Library, Listing, Mapping, Optimizer
from auditor.static.machine import Machine
from auditor.static.records import LoopRecord
from auditor.static.values import (
    COUNTS,
    FILE,
    FLAG,
    GATE,
    GRAPH,
    LEARNT,
    PARAMS,
    SCORED,
    TABLE,
    TOKENS,
    WHERE,
    Facts,
    Iterations,
    Value,
)

SPLITS = {"val": "validation", "train": "training", "generated": "self-generated", "unknown": "unidentified"}
_FLAGS = {
    "artifact": "was read from the artifact",
    "trained": "is a trained state",
    "weights": "holds weights of a model",
    "gradient": "is a gradient",
    "activation": "holds activations of a model",
    "loss": "is a loss",
    "probability": "is a probability",
    "softmax": "is a distribution over the vocabulary",
    "distribution": "is a distribution over the vocabulary",
    "random": "is random",
    "partial": "covers a part of the validation tokens only",
    "choice": "the smaller of several losses was kept",
    "choice perhaps": "one of several losses was kept by a number that may be a loss",
    "one of several": "is one of several results of a model",
    "some rows": "uses a selection of rows of a bank of parameters",
    "spread": "a loss was divided over bytes",
    "native": "compiled code takes part",
    "indicator": "compared with the target itself",
    "stored": "was read from a file of the submission",
    "no_grad": "switches gradients off",
}
MAX_ROWS = 8


class Words:
    """Words for the facts of one walk; loops are named by their lines."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.loops = {record.number: record for record in _loops(machine.records)}

    def value(self, value: Value) -> list[str]:
        """What is known of a value, most telling first; empty when nothing is."""
        found = []
        if value.known:
            found.append(f"constant {value.const!r}"[:80])
        found += self._object(value)
        rows: dict[str, None] = {}
        for fact in sorted(_folded(value.facts), key=lambda f: (_ORDER.get(f[0], 9), repr(f))):
            words = self.fact(fact)
            if words:
                rows.setdefault(words)
        found += list(rows)
        if value.known and value.const is None and len(found) == 1:
            return []  # what a call returns that returns nothing
        if isinstance(value.obj, Library) and len(found) == 1:
            return []
        return found[:MAX_ROWS] + ([f"and {len(found) - MAX_ROWS} more"] if len(found) > MAX_ROWS else [])

    def fact(self, fact: tuple) -> str:
        """One fact in words, "" when it says nothing to a reader."""
        kind = fact[0]
        if kind == TOKENS:
            shift = f", {fact[3]} later in the stream: what is to be predicted" if fact[3] > 0 else ""
            return f"{SPLITS.get(fact[1], fact[1])} tokens{self.picked(fact[2])}{shift}"
        if kind == LEARNT:
            split = SPLITS.get(fact[1], fact[1])
            return (
                f"influenced by {split} tokens{self.picked(fact[2])} through {self.owner(fact[4])}, "
                f"changed at line {fact[6][1]} ({fact[5]})"
            )
        if kind == SCORED:
            score = next((s for s in self.machine.scores if s.number == fact[1]), None)
            if score is None:
                return "holds a score"
            counted = "counts in the claimed number" if score.counted else "does not count in the claimed number"
            return f"holds the score taken at line {score.where[1]}; it {counted}"
        if kind == GRAPH:
            quiet = ", gradients switched off" if fact[1] < 0 else ""
            return f"computed with the parameters of {self.owner(abs(fact[1]))}{quiet}"
        if kind == PARAMS:
            return f"is a parameter of {self.owner(fact[1])}"
        if kind == COUNTS:
            return f"holds counts of {SPLITS.get(fact[3], fact[3])} tokens read from table {fact[1]}"
        if kind == TABLE:
            return f"is a table of counts (since line {fact[2][1]})"
        if kind == FILE:
            where = f" (line {fact[2][1]})" if len(fact) > 2 else ""
            return f"names files of {SPLITS.get(fact[1], fact[1])} tokens{where}"
        if kind == GATE:
            return f"was selected by comparing {SPLITS.get(fact[1], fact[1])} tokens"
        if kind == WHERE:
            return "positions of scored tokens"
        if kind == FLAG:
            words = _FLAGS.get(fact[1], "")
            at = next((f for f in fact[2:] if isinstance(f, tuple) and len(f) == 2 and isinstance(f[1], int)), None)
            return f"{words} (line {at[1]})" if words and at else words
        return ""

    def picked(self, at: Iterations) -> str:
        """Which part of the stream: by the loops that picked it."""
        if not at:
            return " (the whole stream)"
        parts = []
        for number in sorted({n for n, _ in at} & set(self.loops)):
            passes = {p for n, p in at if n == number}
            which = "any round" if len(passes) > 1 else "the first round" if passes == {1} else "a later round"
            parts.append(f"{which} of the loop at line {self.loops[number].where[1]}")
        return f" (picked in {', '.join(parts[:3])})" if parts else " (a part of the stream)"

    def owner(self, number: int) -> str:
        """Name of what parameters or tables belong to."""
        if number < 0:
            return f"count table {-number}"
        instance = self.machine.instances.get(number)
        if instance is not None and instance.what == "submodule" and instance.owner is not None:
            return f"a part of {self.owner(instance.owner.number)}"
        return f"{instance.what} (made at line {instance.place[1]})" if instance else "parameters"

    def _object(self, value: Value) -> Iterator[str]:
        obj = value.obj
        if isinstance(obj, Instance):
            kind = "model" if obj.is_module else "object"
            yield f"{kind} {obj.what} (made at line {obj.place[1]})"
        elif isinstance(obj, Class | Function):
            yield f"{type(obj).__name__.lower()} {obj.name} of {obj.path.rsplit('/', 1)[-1]}"
        elif isinstance(obj, Bound):
            yield f"method {getattr(obj.function, 'name', '')}"
        elif isinstance(obj, Library) and obj.receiver is None and not obj.name.startswith("builtins."):
            yield f"library {obj.name}"
        elif isinstance(obj, Optimizer):
            numbers = sorted({f[1] for f in obj.slots["params"] if f[0] == PARAMS})
            yield f"optimizer of {', '.join(self.owner(n) for n in numbers[:3]) or 'unknown parameters'}"
        elif isinstance(obj, Listing):
            items = obj.items
            yield f"sequence of {len(items)}" if items is not None else "sequence"
        elif isinstance(obj, Mapping):
            yield "dict"

    def loop(self, record: LoopRecord) -> str:
        """A loop in words."""
        trips = f"{record.trips} rounds" if record.trips is not None else "number of rounds unknown"
        return f"line {record.where[1]}: {record.over} ({trips})"


def event_words(event: tl.Event) -> str:
    """An event of a timeline in words."""
    if isinstance(event, tl.Score):
        counted = {True: "counts in the claimed number", False: "not in the claimed number", None: ""}[event.counted]
        changed = event.seen[0] if event.seen else None
        late = f"; its tokens had changed {changed.state} before (line {changed.place.line})" if changed else ""
        return f"score of {_span(event.span)}: {counted}{late}"
    if isinstance(event, tl.Update):
        return f"update of {event.state} by {_span(event.span)} ({event.via.value})"
    if isinstance(event, tl.Calibrate):
        return f"statistics collected from {_span(event.span)}"
    if isinstance(event, tl.Read):
        return f"reads {_span(event.span)}"
    if isinstance(event, tl.Serialize):
        return "writes the artifact"
    if isinstance(event, tl.Load):
        return "reads the artifact into a model" if event.artifact else "reads a state into a model"
    if isinstance(event, tl.Report):
        return f"{'reports the claimed number' if event.headline else 'reports'}: {event.metric[:70]}"
    if isinstance(event, tl.External):
        return f"{event.kind} {event.detail}"[:90]
    if isinstance(event, tl.Unknown):
        return f"could not be followed: {event.reason}"
    return type(event).__name__.lower()


def _folded(facts: Facts) -> list[tuple]:
    """Facts that differ only in the rounds of the loops that picked their tokens, as one."""
    groups: dict[tuple, frozenset] = {}
    for fact in facts:
        if fact[0] in (TOKENS, LEARNT):
            key = (*fact[:2], frozenset(number for number, _ in fact[2]), *fact[3:])
            groups[key] = groups.get(key, frozenset()) | fact[2]
        else:
            groups[fact] = frozenset()
    return [(*key[:2], at, *key[3:]) if key[0] in (TOKENS, LEARNT) else key for key, at in groups.items()]


def _span(span: tl.Span) -> str:
    split = SPLITS.get(span.split.value, span.split.value)
    extent = {
        tl.Extent.ALL: "all", tl.Extent.ITEM: "the present item of", tl.Extent.PART: "a part of",
        tl.Extent.UNKNOWN: "some",
    }.get(span.extent, span.extent.value)  # fmt: skip
    return f"{extent} {split} tokens"


def _loops(records: list) -> Iterator[LoopRecord]:
    for record in records:
        if isinstance(record, LoopRecord):
            yield record
            for events in record.passes:
                yield from _loops(events)
        for name in ("then", "otherwise", "body"):
            yield from _loops(getattr(record, name, []))


_ORDER = {TOKENS: 0, LEARNT: 1, SCORED: 2, COUNTS: 3, PARAMS: 4, GRAPH: 5, FILE: 6, TABLE: 6, FLAG: 7}
