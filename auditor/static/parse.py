"""Source text to a syntax tree, once per text.

`ast` parses a 2,000-line script in 20-40 ms. Where it refuses, f-strings are rewritten to older syntax and it is asked
again: quotes reused inside an f-string (PEP 701) are legal in Python 3.12 and common in submissions. Nothing is
executed. libcst, which knows newer grammars, is not used here: it takes ten times as long and overflows the stack of
the process on a few thousand nested operators, which a hostile script can contain.
"""

from __future__ import annotations

import ast
import functools
import warnings
from dataclasses import dataclass

from auditor.static.fstrings import rewrite


@dataclass(frozen=True)
class Parsed:
    """A parsed source.

    Attributes:
        text: the source as given.
        tree: its syntax tree, line numbers as in `text`; None when it is not Python.
        error: why it does not parse, in words, "" when it does.
        line: 1-based line of the error, None when there is none.
        modernised: True when newer syntax had to be rewritten for the interpreter at hand.
    """

    text: str
    tree: ast.Module | None
    error: str = ""
    line: int | None = None
    modernised: bool = False


@functools.lru_cache(maxsize=48)
def parse_module(text: str) -> Parsed:
    """Parse `text`; the result is cached, so every analysis of one submission shares one tree."""
    text = text.removeprefix("\ufeff")
    tree, error, line = _parse(text)
    if tree is not None:
        return Parsed(text, tree)
    older = rewrite(text)
    if older is not None:
        tree, _, _ = _parse(older)
        if tree is not None:
            return Parsed(text, tree, modernised=True)
    return Parsed(text, None, error, line)


def _parse(text: str) -> tuple[ast.Module | None, str, int | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text), "", None
    except SyntaxError as exc:
        return None, exc.msg or "invalid syntax", exc.lineno
    except (ValueError, RecursionError, MemoryError) as exc:
        return None, str(exc) or type(exc).__name__, None
