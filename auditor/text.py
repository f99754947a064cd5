"""Bytes to text: byte-order marks, UTF-8, UTF-16, Latin-1; line ends normalised to `\\n`."""

from __future__ import annotations

import codecs
import re

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_COOKIE = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")


def decode(data: bytes, cookie: bool = False) -> str:
    """Text of some bytes. Never fails: what is no UTF-8 is read as Latin-1, which keeps every byte.

    Args:
        cookie: honour a Python encoding declaration (`# -*- coding: latin-1 -*-`) in the first two lines.
    """
    text = _decode(data, cookie)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode(data: bytes, cookie: bool) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    if data[:200].count(b"\0") * 4 >= min(len(data), 200) > 3:  # UTF-16 without a mark: every other byte is zero
        name = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
        text = data.decode(name, "replace")
        if "\ufffd" not in text and text.isprintable() | ("\n" in text):
            return text
    encoding = _declared(data) if cookie else None
    for name in filter(None, (encoding, "utf-8")):
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("latin-1")


def _declared(data: bytes) -> str | None:
    for line in data.split(b"\n", 2)[:2]:
        match = _COOKIE.match(line)
        if match:
            name = match[1].decode("ascii").lower()
            try:
                found = codecs.lookup(name)
            except LookupError:
                return None
            return name if getattr(found, "_is_text_encoding", True) else None
    return None
