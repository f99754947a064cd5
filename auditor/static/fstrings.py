"""F-strings of Python 3.12 and later (PEP 701) as text that older grammars accept.

Quotes reused inside a replacement field, backslashes and comments in one are rewritten as a `.format` call; everything
else stays as it is, line by line. A scanner of its own, linear in the text: a full parser of newer grammars takes
seconds for what is wanted here and overflows the stack on hostile nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What a scan for strings has to look at: comments, and string openings with their prefix.
_INTERESTING = re.compile(r"""#[^\n]*|(?<![\w'"])([A-Za-z]{0,2})('''|\"\"\"|'|")|('''|\"\"\"|'|")""")
_SEPARATOR = re.compile(r"(?:[ \t\f\n]|\\\n|#[^\n]*(?=\n))*")
_PREFIX = re.compile(r"""([A-Za-z]{0,2})('''|\"\"\"|'|")""")
_PREFIXES = frozenset({"", "r", "b", "u", "f", "br", "rb", "fr", "rf", "t", "tr", "rt"})
MAX_NESTING = 40


class _NotAString(Exception):
    """The text is cut short or nested too deeply; it is left to the parser to say what is wrong."""


@dataclass
class _Piece:
    """A string literal: its end in the text, its rewritten source, whether that differs, whether it is bytes."""

    end: int
    source: str
    changed: bool
    binary: bool = False


def rewrite(text: str) -> str | None:
    """The text without PEP 701 f-strings, with the same lines; None when there is nothing to rewrite."""
    try:
        out, changed = _rewrite(text, 0)
    except (_NotAString, RecursionError):
        return None
    return out if changed else None


def _rewrite(text: str, depth: int) -> tuple[str, bool]:
    if depth > MAX_NESTING:
        raise _NotAString
    out: list[str] = []
    position, changed = 0, False
    while match := _INTERESTING.search(text, position):
        if match[0].startswith("#"):
            out.append(text[position : match.end()])
            position = match.end()
            continue
        # `if"a"` is a keyword before a string, not a prefix
        start = match.start() if (match[1] or "").lower() in _PREFIXES else match.start(2)
        out.append(text[position:start])
        source, position, different = _group(text, start, depth)
        out.append(source)
        changed |= different
    out.append(text[position:])
    return "".join(out), changed


def _group(text: str, start: int, depth: int) -> tuple[str, int, bool]:
    """Adjacent literals from `start` on: (source, end, changed). Rewritten ones are joined by `+` in parentheses."""
    pieces = [_literal(text, start, depth)]
    gaps: list[str] = []
    while True:
        gap = _SEPARATOR.match(text, pieces[-1].end)
        following = _PREFIX.match(text, gap.end()) if gap else None
        if gap is None or following is None or following[1].lower() not in _PREFIXES:
            break
        # Two statements on two lines are no concatenation; without brackets a line end separates them.
        if "\n" in gap[0].replace("\\\n", "") and not _inside_brackets(text, start):
            break
        gaps.append(gap[0])
        pieces.append(_literal(text, gap.end(), depth))
    if not any(piece.changed for piece in pieces):
        return text[start : pieces[-1].end], pieces[-1].end, False
    joined = pieces[0].source
    for gap_text, piece in zip(gaps, pieces[1:], strict=True):
        joined += f"+{gap_text}{piece.source}"
    return f"({joined})", pieces[-1].end, True


def _inside_brackets(text: str, position: int) -> bool:
    """Whether a position is inside brackets, judged by the lines before it (only asked between two literals)."""
    opened = 0
    for line in reversed(text[max(0, position - 20_000) : position].split("\n")):
        bare = re.sub(r"""'[^'\n]*'|"[^"\n]*"|#.*""", "", line)
        opened += sum(c in "([{" for c in bare) - sum(c in ")]}" for c in bare)
        if opened > 0:
            return True
        if re.match(r"(?:def|class|import|from)\b|@", bare):
            return False
    return False


def _literal(text: str, start: int, depth: int) -> _Piece:
    match = _PREFIX.match(text, start)
    if match is None:
        raise _NotAString
    prefix, quote = match[1].lower(), match[2]
    if "f" in prefix or "t" in prefix:
        return _format_string(text, match.end(), match[1], quote, depth)
    end = _plain_end(text, match.end(), quote)
    return _Piece(end, text[start:end], False, "b" in prefix)


