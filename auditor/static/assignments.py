"""Assignment in the abstract machine: names, attributes, items, and what becomes of the objects they hold."""

from __future__ import annotations

import ast

from auditor.static.heap import Class, Function, Instance, Library, Listing, Mapping, Module
from auditor.static.library import COLLECTS
from auditor.static.values import (
    COUNTS,
    FLAG,
    GATE,
    GRAPH,
    PARAMS,
    SCORED,
    STATE,
    TOKENS,
    UNKNOWN,
    WHERE,
    Value,
    constant,
    file_parts,
    join,
    moved_back,
)

_SIMPLE = (int, float, str, bool, type(None))


class Assignments:
    """Mixed into `Machine`."""

    def assign(self, target: ast.expr, value: Value) -> None:
        """Bind a target."""
        if isinstance(target, ast.Name):
            self.assign_name(target.id, value)
        elif isinstance(target, ast.Tuple | ast.List):
            self.unpack(target.elts, value)
        elif isinstance(target, ast.Attribute):
            self.set_attribute(self.eval(target.value), target.attr, value)
        elif isinstance(target, ast.Subscript):
            self.store_item(self.eval(target.value), self.eval_index(target.slice), value)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, value)

    def switched(self, test: ast.expr, truth: bool) -> None:
        """A branch that the run's output proves was taken: so were all others that ask for the same switch."""
        both = truth and isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And)
        for part in test.values if both else [test]:
            if isinstance(part, ast.Name | ast.Attribute):
                held = self.eval(part)
                if held.known and isinstance(held.const, bool) and held.const is not truth:
                    proved = constant(truth)
                    proved.facts = held.facts
                    self.assign(part, proved)

    def assign_name(self, name: str, value: Value) -> None:
        frame = self.frame
        if name in frame.globals_:
            outer = frame.parent
            while outer is not None and name not in outer.slots and outer.parent is not None:
                outer = outer.parent
            frame = outer or frame
        self.journal.put(frame.slots, name, value)

    def unpack(self, targets: list[ast.expr], value: Value) -> None:
        items = self.known_items(value)
        if items is not None and len(items) == len(targets) and not any(isinstance(t, ast.Starred) for t in targets):
            for target, item in zip(targets, items, strict=True):
                self.assign(target, self.placed(item, value.at))
            return
        part = self.elements(value)
        facts = part.facts
        if value.obj is None and any(f[0] == SCORED for f in facts):
            # A model that was not read line by line gave several results: which of them is the loss is open.
            facts |= {(FLAG, "one of several")}
        for target in targets:
            self.assign(target, Value(facts, UNKNOWN, part.obj, value.at | part.at, part.base, part.solid))

    def set_attribute(self, held: Value, name: str, value: Value) -> None:
        """`held.name = value`."""
        obj = held.obj
        if isinstance(obj, Instance):
            self.taken_over(obj, value)
            self.adopt(obj, value)
            self.journal.put(obj.slots, name, value)
            if name == "forward" and obj.is_module:
                self.replace_forward(obj, value)
            if (
                obj.cls is None
                and obj.is_module
                and name in ("weight", "bias")
                and obj.number not in self.params(value)
            ):
                self.write_parameters(frozenset({(PARAMS, obj.number)}), self.used(value), overwrite=False)
        elif isinstance(obj, Class | Function):
            self.journal.put(obj.slots, name, value)
        elif isinstance(obj, Module):
            self.journal.put(obj.frame.slots, name, value)
        elif name == "data":
            self.mutate(held, self.used(value), overwrite=True)
        elif name == "grad":
            self.set_gradients(held, value)
        elif obj is None:
            self.mutate(held, frozenset(f for f in self.used(value) if f[0] != FLAG), overwrite=False)

    def replace_forward(self, obj: Instance, value: Value) -> None:
        """`layer.forward = f`: a function that collects what passes through it is a hook by another name."""
        if not isinstance(value.obj, Function) and not self.hooks["forwards"]:
            return
        kept = tuple(pair for pair in self.hooks["forwards"] if pair[0] != obj.number)
        if isinstance(value.obj, Function) and self.sources.names(value.obj.node) & COLLECTS:
            kept = (*kept, (obj.number, value))
        self.journal.put(self.hooks, "forwards", kept)

    def adopt(self, obj: Instance, value: Value) -> None:
        """A module set as an attribute becomes a child."""
        if not obj.is_module:
            return
        children = []
        if isinstance(value.obj, Instance) and value.obj.is_module:
            children = [value.obj]
        elif isinstance(value.obj, Listing):
            children = [i.obj for i in value.obj.items or () if isinstance(i.obj, Instance) and i.obj.is_module]
        else:
            children = [self.instances[n] for n in self.params(value)]
        for child in children:
            if child is not obj and child not in obj.children and child.owner is None:
                obj.children.append(child)
                child.owner = obj

    def params(self, value: Value) -> set[int]:
        """Owners whose parameters the value is."""
        return {f[1] for f in value.facts if f[0] == PARAMS}

    def tallies(self, value: Value) -> bool:
        """True when an entry of a dict can be a count: a number, a container, or made of tokens and counts.

        A tensor stored under a name that came out of a model (statistics of a layer) counts nothing; a row of zeros
        becomes a count when something is added to it at a token.
        """
        facts = self.spread(value)
        if any(f[0] in (GRAPH, PARAMS, STATE) or f == (FLAG, "activation") for f in facts):
            return False
        number = value.known and isinstance(value.const, int | float)
        return number or isinstance(value.obj, Mapping | Listing) or any(f[0] in (TOKENS, COUNTS) for f in facts)

    def clears(self, index: Value, value: Value) -> bool:
        """`weights[:, sums == 0] = 0`: places picked by a comparison are emptied, nothing is counted."""
        return value.known and not value.const and any(f[0] == GATE for f in self.spread(index))

    def store_item(self, held: Value, index: Value, value: Value, tally: bool | None = None) -> None:
        """`held[index] = value`; `tally` says whether the entry is a count where the caller knows."""
        obj = held.obj
        if self.choosing and obj is None and any(f[0] == SCORED for f in self.spread(value)):
            value = Value(self.used(value) | {(FLAG, "choice", self.here())}, at=value.at, solid=True)
        if isinstance(obj, Mapping):
            if index.known and isinstance(index.const, _SIMPLE):
                self.journal.put(obj.slots, ("k", index.const), value)
            else:
                facts = frozenset(f for f in self.spread(index) if f[0] == TOKENS)
                kept = value
                if facts and (self.tallies(value) if tally is None else tally):
                    table = self.table_of(obj)
                    kept = Value(value.facts | facts | {table}, UNKNOWN, value.obj, value.at, solid=value.solid)
                    if not value.known or value.const:  # an entry that begins with nothing counts nothing yet
                        self.table_update(kept, facts)
                for part in ("sum", *(file_parts(self.spread(index)) or ("other keys",))):
                    self.journal.put(obj.slots, part, join(obj.slots.get(part), kept))
        elif isinstance(obj, Listing):
            items = obj.items
            if (
                items is not None
                and index.known
                and isinstance(index.const, int)
                and -len(items) <= index.const < len(items)
            ):
                fresh = list(items)
                fresh[index.const] = value
                self.journal.put(obj.slots, "items", tuple(fresh))
            else:
                joined = join(self.merged(items) if items is not None else obj.slots["sum"], value)
                self.journal.put(obj.slots, "items", None)
                self.journal.put(obj.slots, "sum", joined)
        elif isinstance(obj, Instance) and obj.cls is not None and (found := obj.cls.find("__setitem__")) is not None:
            self.call_function(found.obj, [held, index, value], {}, None)
        elif isinstance(obj, Library) and obj.name.endswith("environ"):
            if index.known and value.known:
                self.environment.setdefault(str(index.const), str(value.const))
            elif index.known:  # made during the run: what the documents say of this variable holds no longer
                self.journal.put(self.exported, str(index.const), value)
        elif obj is None:
            keyed = frozenset(f for f in self.spread(index) if f[0] == TOKENS)
            facts = self.used(value) if keyed else moved_back(self.used(value), index.offset)
            if not any(f[0] in (TOKENS, SCORED) for f in facts):
                facts |= {(WHERE, *iteration) for iteration in value.at}
            if keyed and any(f[3] >= 0 for f in keyed) and not self.clears(index, value):
                self.mark_table(held)
                facts |= keyed
            self.mutate(held, facts, overwrite=False)
