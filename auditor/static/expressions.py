"""Expressions of the abstract machine: names, attributes, subscripts, operators, comprehensions, assignment."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

from auditor.static import rounds
from auditor.static.evaluate import ARITHMETIC, COMPARE
from auditor.static.file_names import file_split, sifted
from auditor.static.heap import Bound, Class, Function, Instance, Library, Listing, Mapping, Module, Optimizer, learnt
from auditor.static.library import SHAPE, VIEW_ATTRIBUTES
from auditor.static.records import LoopRecord
from auditor.static.values import (
    FILE,
    FLAG,
    GATE,
    GRAPH,
    NONE,
    PARAMS,
    SCORED,
    STATE,
    TOKENS,
    UNKNOWN,
    Facts,
    Value,
    constant,
    join,
    limited,
    named_file,
)

_BINARY: dict[type, Callable[[Any, Any], Any]] = ARITHMETIC | {
    ast.BitXor: operator.xor, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}  # fmt: skip
_SIMPLE = (int, float, str, bool, type(None))


class Expressions:
    """Mixed into `Machine`."""

    def eval(self, node: ast.expr) -> Value:
        """Abstract value of an expression."""
        self.tick()
        walk = _EXPRESSIONS.get(type(node))
        if walk is None:
            return Value()
        return walk(self, node)

    # -- names and attributes --------------------------------------------------------------------------------------

    def do_constant(self, node: ast.Constant) -> Value:
        out = constant(node.value)
        if isinstance(node.value, str):
            out.text, out.line = node.value, (self.frame.path, node.lineno)
            split = file_split(node.value)
            if split:
                out.facts = frozenset({(FILE, split, (self.frame.path, node.lineno))})
        return out

    def do_name(self, node: ast.Name) -> Value:
        frame = self.frame
        while frame is not None:
            held = frame.slots.get(node.id)
            if held is not None:
                return held
            frame = frame.parent
            while frame is not None and isinstance(frame.function, Class):
                frame = frame.parent
        if node.id in ("True", "False", "None"):
            return constant({"True": True, "False": False, "None": None}[node.id])
        return Value(obj=Library(f"builtins.{node.id}"))

    def do_attribute(self, node: ast.Attribute) -> Value:
        return self.attribute(self.eval(node.value), node.attr)

    def attribute(self, held: Value, name: str) -> Value:
        """`held.name`, of every object it may be."""
        out = self.attribute_of(held, held.obj, name)
        for other in held.others:
            out = join(out, self.attribute_of(held, other, name))
        return out

    def attribute_of(self, held: Value, obj: Any, name: str) -> Value:
        if isinstance(obj, Library):
            if obj.receiver is None or name.startswith("_"):
                return Value(obj=Library(f"{obj.name}.{name}", obj.receiver))
            return Value(obj=Library(name, held))
        if isinstance(obj, Module):
            return obj.frame.slots.get(name, Value())
        if isinstance(obj, Instance):
            return self.instance_attribute(held, obj, name)
        if isinstance(obj, Class):
            if name in ("__name__", "__module__"):
                return constant(obj.name)
            found = obj.find(name)
            if found is not None and isinstance(found.obj, Function) and found.obj.wrapped == "classmethod":
                return Value(obj=Bound(found.obj, held))
            return found if found is not None else Value()
        if isinstance(obj, Function) and name in obj.slots:
            return obj.slots[name]
        if isinstance(obj, Bound) and hasattr(obj, "cls"):
            for base in obj.cls.bases:
                found = base.find(name)
                if found is not None and isinstance(found.obj, Function):
                    return Value(obj=Bound(found.obj, obj.receiver))
            return Value(obj=Library("super_method"))
        if name in SHAPE and not isinstance(obj, Listing | Mapping | Optimizer):
            return Value(solid=True, obj=Library(f"shape.{name}"))
        if name == "grad":
            return Value(self.gradients(held.facts) | frozenset({(FLAG, "gradient")}), base=None)
        if obj is None and name in VIEW_ATTRIBUTES and not name.startswith(("module", "_orig")):
            return self.view(held)
        if obj is None and name in ("module", "_orig_mod"):
            return held
        return Value(obj=Library(name, held), facts=NONE)

    def instance_attribute(self, held: Value, obj: Instance, name: str) -> Value:
        if name in obj.slots:
            value = obj.slots[name]
            if obj.cls and name in obj.cls.advancing and value.obj is None and len(self.loops) > obj.depth:
                out = Value(value.facts, UNKNOWN, None, value.at | frozenset(self.loops[obj.depth :]), solid=True)
                return out
            return value
        if obj.cls is not None:
            found = obj.cls.find(name)
            if found is not None:
                function = found.obj
                if isinstance(function, Function):
                    if function.wrapped == "property":
                        return self.call_function(function, [held], {}, None)
                    if function.wrapped == "staticmethod":
                        return found
                    return Value(obj=Bound(function, held))
                return found
            if name == "__dict__":
                out = Mapping()
                out.slots.update({k: v for k, v in obj.slots.items() if not k.startswith("$")})
                return Value(obj=out)
            if name == "__class__":
                return Value(obj=obj.cls)
        if obj.is_module:
            if name in ("module", "_orig_mod"):
                return held
            if name in SHAPE:
                return constant(None) if name == "grad_fn" else Value(solid=True)
            if name in ("weight", "bias", "data", "in_proj_weight"):
                return Value(frozenset({(PARAMS, obj.number)}), solid=True)
        if obj.cls is not None and not obj.is_module and not obj.cls.lib_bases:
            return Value(obj=Library(name, held))
        return Value(obj=Library(name, held))

    def view(self, held: Value) -> Value:
        """A view: same content, writes reach the base."""
        out = Value(held.facts, UNKNOWN, None, held.at, held.base or held, solid=True)
        out.offset, out.ahead = held.offset, held.ahead
        return out

    # -- facts -----------------------------------------------------------------------------------------------------

    def used(self, value: Value) -> Facts:
        """Facts of a value taking part in a computation: parameters become a graph with what they have learnt."""
        facts = self.spread(value)
        if not any(f[0] == PARAMS or f[0] == STATE for f in facts):
            return facts
        facts = self.contents(facts)
        out: set = set()
        for fact in facts:
            if fact[0] == PARAMS:
                out |= self.read_state(fact[1])
            else:
                out.add(fact)
        return frozenset(out)

    def read_state(self, number: int) -> Facts:
        """What computing with the parameters of an owner brings in."""
        instance = self.instances[number]
        facts = learnt(instance)
        return facts | {(GRAPH, number)} if not self.no_grad else facts | {(GRAPH, -number)}

    def spread(self, value: Value, depth: int = 0) -> Facts:
        """Facts of a value and of everything inside the containers it refers to."""
        obj = value.obj
        if obj is None or depth > 4:
            return value.facts
        facts = value.facts
        if isinstance(obj, Listing | Mapping):
            for held in obj.slots.values():
                parts = held if isinstance(held, tuple) else (held,)
                for part in parts:
                    if isinstance(part, Value):
                        facts |= self.spread(part, depth + 1)
        elif isinstance(obj, Instance):
            if obj.is_module:
                facts |= {(PARAMS, obj.number)}
            elif depth < 2:
                for held in list(obj.slots.values()):
                    if isinstance(held, Value):
                        facts |= self.spread(held, depth + 2)
        elif isinstance(obj, Library) and obj.receiver is not None and depth < 3:
            facts |= self.spread(obj.receiver, depth + 1)
        return limited(facts)

    # -- operators -------------------------------------------------------------------------------------------------

    def do_binop(self, node: ast.BinOp) -> Value:
        left, right = self.eval(node.left), self.eval(node.right)
        return self.arithmetic(node.op, left, right)

    def arithmetic(self, op: ast.operator, left: Value, right: Value) -> Value:
        """Result of a binary operator."""
        if left.known and right.known:
            value = _compute(op, left.const, right.const)
            if value is not UNKNOWN:
                out = constant(value)
                out.facts, out.at = left.facts | right.facts, left.at | right.at
                out.ahead, out.counts = rounds.computed(op, left, right, self.here()), rounds.scaled(op, left, right)
                if isinstance(value, str):
                    split = file_split(value)
                    if split:
                        out.facts = named_file(out.facts, split, self.here())
                return out
        if isinstance(left.obj, Listing) and isinstance(op, ast.Add) and isinstance(right.obj, Listing):
            a, b = left.obj, right.obj
            if a.items is not None and b.items is not None:
                return Value(obj=Listing([*a.items, *b.items]))
            both = [x for x in (self.merged(a.items) or a.slots["sum"], self.merged(b.items) or b.slots["sum"]) if x]
            return Value(obj=Listing(None, join(both[0], both[-1]) if both else None))
        if isinstance(left.obj, Listing) and isinstance(op, ast.Mult) and left.obj.items is not None:
            if right.known and isinstance(right.const, int) and len(left.obj.items) * max(right.const, 0) <= 16:
                return Value(obj=Listing(list(left.obj.items) * max(right.const, 0)))
            return Value(obj=Listing(None, self.merged(left.obj.items)))
        out = Value(limited(self.used(left) | self.used(right)), UNKNOWN, None, left.at | right.at, solid=True)
        if any(f[0] == SCORED for f in out.facts):
            out.facts |= self.mixing(op, left, right)
            self.mixture([left, right])
        elif isinstance(op, ast.BitXor | ast.Add | ast.Mult | ast.Mod | ast.BitOr):
            out.facts |= self.joined(left, right)
        if isinstance(op, ast.Div):
            out.facts = self.divided(out.facts, left, right)
        out.offset, out.ahead = _offset(op, left, right), rounds.computed(op, left, right, self.here())
        out.counts = rounds.scaled(op, left, right)
        out.text = left.text or right.text
        out.line = left.line or right.line
        if left.low is not None and right.known and isinstance(right.const, int | float):
            if isinstance(op, ast.Add):
                out.low = left.low + right.const
            elif isinstance(op, ast.Mult) and right.const >= 0:
                out.low = left.low * right.const
        spread = (FLAG, "distribution")
        # p * log p is a term of an entropy.
        if isinstance(op, ast.Pow) or (isinstance(op, ast.Mult) and spread in left.facts and spread in right.facts):
            out.facts = out.facts - {spread}
        return out

    def mixing(self, op: ast.operator, left: Value, right: Value) -> Facts:
        """What arithmetic does to a loss: divides it by bytes, adds a comparison with the target to its probability."""
        scored = [any(f[0] == SCORED for f in v.facts) for v in (left, right)]
        if isinstance(op, ast.Div) and scored == [True, False]:
            by_token = any(f[0] == TOKENS and f[3] > 0 for f in right.facts)
            return frozenset({(FLAG, "per byte", self.here())}) if by_token else NONE
        if isinstance(op, ast.Add) and sum(scored) == 1:
            loss, other = (left, right) if scored[0] else (right, left)
            compared = any(f[0] == GATE and f[3] > 0 for f in other.facts)
            if compared and (FLAG, "probability") in loss.facts:
                return frozenset({(FLAG, "indicator", self.here())})
        return NONE

    def do_unary(self, node: ast.UnaryOp) -> Value:
        value = self.eval(node.operand)
        if isinstance(node.op, ast.Not):
            truth = self.truth(value)
            return Value(value.facts, UNKNOWN if truth is None else not truth, solid=True)
        if value.known and isinstance(value.const, int | float) and isinstance(node.op, ast.USub):
            return constant(-value.const)
        out = Value(self.used(value), UNKNOWN, None, value.at, solid=True)
        out.offset = value.offset
        return out

    def do_boolop(self, node: ast.BoolOp) -> Value:
        out: Value | None = None
        deciding = isinstance(node.op, ast.Or)
        uncertain = False
        for part in node.values:
            value = self.eval(part)
            truth = self.truth(value)
            if truth is deciding:
                return (
                    value if not uncertain else (Value(const=deciding, solid=True) if out is None else join(out, value))
                )
            if truth is None:
                uncertain = True
                out = value if out is None else join(out, value)
            elif not uncertain:
                out = value
        if uncertain and out is not None:
            fresh = Value(out.facts, UNKNOWN, out.obj, out.at, solid=False)
            fresh.others = out.others
            fresh.solid = False if fresh.obj is None else fresh.solid
            return fresh
        return out if out is not None else Value()

    def do_compare(self, node: ast.Compare) -> Value:
        left = self.eval(node.left)
        rights = [self.eval(item) for item in node.comparators]
        outcome: bool | None = True
        held = left
        for op, right in zip(node.ops, rights, strict=True):
            single = self.compare(op, held, right)
            if single is False:
                outcome = False
                break
            outcome = None if single is None else outcome
            held = right
        if outcome is not None:
            return constant(outcome)
        facts = NONE
        for value in (left, *rights):
            facts |= value.facts
        # A comparison passes on which tokens it looked at, not their content, nor counts or losses as numbers.
        facts = frozenset((GATE, *f[1:4]) for f in facts if f[0] == TOKENS) | self.by_loss([left, *rights])
        if len(rights) == 1 and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            facts |= self.revealed(left, rights[0]) | self.revealed(rights[0], left)
        return Value(facts, UNKNOWN, None, left.at, solid=True)

    def revealed(self, wanted: Value, held: Value) -> Facts:
        """A comparison of validation tokens with what a file holds for their position: who reads it knows them."""
        stored = min((f for f in held.facts if f[:2] == (FLAG, "stored")), default=None)
        tokens = any(f[0] == TOKENS and f[1] == "val" for f in wanted.facts)
        computed = any(f[0] in (SCORED, GRAPH) or f[:2] == (FLAG, "stored") for f in wanted.facts)
        if stored is None or not held.at or not tokens or computed:
            return NONE
        return frozenset({(FLAG, "revealed", self.here(), stored[2])})

    def compare(self, op: ast.cmpop, left: Value, right: Value) -> bool | None:
        """Outcome of one comparison, None when it cannot be told."""
        if isinstance(op, ast.Is | ast.IsNot | ast.Eq | ast.NotEq) and right.known and right.const is None:
            negative = isinstance(op, ast.IsNot | ast.NotEq)
            if left.known:
                return (left.const is None) != negative
            if left.solid:
                return negative
            return None
        if isinstance(op, ast.In | ast.NotIn):
            return self.member(left, right, isinstance(op, ast.NotIn))
        function = COMPARE.get(type(op))
        if left.known and right.known and function is not None:
            try:
                return bool(function(left.const, right.const))
            except TypeError:
                return None
        if left.low is not None and right.known and isinstance(right.const, int | float):
            if isinstance(op, ast.Eq) and left.low > right.const:
                return False
            if isinstance(op, ast.NotEq) and left.low > right.const:
                return True
            if isinstance(op, ast.Gt) and left.low > right.const:
                return True
            if isinstance(op, ast.GtE) and left.low >= right.const:
                return True
            if isinstance(op, ast.Lt) and left.low >= right.const:
                return False
            if isinstance(op, ast.LtE) and left.low > right.const:
                return False
        return None

    def member(self, left: Value, right: Value, negative: bool) -> bool | None:
        obj = right.obj
        if left.known and isinstance(obj, Listing) and obj.items is not None and all(i.known for i in obj.items):
            return (left.const in [i.const for i in obj.items]) != negative
        if left.known and right.known and isinstance(left.const, str) and isinstance(right.const, str):
            return (left.const in right.const) != negative
        if left.known and isinstance(obj, Library) and obj.name.endswith("environ"):
            return True if left.const in self.environment and not negative else None
        if left.known and isinstance(obj, Mapping) and ("k", left.const) in obj.slots:
            return not negative
        return None

    def truth(self, value: Value) -> bool | None:
        """Truth of a value, None when it cannot be told."""
        if value.known:
            try:
                return bool(value.const)
            except (TypeError, ValueError):
                return None
        if isinstance(value.obj, Listing) and value.obj.items is not None:
            return len(value.obj.items) > 0
        if isinstance(value.obj, Function | Class | Bound | Module) and not value.others:
            return True
        if isinstance(value.obj, Instance) and not value.others and value.solid:
            return True
        if value.low is not None and value.low > 0:
            return True
        return None

    def do_ifexp(self, node: ast.IfExp) -> Value:
        truth = self.truth(self.eval(node.test))
        place = (*self.here(), node.col_offset)
        if (proved := self.forced.get(place)) is not None:
            truth = proved
            self.switched(node.test, proved)
        if truth is not None:
            left_out = node.orelse if truth else node.body
            if isinstance(left_out, ast.JoinedStr | ast.Constant):
                self.unsaid.append((place, left_out, not truth))
            return self.eval(node.body if truth else node.orelse)
        return join(self.eval(node.body), self.eval(node.orelse))

    # -- displays, strings, comprehensions -------------------------------------------------------------------------

    def do_sequence(self, node: ast.List | ast.Tuple | ast.Set) -> Value:
        items: list[Value] = []
        exact = True
        for part in node.elts:
            if isinstance(part, ast.Starred):
                value = self.eval(part.value)
                known = self.known_items(value)
                if known is None:
                    exact = False
                    items.append(self.elements(value))
                else:
                    items += known
            else:
                items.append(self.eval(part))
        mutable = not isinstance(node, ast.Tuple)
        listing = Listing(items, None, mutable) if exact else Listing(None, self.merged(tuple(items)), mutable)
        return Value(obj=listing)

    def do_dict(self, node: ast.Dict) -> Value:
        out = Mapping()
        value = Value(obj=out)
        for key, item in zip(node.keys, node.values, strict=True):
            held = self.eval(item)
            if key is None:
                if isinstance(held.obj, Mapping):
                    out.slots.update(held.obj.slots)
                continue
            self.store_item(value, self.eval(key), held)
        return value

    def do_joined(self, node: ast.JoinedStr) -> Value:
        facts, text, at, exact = NONE, "", NONE, True
        for part in node.values:
            if isinstance(part, ast.Constant):
                text += str(part.value)
                continue
            value = self.eval(part.value)
            facts |= self.used(value)
            at |= value.at
            if value.known and not part.format_spec and part.conversion == -1:
                text += str(value.const)
            else:
                exact = False
                text += "\0"
        split = file_split(text)
        facts = named_file(facts, split, (self.frame.path, node.lineno)) if split else facts
        out = Value(limited(facts), text if exact else UNKNOWN, None, at, solid=True)
        out.text, out.line = text, (self.frame.path, node.lineno)
        return out

    def do_comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Value:
        outer = dict(self.frame.slots)
        single = len(node.generators) == 1
        first = self.eval(node.generators[0].iter)
        items = self.known_items(first) if single and not isinstance(node, ast.DictComp) else None
        if items is not None and len(items) <= 12 and not node.generators[0].ifs:
            out = []
            for item in items:
                self.assign(node.generators[0].target, item)
                out.append(self.eval(node.elt))
            self.unbind(outer)
            return Value(obj=Listing(out))
        entered = self.enter_generators(node.generators, first)
        if isinstance(node, ast.DictComp):
            mapping = Mapping()
            value = Value(obj=mapping)
            self.store_item(value, self.eval(node.key), self.eval(node.value))
        else:
            value = Value(obj=Listing(None, self.eval(node.elt)))
        for _ in range(entered):
            self.loops.pop()
        self.unbind(outer)
        return value

    def enter_generators(self, generators: list[ast.comprehension], first: Value) -> int:
        for position, generator in enumerate(generators):
            over = first if position == 0 else self.eval(generator.iter)
            _, value, _ = self.loop_values(generator.iter, over, None)
            self.loop_count += 1
            self.loop_trips[self.loop_count] = None
            self.loops.append((self.loop_count, 1))
            fresh = Value(value.facts, UNKNOWN, value.obj, value.at, value.base, solid=value.solid)
            fresh.others = value.others
            self.assign(generator.target, self.item(fresh, self.loop_count, 1))
            for test in generator.ifs:
                self.eval(test)
                self.sift(test, generator.target)
        return len(generators)

    def sift(self, test: ast.expr, target: ast.expr) -> None:
        """File names that passed `if "val" in name` are files of that split."""
        if not isinstance(target, ast.Name):
            return
        for node in ast.walk(test):
            split = sifted(node, target.id)
            held = self.frame.slots.get(target.id)
            if split and isinstance(held, Value) and held.obj is None:
                facts = named_file(held.facts, split, (self.frame.path, node.lineno))
                fresh = Value(facts, UNKNOWN, None, held.at, held.base, solid=True)
                self.journal.put(self.frame.slots, target.id, fresh)

    def unbind(self, outer: dict) -> None:
        """Loop names of a comprehension do not outlive it."""
        for name in [n for n in self.frame.slots if n not in outer]:
            self.journal.put(self.frame.slots, name, Value())
            del self.frame.slots[name]
        for name, value in outer.items():
            if self.frame.slots.get(name) is not value and not isinstance(self.frame.function, Class):
                self.journal.put(self.frame.slots, name, value)


def _compute(op: ast.operator, left: Any, right: Any) -> Any:
    if isinstance(op, ast.Pow):
        if isinstance(left, int | float) and isinstance(right, int | float) and abs(right) <= 64 and abs(left) < 1e6:
            try:
                return left**right
            except (ArithmeticError, ValueError):
                return UNKNOWN
        return UNKNOWN
    function = _BINARY.get(type(op))
    if function is None or (isinstance(op, ast.LShift) and isinstance(right, int) and right > 128):
        return UNKNOWN
    if isinstance(op, ast.Mult) and (isinstance(left, str | bytes) or isinstance(right, str | bytes)):
        return UNKNOWN
    try:
        value = function(left, right)
    except (TypeError, ArithmeticError, ValueError):
        return UNKNOWN
    if isinstance(value, float) and not math.isfinite(value):
        return UNKNOWN
    return value


def _offset(op: ast.operator, left: Value, right: Value) -> int:
    """Distance from the position a position was derived from: `start + 1` is one further, `start - k` before."""
    if isinstance(op, ast.Add):
        for a, b in ((left, right), (right, left)):
            if b.known and isinstance(b.const, int) and 0 < b.const <= 8 and not a.known:
                return max(-9, min(9, a.offset + b.const))
        return max(-9, min(9, left.offset + (0 if right.known else min(right.offset, 0))))
    if isinstance(op, ast.Sub):
        if right.known and isinstance(right.const, int):
            return max(-9, left.offset - right.const) if 0 <= right.const <= 64 else left.offset
        return max(-9, left.offset - 1 if right.offset >= 0 else left.offset)
    return 0


_EXPRESSIONS: dict[type, Callable] = {
    ast.Constant: Expressions.do_constant,
    ast.Name: Expressions.do_name,
    ast.Attribute: Expressions.do_attribute,
    ast.Subscript: lambda self, node: self.do_subscript(node),
    ast.BinOp: Expressions.do_binop,
    ast.UnaryOp: Expressions.do_unary,
    ast.BoolOp: Expressions.do_boolop,
    ast.Compare: Expressions.do_compare,
    ast.IfExp: Expressions.do_ifexp,
    ast.List: Expressions.do_sequence,
    ast.Tuple: Expressions.do_sequence,
    ast.Set: Expressions.do_sequence,
    ast.Dict: Expressions.do_dict,
    ast.JoinedStr: Expressions.do_joined,
    ast.ListComp: Expressions.do_comprehension,
    ast.SetComp: Expressions.do_comprehension,
    ast.GeneratorExp: Expressions.do_comprehension,
    ast.DictComp: Expressions.do_comprehension,
    ast.Call: lambda self, node: self.do_call(node),
    ast.Lambda: lambda self, node: self.do_lambda(node),
    ast.NamedExpr: lambda self, node: self.do_walrus(node),
    ast.Starred: lambda self, node: self.eval(node.value),
    ast.Await: lambda self, node: self.eval(node.value),
    ast.Yield: lambda self, node: self.do_yield(node),
    ast.YieldFrom: lambda self, node: self.do_yield(node),
    ast.Slice: lambda self, node: self.eval_index(node),
    ast.FormattedValue: lambda self, node: self.eval(node.value),
}
__all__ = ["LoopRecord"]