def _plain_end(text: str, position: int, quote: str) -> int:
    pattern = re.compile(rf"(?:[^\\]|\\.)*?{quote}", re.S)
    if len(quote) == 1:
        pattern = re.compile(rf"(?:[^\\\n{quote}]|\\.)*{quote}", re.S)
    match = pattern.match(text, position)
    if match is None:
        raise _NotAString
    return match.end()


def _format_string(text: str, position: int, prefix: str, quote: str, depth: int) -> _Piece:
    body, values, end, modern = _body(text, position, prefix, quote, depth, spec=False)
    plain = "".join(c for c in prefix if c not in "fFtT")
    start = position - len(quote) - len(prefix)
    if not modern:
        return _Piece(end, text[start:end], False)
    return _Piece(end, f"({plain}{quote}{body}{quote}.format({','.join(values)}))", True)


def _body(
    text: str, position: int, prefix: str, quote: str, depth: int, spec: bool
) -> tuple[str, list[str], int, bool]:
    """(body for `.format`, values, end, modern) of an f-string or of a format specification inside one."""
    if depth > MAX_NESTING:
        raise _NotAString
    raw = "r" in prefix.lower()
    body: list[str] = []
    values: list[str] = []
    modern = False
    while position < len(text):
        char = text[position]
        if spec and char == "}":
            return "".join(body), values, position, modern
        if not spec and text.startswith(quote, position):
            return "".join(body), values, position + len(quote), modern
        if char == "\n" and len(quote) == 1:
            raise _NotAString
        if char == "\\":
            named = re.compile(r"\\N\{[^}\n]*\}").match(text, position) if not raw else None
            piece = named[0] if named else text[position : position + 2]
            # a named character holds braces, which .format would take for a field
            body.append("?" if named else piece)
            position += len(piece)
        elif text.startswith(("{{", "}}"), position) and not (spec and char == "}"):
            body.append(char * 2)
            position += 2
        elif char == "{":
            field, inner, position, new = _field(text, position + 1, prefix, quote, depth)
            body.append(field)
            values += inner
            modern |= new
        else:
            body.append(char)
            position += 1
    raise _NotAString


def _field(text: str, position: int, prefix: str, quote: str, depth: int) -> tuple[str, list[str], int, bool]:
    """(field for `.format`, values, position behind the closing brace, modern) of one replacement field."""
    end = _expression_end(text, position, depth)
    source = text[position:end]
    modern = quote in source or (quote[0] in source and len(quote) == 1) or "\\" in source or "#" in source
    modern = modern or (len(quote) == 1 and "\n" in source)
    expression, changed = _rewrite(source, depth + 1)
    field = ""
    conversion = ""
    shown = re.match(r"(.*?[^=!<>])\s*=\s*\Z", expression, re.S)
    if shown:
        expression = shown[1]
        other = "'" if quote[0] == '"' else '"'
        field = re.sub(r"[\\{}\n]", " ", shown[1]).replace(quote[0], other) + "="
        conversion = "!r"
    if text.startswith("!", end):
        conversion = text[end : end + 2]
        end += 2
    spec = ""
    values = [f"({expression})"]
    if text.startswith(":", end):
        spec, inner, end, new = _body(text, end + 1, prefix, quote, depth + 1, spec=True)
        values += inner
        modern |= new
        spec = ":" + spec
        conversion = "" if shown and conversion == "!r" else conversion
    if not text.startswith("}", end):
        raise _NotAString
    return f"{field}{{{conversion}{spec}}}", values, end + 1, modern or changed


_STOPS = re.compile(r"""#[^\n]*|[\[({})\]:!'"]""")


def _expression_end(text: str, position: int, depth: int) -> int:
    """Position of what ends the expression of a replacement field: `}`, `!` or `:` outside brackets and strings."""
    opened = 0
    while match := _STOPS.search(text, position):
        char = match[0]
        if char[0] == "#":
            position = match.end()
        elif char in "'\"":
            start = match.start()
            while start > 0 and text[start - 1].isalpha() and match.start() - start < 2:
                start -= 1
            if text[start : match.start()].lower() not in _PREFIXES:
                start = match.start()
            position = _literal(text, start, depth + 1).end
        elif char in "[({":
            opened += 1
            position = match.end()
        elif char in ")]}" and opened:
            opened -= 1
            position = match.end()
        elif char == "!" and text.startswith("!=", match.start()):
            position = match.end() + 1
        elif opened:
            position = match.end()
        else:
            return match.start()
    raise _NotAString
