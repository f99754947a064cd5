"""What changes parameters and tables: gradients, optimizer steps, direct writes, loading, counting."""

from __future__ import annotations

from typing import Any

from auditor.static.counting import LOOSE, ROW, formed
from auditor.static.heap import Bound, Function, Instance, Library, Listing, Mapping, Optimizer, learnt
from auditor.static.records import Record, UpdateRecord
from auditor.static.values import (
    FLAG,
    GRAPH,
    LEARNT,
    NONE,
    PARAMS,
    SCORED,
    STATE,
    TABLE,
    TOKENS,
    UNKNOWN,
    Facts,
    Value,
    constant,
    limited,
)

Args = list[Value]
Keywords = dict[str, Value]


class Learning:
    """Mixed into `Machine`."""

    def cross_entropy(self, values: Args, keywords: Keywords, normalised: bool = True) -> Value:
        """A loss of logits against targets; `normalised`: the loss itself makes a distribution of its input."""
        if len(values) < 2:
            values = [*values, *[keywords[k] for k in ("input", "logits", "target", "labels") if k in keywords]]
        if len(values) < 2:
            return self.opaque(values)
        if len(values) > 2 and values[0].obj is not None and isinstance(values[0].obj, Library):
            values = values[1:]
        facts = self.used(values[0])
        sums = normalised or (FLAG, "distribution") in facts
        logits = Value(formed(facts, ROW if sums else LOOSE), at=values[0].at)
        return self.scored(logits, values[1], separate=True)

    def method_backward(self, receiver: Value, args: Args, keywords: Keywords) -> Value:
        """Gradients of everything the loss was computed with."""
        facts = self.used(receiver)
        content = frozenset(f for f in facts if f[0] in (TOKENS, LEARNT))
        for fact in facts:
            if fact[0] == GRAPH and fact[1] > 0:
                self.add_gradients(self.root(fact[1]), content)
        self.last_backward = self.here()
        self.trained_losses |= {f[1] for f in facts if f[0] == SCORED}
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
        params = frozenset((PARAMS, f[1]) for f in held.facts if f[0] in (PARAMS, STATE))
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
            added = self.used(change)
            fresh = Value(limited(added), solid=True)
            measured = any(f[0] == GRAPH or f == (FLAG, "activation") for f in added)
            self.store_item(held, Value(tokens, at=index.at), fresh, tally=not measured)
            return
        if tokens:
            self.mark_table(held)
            self.table_update(held, tokens)
        self.mutate(held, self.used(change) | tokens, overwrite=False)

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
            out.slots["sum"] = Value(frozenset({(STATE, obj.number), (FLAG, "weights")}), solid=True)
            return Value(obj=out)
        return None

    def method_load_state_dict(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if not (isinstance(obj, Instance) and obj.is_module) or not args:
            return None
        facts = frozenset(f for f in self.contents(self.spread(args[0])) if f[0] != GRAPH)
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
            return Value(obj=self.duplicate(obj, {}))
        if isinstance(obj, Mapping):
            out = Mapping()
            out.slots.update({k: self.own(v) if isinstance(v, Value) else v for k, v in obj.slots.items()})
            return Value(obj=out)
        return Value(self.contents(args[0].facts), args[0].const, obj, args[0].at, solid=args[0].solid)

    def own(self, value: Value) -> Value:
        """An entry of a dict that was copied deeply: what it shared storage with may change without it."""
        return self.copied(value) if any(f[0] == STATE for f in value.facts) else value

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
