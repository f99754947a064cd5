"""The fallback: any long literal that decodes through a known chain into Python text."""

from __future__ import annotations

import ast
import re

from auditor.errors import UnpackLimit
from auditor.text import decode
from auditor.unpacking.decoders import TEXT_DECODERS, Budget, DecodeError, decompressors

MIN_LITERAL = 160
MAX_DEPTH = 6
_LITERAL = re.compile(r"""[rbRB]{0,2}(?:'''(.*?)'''|\"\"\"(.*?)\"\"\"|'([^'\n]{160,})'|"([^"\n]{160,})")""", re.S)
_PYTHON = re.compile(r"^\s*(?:import\s+\w|from\s+[\w.]+\s+import\b|def\s+\w+\s*\(|class\s+\w+|exec\s*\()", re.M)


def long_literals(tree: ast.Module | None, text: str) -> list[tuple[bytes, int]]:
    """(content, line) of every string or bytes literal of at least `MIN_LITERAL` bytes, the longest first."""
    found: list[tuple[bytes, int]] = []
    if tree is not None:
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str | bytes)
                and len(node.value) >= MIN_LITERAL
            ):
                value = node.value.encode("utf-8", "replace") if isinstance(node.value, str) else node.value
                found.append((value, node.lineno))
    else:
        for match in _LITERAL.finditer(text):
            value = next(filter(None, match.groups()), "").encode("utf-8", "replace")
            if len(value) >= MIN_LITERAL:
                found.append((value, text.count("\n", 0, match.start()) + 1))
    return sorted(found, key=lambda item: -len(item[0]))


def looks_like_python(text: str) -> bool:
    """Whether a decoded text reads like a program: printable, with an import, a definition, or an exec."""
    sample = text[:20_000]
    if not sample or "\0" in sample:
        return False
    odd = sum(not (c.isprintable() or c in "\n\t\f") for c in sample)
    return odd * 50 <= len(sample) and bool(_PYTHON.search(sample))


def search(data: bytes, budget: Budget, codecs: tuple[str, ...] = ()) -> tuple[bytes, tuple[str, ...]] | None:
    """(Python source, chain of codecs) inside some bytes, None when no known chain leads to one.

    Raises:
        UnpackLimit: a decompressor passed its bound.
    """
    if len(codecs) >= MAX_DEPTH or len(data) < 16:
        return None
    if codecs and _is_text(data) and looks_like_python(decode(data)):
        return data, codecs
    for name, pattern, function in TEXT_DECODERS:
        if pattern.match(data.strip()):
            found = _step(lambda d, _, f=function: f(d.strip()), data, budget, (*codecs, name))
            if found:
                return found
    if _is_text(data):
        return None
    for name, function in decompressors(data):
        found = _step(function, data, budget, (*codecs, name))
        if found:
            return found
    return None


def _step(function, data: bytes, budget: Budget, codecs: tuple[str, ...]):  # type: ignore[no-untyped-def]
    try:
        out = function(data, budget)
    except DecodeError:
        return None
    except UnpackLimit:
        if codecs[-1] in ("lzma", "deflate", "brotli") and not data.startswith(b"\xfd7zXZ"):
            return None  # without a magic number it was only a guess
        raise
    # A guess that is right yields a text or another known format.
    return search(out, budget, codecs)


def _is_text(data: bytes) -> bool:
    try:
        data[:4096].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(data[:4096]) - 4 and b"\0" not in data[:4096]
    return b"\0" not in data[:4096]
