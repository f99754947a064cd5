"""Bytes of a log to lines: encodings, carriage returns, colour codes, and logs too long to keep whole."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import BinaryIO

#: Bytes kept from the start and from the end of a long log.
HEAD_BYTES = 24 * 2**20
TAIL_BYTES = 8 * 2**20
#: Lines skipped in a long log that still get a number, so that later numbers are those of the file.
MAX_SKIPPED_LINES = 5_000_000
_STEP = 2**20
#: Share of control characters above which a file is not text: random bytes have a quarter of them, logs with progress
#: bars and lost colour codes a few in a hundred.
_MOST_CONTROLS = 0.1

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\x00\x00", "utf-32-le"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
# Colour and cursor codes, window titles, and what is left of a code whose escape byte was lost.
_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# NUL is no sign: logs cut while in use have holes of it.
_NOT_WRITTEN = re.compile(r"[\x01-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")


@dataclass
class Decoded:
    """Lines of a log as a terminal shows them.

    Attributes:
        is_text: False where so many characters are control characters that nobody wrote it to be read.
        lines: without line ends and colour codes, numbered like the file: line n is `lines[n - 1]`.
        overwritten: line number -> earlier texts that a carriage return overwrote on the screen.
        skipped: half-open range of line numbers left out of a long log, None when it was read whole.
    """

    lines: list[str]
    encoding: str
    overwritten: dict[int, list[str]] = field(default_factory=dict)
    skipped: tuple[int, int] | None = None
    problems: list[str] = field(default_factory=list)
    is_text: bool = True


def decode_log(path: str, source: bytes | BinaryIO) -> Decoded:
    """Lines of a log; at most `HEAD_BYTES` from its start and `TAIL_BYTES` from its end are kept."""
    head, tail, gap = _ends(source)
    encoding = _encoding(head)
    text = _text(head, encoding)
    found = Decoded([], encoding)
    start = head[:200_000].decode(encoding, "replace")
    strange = len(_NOT_WRITTEN.findall(start))
    if strange > _MOST_CONTROLS * len(start):
        found.is_text = False
        found.problems.append(
            f"{path}: {strange:,} of {len(start):,} characters are control characters: not a text file"
        )
    if "\ufffd" in text and encoding == "utf-8":
        count = text.count("\ufffd")
        found.problems.append(f"{path}: {count} characters are not UTF-8")
    _add(found, text)
    if gap is not None:
        skipped, newlines = gap
        _skip(found, newlines)
        found.problems.append(
            f"{path}: {skipped:,} bytes in the middle were not read, lines {found.skipped[0]} to {found.skipped[1] - 1}"
            if found.skipped
            else f"{path}: {skipped:,} bytes in the middle were not read"
        )
        if newlines > MAX_SKIPPED_LINES:
            found.problems.append(f"{path}: line numbers after the part not read are too small")
        _add(found, _text(tail, encoding))
    return found


def _ends(source: bytes | BinaryIO) -> tuple[bytes, bytes, tuple[int, int] | None]:
    """Start, end, and (bytes, line ends) between them when the log is longer than both."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
        if len(data) <= HEAD_BYTES + TAIL_BYTES:
            return data, b"", None
        middle = data[HEAD_BYTES:-TAIL_BYTES]
        return data[:HEAD_BYTES], data[-TAIL_BYTES:], (len(middle), middle.count(b"\n"))
    head = _read(source, HEAD_BYTES)
    kept: deque[bytes] = deque()
    size = skipped = newlines = 0
    while block := source.read(_STEP):
        kept.append(block)
        size += len(block)
        while size - len(kept[0]) >= TAIL_BYTES:
            old = kept.popleft()
            size -= len(old)
            skipped += len(old)
            newlines += old.count(b"\n")
    tail = b"".join(kept)
    return (head, tail, (skipped, newlines)) if skipped else (head + tail, b"", None)


def _read(source: BinaryIO, limit: int) -> bytes:
    blocks, size = [], 0
    while size < limit and (block := source.read(min(_STEP, limit - size))):
        blocks.append(block)
        size += len(block)
    return b"".join(blocks)


def _encoding(data: bytes) -> str:
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    start = data[:4000]
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if max(even, odd) > 0.3 * (len(start) / 2) and min(even, odd) * 4 < max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 4:  # a character cut at the end of what was kept
            return "utf-8"
        # A few broken bytes (a log written by several processes) leave UTF-8; otherwise every byte is a character.
        lost = data[:200_000].decode("utf-8", "replace").count("\ufffd")
        wide = len(re.findall(rb"[\xc2-\xf4][\x80-\xbf]", data[:200_000]))
        return "utf-8" if lost < wide else "latin-1"
    return "utf-8"


def _text(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    return _CONTROLS.sub("", text) if _CONTROLS.search(text) else text


def _add(found: Decoded, text: str) -> None:
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    if "\r" in text:
        for i, line in enumerate(lines):
            if "\r" in line:
                parts = [part for part in line.split("\r") if part.strip()] or [""]
                lines[i] = parts[-1]
                if parts[:-1]:
                    found.overwritten[len(found.lines) + i + 1] = parts[:-1]
    found.lines += lines


def _skip(found: Decoded, newlines: int) -> None:
    """Empty lines in place of those not read keep the numbers of the file."""
    first = len(found.lines) + 1
    count = min(newlines, MAX_SKIPPED_LINES)
    if count > 1:
        found.lines += [""] * (count - 1)
        found.skipped = (first, first + count - 1)
