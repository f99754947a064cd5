"""Calls of the abstract machine: functions and classes of the submission, neural modules, iteration protocols."""

from __future__ import annotations

import ast
from typing import Any

from auditor.static import rounds
from auditor.static.banks import selecting
from auditor.static.counting import LOOSE, formed
from auditor.static.heap import Bound, Class, Frame, Function, Instance, Library, Listing, Mapping, Module, learnt
from auditor.static.library import CROSS_ENTROPY
from auditor.static.records import CallRecord, Record, ScoreRecord
from auditor.static.target_uses import writes_at_targets
from auditor.static.values import (
    COUNTS,
    FLAG,
    GATE,
    GRAPH,
    LEARNT,
    NONE,
    PARAMS,
    SCORED,
    TABLE,
    TOKENS,
    UNKNOWN,
    Facts,
    Iterations,
    Value,
    constant,
    disjoint,
    join,
    limited,
    picked,
)

MAX_CALL_DEPTH = 40
_LOSSY = CROSS_ENTROPY | frozenset({"log_softmax", "gather", "logsumexp"})


class Calls:
    """Mixed into `Machine`."""

    def do_call(self, node: ast.Call) -> Value:
        function = self.eval(node.func)
        args, keywords = self.arguments(node)
        outer, self.frame.line = self.frame.line, node.lineno
        try:
            return self.call(function, args, keywords, node)
        finally:
            self.frame.line = outer

    def arguments(self, node: ast.Call) -> tuple[list[Value], dict[str, Value]]:
        """Positional and keyword arguments; what a star expands to when it is known."""
        args: list[Value] = []
        keywords: dict[str, Value] = {}
        for part in node.args:
            if isinstance(part, ast.Starred):
                value = self.eval(part.value)
                known = self.known_items(value)
                args += list(known) if known is not None else [self.elements(value)]
            else:
                args.append(self.eval(part))
        for keyword in node.keywords:
            value = self.eval(keyword.value)
            if keyword.arg is not None:
                keywords[keyword.arg] = value
            elif isinstance(value.obj, Mapping):
                keywords.update({k[1]: v for k, v in value.obj.slots.items() if isinstance(k, tuple)})
        return args, keywords

    def call(self, function: Value, args: list[Value], keywords: dict[str, Value], node: ast.AST | None) -> Value:
        """Call whatever `function` may be."""
        out = self.call_object(function, function.obj, args, keywords, node)
        for other in function.others:
            mark = self.journal.mark()
            second = self.call_object(function, other, args, keywords, node)
            self.journal.merge(self.journal.undo(mark))
            out = join(out, second)
        return out

    def call_object(
        self, function: Value, obj: Any, args: list[Value], keywords: dict[str, Value], node: ast.AST | None
    ) -> Value:
        if isinstance(obj, Function):
            return self.call_function(obj, args, keywords, node)
        if isinstance(obj, Bound):
            front = [obj.receiver] if obj.receiver is not None else []
            args, keywords = [*front, *obj.args, *args], {**obj.keywords, **keywords}
            if isinstance(obj.function, Function):
                return self.call_function(obj.function, args, keywords, node)
            return self.call(obj.function, args, keywords, node)
        if isinstance(obj, Class):
            return self.instantiate(obj, args, keywords)
        if isinstance(obj, Instance):
            return self.call_instance(function, obj, args, keywords, node)
        if isinstance(obj, Library):
            return self.call_library(obj, args, keywords, node)
        return self.opaque([function, *args, *keywords.values()])

    def opaque(self, values: list[Value]) -> Value:
        """Result of a call that is not followed: whatever went in may come out."""
        facts, at = NONE, NONE
        for value in values:
            facts |= self.used(value)
            at |= value.at
            if isinstance(value.obj, Instance) and not value.obj.is_module:
                # An object that was made from a position hands it on.
                held = value.obj.slots.values()
                at |= frozenset().union(*(v.at for v in held if isinstance(v, Value) and v.obj is None))
        if any(f[0] == COUNTS for f in facts) and any(f[0] == SCORED for f in facts):
            self.mixture(values)
        return Value(limited(facts), UNKNOWN, None, at)

    # -- functions -------------------------------------------------------------------------------------------------

    def call_function(
        self, function: Function, args: list[Value], keywords: dict[str, Value], node: ast.AST | None
    ) -> Value:
        """Walk a function of the submission, or summarise it."""
        target = function.node
        method_of_module = function.owner is not None and function.owner.is_module
        if len(self.calling) >= MAX_CALL_DEPTH or self.calling.count(id(target)) >= 2:
            return self.opaque([*args, *keywords.values()])
        if method_of_module and function.name != "__init__":
            if not self.walk_method(function, args):
                return self.neural(function, args, keywords)
        elif not (
            self.sources.worth_walking(target, False)
            or isinstance(function.frame.function, Function)  # a closure sees its surroundings
            or self.carries_tokens(args, keywords)
        ):
            return self.opaque([*args, *keywords.values()])
        return self.walk(function, args, keywords)

    def carries_tokens(self, args: list[Value], keywords: dict[str, Value]) -> bool:
        """Functions that are handed tokens are always walked: what they do with them is the question."""
        return any(f[0] == TOKENS and f[1] != "train" for v in (*args, *keywords.values()) for f in self.spread(v))

    def walk_method(self, function: Function, args: list[Value]) -> bool:
        """Methods of neural modules are arithmetic unless they change state themselves."""
        if function.name in ("forward", "__call__"):
            wanted = self.sources.worth_walking(function.node, True)
            if wanted and self.sources.reaches(function.node, _EFFECTS, 60):
                return True
        elif self.sources.worth_walking(function.node, True) or function.name == "__getattr__":
            return True
        if not self.sources.names(function.node) & CROSS_ENTROPY:
            return False
        # `model.loss(batch)` splits inputs from targets inside: only its body tells them apart.
        return len(function.node.args.args) == 2 or writes_at_targets(function.node)

    def walk(self, function: Function, args: list[Value], keywords: dict[str, Value]) -> Value:
        """Walk the body in a new frame."""
        node = function.node
        frame = Frame(function.path, function.frame, function)
        self.bind(frame, function, args, keywords)
        place = self.here()
        record = CallRecord(place, function.name)
        outer_frame, outer_sink, quiet = self.frame, self.sink, self.no_grad
        self.frame, self.sink = frame, record.body
        frame.line = node.lineno
        self.stack.append(place)
        self.calling.append(id(node))
        self.pending.append({})
        self.no_grad = 0 if function.wrapped == "enable_grad" else self.no_grad + (function.wrapped == "no_grad")
        try:
            if isinstance(node, ast.Lambda):
                frame.slots["$return"] = self.eval(node.body)
            else:
                self.block(node.body)
                self.arrive("return")
        finally:
            self.pending.pop()
            self.calling.pop()
            self.stack.pop()
            self.frame, self.sink, self.no_grad = outer_frame, outer_sink, quiet
        if record.body:
            self.sink.append(record)
        if frame.yields:
            return Value(obj=Listing(None, self.merged(tuple(frame.yields))))
        return frame.slots.get("$return") or constant(None)

    def bind(self, frame: Frame, function: Function, args: list[Value], keywords: dict[str, Value]) -> None:
        """Parameters of a call."""
        spec = function.node.args
        names = [a.arg for a in (*spec.posonlyargs, *spec.args)]
        slots = frame.slots
        positional, keyword_only = function.slots.get("defaults", ([], []))
        for name, default in zip(names[len(names) - len(positional) :], positional, strict=False):
            slots[name] = default
        for item, default in zip(spec.kwonlyargs, keyword_only, strict=True):
            if default is not None:
                slots[item.arg] = default
        for name, value in zip(names, args, strict=False):
            slots[name] = value
        if spec.vararg is not None:
            slots[spec.vararg.arg] = Value(obj=Listing(args[len(names) :], mutable=False))
        rest = Mapping()
        for name, value in keywords.items():
            if name in names or any(name == a.arg for a in spec.kwonlyargs):
                slots[name] = value
            else:
                rest.slots[("k", name)] = value
        if spec.kwarg is not None:
            slots[spec.kwarg.arg] = Value(obj=rest)
        for name in (*names, *(a.arg for a in spec.kwonlyargs)):
            slots.setdefault(name, Value())

    def defaults(self, spec: ast.arguments) -> tuple[list[Value], list[Value | None]]:
        """Defaults, evaluated where the function is defined."""
        return (
            [self.eval(d) for d in spec.defaults],
            [self.eval(d) if d is not None else None for d in spec.kw_defaults],
        )

    def do_lambda(self, node: ast.Lambda) -> Value:
        function = Function(node, self.frame, self.frame.path)
        function.slots["defaults"] = self.defaults(node.args)
        return Value(obj=function)

    def do_walrus(self, node: ast.NamedExpr) -> Value:
        value = self.eval(node.value)
        self.assign(node.target, value)
        return value

    def do_yield(self, node: ast.Yield | ast.YieldFrom) -> Value:
        value = self.eval(node.value) if node.value is not None else constant(None)
        if isinstance(node, ast.YieldFrom):
            value = self.elements(value)
        self.frame.yields.append(value)
        return Value()

    # -- classes ---------------------------------------------------------------------------------------------------

    def new_instance(self, cls: Class | None, what: str) -> Instance:
        """A fresh heap object allocated here."""
        number = len(self.instances) + 1
        instance = Instance(cls, what, number, self.here(), len(self.loops))
        self.instances[number] = instance
        return instance

    def instantiate(self, cls: Class, args: list[Value], keywords: dict[str, Value]) -> Value:
        """`Class(...)`."""
        if "torch.autograd.Function" in " ".join(cls.lib_bases):
            return self.opaque([*args, *keywords.values()])
        if any("namedtuple" in base.lower() or "NamedTuple" in base for base in cls.lib_bases):
            pass
        instance = self.new_instance(cls, cls.name)
        value = Value(obj=instance)
        constructor = cls.find("__init__")
        if constructor is not None and isinstance(constructor.obj, Function):
            function = constructor.obj
            if self.calling.count(id(function.node)) < 2 and len(self.calling) < MAX_CALL_DEPTH:
                self.walk(function, [value, *args], keywords)
        else:
            for name, held in zip(cls.fields, args, strict=False):
                self.set_attribute(value, name, held)
            for name, held in keywords.items():
                self.set_attribute(value, name, held)
            after = cls.find("__post_init__")
            if after is not None and isinstance(after.obj, Function):
                self.walk(after.obj, [value], {})
        self.override_instance(instance)
        return value

    def override_instance(self, instance: Instance) -> None:
        """Logged settings replace plain attributes of settings objects."""
        if not instance.is_module and self.overrides:
            self.override(instance.slots)

    def call_instance(
        self, function: Value, obj: Instance, args: list[Value], keywords: dict[str, Value], node: ast.AST | None
    ) -> Value:
        if obj.cls is not None:
            for name in ("__call__", "forward"):
                method = obj.cls.find(name)
                if method is not None and isinstance(method.obj, Function):
                    return self.call_function(method.obj, [Value(obj=obj), *args], keywords, node)
        if obj.what in CROSS_ENTROPY or obj.what in ("CrossEntropyLoss", "NLLLoss"):
            return self.call_library(Library("cross_entropy"), args, keywords, node)
        return self.neural(None, [Value(obj=obj), *args], keywords)

    # -- neural modules --------------------------------------------------------------------------------------------

    def neural(self, function: Function | None, args: list[Value], keywords: dict[str, Value]) -> Value:
        """Call of a model: its result depends on the inputs and on what its parameters have learnt."""
        values = [*args, *keywords.values()]
        receiver = values[0].obj if values and isinstance(values[0].obj, Instance) else None
        facts, at = NONE, NONE
        for value in values:
            facts |= self.used(value)
            at |= value.at
        inputs = [v for v in values[1:] if any(f[0] == TOKENS for f in self.spread(v))]
        if self.hooks["list"] or self.hooks["forwards"]:
            self.calibrated(inputs)
            for hook in self.hooks["list"]:
                self.run_hook(hook, receiver, inputs, facts)
            for _, forward in self.hooks["forwards"]:
                self.run_hook(forward, None, inputs, facts)
        modules = [v.obj for v in values if isinstance(v.obj, Instance)]
        facts |= {(FLAG, "some rows", module.number) for module in modules if selecting(module)}
        out = Value(limited(facts), UNKNOWN, None, at, solid=True)
        if function is not None and len(inputs) >= 2 and self.sources.reaches(function.node, _LOSSY, 200):
            targets = max(inputs, key=lambda v: max((f[3] for f in v.facts if f[0] == TOKENS), default=-99))
            return self.scored(out, targets)
        return out

    def calibrated(self, inputs: list[Value]) -> None:
        """Activations of these inputs are collected by hooks."""
        content = [f for value in inputs for f in self.spread(value) if f[0] == TOKENS]
        for split in sorted({f[1] for f in content}):
            at = frozenset().union(*(f[2] for f in content if f[1] == split))
            self.emit(Record("calibrate", self.here(), split=split, at=at))

    def run_hook(self, hook: Value, receiver: Instance | None, inputs: list[Value], facts: Facts) -> None:
        """A forward hook sees activations: they hold the tokens that went in."""
        if self.calling.count(id(getattr(hook.obj, "node", None))) > 0:
            return
        activation = Value(frozenset(f for f in facts if f[0] in (TOKENS, LEARNT)) | {(FLAG, "activation")}, solid=True)
        module = Value(obj=receiver) if receiver is not None else Value()
        given = [module, Value(obj=Listing([activation])), activation]
        if (hook in [forward for _, forward in self.hooks["forwards"]]) and isinstance(hook.obj, Function):
            given = [activation] * len(hook.obj.node.args.args)
        self.call(hook, given, {}, None)

    def scored(self, logits: Value, targets: Value, separate: bool = False) -> Value:
        """A loss of `targets` under `logits` is computed here; returns the loss."""
        wanted = [f for f in self.used(targets) if f[0] == TOKENS]
        facts = logits.facts | targets.facts
        reach = max((f[3] for f in wanted), default=0)
        partial = frozenset(f for f in self.spread(targets) if f[:2] == (FLAG, "partial"))
        number = 0
        for split in sorted({f[1] for f in wanted}) or ["unknown"]:
            mine = [f for f in wanted if f[1] == split and f[3] == reach]
            at = frozenset().union(*(f[2] for f in mine)) if mine else NONE
            overlapping = frozenset(
                f for f in facts if f[0] == LEARNT and f[1] == split and split == "val"
                and any(not disjoint(f[2], m[2]) for m in mine)
            )  # fmt: skip
            number = len(self.scores) + 1
            record = ScoreRecord(
                "score", self.here(), split=split, at=at, number=number, offset=reach, influences=overlapping,
                owners=frozenset(abs(f[1]) for f in facts if f[0] == GRAPH),
                artifact=(FLAG, "artifact") in facts, facts=facts, partial=partial,
                own_target=separate and self.holds_targets(logits.facts, mine),
            )  # fmt: skip
            self.scores.append(record)
            self.emit(record)
            if split != "train":
                facts |= {(SCORED, number)}
        out = Value(limited(facts | {(FLAG, "loss")} - {(FLAG, "distribution")}), UNKNOWN, None, logits.at | targets.at)
        out.solid = True
        out.facts = frozenset(f for f in out.facts if f != (FLAG, "distribution"))
        return out

    def holds_targets(self, facts: Facts, targets: list[tuple]) -> bool:
        """True when logits were computed from the tokens they are scored against, or from a comparison with them."""
        if any(f[0] == SCORED for f in facts):
            return False
        own = any(f in facts or (GATE, *f[1:4]) in facts for f in targets)
        return own and any(f[0] == TOKENS and f[1] == t[1] and f[3] < t[3] for t in targets for f in facts)

    def score_at(self, held: Value, facts: Facts, index: Value) -> Value:
        """A distribution read at given ids: a loss when the ids are the tokens to predict."""
        base = Value(formed(facts, LOOSE), at=held.at)
        ids = [f for f in self.spread(index) if f[0] == TOKENS]
        if ids and any(f[0] == GRAPH for f in facts):
            part = frozenset(f for f in self.spread(index) if f[:2] == (FLAG, "partial"))
            # What was counted may hold the same tokens: that is for the rules about counts.
            plain = not any(f[0] in (COUNTS, TABLE) for f in held.facts)
            out = self.scored(
                Value(base.facts - frozenset(ids) | (held.facts if plain else NONE), at=held.at),
                Value(frozenset(ids) | part, at=index.at),
                separate=plain,
            )
            if (FLAG, "softmax") in facts:
                out.facts = out.facts | {(FLAG, "probability")}
            return out
        return Value(limited(facts | frozenset(ids)), UNKNOWN, None, held.at | index.at, solid=True)

    # -- iteration -------------------------------------------------------------------------------------------------

    def known_items(self, value: Value) -> tuple[Value, ...] | None:
        """Elements of a container with known elements."""
        obj = value.obj
        if isinstance(obj, Listing):
            if not value.others:
                return obj.items
            return self.aligned(value)
        if isinstance(obj, Mapping) and obj.slots.get("sum") is None:
            keys = [k[1] for k in obj.slots if isinstance(k, tuple)]
            return tuple(constant(k) for k in keys)
        if value.known and isinstance(value.const, str) and len(value.const) <= 16:
            return tuple(constant(c) for c in value.const)
        return None

    def aligned(self, value: Value) -> tuple[Value, ...] | None:
        """Elements of a value that may be one of several tuples of the same length, joined position by position."""
        rows = [o.items for o in (value.obj, *value.others) if isinstance(o, Listing)]
        if any(row is None for row in rows) or len({len(row) for row in rows if row is not None}) != 1:
            return None
        return tuple(self.merged(column) or Value() for column in zip(*rows, strict=True))  # type: ignore[arg-type]

    def elements(self, value: Value) -> Value:
        """One value for all elements of an iterable."""
        obj = value.obj
        if isinstance(obj, Listing):
            found = self.merged(obj.items) if obj.items is not None else obj.slots["sum"]
            for other in value.others:
                if isinstance(other, Listing):
                    more = self.merged(other.items) if other.items is not None else other.slots["sum"]
                    found = join(found, more) if found is not None else more
            return self.placed(found, value.at) if found is not None else Value(value.facts, at=value.at)
        if isinstance(obj, Mapping):
            return Value(frozenset(f for f in value.facts if f[0] != TABLE), at=value.at, solid=True)
        if isinstance(obj, Instance):
            return self.iterated(value, obj)
        return Value(self.spread(value), UNKNOWN, None, value.at, value.base, solid=True)

    def placed(self, item: Value, at: Iterations, ahead: rounds.Ahead = NONE) -> Value:
        """An element of a container that was itself picked at these iterations, by an index that may be ahead."""
        if not at or (at <= item.at and not ahead):
            return item
        base = (item.base or item) if item.obj is None else None
        facts = picked(item.facts, self.later(at, ahead, items=True))
        out = Value(facts, item.const, item.obj, item.at | at, base, item.solid, item.low, item.offset)
        out.others, out.text, out.line = item.others, item.text, item.line
        # Where the next item begins is ahead; tokens of the next item are its own already.
        out.ahead = item.ahead | rounds.positions(ahead)
        return out

    def later(self, at: Iterations, ahead: rounds.Ahead, items: bool = False) -> Iterations:
        """Iterations of what is picked at a position that may be ahead; where it was moved on is kept for the report."""
        for number, scaled, where in ahead if at else ():
            if scaled or items:
                self.moved.update({(loop, step + 1): where for loop, step in at if loop == number})
        return rounds.later(at, ahead, items)

    def iterated(self, value: Value, obj: Instance) -> Value:
        if obj.cls is not None:
            for name in ("__iter__", "__next__"):
                method = obj.cls.find(name)
                if method is not None and isinstance(method.obj, Function):
                    got = self.call_function(method.obj, [value], {}, None)
                    if isinstance(got.obj, Instance) and got.obj is obj:
                        continue
                    return self.elements(got) if isinstance(got.obj, Listing) else got
            method = obj.cls.find("__getitem__")
            if method is not None and isinstance(method.obj, Function):
                return self.call_function(method.obj, [value, Value(at=frozenset(self.loops))], {}, None)
        if obj.is_module and obj.children:
            out = Value(obj=obj.children[0])
            out.others = tuple(obj.children[1:4])
            return out
        return Value(self.spread(value))

    def loop_values(
        self, node: ast.expr, over: Value, items: tuple[Value, ...] | None
    ) -> tuple[int | None, Value, Value]:
        """Trip count if known, the value met first, the value met later."""
        bounds = self.range_bounds(over)
        if bounds is not None:
            start, stop, step = bounds
            trips = None
            if all(b.known and isinstance(b.const, int) for b in bounds) and step.const != 0:
                trips = len(range(start.const, stop.const, step.const))
            first = Value(start.facts, start.const, at=start.at, solid=True, low=start.const if start.known else None)
            later = Value(start.facts | step.facts, UNKNOWN, at=start.at, solid=True)
            if start.known and isinstance(start.const, int) and (not step.known or step.const > 0):
                later.low = start.const + 1
            if trips == 2:
                later.const = start.const + step.const
            first.counts = later.counts = (0, step, False)
            first.ahead = later.ahead = rounds.between(start, stop)
            return trips, first, later
        if items is not None:
            merged = self.merged(items) or Value()
            first = items[0] if items else Value()
            return len(items), self.placed(first, over.at), self.placed(merged, over.at)
        element = self.elements(over)
        if isinstance(over.obj, Listing) and over.obj.slots.get("enumerated"):
            return over.obj.slots["trips"], *over.obj.slots["enumerated"]
        return None, element, element

    def range_bounds(self, value: Value) -> tuple[Value, Value, Value] | None:
        """Bounds of a `range`."""
        obj = value.obj
        if isinstance(obj, Listing) and "range" in obj.slots:
            return obj.slots["range"]
        return None

    # -- imports ---------------------------------------------------------------------------------------------------

    def imported(self, name: str) -> Value:
        """`import name`."""
        path = self.sources.find(name, self.frame.path)
        if path and path != self.frame.path:
            return Value(obj=self.module(path, name))
        return Value(obj=Library(name))

    def imported_from(self, module: str, name: str) -> Value:
        """`from module import name`."""
        path = self.sources.find(module, self.frame.path) if module else None
        if path and path != self.frame.path:
            found = self.module(path, module).frame.slots.get(name)
            return found if found is not None else Value()
        inner = self.sources.find(f"{module}.{name}" if module else name, self.frame.path)
        if inner and inner != self.frame.path:
            return Value(obj=self.module(inner, name))
        return Value(obj=Library(f"{module}.{name}" if module else name))

    def module(self, path: str, name: str) -> Module:
        """A module of the submission, walked on first import."""
        known = path in self.modules
        if not known:
            self.sources.tree(path)
            self.sources.parsed()
        return self.load_module(path, name)


_EFFECTS = frozenset(
    {"backward", "step", "scatter_add_", "index_add_", "bincount", "add_", "copy_", "at", "load_state_dict"}
)
__all__ = ["PARAMS", "learnt"]
