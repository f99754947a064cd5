"""Heap objects of the abstract machine, and a journal that lets two branches start from the same state.

Everything mutable lives in dictionaries (`slots`) or in the facts of a `Value`; every write goes through `Journal`,
which can undo to a mark and hand back what a branch had written, so that the two outcomes can be joined.
"""

from __future__ import annotations

import ast
from typing import Any

from auditor.static.values import NONE, Facts, Value, join


class Frame:
    """Variables of one activation (or of a module). `slots` maps names to values."""

    __slots__ = ("function", "globals_", "line", "parent", "path", "pending", "slots", "yields")

    def __init__(self, path: str, parent: Frame | None, function: Any = None) -> None:
        self.slots: dict[str, Any] = {}
        self.path = path
        self.parent = parent
        self.function = function
        self.globals_: set[str] = set()
        self.pending: list[dict] = []
        self.yields: list[Value] = []
        self.line = 0


class Function:
    """A function of the submission with the frame it was defined in."""

    __slots__ = ("frame", "name", "node", "owner", "path", "slots", "wrapped")

    def __init__(self, node: Any, frame: Frame, path: str) -> None:
        self.node, self.frame, self.path = node, frame, path
        self.name: str = getattr(node, "name", "<lambda>")
        self.owner: Class | None = None
        self.slots: dict[str, Any] = {}
        self.wrapped = ""


class Bound:
    """A method with its receiver, or a partial application."""

    __slots__ = ("args", "function", "keywords", "receiver")

    def __init__(self, function: Any, receiver: Value | None, args: tuple = (), keywords: dict | None = None) -> None:
        self.function, self.receiver, self.args, self.keywords = function, receiver, args, keywords or {}


class Class:
    """A class of the submission. `advancing` names attributes its methods increment (positions of loaders)."""

    __slots__ = ("advancing", "bases", "fields", "frame", "is_module", "lib_bases", "name", "node", "path", "slots")

    def __init__(self, node: ast.ClassDef, frame: Frame, path: str) -> None:
        self.node, self.frame, self.path, self.name = node, frame, path, node.name
        self.bases: list[Class] = []
        self.lib_bases: list[str] = []
        self.slots: dict[str, Any] = {}
        self.fields: list[str] = []
        self.is_module = False
        self.advancing: frozenset[str] = frozenset()

    def find(self, name: str) -> Value | None:
        """Class attribute by method resolution order (depth first suffices here)."""
        if name in self.slots:
            return self.slots[name]
        for base in self.bases:
            found = base.find(name)
            if found is not None:
                return found
        return None


class Instance:
    """An object: of a class of the submission, or a library module with parameters.

    `learnt` holds what its parameters have learnt, `grads` the token facts of gradients not yet applied.
    """

    __slots__ = ("children", "cls", "depth", "is_module", "number", "owner", "place", "slots", "what")

    def __init__(self, cls: Class | None, what: str, number: int, place: tuple[str, int], depth: int = 0) -> None:
        self.cls, self.what, self.number, self.place, self.depth = cls, what, number, place, depth
        self.is_module = cls.is_module if cls else True
        self.slots: dict[str, Any] = {}
        self.owner: Instance | None = None
        self.children: list[Instance] = []


class Listing:
    """A list, tuple, set, deque or any container without known keys. `items` when the elements are known."""

    __slots__ = ("mutable", "slots")

    def __init__(self, items: list[Value] | None = None, summary: Value | None = None, mutable: bool = True) -> None:
        self.slots: dict[str, Any] = {"items": tuple(items) if items is not None else None, "sum": summary}
        self.mutable = mutable

    @property
    def items(self) -> tuple[Value, ...] | None:
        """The elements, None when only their summary is known."""
        return self.slots["items"]


class Mapping:
    """A dict. Constant keys have their own slot, every other key goes to the summary."""

    __slots__ = ("slots",)

    def __init__(self) -> None:
        self.slots: dict[str, Any] = {"sum": None}


class Library:
    """A name of a library, dotted (`torch.nn.functional.cross_entropy`), or a method of an unknown object."""

    __slots__ = ("name", "receiver")

    def __init__(self, name: str, receiver: Value | None = None) -> None:
        self.name, self.receiver = name, receiver

    def __repr__(self) -> str:
        return self.name


