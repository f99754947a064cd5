"""Values of the static evaluator: constants that remember how they were decoded, and names of what was imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Unknown:
    """A value that cannot be told without running the program. `source`: the known content it was made from."""

    def __init__(self, source: Any = None) -> None:
        self.source = source

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN = Unknown()


class Data(bytes):
    """Bytes with their origin: `codecs` applied, outermost first; `file`, the sibling file they were read from."""

    codecs: tuple[str, ...] = ()
    file: str = ""


class Text(str):
    """Text with its origin, like `Data`."""

    codecs: tuple[str, ...] = ()
    file: str = ""


def origin(*values: Any) -> tuple[tuple[str, ...], str]:
    """(codecs, file) of the first value that has any."""
    for value in values:
        if isinstance(value, (Data, Text)) and (value.codecs or value.file):
            return value.codecs, value.file
    return (), ""


def tagged(value: Any, *sources: Any, codec: str = "") -> Any:
    """A bytes or text value that remembers where it came from, plus one more decoding step."""
    if not isinstance(value, (bytes, bytearray, str)):
        return value
    codecs, file = origin(value, *sources)
    made: Any = Text(value) if isinstance(value, str) else Data(value)
    made.codecs = (*codecs, codec) if codec else codecs
    made.file = file
    return made


@dataclass(frozen=True)
class Name:
    """Something imported or built in, by its full dotted name (`base64.b85decode`)."""

    dotted: str


@dataclass(frozen=True)
class Place:
    """A path: POSIX, relative to the folder of the script; `known` False when only its last part could be told."""

    path: str
    known: bool = True


@dataclass
class File:
    """An open file: where it lies, or what it wraps (`io.BytesIO(...)`, `gzip.open(...)`)."""

    place: Place | None = None
    content: Any = UNKNOWN
    written: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class Method:
    """A method of a known value."""

    owner: Any
    name: str


@dataclass(frozen=True)
class Machine:
    """An object whose `decompress` method decodes: the dotted name of its class and its arguments."""

    dotted: str
    arguments: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Spec:
    """A module specification or module made from a file."""

    place: Place


@dataclass
class Sink:
    """Program text that reaches execution or a file.

    Attributes:
        how: `exec`, `compile`, `write`, `run` (another file), `import`, `marshal`.
        value: text, bytes, `Place`, or `Unknown` when it could not be told.
        line: 1-based line in the layer.
        target: for `write`, the path written to when known.
    """

    how: str
    value: Any
    line: int
    target: str = ""
