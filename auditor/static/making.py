"""Making modules, parameters and tensors; reading and writing files; output."""

from __future__ import annotations

import re

from auditor.static.heap import Instance, Listing, Mapping, Optimizer
from auditor.static.records import Record, ReportRecord
from auditor.static.values import (
    COUNTS,
    FILE,
    FLAG,
    LEARNT,
    NONE,
    PARAMS,
    SCORED,
    TOKENS,
    UNKNOWN,
    Facts,
    Value,
    constant,
    limited,
)

Args = list[Value]
Keywords = dict[str, Value]


class Making:
    """Mixed into `Machine`."""

    def library_module(self, name: str, values: Args, keywords: Keywords) -> Value:
        """`nn.Linear(...)`, `nn.ModuleList([...])`, `nn.Parameter(...)`."""
        if name == "Parameter":
            return self.function_Parameter(values, keywords)
        if name == "DistributedDataParallel":
            return values[0]
        instance = self.new_instance(None, name)
        out = Value(obj=instance)
        for value in values:
            if isinstance(value.obj, Listing):
                parts = value.obj.items or (value.obj.slots["sum"],)
                for part in parts:
                    if isinstance(part, Value):
                        self.adopt(instance, part)
            elif isinstance(value.obj, Instance):
                self.adopt(instance, value)
        return out

    def function_Parameter(self, args: Args, keywords: Keywords) -> Value:
        instance = self.new_instance(None, "parameter")
        content = frozenset(f for f in (self.used(args[0]) if args else NONE) if f[0] == LEARNT)
        instance.slots["$learnt"] = content
        return Value(frozenset({(PARAMS, instance.number)}), solid=True)

    def leaf(self, value: Value) -> Value:
        """A tensor that asks for gradients becomes a parameter of its own."""
        if any(f[0] == PARAMS for f in value.facts) or isinstance(value.obj, Instance):
            return value
        fresh = self.function_Parameter([value], {})
        fresh.at = value.at
        return fresh

    def made(self, args: Args, keywords: Keywords) -> Value | None:
        """`torch.zeros(...)` and its like."""
        wants = keywords.get("requires_grad")
        if wants is not None and wants.known and wants.const:
            return self.leaf(Value(frozenset().union(NONE, *(self.used(a) for a in args)), solid=True))
        facts = frozenset(f for a in args for f in self.used(a) if f[0] not in (TOKENS,) or a.obj is None)
        fill = args[1] if len(args) > 1 else None
        return Value(self.used(fill) if fill is not None else facts if args and not args[0].known else NONE, solid=True)

    function_zeros = function_ones = function_empty = function_full = function_randn = function_zeros_like = made
    function_ones_like = function_empty_like = made

    def function_tensor(self, args: Args, keywords: Keywords) -> Value | None:
        wants = keywords.get("requires_grad")
        out = Value(self.used(args[0]) if args else NONE, at=args[0].at if args else NONE, solid=True)
        return self.leaf(out) if wants is not None and wants.known and wants.const else out

    def method_requires_grad_(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Instance) or any(f[0] == PARAMS for f in receiver.facts):
            return receiver
        if args and args[0].known and not args[0].const:
            return receiver
        if receiver.obj is None:
            fresh = self.leaf(receiver)
            self.journal.facts(receiver, fresh.facts)
            return receiver
        return None

    def optimizer(self, name: str, values: Args, keywords: Keywords) -> Value:
        """An optimizer over the parameters found in its first argument."""
        held = values[0] if values else keywords.get("params", Value())
        return Value(obj=Optimizer(name, frozenset(f for f in self.spread(held) if f[0] == PARAMS)))

    def method_clone(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Mapping | Listing | Instance):
            return None
        facts = self.used(receiver)
        return Value(facts, UNKNOWN, None, receiver.at, solid=True)

    def structural(self, value: Value) -> Value:
        """`list(x)`, `sorted(x)`, `tqdm(x)`: a container of the same elements."""
        if isinstance(value.obj, Listing):
            items = value.obj.items
            out = Listing(list(items) if items is not None else None, value.obj.slots["sum"])
            if "range" in value.obj.slots:
                out.slots["range"] = value.obj.slots["range"]
            return Value(value.facts, UNKNOWN, out, value.at)
        if isinstance(value.obj, Mapping):
            keys = self.known_items(value)
            return Value(obj=Listing(list(keys) if keys is not None else None, self.elements(value)))
        return value

    # -- files and output ------------------------------------------------------------------------------------------

    def read_file(self, values: Args) -> Value | None:
        """Content of a file: a token stream when the path names a split, else what was written before."""
        if not values:
            return None
        source = values[0]
        facts = self.spread(source)
        splits = {f[1] for f in facts if f[0] == FILE}
        out: set = {f for f in facts if f[0] not in (FILE,)}
        for split in splits:
            self.read_places.setdefault(split, self.here())
            out.add((TOKENS, split, NONE, 0) if split != "valbytes" else (FLAG, "bytes"))
            named = min((f[2] for f in facts if f[0] == FILE and f[1] == split and len(f) > 2), default=None)
            self.emit(Record("read", self.here(), split=split, named=named))
        if not splits:
            name = self.file_name(source)
            known = self.files.get(name) if name else None
            # Losses handed from one process to another: a temporary name may have become a final one meanwhile.
            wanted = _unnumbered(name)
            handed = [kept for written, kept in self.losses.items() if len(wanted) > 4 and written.startswith(wanted)]
            out |= frozenset().union(NONE, *handed)
            if name and known is None and not name.startswith("\0") and "tokenizer" not in name:
                self.emit(Record("external", self.here(), detail=f"path {name[:80]}".replace("\0", "*")))
            out |= known if known is not None else frozenset().union(NONE, *self.files.values()) if not name else NONE
            out.add((FLAG, "stored", self.here()))
        # What a file holds can change between two reads: a work queue kept in a counter file hands out a new item
        # to every iteration that asks.
        at = source.at if splits else source.at | frozenset(self.loops)
        return Value(limited(frozenset(out)), UNKNOWN, None, at, solid=True)

    def file_name(self, value: Value) -> str:
        """What identifies a path: its constant, else the constant parts of the string, "" when nothing is known."""
        if value.known and isinstance(value.const, str):
            return value.const
        return value.text or ""

    def stored(self, value: Value, depth: int = 0) -> Facts:
        """Facts of what is written to a file; losses stored beside weights say nothing about the weights."""
        obj = value.obj
        if any(f[0] == SCORED for f in value.facts):
            return NONE
        if isinstance(obj, Mapping | Listing) and depth < 5:
            facts = value.facts
            for held in obj.slots.values():
                for part in held if isinstance(held, tuple) else (held,):
                    if isinstance(part, Value):
                        facts |= self.stored(part, depth + 1)
            return facts
        return self.used(value)

    def write_file(self, values: Args, keywords: Keywords) -> None:
        """`torch.save(obj, path_or_buffer)`, `path.write_bytes(data)`."""
        content = frozenset().union(NONE, *(self.stored(v) for v in values))
        losses = frozenset().union(NONE, *(self.spread(v) for v in values))
        content |= self.kept_counts(content)
        # What was made of training tokens is in the file now: reading it back reads no training data.
        content = frozenset(f for f in content if f[0] in (LEARNT, TOKENS, FLAG, COUNTS) and f[:2] != (TOKENS, "train"))
        content |= {(FLAG, "artifact")}
        target = next((name for v in reversed(values) if (name := self.file_name(v))), None)
        if target is not None and any(f[0] == SCORED for f in losses):
            name = _unnumbered(target)
            kept = frozenset(f for f in losses if f[0] not in (PARAMS, FILE))
            self.losses[name] = self.losses.get(name, NONE) | kept
        if target is not None:
            self.files[target] = self.files.get(target, NONE) | content
        else:
            self.files["?"] = self.files.get("?", NONE) | content
            for value in values[1:]:
                if value.obj is None:
                    self.journal.facts(value, limited(value.facts | content))
        if (FLAG, "weights") in content or any(f[0] == LEARNT for f in content):
            self.serialized(content)

    def serialized(self, content: Facts) -> None:
        """Weights are written to a file: an artifact."""
        learnt = frozenset(f[6] for f in content if f[0] == LEARNT and f[1] == "val")
        self.emit(Record("serialize", self.here(), learnt=learnt))

    def function_open(self, args: Args, keywords: Keywords) -> Value | None:
        if not args:
            return None
        mode = args[1] if len(args) > 1 else keywords.get("mode")
        writes = mode is not None and mode.known and any(c in str(mode.const) for c in "wax")
        if not writes:
            return self.read_file(args)
        name = self.file_name(args[0]) or "?"
        out = Value(solid=True)
        out.text = f"\1{name}"
        if "b" in str(mode.const):
            out.facts = frozenset({(FLAG, "binary")})
        return out

    def printed(self, name: str, values: Args, receiver: Value | None) -> Value:
        """Output: a report of whatever it contains."""
        facts = frozenset().union(NONE, *(self.used(v) for v in values)) if values else NONE
        if name == "write" and receiver is not None and receiver.text and receiver.text.startswith("\1"):
            path = receiver.text[1:]
            if not any(f[0] == SCORED for f in facts):
                kept = frozenset(f for f in facts if f[0] != PARAMS) | {(FLAG, "artifact")}
                self.files[path] = self.files.get(path, NONE) | kept
                if (FLAG, "binary") in receiver.facts and (FLAG, "weights") in kept:
                    # A format of the program's own: bytes of the weights, put together by hand.
                    self.serialized(kept)
        said = next((v for v in values if v.line is not None), None)
        where = said.line if said is not None and said.line else self.here()
        if said is not None and said.text:
            self.printed_literals.add(said.text.split("\0")[0].strip())
        if any(f[0] == "scored" for f in facts):
            record = ReportRecord("report", where, facts=facts, text=(said.text or "") if said is not None else "")
            self.reports.append(record)
            self.emit(record)
        elif said is not None and said.text:
            self.other_prints.setdefault(said.text, where)
        return constant(None)


def _unnumbered(name: str) -> str:
    """A file name without what differs from one process to the next."""
    return re.sub(r"[\0\d*]+", "#", name.removeprefix("\1"))
