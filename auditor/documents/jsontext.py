"""A tolerant JSON reader that remembers where every value stands.

Submission files hold comments, trailing commas, NaN, Python literals and half-written objects. The reader takes what
it can, says what it repaired, and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

Scalar = str | int | float | bool | None

#: Nesting beyond this is not followed.
MAX_DEPTH = 60
#: Values read at most; a real file has a few hundred.
MAX_NODES = 200_000

_BLANK = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z))*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'')
_LONG_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d+)(?:[eE][-+]?\d+)?")
_STRICT_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_BARE = re.compile(r"[^\s,:{}\[\]\"']+")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_FOREIGN: dict[str, Scalar] = {"True": True, "False": False, "None": None, "undefined": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
)


@dataclass
class Node:
    """A JSON value with its place.

    Attributes:
        line: 1-based line where the value begins. text: a scalar as written (strings without quotes).
        value: the scalar. members: of an object, in order. items: of a list. kind: "object", "list" or "scalar".
    """

    line: int
    kind: str = "scalar"
    value: Scalar = None
    text: str = ""
    members: dict[str, Node] = field(default_factory=dict)
    items: list[Node] = field(default_factory=list)

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Node]]:
        """Every scalar below with its key path, list positions as numbers."""
        if self.kind == "scalar":
            yield path, self
        for name, node in self.children():
            yield from node.walk((*path, name))

    def children(self) -> Iterator[tuple[str, Node]]:
        """Members or items with their name."""
        yield from self.members.items()
        yield from ((str(i), node) for i, node in enumerate(self.items))

    def plain(self) -> object:
        """The value as plain Python objects."""
        if self.kind == "object":
            return {name: node.plain() for name, node in self.members.items()}
        return [node.plain() for node in self.items] if self.kind == "list" else self.value


def parse(text: str) -> tuple[Node | None, list[str]]:
    """Root node (None when there is no value at all) and what had to be repaired, in words with the line."""
    reader = _Reader(text)
    reader.skip()
    if reader.at >= len(text):
        return None, ["the file is empty"]
    root = reader.value(0)
    reader.skip()
    if root is not None and reader.at < len(text):
        reader.repair("text after the end of the object is left out")
    return root, reader.problems


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.problems: list[str] = []
        self._nodes = 0
        self._line, self._counted = 1, 0

    def line(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def repair(self, what: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(f"line {self.line()}: {what}")

    def skip(self) -> None:
        found = _BLANK.match(self.text, self.at)
        if found and found.end() > self.at:
            if found.group().strip():
                self.repair("a comment is not JSON")
            self.at = found.end()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Node | None:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            self.repair("nested too deeply or too long; the rest is left out")
            self.at = len(self.text)
            return None
        mark = self.peek()
        if mark == "{":
            return self._object(depth)
        if mark == "[":
            return self._list(depth)
        return self._scalar()

    def _object(self, depth: int) -> Node:
        node = Node(self.line(), "object")
        self.at += 1
        while self._another("}", bool(node.members)):
            name = self._name()
            if name is None:
                continue
            self.skip()
            if self.peek() in (":", "="):
                self.at += 1
            else:
                self.repair(f"no colon after {name[:40]!r}")
            self.skip()
            child = self.value(depth + 1)
            if child is None:
                continue
            if name in node.members:
                self.repair(f"key {name[:40]!r} appears twice; the later value counts")
            node.members[name] = child
        return node

    def _list(self, depth: int) -> Node:
        node = Node(self.line(), "list")
        self.at += 1
        while self._another("]", bool(node.items)):
            child = self.value(depth + 1)
            if child is not None:
                node.items.append(child)
        return node

    def _another(self, end: str, follows: bool) -> bool:
        """Skip blanks and commas; False at the end of the container."""
        commas = 0
        while True:
            self.skip()
            mark = self.peek()
            if mark == ",":
                commas += 1
                self.at += 1
            elif mark == end:
                if commas:
                    self.repair("trailing comma")
                self.at += 1
                return False
            elif not mark:
                self.repair(f"the file ends before {end!r}")
                return False
            elif mark in "}]":
                self.repair(f"{mark!r} where {end!r} was expected")
                return False if end == "]" or mark == end else self._drop()
            else:
                if follows and not commas:
                    self.repair("a comma is missing")
                return True

    def _drop(self) -> bool:
        self.at += 1
        return False

    def _name(self) -> str | None:
        if self.peek() in ("{", "["):
            self.repair("a value without a name is left out")
            self.value(MAX_DEPTH)
            return None
        node = self._scalar(name=True)
        return None if node is None else str(node.text)

    def _scalar(self, name: bool = False) -> Node | None:
        line = self.line()
        found = _STRING.match(self.text, self.at) or _LONG_STRING.match(self.text, self.at)
        if found:
            self.at = found.end()
            text = _ESCAPE.sub(_unescape, found.group()[1:-1])
            if found.group()[0] == "'":
                self.repair("single quotes are not JSON")
            return Node(line, value=text, text=text)
        found = _BARE.match(self.text, self.at)
        if not found:
            self.repair(f"unexpected {self.peek()!r}")
            self.at += 1
            return None
        word = found.group()
        self.at = found.end()
        return Node(line, value=word, text=word) if name else self._bare(word, line)

    def _bare(self, word: str, line: int) -> Node:
        if _STRICT_NUMBER.fullmatch(word):
            return Node(line, value=_number(word), text=word)
        if word in _WORDS:
            return Node(line, value=_WORDS[word], text=word)
        if word in _FOREIGN:
            self.repair(f"{word} is Python, not JSON")
            return Node(line, value=_FOREIGN[word], text=word)
        if word.strip("+-").lower() in ("nan", "inf", "infinity"):
            self.repair(f"{word} is no JSON number")
            return Node(line, value=None, text=word)
        self.repair(f"{word[:40]!r} is no JSON value")
        return Node(line, value=_number(word) if _NUMBER.fullmatch(word) else word, text=word)


def _number(word: str) -> Scalar:
    plain = word.replace("_", "")
    try:
        if len(plain) <= 40 and re.fullmatch(r"[-+]?\d+", plain):
            return int(plain)
        return float(plain)
    except (ValueError, OverflowError):
        return word


def _unescape(found: re.Match[str]) -> str:
    if found[1]:  # two halves of one character
        return chr(0x10000 + ((int(found[1], 16) & 0x3FF) << 10) + (int(found[2], 16) & 0x3FF))
    if found[3]:
        code = int(found[3], 16)
        return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)  # half a character cannot be written out again
    return _ESCAPES.get(found[4], found[4])
