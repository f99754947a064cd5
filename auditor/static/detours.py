"""Ways round the plain calls: weights and files handed on by a copy, the better of stacked losses, text put together.

Each of them does in a call or two what the plain form does in one, and means the same to the rules.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from auditor.static.file_names import file_split
from auditor.static.heap import Instance, Listing, Module, learnt
from auditor.static.values import (
    FILE,
    FLAG,
    LEARNT,
    NONE,
    PARAMS,
    SCORED,
    STATE,
    TOKENS,
    UNKNOWN,
    Facts,
    Value,
    constant,
    limited,
    named_file,
)

Args = list[Value]
Keywords = dict[str, Value]


class Detours:
    """Mixed into `Machine`."""

    def contents(self, facts: Facts) -> Facts:
        """Entries of a state dict hold what the parameters they share storage with have learnt by now."""
        if not any(f[0] == STATE for f in facts):
            return facts
        shared = {f[1] for f in facts if f[0] == STATE}
        kept = frozenset(f for f in facts if f[0] != STATE)
        return kept.union(*(learnt(self.instances[number]) for number in shared))

    def copied(self, value: Value) -> Value:
        """A tensor of its own with the present content."""
        return Value(self.used(value), UNKNOWN, None, value.at, solid=True)

    # -- weights ---------------------------------------------------------------------------------------------------

    def function_vector_to_parameters(self, args: Args, keywords: Keywords) -> Value | None:
        """`vector_to_parameters(vector, model.parameters())`: all parameters are overwritten."""
        if len(args) != 2:
            return None
        params = frozenset(f for f in self.spread(args[1]) if f[0] == PARAMS)
        self.write_parameters(params, self.used(args[0]), overwrite=True)
        return constant(None)

    def taken_over(self, obj: Instance, value: Value) -> None:
        """`model.head = twin.head`: what the part of another model has learnt now takes part in this one."""
        part = value.obj
        if not isinstance(part, Instance) or not part.is_module or part.owner is None or part.owner is obj:
            return
        self.write_parameters(
            frozenset({(PARAMS, obj.number)}), frozenset(f for f in learnt(part) if f[0] == LEARNT), overwrite=False
        )

    def duplicate(self, obj: Instance, seen: dict[int, Instance]) -> Instance:
        """A deep copy of a module and of the modules below it: what one learns from here on the other does not."""
        if obj.number in seen:
            return seen[obj.number]
        fresh = seen[obj.number] = self.new_instance(obj.cls, obj.what)
        fresh.is_module = True
        for name, held in obj.slots.items():
            inner = isinstance(held, Value) and isinstance(held.obj, Instance) and held.obj.is_module
            if not name.startswith("$"):
                fresh.slots[name] = Value(obj=self.duplicate(held.obj, seen)) if inner else held
        for child in obj.children:
            twin = self.duplicate(child, seen)
            fresh.children.append(twin)
            twin.owner = twin.owner or fresh
        fresh.slots["$learnt"] = learnt(obj) if len(seen) == 1 or obj.owner is None else obj.slots.get("$learnt", NONE)
        return fresh

    # -- losses ----------------------------------------------------------------------------------------------------

    def by_loss(self, values: Args) -> Facts:
        """A comparison of a loss: whoever goes by it has seen the target."""
        losses = [v for v in values if any(f[0] == SCORED for f in v.facts)]
        if not losses:
            return NONE
        sure = any((FLAG, "one of several") not in v.facts for v in losses)
        return frozenset({(FLAG, "by loss" if sure else "by loss perhaps")})

    def picked_by_loss(self, condition: Value, one: Value, other: Value) -> Facts:
        """`where(loss < 3, loss, other_loss)`: one of two losses of a token is kept for what it is."""
        numbers = [{f[1] for f in self.spread(v) if f[0] == SCORED} for v in (one, other)]
        if all(numbers) and numbers[0] != numbers[1]:
            if (FLAG, "by loss") in condition.facts:
                return frozenset({(FLAG, "choice", self.here())})
            if (FLAG, "by loss perhaps") in condition.facts:
                return frozenset({(FLAG, "choice perhaps", self.here())})
        return NONE

    def function_stack(self, args: Args, keywords: Keywords) -> Value | None:
        """`stack([losses, other_losses])`: several losses of each token beside one another."""
        items = self.known_items(args[0]) if args else None
        if items is None or len(items) < 2:
            return None
        numbers = [frozenset(f[1] for f in self.spread(item) if f[0] == SCORED) for item in items]
        if not all(numbers) or len(set(numbers)) < 2:
            return None
        out = self.opaque([*args, *keywords.values()])
        return Value(out.facts | {(FLAG, "alternatives")}, UNKNOWN, None, out.at, solid=True)

    def method_min(self, receiver: Value, args: Args, keywords: Keywords) -> Value | None:
        """`stacked.min(dim=0)`: the better of several losses, token by token."""
        if receiver.obj is not None or (FLAG, "alternatives") not in receiver.facts or not (args or keywords):
            return None
        facts = self.used(receiver) - {(FLAG, "alternatives")} | {(FLAG, "choice", self.here())}
        return Value(limited(facts), UNKNOWN, None, receiver.at, solid=True)

    method_amin = method_min

    def function_amin(self, args: Args, keywords: Keywords) -> Value | None:
        """`torch.amin(stacked, 0)`."""
        return self.method_min(args[0], args[1:], keywords) if args else None

    # -- files -----------------------------------------------------------------------------------------------------

    def function_copyfile(self, args: Args, keywords: Keywords) -> Value | None:
        """`shutil.copy(source, target)`: the target holds what the source holds, whatever it is called."""
        splits = {f[1] for f in self.spread(args[0]) if f[0] == FILE} if len(args) == 2 else set()
        name = self.file_name(args[1]) if splits else ""
        if not name:
            return None
        held = frozenset((TOKENS, split, NONE, 0) for split in splits if split != "valbytes")
        self.files[name] = self.files.get(name, NONE) | held
        return Value(args[1].facts, args[1].const, None, solid=True)

    function_copy = function_copy2 = function_move = function_symlink = function_link = function_rename = (
        function_copyfile
    )

    # -- modules ---------------------------------------------------------------------------------------------------

    def function_spec_from_file_location(self, args: Args, keywords: Keywords) -> Value | None:
        """`spec_from_file_location("name", path)`: a script of the submission that is loaded by its path."""
        given = [*args[1:], *[keywords[k] for k in ("location",) if k in keywords]]
        name = PurePosixPath(self.file_name(given[0])).name if given else ""
        path = self.sources.find(name.removesuffix(".py"), self.frame.path) if name.endswith(".py") else None
        return Value(obj=self.module(path, name)) if path and path != self.frame.path else None

    def function_module_from_spec(self, args: Args, keywords: Keywords) -> Value | None:
        """The module of such a specification; running it once more changes nothing."""
        return args[0] if args and isinstance(args[0].obj, Module) else None

    # -- text ------------------------------------------------------------------------------------------------------

    def text_of(self, receiver: Value, name: str, args: Args) -> Value | None:
        """Result of a method of a known text whose arguments are known, or of joining a known list of texts."""
        if name == "join" and args and isinstance(args[0].obj, Listing):
            parts = self.known_items(args[0])
            if parts is None or not all(part.known and isinstance(part.const, str) for part in parts):
                return None
            return self.named_text(receiver, "join", [[part.const for part in parts]])
        return self.named_text(receiver, name, [a.const for a in args]) if all(a.known for a in args) else None

    def named_text(self, receiver: Value, method: str, given: list[Any]) -> Value | None:
        if not receiver.known or not isinstance(receiver.const, str):
            return None
        try:
            text = getattr(receiver.const, method)(*given)
        except (TypeError, ValueError, IndexError, KeyError):
            return None
        return self.spelt(text, receiver)

    def spelt(self, text: str, source: Value) -> Value:
        """A text put together from known parts; a path tells its split."""
        out = constant(text)
        split = file_split(text)
        out.facts = named_file(source.facts, split, self.here()) if split else source.facts
        out.text, out.line, out.at = text, source.line, source.at
        return out
