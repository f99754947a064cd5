"""C and C++ source that a program carries as a string: where it divides the loss of a token over its bytes.

No compiler front end: three textual signs are looked for, and only together they say anything. An element of an array
parameter is divided by a count (`x = -nll[i] / (double)n`), the quotient is used again, and somewhere two exponentials
are added under a logarithm. Whatever else the code does stays unread.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

# `double per_byte = -nll[i] / (double)count`: an element of an array, divided; the name that holds it.
_DIVIDED = re.compile(
    r"\b(?:double|float)\s+(\w+)\s*=\s*\(?\s*-?\s*(\w+)\s*\[[^\]]+\]\s*\)?\s*/\s*(?:\(?\s*\(?(?:double|float)\)?\s*)?\(?\s*([A-Za-z_]\w*)"
)
_MIXED = re.compile(r"\blog(?:f|1p|2)?\s*\([^;]*\bexpf?\s*\([^;]*\+[^;]*\)|\+[^;]*\bexpf?\s*\([^;]*;|\blogaddexp\b")
_SOURCE = re.compile(r"#\s*include\s*[<\"]|\bextern\s+\"C\"|__global__")
_MAX = 400_000


def native_sources(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line of the first character, text) of every string in a module that is C or C++ source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and 80 < len(node.value) < _MAX:
            if _SOURCE.search(node.value):
                yield node.lineno, node.value


def spread_line(text: str, function: str) -> int | None:
    """Line of the source, from 0, where a loss is divided over the bytes of its token; None when it is not.

    `function` is the exported function the program calls: source that does not define it says nothing.
    """
    if not re.search(rf"\b{re.escape(function)}\s*\(", text) or not _MIXED.search(text):
        return None
    for found in _DIVIDED.finditer(text):
        name, array, _ = found.groups()
        is_parameter = re.search(rf"\bconst\s+(?:double|float)\s*\*\s*(?:__restrict__\s+|restrict\s+)?{array}\b", text)
        if is_parameter and len(re.findall(rf"\b{name}\b", text)) > 1:
            return text.count("\n", 0, found.start())
    return None
