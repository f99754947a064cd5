"""Library calls of the abstract machine, driven by the tables of `auditor.static.library`."""

from __future__ import annotations

import ast
from collections.abc import Callable

from auditor.static import library as lib
from auditor.static import rounds
from auditor.static.counting import ROW, formed
from auditor.static.heap import Bound, Function, Instance, Library, Listing, Mapping
from auditor.static.native_text import native_sources, spread_line
from auditor.static.records import Record
from auditor.static.values import (
    COUNTS,
    FILE,
    FLAG,
    NONE,
    PARAMS,
    SCORED,
    STATE,
    TOKENS,
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
                    if name in lib.NATIVE_LOADERS:
                        return Value(frozenset({(FLAG, "native", self.here())}), solid=True)
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
            return self.cross_entropy(values, keywords, normalised=name != "nll_loss")
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
        if name in lib.GRAD:
            off = name == "set_grad_enabled" and bool(args) and self.truth(args[0]) is False
            return Value(frozenset({(FLAG, "no_grad" if off else "enable_grad")}), solid=True)
        if name in lib.FILE_READS and (out := self.read_file(values)) is not None:
            return out
        if name in lib.FILE_WRITES and values and not obj.name.startswith(lib.NOTES):
            self.write_file(values, keywords)
            return Value()
        if name in lib.PRINTS or name == "write":
            return self.printed(name, values, receiver)
        if name in lib.SHUFFLES:
            drawn = frozenset({(FLAG, "random")}) if name in lib.DRAWS else NONE
            return Value(drawn.union(*(self.spread(v) for v in values)), solid=True)
        if name.endswith("_") and not name.startswith("_") and name not in lib.NOT_IN_PLACE and values:
            facts = frozenset().union(NONE, *(self.used(v) for v in [*values[1:], *keywords.values()]))
            self.mutate(values[0], facts, name in lib.OVERWRITES)
            return values[0]
        return self.passed_on(name, obj, values, keywords)

    def passed_on(self, name: str, obj: Library, values: Args, keywords: Keywords) -> Value:
        """A call without a meaning of its own: facts of the arguments, views and containers kept as they are."""
        receiver = obj.receiver
        everything = [*values, *keywords.values()]
        if receiver is not None and any(f[:2] == (FLAG, "native") for f in self.spread(receiver)):
            return self.native(name, everything)
        model = next((v for v in everything if isinstance(v.obj, Instance) and v.obj.is_module), None)
        if name in lib.MODEL_ALIASES and model is not None:
            return model
        if receiver is None and obj.name.startswith(("torch.nn.", "nn.")) and name[:1].isupper():
            return self.library_module(name, values, keywords)
        if receiver is None and "optim" in obj.name and name[:1].isupper():
            return self.optimizer(name, values, keywords)
        if receiver is not None and name in lib.VIEWS and receiver.obj is None:
            shared = any(f[0] == STATE or (f[0] == PARAMS and name == "cpu") for f in receiver.facts)
            seen = self.copied(receiver) if shared and name in lib.COPIES else self.view(receiver)
            return rounds.cut(seen, name, len(values) - 1)
        if name in lib.STRUCTURAL and everything:
            last = name == "filter" or (name == "cast" and not obj.name.startswith("ctypes"))
            return self.structural(everything[-1] if last else everything[0])
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
            more = {(FLAG, "distribution")} | ({(FLAG, "softmax")} if name == "softmax" else NONE)
            out.facts = formed(out.facts, ROW) | more
        elif name == "exp" and any(f[0] == SCORED for f in out.facts):
            spread = frozenset((FLAG, "spread", f[2]) for f in out.facts if f[:2] == (FLAG, "per byte"))
            out.facts = out.facts | {(FLAG, "probability")} | spread
        elif name in ("log", "log2"):
            out.facts = out.facts - {(FLAG, "probability")}
        elif name in lib.REPEATS and any(f[0] == SCORED for f in out.facts):
            out.facts = out.facts | {(FLAG, "spread", self.here())}
        elif name in lib.ARG_SELECTIONS:
            out.facts = frozenset(f for f in out.facts if f[0] != COUNTS)
        elif name in lib.KEY_JOINS and len(values) >= 2:
            out.facts |= self.joined(values[0], values[1])
        elif name == "bincount":
            self.counted_ids(out)
        out.solid = True
        if receiver is not None and not receiver.facts and receiver.obj is None and values[1:]:
            # An object the analysis does not know may keep what it is given (queues, caches, writers).
            kept = frozenset(f for f in out.facts if f[0] != PARAMS and f[:2] != (FLAG, "partial"))
            self.journal.facts(receiver, limited(receiver.facts | kept))
        if name == "arange" and values:
            out.offset = values[0].offset if len(values) > 1 else 0
            out.ahead = rounds.between(values[0], values[1]) if len(values) > 1 else NONE
            start = values[0]
            if len(values) > 1 and start.known and isinstance(start.const, int) and 0 < start.const <= 4:
                out.offset = start.const
        elif values:
            out.offset = values[0].offset
        return out

    def native(self, name: str, values: Args) -> Value:
        """A call into compiled code: every array handed in may come back changed by all of them."""
        facts = frozenset(f for v in values for f in self.used(v))
        if any(f[0] == SCORED for f in facts):
            facts |= self.spread_in_native(name)
        if any(f[0] == TOKENS and f[1] == "train" for f in facts):
            self.unknown("compiled code is handed training tokens and may keep them")
        for value in values[1:]:
            if value.obj is None:
                self.mutate(value, facts, overwrite=False)
        return Value(limited(facts), solid=True)

    def spread_in_native(self, function: str) -> Facts:
        """Where source that the program carries as a string divides the losses handed to it over bytes."""
        for path in self.modules:
            tree = self.sources.tree(path)
            for first, text in native_sources(tree) if tree is not None else ():
                line = spread_line(text, function)
                if line is not None:
                    return frozenset({(FLAG, "spread", (path, first + line))})
        return NONE

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

    # -- settings --------------------------------------------------------------------------------------------------

    def environment_value(self, name: Value, default: Value | None) -> Value:
        """A variable of the environment."""
        if name.known and str(name.const) in self.exported:
            return self.exported[str(name.const)]
        if name.known and str(name.const) in self.environment:
            return self.stated(self.environment[str(name.const)])
        if default is not None and name.known and str(name.const) not in ("RANK", "LOCAL_RANK"):
            if default.obj is not None or not isinstance(default.const, int | float | str):
                return default
            # Nothing shows that no variable was set: what follows from this number is likely, not proven.
            out = Value(default.facts | {(FLAG, "default")}, default.const, at=default.at, solid=default.solid)
            out.text, out.line = default.text, default.line
            return out
        return Value(solid=True) if name.known and str(name.const) in ("RANK", "LOCAL_RANK") else Value()

    def stated(self, setting: object) -> Value:
        """A setting that the documents state; a path tells its split."""
        out = constant(setting)
        split = _split_of(str(setting))
        if split:
            out.facts = frozenset({(FILE, split)})
        out.text, out.line = str(setting), None
        return out

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