class Module:
    """A module of the submission, run once on import."""

    __slots__ = ("frame", "path")

    def __init__(self, path: str, frame: Frame) -> None:
        self.path, self.frame = path, frame


class Optimizer:
    """An optimizer and the owners of the parameters it holds."""

    __slots__ = ("name", "slots")

    def __init__(self, name: str, params: Facts) -> None:
        self.name = name
        self.slots: dict[str, Any] = {"params": params}


class Journal:
    """Log of writes; `mark`, `undo` and `merge` give branches copy-on-write semantics."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, Any, Any]] = []

    def put(self, slots: dict, key: Any, value: Any) -> None:
        """Write `slots[key]`."""
        self.log.append((slots, key, slots.get(key, _ABSENT)))
        slots[key] = value

    def facts(self, value: Value, facts: Facts) -> None:
        """Replace the facts of a tensor."""
        if facts != value.facts:
            self.log.append((value, None, value.facts))
            value.facts = facts

    def mark(self) -> int:
        """Current position."""
        return len(self.log)

    def undo(self, mark: int) -> dict:
        """Take back everything written since `mark`; returns (container, key) -> what had been written."""
        written: dict[tuple[int, Any], tuple[Any, Any, Any]] = {}
        for holder, key, _ in self.log[mark:]:
            where = (id(holder), key)
            if where not in written:
                now = holder.facts if key is None and isinstance(holder, Value) else holder.get(key, _ABSENT)
                written[where] = (holder, key, now)
        for holder, key, old in reversed(self.log[mark:]):
            if key is None and isinstance(holder, Value):
                holder.facts = old
            elif old is _ABSENT:
                holder.pop(key, None)
            else:
                holder[key] = old
        del self.log[mark:]
        return written

    def replay(self, written: dict) -> None:
        """Write again what `undo` took back (the branch is the one that happens)."""
        for holder, key, now in written.values():
            if key is None and isinstance(holder, Value):
                self.facts(holder, now)
            elif now is not _ABSENT:
                self.put(holder, key, now)

    def merge(self, written: dict) -> None:
        """Join what another path had written with the present state."""
        for holder, key, now in written.values():
            if key is None and isinstance(holder, Value):
                self.facts(holder, holder.facts | now)
            elif now is not _ABSENT:
                here = holder.get(key, _ABSENT)
                if here is now:
                    continue
                if key == "items":
                    self.merge_items(holder, here, now)
                else:
                    self.put(holder, key, now if here is _ABSENT else _joined(here, now))

    def merge_items(self, slots: dict, here: Any, now: Any) -> None:
        """A list that differs between two paths: position by position when as long, else one value for all."""
        if isinstance(here, tuple) and isinstance(now, tuple) and len(here) == len(now):
            self.put(slots, "items", tuple(join(a, b) for a, b in zip(here, now, strict=True)))
            return
        rest = slots.get("sum")
        for item in (*(here if isinstance(here, tuple) else ()), *(now if isinstance(now, tuple) else ())):
            rest = join(rest, item) if rest is not None else item
        self.put(slots, "items", None)
        self.put(slots, "sum", rest)


_ABSENT = object()


def _joined(a: Any, b: Any) -> Any:
    if isinstance(a, Value) or isinstance(b, Value):
        return join(a if isinstance(a, Value) else None, b if isinstance(b, Value) else None)
    if isinstance(a, frozenset) and isinstance(b, frozenset):
        return a | b
    if isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        return tuple(_joined(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, tuple) and isinstance(b, tuple):
        return a if len(a) > len(b) else b
    return a if a is not None else b


def learnt(instance: Instance) -> Facts:
    """What an instance has learnt, its children and owners included."""
    facts, seen, queue = NONE, {id(instance)}, [instance]
    while queue and len(seen) < 200:
        item = queue.pop()
        facts |= item.slots.get("$learnt", NONE)
        for other in item.children:
            if id(other) not in seen:
                seen.add(id(other))
                queue.append(other)
    owner = instance.owner
    while owner is not None and id(owner) not in seen:
        seen.add(id(owner))
        facts |= owner.slots.get("$learnt", NONE)
        owner = owner.owner
    return facts
