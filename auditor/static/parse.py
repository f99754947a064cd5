"""Source text to a syntax tree, once per text.

`ast` parses a 2,000-line script in 20-40 ms, libcst in about 250 ms, so the standard parser goes first. libcst is
asked only where `ast` refuses, because its own parser knows newer syntax than the interpreter we run on: quotes
reused inside an f-string (PEP 701) are legal in Python 3.12 and common in submissions. Nothing is executed.
"""

from __future__ import annotations

import ast
import functools
import warnings
from dataclasses import dataclass


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
    older = _rewrite_fstrings(text)
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


def _rewrite_fstrings(text: str) -> str | None:
    """`text` with every f-string as an equivalent `.format` call, or None when libcst cannot read it either."""
    import libcst as cst

    class _Rewriter(cst.CSTTransformer):
        def leave_FormattedString(
            self, original_node: cst.FormattedString, updated_node: cst.FormattedString
        ) -> cst.BaseExpression:
            return _as_format_call(updated_node)

    try:
        return cst.parse_module(text).visit(_Rewriter()).code
    except (cst.ParserSyntaxError, cst.CSTValidationError, RecursionError, ValueError):
        return None


def _as_format_call(node):  # type: ignore[no-untyped-def]  # libcst is imported lazily
    import libcst as cst

    body, values = _format_parts(node.parts)
    prefix = node.prefix.replace("f", "").replace("F", "")
    string = cst.SimpleString(f"{prefix}{node.quote}{body}{node.quote}")
    args = [cst.Arg(value) for value in values]
    call = cst.Call(cst.Attribute(string, cst.Name("format")), args=args)
    # Parenthesised so that implicit concatenation with a neighbouring literal still fails to parse rather than
    # silently changing meaning; `_parse` then reports the original error.
    return call.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _format_parts(parts) -> tuple[str, list]:  # type: ignore[no-untyped-def]
    import libcst as cst

    body, values = "", []
    for part in parts:
        if isinstance(part, cst.FormattedStringText):
            body += part.value
            continue
        if part.equal is not None:
            body += cst.Module([]).code_for_node(part.expression) + "="
        spec, nested = _format_parts(part.format_spec or ())
        conversion = part.conversion or ("r" if part.equal is not None and not spec else "")
        body += "{" + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
        values += [part.expression, *nested]
    return body, values
