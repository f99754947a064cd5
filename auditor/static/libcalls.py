"""Library calls of the abstract machine, driven by the tables of `auditor.static.library`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from auditor.static import library as lib
from auditor.static.heap import Bound, Function, Instance, Library, Listing, Mapping, Optimizer, learnt
from auditor.static.records import Record, ReportRecord, UpdateRecord
from auditor.static.values import (
    COUNTS,
    FILE,
    FLAG,
    GRAPH,
    LEARNT,
    NONE,
    PARAMS,
    SCORED,
    TABLE,
    TOKENS,
    UNKNOWN,
    Facts,
    Value,
    constant,
    join,
    limited,
)

Args = list[Value]
Keywords = dict[str, Value]


class LibraryCalls:
    """Mixed into `Machine`."""

    def call_library(self, obj: Library, args: Args, keywords: Keywords, node: ast.AST | None) -> Value:
        """Call of a library function or of a method of a value that is no object of the submission."""
        name = obj.name.rsplit(".", 1)[-1]
        if obj.receiver is None:
            external = self.external(obj.name)
            if external:
                self.emit(Record("external", self.here(), detail=f"{external} {obj.name}"))
                if external == "native":
                    self.unknown(f"native code: {obj.name}")
        if obj.receiver is not None:
            special = getattr(self, f"method_{name}", None)
            if special is not None:
                out = special(obj.receiver, args, keywords)
                if out is not None:
                    return out
        else:
            special = getattr(self, f"function_{name.strip('_')}", None)
            if special is not None:
                out = special(args, keywords)
                if out is not None:
                    return out
        return self.by_table(name, obj, args, keywords)

    def by_table(self, name: str, obj: Library, args: Args, keywords: Keywords) -> Value:
        receiver = obj.receiver
        values = ([receiver] if receiver is not None else []) + args
        if name in lib.CROSS_ENTROPY:
            return self.cross_entropy(values, keywords)
        if name in lib.GATHERS and len(values) >= 2:
            index = keywords.get("index") or values[-1]
            return self.pick(values[0], Value(self.spread(index), at=index.at, solid=True))
        if name in lib.SCATTER_ADDS and values:
            change = keywords.get("src") or keywords.get("source") or values[-1]
            index = values[-2] if len(values) >= 3 else (keywords.get("index") or values[-1])
            self.add_at(values[0], index, change)
            return values[0]
        if name in lib.NO_GRAD:
            return Value(frozenset({(FLAG, "no_grad")}), solid=True)
        if name in lib.FILE_READS and (out := self.read_file(values)) is not None:
            return out
        if name in lib.FILE_WRITES and values:
            self.write_file(values, keywords)
            return Value()
        if name in lib.PRINTS or name == "write":
            return self.printed(name, values, receiver)
        if name in lib.SHUFFLES:
            return Value(frozenset().union(*(self.spread(v) for v in values)) if values else NONE, solid=True)
        if name.endswith("_") and not name.startswith("_") and name not in lib.NOT_IN_PLACE and values:
            facts = frozenset().union(NONE, *(self.used(v) for v in [*values[1:], *keywords.values()]))
            self.mutate(values[0], facts, name in lib.OVERWRITES)
            return values[0]
        return self.passed_on(name, obj, values, keywords)

    def passed_on(self, name: str, obj: Library, values: Args, keywords: Keywords) -> Value:
        """A call without a meaning of its own: facts of the arguments, views and containers kept as they are."""
        receiver = obj.receiver
        everything = [*values, *keywords.values()]
        model = next((v for v in everything if isinstance(v.obj, Instance) and v.obj.is_module), None)
        if name in lib.MODEL_ALIASES and model is not None:
            return model
        if receiver is None and obj.name.startswith(("torch.nn.", "nn.")) and name[:1].isupper():
            return self.library_module(name, values, keywords)
        if receiver is None and "optim" in obj.name and name[:1].isupper():
            return self.optimizer(name, values, keywords)
        if receiver is not None and name in lib.VIEWS and receiver.obj is None:
            return self.view(receiver)
        if name in lib.STRUCTURAL and everything:
            return self.structural(everything[-1] if name in ("filter", "cast") else everything[0])
        if "out" in keywords:
            self.mutate(keywords["out"], frozenset().union(NONE, *(self.used(v) for v in values)), overwrite=True)
            return keywords["out"]
        for value in everything:
            if isinstance(value.obj, Function | Bound) and name not in ("signal", "register", "atexit"):
                return self.callback(name, value, [v for v in everything if v is not value])
        if isinstance(getattr(receiver, "obj", None), Instance) and not receiver.obj.is_module:
            return self.unknown_method(receiver, values)
        out = self.opaque(everything)
        if name in lib.DISTRIBUTIONS:
            out.facts = out.facts | {(FLAG, "distribution")} | ({(FLAG, "softmax")} if name == "softmax" else NONE)
        elif name == "exp" and any(f[0] == SCORED for f in out.facts):
            spread = {(FLAG, "spread", self.here())} if (FLAG, "per byte") in out.facts else NONE
            out.facts = out.facts | {(FLAG, "probability")} | spread
        elif name in ("log", "log2"):
            out.facts = out.facts - {(FLAG, "probability")}
        elif name in lib.REPEATS and any(f[0] == SCORED for f in out.facts):
            out.facts = out.facts | {(FLAG, "spread", self.here())}
        elif name in lib.ARG_SELECTIONS:
            out.facts = frozenset(f for f in out.facts if f[0] != COUNTS)
        elif name == "bincount":
            self.mark_table(out)
        out.solid = True
        if receiver is not None and not receiver.facts and receiver.obj is None and values[1:]:
            # An object the analysis does not know may keep what it is given (queues, caches, writers).
            self.journal.facts(receiver, limited(receiver.facts | frozenset(f for f in out.facts if f[0] != PARAMS)))
        if name == "arange" and values:
            out.offset = values[0].offset if len(values) > 1 else 0
            start = values[0]
            if len(values) > 1 and start.known and isinstance(start.const, int) and 0 < start.const <= 4:
                out.offset = start.const
        elif values:
            out.offset = values[0].offset
        return out

    def unknown_method(self, receiver: Value, values: Args) -> Value:
        """A method inherited from a library class: the object may keep its arguments and give them back."""
        slots = receiver.obj.slots
        facts = frozenset().union(NONE, *(self.spread(v) for v in values[1:]))
        kept = slots.get("$kept")
        self.journal.put(slots, "$kept", join(kept, Value(facts)))
        return Value(facts | (kept.facts if kept else NONE))

    def external(self, name: str) -> str:
        """Kind of contact with the outside a library name means, "" for none."""
        if name.startswith(lib.NETWORK):
            return "network"
        if name.startswith(lib.PROCESSES):
            return "process"
        return "native" if name.startswith(lib.NATIVE) and name[:1].islower() else ""

    # -- losses ----------------------------------------------------------------------------------------------------

    def cross_entropy(self, values: Args, keywords: Keywords) -> Value:
        """A loss of logits against targets."""
        if len(values) < 2:
            values = [*values, *[keywords[k] for k in ("input", "logits", "target", "labels") if k in keywords]]
        if len(values) < 2:
            return self.opaque(values)
        if len(values) > 2 and values[0].obj is not None and isinstance(values[0].obj, Library):
            values = values[1:]
        logits = Value(self.used(values[0]), at=values[0].at)
        return self.scored(logits, values[1], separate=True)

    def method_backward(self, receiver: Value, args: Args, keywords: Keywords) -> Value:
        """Gradients of everything the loss was computed with."""
        facts = self.used(receiver)
        content = frozenset(f for f in facts if f[0] in (TOKENS, LEARNT))
        for fact in facts:
            if fact[0] == GRAPH and fact[1] > 0:
                self.add_gradients(self.root(fact[1]), content)
        self.last_backward = self.here()
        return constant(None)

    def add_gradients(self, root: Instance, content: Facts) -> None:
        self.journal.put(root.slots, "$grads", limited(root.slots.get("$grads", NONE) | content))

    def root(self, number: int) -> Instance:
        """Outermost owner."""
        instance = self.instances[abs(number)]
        for _ in range(20):
            if instance.owner is None:
                break
            instance = instance.owner
        return instance

    def gradients(self, facts: Facts) -> Facts:
        """Pending gradients of the owners of these parameters."""
        out = NONE
        for fact in facts:
            if fact[0] == PARAMS:
                out |= self.root(fact[1]).slots.get("$grads", NONE)
        return out

    def set_gradients(self, held: Value, value: Value) -> None:
        content = frozenset(f for f in self.used(value) if f[0] in (TOKENS, LEARNT))
        for number in self.params(held):
            root = self.root(number)
            if value.known and value.const is None:
                continue
            if content:
                self.add_gradients(root, content)

    def chosen(self, args: Args) -> Value | None:
        """`min(first, second)` of two evaluations; None when these are other numbers."""
        facts = [self.spread(a) for a in args]
        numbers = [{f[1] for f in each if f[0] == SCORED} for each in facts]
        if len(args) < 2 or not all(numbers) or set.intersection(*numbers):
            return None
        return Value(frozenset().union(*facts) | {(FLAG, "choice", self.here())}, solid=True)

    def function_minimum(self, args: Args, keywords: Keywords) -> Value | None:
        """Keeping the better of two losses, element by element."""
        if len(args) < 2:
            return None
        out = self.opaque(args)
        if all(any(f[0] == SCORED for f in self.spread(a)) for a in args[:2]):
            out.facts = out.facts | {(FLAG, "choice", self.here())}
        out.solid = True
        return out

    function_fmin = function_minimum

    def function_grad(self, args: Args, keywords: Keywords) -> Value | None:
        """`torch.autograd.grad(loss, params)`."""
        if not args:
            return None
        content = frozenset(f for f in self.used(args[0]) if f[0] in (TOKENS, LEARNT))
        return Value(obj=Listing(None, Value(content | {(FLAG, "gradient")}, solid=True)))

    def method_zero_grad(self, receiver: Value, args: Args, keywords: Keywords) -> Value:
        numbers = self.params(Value(self.optimizer_facts(receiver)))
        if isinstance(receiver.obj, Instance):
            numbers.add(receiver.obj.number)
        for number in numbers:
            self.journal.put(self.root(number).slots, "$grads", NONE)
        return constant(None)

    def optimizer_facts(self, receiver: Value) -> Facts:
        obj = receiver.obj
        if isinstance(obj, Optimizer):
            return obj.slots["params"]
        if isinstance(obj, Instance) and "$params" in obj.slots:
            return obj.slots["$params"]
        return self.spread(receiver)

    def method_step(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        """An optimizer step: what the gradients saw becomes part of the parameters."""
        for value in args:
            if isinstance(value.obj, Function | Bound):
                self.call(value, [], {}, None)
        if isinstance(receiver.obj, Instance) and receiver.obj.cls is not None and receiver.obj.cls.find("step"):
            return None
        held = frozenset(f for f in self.optimizer_facts(receiver) if f[0] == PARAMS)
        for number in sorted(self.params(Value(held))):
            grads = self.root(number).slots.get("$grads", NONE)
            if grads:
                self.learn(number, grads, "optimizer")
        return constant(None)

    # -- state -----------------------------------------------------------------------------------------------------

    def learn(self, number: int, facts: Facts, how: str) -> None:
        """Parameters of an owner change through `facts`."""
        instance = self.instances[number]
        place = self.here()
        gained = set()
        for fact in facts:
            if fact[0] == TOKENS:
                gained.add((LEARNT, fact[1], fact[2], fact[3], number, how, place))
            elif fact[0] == LEARNT:
                gained.add(fact)
        if not gained:
            return
        splits = sorted({f[1] for f in facts if f[0] == TOKENS})
        if how == "optimizer" or "val" in splits:
            for split in splits:
                at = frozenset().union(*(f[2] for f in facts if f[0] == TOKENS and f[1] == split))
                record = UpdateRecord(
                    "update", place, split=split, at=at, owner=number, how=how, facts=facts,
                    adapter=not self.instances[number].cls or instance.what == "parameter",
                    after=getattr(self, "last_backward", None),
                )  # fmt: skip
                self.updates.append(record)
                self.emit(record)
        kept = frozenset(f for f in gained if f[1] != "train") | {(FLAG, "trained")}
        self.journal.put(instance.slots, "$learnt", limited(instance.slots.get("$learnt", NONE) | kept))

    def write_parameters(self, params: Facts, facts: Facts, overwrite: bool) -> None:
        """Parameters are written directly; an overwrite forgets what they had learnt."""
        how = "gradient write" if (FLAG, "gradient") in facts else "write"
        if (FLAG, "activation") in facts:
            how = "calibration"
        for number in sorted(f[1] for f in params if f[0] == PARAMS):
            instance = self.instances[number]
            if overwrite:
                self.journal.put(instance.slots, "$learnt", frozenset(f for f in facts if f[0] in (LEARNT, FLAG)))
                if not any(f[0] == TOKENS for f in facts):
                    self.emit(Record("reset", self.here(), detail=str(number)))
            own = learnt(instance)
            fresh = frozenset(f for f in facts if f[0] == TOKENS or (f[0] == LEARNT and f not in own))
            if fresh:
                self.learn(number, fresh, how)

    def mutate(self, held: Value, facts: Facts, overwrite: bool) -> None:
        """An in-place change of a tensor: of parameters, or of any value and what it is a view of."""
        params = frozenset(f for f in held.facts if f[0] == PARAMS)
        if isinstance(held.obj, Instance) and held.obj.is_module:
            params |= {(PARAMS, held.obj.number)}
        if params:
            self.write_parameters(params, facts, overwrite)
            return
        facts = frozenset(f for f in facts if f[0] != PARAMS)
        base = held.base
        if overwrite and base is None:
            kept = frozenset(f for f in held.facts if f[0] == TABLE)
            self.journal.facts(held, limited(kept | facts))
            return
        self.journal.facts(held, limited(held.facts | facts))
        if base is not None and base is not held:
            self.journal.facts(base, limited(base.facts | facts))

    def mark_table(self, held: Value) -> None:
        """The value counts things at token-derived keys."""
        target = held.base or held
        if not any(f[0] == TABLE for f in target.facts):
            self.table_count += 1
            fact = (TABLE, self.table_count, self.here())
            self.journal.facts(target, target.facts | {fact})
            if target is not held:
                self.journal.facts(held, held.facts | {fact})

    def add_at(self, held: Value, index: Value, change: Value, counting: bool = True) -> None:
        """`held[index] += change`: counting when the index is made of tokens."""
        keys = self.spread(index)
        tokens = frozenset(f for f in keys if f[0] == TOKENS) if counting else NONE
        if isinstance(held.obj, Mapping | Listing):
            slots = held.obj.slots
            if index.known:
                key: Any = ("k", index.const)
                before = slots.get(key)
                fresh = Value(limited((before.facts if before else NONE) | self.used(change)), UNKNOWN, solid=True)
                self.store_item(held, index, fresh)
                return
            fresh = Value(limited(self.used(change)), solid=True)
            self.store_item(held, Value(tokens, at=index.at), fresh)
            return
        if tokens:
            self.mark_table(held)
            self.table_update(held, tokens)
        self.mutate(held, self.used(change) | tokens, overwrite=False)

    def table_update(self, held: Value, tokens: Facts) -> None:
        table = next((f for f in (held.base or held).facts if f[0] == TABLE), None)
        if table is not None:
            for split in sorted({f[1] for f in tokens}):
                at = frozenset().union(*(f[2] for f in tokens if f[1] == split))
                record = UpdateRecord(
                    "update", self.here(), split=split, at=at, owner=-table[1], how="table", facts=tokens
                )
                self.updates.append(record)
                self.emit(record)

    def function_at(self, args: Args, keywords: Keywords) -> Value | None:
        """`np.add.at(table, keys, values)`."""
        if len(args) >= 2:
            self.add_at(args[0], args[1], args[2] if len(args) > 2 else constant(1))
            return constant(None)
        return None

    def method_state_dict(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if isinstance(obj, Instance) and obj.is_module:
            out = Mapping()
            out.slots["sum"] = Value(
                self.read_state(obj.number) - {(GRAPH, obj.number)} | {(FLAG, "weights")}, solid=True
            )
            return Value(obj=out)
        return None

    def method_load_state_dict(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if not (isinstance(obj, Instance) and obj.is_module) or not args:
            return None
        facts = frozenset(f for f in self.spread(args[0]) if f[0] != GRAPH)
        state = frozenset(f for f in facts if f[0] in (LEARNT,) or f in ((FLAG, "artifact"), (FLAG, "trained")))
        self.journal.put(obj.slots, "$learnt", state)
        for child in obj.children:
            self.forget(child)
        fresh = frozenset(f for f in facts if f[0] == TOKENS)
        if fresh:
            self.learn(obj.number, fresh, "calibration" if (FLAG, "activation") in facts else "write")
        self.emit(Record("load", self.here(), detail="artifact" if (FLAG, "artifact") in facts else ""))
        return constant(None)

    def forget(self, instance: Instance, depth: int = 0) -> None:
        """All parameters below were replaced."""
        if instance.slots.get("$learnt"):
            self.journal.put(instance.slots, "$learnt", NONE)
        if depth < 6:
            for child in instance.children:
                self.forget(child, depth + 1)

    def function_deepcopy(self, args: Args, keywords: Keywords) -> Value | None:
        """A deep copy: its own state from here on."""
        if not args:
            return None
        obj = args[0].obj
        if isinstance(obj, Instance) and obj.is_module:
            fresh = self.new_instance(obj.cls, obj.what)
            fresh.is_module = True
            fresh.slots.update({k: v for k, v in obj.slots.items() if not k.startswith("$")})
            fresh.slots["$learnt"] = learnt(obj)
            return Value(obj=fresh)
        if isinstance(obj, Mapping):
            out = Mapping()
            out.slots.update(obj.slots)
            return Value(obj=out)
        return Value(args[0].facts, args[0].const, obj, args[0].at, solid=args[0].solid)

    def method_parameters(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        params = self.parameter_facts(receiver)
        return Value(obj=Listing(None, Value(params, solid=True))) if params else None

    def method_named_parameters(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        params = self.parameter_facts(receiver)
        return (
            Value(obj=Listing(None, Value(obj=Listing([Value(solid=True), Value(params, solid=True)]))))
            if params
            else None
        )

    method_named_buffers = method_named_parameters
    method_buffers = method_parameters

    def parameter_facts(self, receiver: Value) -> Facts:
        return frozenset(f for f in self.spread(receiver) if f[0] == PARAMS)

    def method_modules(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Instance) and receiver.obj.is_module:
            return Value(obj=Listing(None, self.submodule(receiver)))
        return None

    method_children = method_modules

    def method_named_modules(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Instance) and receiver.obj.is_module:
            return Value(obj=Listing(None, Value(obj=Listing([Value(solid=True), self.submodule(receiver)]))))
        return None

    method_named_children = method_named_modules

    def submodule(self, receiver: Value) -> Value:
        """Some module below this one; writes to it are writes to the whole."""
        obj = receiver.obj
        part = obj.slots.get("$part")
        if part is None:
            instance = self.new_instance(None, "submodule")
            instance.owner = obj
            obj.children.append(instance)
            part = Value(obj=instance)
            obj.slots["$part"] = part
        return part

    def method_register_forward_hook(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if args:
            self.journal.put(self.hooks, "list", (*self.hooks["list"], args[0]))
        return Value(obj=Library("hook_handle", args[0] if args else Value()), solid=True)

    method_register_forward_pre_hook = method_register_forward_hook

    def method_remove(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if not args:
            self.journal.put(self.hooks, "list", ())
            return constant(None)
        return None

    # -- making things ---------------------------------------------------------------------------------------------

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
            self.emit(Record("read", self.here(), split=split))
        if not splits:
            name = self.file_name(source)
            known = self.files.get(name) if name else None
            if name and known is None and not name.startswith("\0") and "tokenizer" not in name:
                self.emit(Record("external", self.here(), detail=f"path {name[:80]}".replace("\0", "*")))
            out |= known if known is not None else frozenset().union(NONE, *self.files.values()) if not name else NONE
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
        content = frozenset(f for f in content if f[0] in (LEARNT, TOKENS, FLAG, COUNTS)) | {(FLAG, "artifact")}
        target = next((name for v in reversed(values) if (name := self.file_name(v))), None)
        if target is not None:
            self.files[target] = self.files.get(target, NONE) | content
        else:
            self.files["?"] = self.files.get("?", NONE) | content
            for value in values[1:]:
                if value.obj is None:
                    self.journal.facts(value, limited(value.facts | content))
        if (FLAG, "weights") in content or any(f[0] == LEARNT for f in content):
            self.emit(Record("serialize", self.here()))

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
        return out

    def printed(self, name: str, values: Args, receiver: Value | None) -> Value:
        """Output: a report of whatever it contains."""
        facts = frozenset().union(NONE, *(self.used(v) for v in values)) if values else NONE
        if name == "write" and receiver is not None and receiver.text and receiver.text.startswith("\1"):
            path = receiver.text[1:]
            if not any(f[0] == SCORED for f in facts):
                kept = frozenset(f for f in facts if f[0] != PARAMS) | {(FLAG, "artifact")}
                self.files[path] = self.files.get(path, NONE) | kept
        said = next((v for v in values if v.line is not None), None)
        where = said.line if said is not None and said.line else self.here()
        if said is not None and said.text:
            self.printed_literals.add(said.text.split("\0")[0].strip())
        if any(f[0] == "scored" for f in facts):
            record = ReportRecord("report", where, facts=facts, text=(said.text or "") if said is not None else "")
            self.reports.append(record)
            self.emit(record)
        return constant(None)

    # -- settings --------------------------------------------------------------------------------------------------

    def environment_value(self, name: Value, default: Value | None) -> Value:
        """A variable of the environment."""
        if name.known and str(name.const) in self.environment:
            out = constant(self.environment[str(name.const)])
            split = _split_of(str(out.const))
            if split:
                out.facts = frozenset({(FILE, split)})
            out.text, out.line = str(out.const), None
            return out
        if default is not None and name.known and str(name.const) not in ("RANK", "LOCAL_RANK"):
            return default
        return Value(solid=True) if name.known and str(name.const) in ("RANK", "LOCAL_RANK") else Value()

    def method_get(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if isinstance(obj, Library) and obj.name.endswith("environ"):
            return self.environment_value(args[0], args[1] if len(args) > 1 else constant(None))
        if isinstance(obj, Mapping) and args:
            default = args[1] if len(args) > 1 else constant(None)
            if args[0].known:
                found = obj.slots.get(("k", args[0].const))
                if found is not None:
                    return found
                if obj.slots.get("sum") is None:
                    return default
            return join(self.lookup(receiver, obj, args[0]), default)
        if receiver.facts and args:
            return self.pick(receiver, args[0])
        return None

    def function_getenv(self, args: Args, keywords: Keywords) -> Value | None:
        return self.environment_value(args[0], args[1] if len(args) > 1 else constant(None)) if args else None

    def function_get(self, args: Args, keywords: Keywords) -> Value | None:
        """`os.environ.get` (the receiver is a library name)."""
        return (
            self.function_getenv(args, keywords) if args and args[0].known and isinstance(args[0].const, str) else None
        )

    def callback(self, name: str, function: Value, others: Args) -> Value:
        """A function handed to a library: assumed to be called with the other arguments."""
        if name == "partial":
            return Value(obj=Bound(function, None, tuple(others)))
        if name in ("map", "submit", "starmap", "apply_async", "imap"):
            values = [self.elements(v) for v in others if v.obj is not None or v.facts] if name != "submit" else others
            values = [v for v in values if not isinstance(v.obj, Library)]
            out = self.call(function, values, {}, None)
            return Value(obj=Listing(None, out)) if name != "submit" else out
        if name in ("compile", "jit", "wraps", "lru_cache", "cache", "disable", "no_grad", "contextmanager"):
            return function
        if name == "Thread":
            return self.opaque(others)
        if name in ("sorted", "max", "min", "sort", "filter"):
            return self.structural(others[0]) if others else Value()
        return self.call(function, [v for v in others if not isinstance(v.obj, Library)], {}, None)


def _split_of(text: str) -> str:
    from auditor.static.expressions import file_split

    return file_split(text)


__all__ = ["Callable", "LibraryCalls"]
