"""Untrusted text made harmless: nothing that came from a submission may act on the reader's screen or page.

A submission chooses its file names, its code, its log lines. Terminal escape sequences, bidirectional overrides
("Trojan Source", CVE-2021-42574), mentions of people and links to other pull requests are made visible or inert here;
what is specific to one format (HTML, Markdown, workflow commands) is escaped by its renderer on top of this.
"""

from __future__ import annotations

import re
from typing import Any

# C0 controls but tab and line feed, C1 controls, surrogates, bidirectional and other invisible format characters.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
    "|[\U000e0000-\U000e007f]"
)
_SPACE = re.compile(r"\s+")


def visible(text: str) -> str:
    """`text` with control, bidirectional and invisible characters written as `\\xNN` or `\\uNNNN`.

    Line ends become `\\n`, tabs and line feeds stay. Idempotent, and safe to print, to log and to encode as UTF-8.
    """
    return _UNSAFE.sub(_spelled, text.replace("\r\n", "\n"))


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def one_line(text: str, limit: int = 0) -> str:
    """Visible text on one line, runs of white space as one space, cut to `limit` characters when that is positive."""
    flat = _SPACE.sub(" ", visible(text)).strip()
    return clip(flat, limit) if limit else flat


def clip(text: str, limit: int) -> str:
    """`text` cut to at most `limit` characters, with `…` as the last one where something was cut."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def clean(value: Any) -> Any:
    """A JSON-like value with every string (keys too) made visible; containers are rebuilt in the same order."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value


def number(value: float | int | None, digits: int = 6) -> str:
    """A number as people read it: integers with thousands separators, others with up to `digits` decimals."""
    if value is None:
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".")


def plural(count: int, noun: str) -> str:
    """`1 finding`, `3 findings`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def safe_url(url: str | None) -> str:
    """`url` when it is an https address without white space or quotes, else "" (never `javascript:` or the like)."""
    return url if url and re.fullmatch(r"https://[^\s\"'<>`\\]+", url) else ""
