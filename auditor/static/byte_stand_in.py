"""A small vocabulary whose every byte count is known, and values that stand for what a table builder is handed.

The pieces cover what byte tables get wrong: control, unknown and unused ids, byte-fallback pieces, the lone space
marker, leading spaces, characters of several bytes. The expected counts follow the official look-up (reference
specification, 1.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MARK = "\u2581"
CONTROL, UNKNOWN, UNUSED, BYTE, NORMAL = "control", "unknown", "unused", "byte", "normal"

_WORDS = (MARK, MARK + "the", "ing", "\u00e9", MARK + "\u00e9", "a", MARK + "a", "\u65e5\u672c", MARK + "\u65e5", "fo")
PIECES: tuple[tuple[str, str], ...] = (
    *(("<pad>", CONTROL), ("<s>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN)),
    *((f"<0x{value:02X}>", BYTE) for value in range(256)),
    ("<unused0>", UNUSED),
    *((text, NORMAL) for text in _WORDS),
)
SIZE = len(PIECES)
FIRST_BYTE, FIRST_WORD = 4, 261


def _id(text: str) -> int:
    return FIRST_WORD + _WORDS.index(text)


LONE, THE, ING, A, FO, KANJI, E_ACUTE = (
    _id(t) for t in (MARK, MARK + "the", "ing", "a", "fo", "\u65e5\u672c", "\u00e9")
)
LEADING = tuple(_id(t) for t in _WORDS if t.startswith(MARK))
PLAIN = tuple(_id(t) for t in _WORDS if not t.startswith(MARK))
BYTE_IDS = (4, 4 + 0x41, 4 + 0xE6, 4 + 0xFF)
BOUNDARY_IDS = (1, 2, 3, 260)


def base_bytes(token: int) -> int:
    """Bytes of a piece without its space marker, 0 for boundary ids."""
    text, kind = PIECES[token]
    if kind == BYTE:
        return 1
    return len(text.removeprefix(MARK).encode()) if kind == NORMAL else 0


def true_bytes(previous: int, token: int) -> int:
    """Bytes that `token` adds to the decoded text after `previous`."""
    lead = token in LEADING and PIECES[previous][1] in (BYTE, NORMAL)
    return base_bytes(token) + lead


class Tokenizer:
    """Answers like a SentencePiece processor over `PIECES`; method names in both spellings of that library."""

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Result of a method.

        Raises:
            KeyError: the method is not one of those a table builder needs.
        """
        method = _METHODS[name.replace("_", "").lower()]
        if arguments and isinstance(arguments[0], list | tuple) and method is not _decode:
            return [method(item) for item in arguments[0]]
        return method(*arguments[:1])


def knows(name: str) -> bool:
    """Whether a method name is one of the stand-in's."""
    return name.replace("_", "").lower() in _METHODS


def _token(value: Any) -> int:
    token = int(value)
    if not 0 <= token < SIZE:
        raise IndexError(f"id {token} is outside the vocabulary")
    return token


def _kind(wanted: str) -> Any:
    return lambda token: PIECES[_token(token)][1] == wanted


def _decode(tokens: Any) -> str:
    """Text of ids as SentencePiece gives it: the first piece loses its leading space, invalid bytes become U+FFFD."""
    out = b""
    for index, token in enumerate([tokens] if not isinstance(tokens, list | tuple) else tokens):
        text, kind = PIECES[_token(token)]
        if kind == BYTE:
            out += bytes([int(text[3:5], 16)])
        elif kind == UNKNOWN:
            out += " \u2047 ".encode()
        elif kind != CONTROL:
            out += (text.removeprefix(MARK) if index == 0 else text).replace(MARK, " ").encode()
    return out.decode("utf-8", "replace")


_METHODS: dict[str, Any] = {
    **{name: lambda *_: SIZE for name in ("vocabsize", "getpiecesize", "piecesize", "getvocabsize")},
    "iscontrol": _kind(CONTROL),
    "isunknown": _kind(UNKNOWN),
    "isunused": _kind(UNUSED),
    "isbyte": _kind(BYTE),
    "idtopiece": lambda token: PIECES[_token(token)][0],
    "decode": _decode,
    "decodeids": _decode,
    "decodepieces": lambda pieces: "".join(pieces).replace(MARK, " "),
    "piecetoid": lambda piece: next((i for i, (text, _) in enumerate(PIECES) if text == piece), 3),
    "load": lambda *_: True,
    "loadfromfile": lambda *_: True,
    "padid": lambda *_: 0,
    "bosid": lambda *_: 1,
    "eosid": lambda *_: 2,
    "unkid": lambda *_: 3,
}


class Opaque:
    """A value that nothing is known of."""


OPAQUE = Opaque()


@dataclass
class Argument:
    """What a builder was handed: a size, a path, a tokenizer or an object of settings, as it is used."""

    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Table:
    """A one-dimensional array; `numeric` is "int", "float" or "bool" as its type says, "" when not stated."""

    items: list[Any]
    numeric: str = ""

    def store(self, value: Any) -> Any:
        """A value as this array keeps it."""
        if isinstance(value, Opaque):
            return value
        if self.numeric == "bool":
            return bool(value)
        if self.numeric == "int":
            return int(value)
        return value
