"""Built-in functions and methods of containers and strings, as the abstract machine sees them."""

from __future__ import annotations

from typing import Any

from auditor.static import rounds
from auditor.static.file_names import file_split
from auditor.static.heap import Bound, Class, Function, Instance, Library, Listing, Mapping, Optimizer
from auditor.static.values import (
    COUNTS,
    FLAG,
    NONE,
    PARAMS,
    TOKENS,
    UNKNOWN,
    Facts,
    Value,
    constant,
    join,
    limited,
    named_file,
)

Args = list[Value]
Keywords = dict[str, Value]


class BuiltinCalls:
    """Mixed into `Machine`."""

    # -- numbers ---------------------------------------------------------------------------------------------------

    def cast(self, function: Any, args: Args) -> Value | None:
        if not args:
            return constant(function())
        value = args[0]
        if value.known:
            try:
                out = constant(function(value.const))
            except (TypeError, ValueError, OverflowError):
                return Value(value.facts, at=value.at, solid=True)
            out.facts, out.at, out.offset, out.low = value.facts, value.at, value.offset, value.low
        else:
            out = Value(self.used(value), UNKNOWN, None, value.at, solid=True, low=value.low)
            out.offset = value.offset
        if function is int:
            out.ahead, out.counts = value.ahead, value.counts
        return out

    def function_int(self, args: Args, keywords: Keywords) -> Value | None:
        return self.cast(int, args)

    def function_float(self, args: Args, keywords: Keywords) -> Value | None:
        return self.cast(float, args)

    def function_bool(self, args: Args, keywords: Keywords) -> Value | None:
        truth = self.truth(args[0]) if args else False
        return constant(truth) if truth is not None else Value(solid=True)

    def function_str(self, args: Args, keywords: Keywords) -> Value | None:
        if args and (args[0].known or args[0].text is not None):
            out = self.cast(str, args)
            if out is not None:
                out.text, out.line = args[0].text, args[0].line
            return out
        return Value(self.spread(args[0]) if args else NONE, solid=True)

    function_Path = function_PurePath = function_fspath = function_str

    def function_round(self, args: Args, keywords: Keywords) -> Value | None:
        return args[0] if args else None

    def extreme(self, args: Args, keywords: Keywords, function: Any) -> Value | None:
        items = list(args)
        kept = self.chosen(items)
        if kept is not None:
            return kept
        if len(args) == 1:
            known = self.known_items(args[0])
            if known is None:
                return self.elements(args[0])
            items = list(known)
        ahead = rounds.bounded(items, function is max)
        if items and all(v.known and isinstance(v.const, int | float) for v in items):
            out = constant(function(v.const for v in items))
            out.ahead, out.at = ahead, frozenset().union(*(v.at for v in items)) if ahead else NONE
            return out
        facts, at = NONE, NONE
        for value in items:
            facts |= self.used(value)
            at |= value.at
        out = Value(limited(facts), UNKNOWN, None, at, solid=True)
        lows = [v.const if v.known else v.low for v in items]
        known_lows = [x for x in lows if isinstance(x, int | float)]
        if function is max and known_lows:
            out.low = max(known_lows)
        elif function is min and len(known_lows) == len(items) and known_lows:
            out.low = min(known_lows)
        out.offset, out.ahead = max((v.offset for v in items), default=0), ahead
        return out

    def function_max(self, args: Args, keywords: Keywords) -> Value | None:
        return self.extreme(args, keywords, max)

    def function_min(self, args: Args, keywords: Keywords) -> Value | None:
        return self.extreme(args, keywords, min)

    def function_len(self, args: Args, keywords: Keywords) -> Value | None:
        if args:
            items = self.known_items(args[0])
            if items is not None and not (isinstance(args[0].obj, Listing) and "range" in args[0].obj.slots):
                return constant(len(items))
            if args[0].known and isinstance(args[0].const, str):
                return constant(len(args[0].const))
            keep = frozenset(f for f in args[0].facts if f[0] == FLAG)
            return Value(keep, solid=True)
        return None

    # -- iteration -------------------------------------------------------------------------------------------------

    def function_range(self, args: Args, keywords: Keywords) -> Value:
        zero, one = constant(0), constant(1)
        bounds = (zero, args[0], one) if len(args) == 1 else (*args[:2], args[2] if len(args) > 2 else one)
        facts, at = NONE, NONE
        for bound in bounds:
            facts |= bound.facts
            at |= bound.at
        listing = Listing(None, Value(facts, UNKNOWN, None, at, solid=True))
        if all(b.known and isinstance(b.const, int) for b in bounds) and bounds[2].const != 0:
            count = len(range(bounds[0].const, bounds[1].const, bounds[2].const))
            if count == 0:
                return Value(obj=Listing([]))
        listing.slots["range"] = bounds
        return Value(obj=listing, at=at)

    function_trange = function_range

    def function_enumerate(self, args: Args, keywords: Keywords) -> Value | None:
        if not args:
            return None
        start = args[1] if len(args) > 1 else keywords.get("start") or constant(0)
        items = self.known_items(args[0])
        if items is not None and len(items) <= 16 and start.known and isinstance(start.const, int):
            pairs = [Value(obj=Listing([constant(start.const + i), item])) for i, item in enumerate(items)]
            return Value(obj=Listing(pairs))
        trips, first, later = self.loop_values(None, args[0], None)
        zero = Value(const=start.const, solid=True, low=0)
        more = Value(solid=True, low=start.const + 1 if start.known and isinstance(start.const, int) else None)
        zero.counts = more.counts = (0, constant(1), False)
        return self.pairs(trips, [zero, first], [more, later])

    def pairs(self, trips: int | None, first: list[Value], later: list[Value]) -> Value:
        """An iterable of tuples whose first and later elements are told apart."""
        listing = Listing(None, Value(obj=Listing([join(a, b) for a, b in zip(first, later, strict=True)])))
        listing.slots["enumerated"] = (Value(obj=Listing(first)), Value(obj=Listing(later)))
        listing.slots["trips"] = trips
        return Value(obj=listing)

    def function_zip(self, args: Args, keywords: Keywords) -> Value | None:
        known = [self.known_items(a) for a in args]
        if known and all(k is not None and len(k) <= 16 for k in known):
            return Value(obj=Listing([Value(obj=Listing(list(row))) for row in zip(*known, strict=False)]))  # type: ignore[arg-type]
        values = [self.loop_values(None, a, None) for a in args]
        trips = next((v[0] for v in values if v[0] is not None), None)
        return self.pairs(trips, [v[1] for v in values], [v[2] for v in values])

    def function_next(self, args: Args, keywords: Keywords) -> Value | None:
        if not args:
            return None
        value = self.elements(args[0])
        at = frozenset(self.loops)
        from auditor.static.values import picked

        return Value(picked(value.facts, at), UNKNOWN, value.obj, value.at | at, value.base, value.solid)

    def function_sum(self, args: Args, keywords: Keywords) -> Value | None:
        if args and isinstance(args[0].obj, Listing):
            return Value(
                self.spread(args[0]) if PARAMS not in {f[0] for f in self.spread(args[0])} else NONE, solid=True
            )
        return None

    def function_dict(self, args: Args, keywords: Keywords) -> Value | None:
        out = Mapping()
        if args and isinstance(args[0].obj, Mapping):
            out.slots.update(args[0].obj.slots)
        elif args:
            out.slots["sum"] = Value(self.spread(args[0]))
        for name, value in keywords.items():
            out.slots[("k", name)] = value
        return Value(obj=out)

    def function_defaultdict(self, args: Args, keywords: Keywords) -> Value | None:
        out = Value(obj=Mapping())
        if args:
            inner = self.call(args[0], [], {}, None) if args[0].obj is not None else None
            row = inner is not None and inner.obj is None and inner.solid and not inner.known
            if row or (inner is not None and inner.obj is not None and not isinstance(inner.obj, Library)):
                out.obj.slots["sum"] = inner
        return out

    def function_Counter(self, args: Args, keywords: Keywords) -> Value | None:
        out = Value(obj=Mapping())
        if args and any(f[0] == TOKENS for f in self.spread(args[0])):
            self.mark_table(out)
            out.obj.slots["sum"] = Value(self.spread(args[0]))
        return out

    def function_OrderedDict(self, args: Args, keywords: Keywords) -> Value | None:
        return self.function_dict(args, keywords)

    # -- objects ---------------------------------------------------------------------------------------------------

    def function_getattr(self, args: Args, keywords: Keywords) -> Value | None:
        if len(args) < 2:
            return None
        if args[1].known and isinstance(args[1].const, str):
            name, obj = args[1].const, args[0].obj
            if isinstance(obj, Instance) and name not in obj.slots and (obj.cls is None or obj.cls.find(name) is None):
                if len(args) > 2 and not obj.is_module:
                    return args[2]
                if len(args) > 2:
                    return args[2]
            if isinstance(obj, Class) and obj.find(name) is None and len(args) > 2:
                return args[2]
            return self.attribute(args[0], name)
        self.dynamic(args[0])
        return Value(self.spread(args[0]))

    def dynamic(self, held: Value) -> None:
        """An attribute with a computed name, of a settings object this is harmless."""
        if isinstance(held.obj, Instance) and held.obj.is_module:
            return

    def function_setattr(self, args: Args, keywords: Keywords) -> Value | None:
        if len(args) == 3:
            if args[1].known and isinstance(args[1].const, str):
                self.set_attribute(args[0], args[1].const, args[2])
            elif isinstance(args[0].obj, Instance):
                self.adopt(args[0].obj, args[2])
                if args[0].obj.is_module and args[2].obj is None:
                    self.mutate(args[0], self.used(args[2]), overwrite=False)
            return constant(None)
        return None

    def function_hasattr(self, args: Args, keywords: Keywords) -> Value | None:
        if len(args) == 2 and args[1].known and isinstance(args[0].obj, Instance) and args[0].obj.cls is not None:
            obj = args[0].obj
            if args[1].const in obj.slots or obj.cls.find(str(args[1].const)) is not None:
                return constant(True)
            if not obj.cls.lib_bases or args[1].const == "module":
                return constant(False)
        return Value(solid=True)

    def function_isinstance(self, args: Args, keywords: Keywords) -> Value | None:
        known = len(args) == 2 and isinstance(args[0].obj, Instance) and isinstance(args[1].obj, Class)
        if known and not args[0].others:
            cls = args[0].obj.cls
            return constant(_derives(cls, args[1].obj)) if cls is not None else Value(solid=True)
        return Value(solid=True)

    def function_callable(self, args: Args, keywords: Keywords) -> Value | None:
        return Value(solid=True)

    def function_super(self, args: Args, keywords: Keywords) -> Value | None:
        function = self.frame.function
        if isinstance(function, Function) and function.owner is not None and function.node.args.args:
            receiver = self.frame.slots.get(function.node.args.args[0].arg)
            return (
                Value(obj=Library("super", receiver))
                if receiver is None
                else Value(obj=_Super(function.owner, receiver))
            )
        return Value(obj=Library("super"))

    def function_type(self, args: Args, keywords: Keywords) -> Value | None:
        if len(args) == 1 and isinstance(args[0].obj, Instance) and args[0].obj.cls is not None:
            return Value(obj=args[0].obj.cls)
        return Value(solid=True)

    def function_vars(self, args: Args, keywords: Keywords) -> Value | None:
        return self.attribute(args[0], "__dict__") if args else Value()

    function_asdict = function_vars

    def function_exec(self, args: Args, keywords: Keywords) -> Value | None:
        self.unknown("exec of computed source")
        return constant(None)

    def method_remote(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        """`function.remote(...)`: a job service runs the function elsewhere and hands back its result."""
        return self.call(receiver, args, keywords, None) if isinstance(receiver.obj, Function) else None

    method_spawn = method_local = method_remote

    def function_load_dataset(self, args: Args, keywords: Keywords) -> Value | None:
        """Documents from a public collection: none of the official shards."""
        return Value(frozenset({(TOKENS, "dataset", NONE, 0)}), solid=True)

    def method_take(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        """`stream.take(n)`: the first items of a stream of documents."""
        facts = self.spread(receiver)
        if len(args) != 1 or not args[0].known or not any(f[0] == TOKENS and f[1] == "dataset" for f in facts):
            return None
        words = f"takes {args[0].const} documents of it"
        return Value(facts | {(FLAG, "partial", self.here(), words)}, UNKNOWN, None, receiver.at, solid=True)

    def function_SimpleNamespace(self, args: Args, keywords: Keywords) -> Value | None:
        instance = self.new_instance(None, "namespace")
        instance.is_module = False
        instance.slots.update(keywords)
        return Value(obj=instance)

    def function_field(self, args: Args, keywords: Keywords) -> Value | None:
        """`dataclasses.field(...)`: the default it stands for."""
        if "default" in keywords:
            return keywords["default"]
        factory = keywords.get("default_factory")
        return self.call(factory, [], {}, None) if factory is not None else Value()

    def function_Thread(self, args: Args, keywords: Keywords) -> Value | None:
        target = keywords.get("target")
        if target is not None and isinstance(target.obj, Function | Bound):
            given = self.known_items(keywords["args"]) if "args" in keywords else ()
            self.call(target, list(given or ()), {}, None)
        return Value(solid=True)

    function_Process = function_Thread

    # -- containers ------------------------------------------------------------------------------------------------

    def method_append(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        value = args[-1] if args else Value()
        if isinstance(obj, Instance):
            if obj.is_module:
                self.adopt(obj, value)
            return None
        if isinstance(obj, Listing):
            if obj.items is not None and not self.loops and len(obj.items) < 64:
                self.journal.put(obj.slots, "items", (*obj.items, value))
                return constant(None)
            self.extend(receiver, Value(obj=Listing([value])))
            return constant(None)
        self.journal.facts(receiver, limited(receiver.facts | self.spread(value)))
        return constant(None)

    method_add = method_appendleft = method_insert = method_put = method_put_nowait = method_append

    def extend(self, held: Value, more: Value) -> None:
        """Add the elements of `more` to a list."""
        obj = held.obj
        items, fresh = obj.items, self.known_items(more)
        if items is not None and fresh is not None and not self.loops and len(items) + len(fresh) <= 64:
            self.journal.put(obj.slots, "items", (*items, *fresh))
            return
        before = self.merged(items) if items else obj.slots["sum"]
        added = self.elements(more)
        self.journal.put(obj.slots, "items", None)
        if before is None or not _alike(before, added):
            self.journal.put(obj.slots, "sum", join(before, added) if before is not None else added)

    def method_extend(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Listing) and args:
            self.extend(receiver, args[0])
            return constant(None)
        return None

    def method_update(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if isinstance(obj, Mapping):
            if args and isinstance(args[0].obj, Mapping):
                for key, value in args[0].obj.slots.items():
                    self.journal.put(obj.slots, key, value)
            elif args:
                self.journal.put(obj.slots, "sum", join(obj.slots.get("sum"), Value(self.spread(args[0]))))
            for name, value in keywords.items():
                self.journal.put(obj.slots, ("k", name), value)
            return constant(None)
        return None

    def method_pop(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Listing):
            return self.elements(receiver)
        if isinstance(receiver.obj, Mapping) and args:
            return self.method_get(receiver, args, keywords)
        return None

    method_popleft = method_pop

    def method_setdefault(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if isinstance(obj, Mapping) and args:
            found = self.lookup(receiver, obj, args[0])
            if found.obj is not None or found.known:
                return found
            default = args[1] if len(args) > 1 else constant(None)
            self.store_item(receiver, args[0], default)
            return default
        if isinstance(obj, Library) and obj.name.endswith("environ") and len(args) > 1:
            if args[0].known and args[1].known:
                self.environment.setdefault(str(args[0].const), str(args[1].const))
            return args[1]
        return None

    def function_setdefault(self, args: Args, keywords: Keywords) -> Value | None:
        if len(args) == 2 and args[0].known and args[1].known:
            self.environment.setdefault(str(args[0].const), str(args[1].const))
            return constant(self.environment[str(args[0].const)])
        return None

    def method_items(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if not isinstance(obj, Mapping):
            return Value(obj=Listing(None, Value(obj=Listing([Value(solid=True), Value(self.spread(receiver))]))))
        pairs = [Value(obj=Listing([constant(k[1]), v])) for k, v in obj.slots.items() if isinstance(k, tuple)]
        rest = obj.slots.get("sum")
        if rest is None:
            return Value(obj=Listing(pairs))
        pairs.append(Value(obj=Listing([Value(solid=True), rest])))
        return Value(obj=Listing(None, self.merge_pairs(pairs)))

    def merge_pairs(self, pairs: list[Value]) -> Value:
        first: Value | None = None
        second: Value | None = None
        for pair in pairs[:48]:
            a, b = pair.obj.items
            first = a if first is None else join(first, a)
            second = b if second is None else join(second, b)
        return Value(obj=Listing([first or Value(), second or Value()]))

    def method_values(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        obj = receiver.obj
        if isinstance(obj, Mapping):
            values = [v for k, v in obj.slots.items() if isinstance(k, tuple)]
            if obj.slots.get("sum") is not None:
                return Value(obj=Listing(None, self.merged((*values, obj.slots["sum"]))))
            return Value(obj=Listing(values))
        return None

    def method_keys(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        keys = self.known_items(receiver)
        return Value(obj=Listing(list(keys) if keys is not None else None, Value(solid=True)))

    def method_get_nowait(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return Value(self.spread(receiver))

    def method_result(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return receiver

    def method_tolist(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.view(receiver) if receiver.obj is None else None

    # -- strings ---------------------------------------------------------------------------------------------------

    def string_method(self, receiver: Value, name: str, args: Args) -> Value | None:
        if receiver.known and isinstance(receiver.const, str) and all(a.known for a in args):
            try:
                value = getattr(receiver.const, name)(*[a.const for a in args])
            except (TypeError, ValueError):
                return None
            if isinstance(value, list):
                return Value(obj=Listing([constant(part) for part in value]))
            out = constant(value)
            if isinstance(value, str):
                split = file_split(value)
                out.facts = named_file(receiver.facts, split, self.here()) if split else receiver.facts
            return out
        return None

    def method_lower(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "lower", args)

    def method_upper(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "upper", args)

    def method_strip(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "strip", args)

    def method_startswith(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "startswith", args) or Value(solid=True)

    def method_endswith(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "endswith", args) or Value(solid=True)

    def method_split(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "split", args)

    def method_replace(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.string_method(receiver, "replace", args)

    def method_format(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if not keywords and (known := self.text_of(receiver, "format", args)) is not None:
            return known
        facts: Facts = receiver.facts
        for value in (*args, *keywords.values()):
            facts |= self.used(value)
        out = Value(limited(facts), solid=True)
        out.text, out.line = receiver.text, receiver.line
        return out

    def function_join(self, args: Args, keywords: Keywords) -> Value | None:
        """`os.path.join`."""
        if args and all(a.known and isinstance(a.const, str) for a in args):
            out = constant("/".join(a.const for a in args))
        else:
            out = Value(solid=True)
            out.text = "/".join(a.text or (a.const if a.known and isinstance(a.const, str) else "") for a in args)
        facts = frozenset().union(NONE, *(a.facts for a in args))
        split = file_split(out.const if out.known else out.text or "")
        out.facts = named_file(facts, split, self.here()) if split else facts
        return out

    def method_join(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        if isinstance(receiver.obj, Library):
            return self.function_join(args, keywords)
        if (known := self.text_of(receiver, "join", args)) is not None:
            return known
        # Texts laid end to end are no key, whatever their parts were made of.
        facts = frozenset(f for a in args for f in self.spread(a) if f[:2] != (FLAG, "joined"))
        out = Value(limited(facts), solid=True)
        first = self.elements(args[0]) if args else None
        if first is not None:
            out.text, out.line = first.text, first.line
        return out

    def function_glob(self, args: Args, keywords: Keywords) -> Value | None:
        return self.globbed(args)

    def method_glob(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        return self.globbed([receiver, *args])

    method_rglob = function_iglob = method_glob

    def globbed(self, args: Args) -> Value:
        facts = frozenset().union(NONE, *(self.spread(a) for a in args))
        return Value(obj=Listing(None, Value(facts, solid=True)))


class _Super(Bound):
    """`super()`: attributes are looked up in the bases."""

    def __init__(self, cls: Class, receiver: Value) -> None:
        super().__init__(None, receiver)
        self.cls = cls


def _derives(cls: Class, wanted: Class) -> bool:
    return cls is wanted or any(_derives(base, wanted) for base in cls.bases)


__all__ = ["COUNTS", "BuiltinCalls", "Optimizer"]


def _alike(one: Value, other: Value) -> bool:
    """Two fresh rows of one making (a pair of empty tables each): the first stands for both and keeps its identity."""
    rows = [value.obj.items for value in (one, other) if isinstance(value.obj, Listing) and not value.others]
    if len(rows) < 2 or any(row is None for row in rows) or len(rows[0]) != len(rows[1]):
        return False
    return all(item.obj is None and not item.facts and not item.known for row in rows for item in row)
