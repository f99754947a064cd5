"""What a program can print, as patterns: literal text, fields with a format, repetitions; and their expressions.

A pattern over-approximates: when a part is not known it becomes a field that matches anything, never a guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_SPEC = re.compile(
    r"(?:(?P<fill>.)?(?P<align>[<>=^]))?(?P<sign>[-+ ])?z?#?(?P<zero>0)?(?P<width>\d+)?(?P<group>[,_])?"
    r"(?:\.(?P<precision>\d+))?(?P<type>[bcdeEfFgGnosxX%])?\Z"
)
ANY = r".*?"
NUMBER = r"\s*[-+]?(?:[\d,_]*\.?\d+(?:[eE][-+]?\d+)?|\d+\.|nan|inf|NaN|Infinity)%?"


@dataclass(frozen=True)
class Lit:
    """Literal text."""

    text: str


@dataclass(frozen=True)
class Field:
    """A value printed with a format.

    Attributes:
        name: source text of the expression, shortened (`ci + 1`, `args.seed`).
        spec: format specification (`.4f`), "" for none; None when it is computed at run time.
        percent: True when `spec` is in printf style (`%5.2f` -> `5.2f`).
    """

    name: str
    spec: str | None = ""
    percent: bool = False

    @property
    def digits(self) -> int | None:
        """Digits after the point this format always prints, None when it does not fix them."""
        found = _SPEC.match(self.spec) if self.spec else None
        if not found or (found["type"] or "") not in ("f", "F", "e", "E", "%"):
            return None
        return int(found["precision"]) if found["precision"] else 6

    @property
    def numeric(self) -> bool:
        """True when the format only accepts numbers."""
        found = _SPEC.match(self.spec) if self.spec else None
        return bool(found and (found["type"] or "") in set("bdeEfFgGnoxX%") and (found["type"] or ""))


@dataclass(frozen=True)
class Many:
    """Any number of repetitions of any of some patterns (a join, or `text += ...` in a loop)."""

    options: tuple[Pattern, ...]
    separator: Pattern = ()


@dataclass(frozen=True)
class Param:
    """A parameter of a function whose callers are still to be asked."""

    function: str
    name: str


Part = Lit | Field | Many | Param
Pattern = tuple[Part, ...]


def literal_text(pattern: Pattern) -> str:
    """All fixed text of a pattern, run together (repetitions count once)."""
    out = []
    for part in pattern:
        if isinstance(part, Lit):
            out.append(part.text)
        elif isinstance(part, Many):
            out.extend(literal_text(option) for option in part.options)
    return "".join(out)


def tidy(pattern: Pattern) -> Pattern:
    """The same pattern with neighbouring literals joined and empty ones dropped."""
    out: list[Part] = []
    for part in pattern:
        if isinstance(part, Lit):
            if not part.text:
                continue
            if out and isinstance(out[-1], Lit):
                out[-1] = Lit(out[-1].text + part.text)
                continue
        out.append(part)
    return tuple(out)


def stripped(pattern: Pattern) -> Pattern:
    """Without blanks at either end (log lines are compared stripped)."""
    parts = list(pattern)
    if parts and isinstance(parts[0], Lit):
        parts[0] = Lit(parts[0].text.lstrip())
    if parts and isinstance(parts[-1], Lit):
        parts[-1] = Lit(parts[-1].text.rstrip())
    return tidy(tuple(parts))


def split_lines(pattern: Pattern) -> list[Pattern]:
    """A pattern per printed line: literals are cut at line ends; a repetition that holds them is opened up."""
    lines: list[list[Part]] = [[]]
    extra: list[Pattern] = []
    for part in pattern:
        if isinstance(part, Lit) and "\n" in part.text:
            first, *rest = part.text.split("\n")
            lines[-1].append(Lit(first))
            lines.extend([Lit(text)] for text in rest)
        elif isinstance(part, Many) and _breaks_lines(part):
            extra.extend(line for option in part.options for line in split_lines(option))
            lines[-1].append(Field("...", None))
        else:
            lines[-1].append(part)
    return [tidy(tuple(line)) for line in lines if line] + extra


def _breaks_lines(many: Many) -> bool:
    return "\n" in literal_text(many.separator) or any("\n" in literal_text(option) for option in many.options)


def expression(pattern: Pattern, relaxed: bool = False, before: str = "", after: str = "") -> str:
    """Regular expression text of a one-line pattern, one group per top-level field; `before` and `after` surround it.

    With `relaxed`, numeric fields accept a number of any precision: the words without the digits.

    Everything between two open fields is taken where it first fits and never tried again (atomic groups, as in
    `fnmatch`): the leftmost fit leaves most room for the rest, and a hostile line cannot make the search explode.
    """
    pieces = [before, *(_part_expression(part, relaxed, group=True) for part in pattern), after]
    runs = [""]
    for piece in pieces:
        if piece.strip("()") in (ANY, ".*"):
            runs.append(piece)
        else:
            runs[-1] += piece
    first, *rest = runs
    return first + "".join(f"(?>{run})" for run in rest[:-1]) + "".join(rest[-1:])


def _part_expression(part: Part, relaxed: bool, group: bool) -> str:
    if isinstance(part, Lit):
        return re.escape(part.text)
    if isinstance(part, Field):
        inner = field_expression(part, relaxed)
        return f"({inner})" if group else f"(?:{inner})"
    if isinstance(part, Many):
        return _many_expression(part, relaxed)
    return ANY


def _many_expression(many: Many, relaxed: bool) -> str:
    """A repetition: exact where all its fields are numbers, else open (nested open fields would backtrack badly)."""
    parts = [part for option in (*many.options, many.separator) for part in option]
    if not all(isinstance(part, Lit) or (isinstance(part, Field) and part.numeric) for part in parts):
        return ANY
    options = "|".join(
        "".join(_part_expression(item, relaxed, group=False) for item in option) for option in many.options
    )
    separator = "".join(_part_expression(item, relaxed, group=False) for item in many.separator)
    return f"(?:(?:{options})(?:{separator}(?:{options}))*)?" if separator else f"(?:{options})*"


def field_expression(part: Field, relaxed: bool = False) -> str:
    """Regular expression of what a field can print (`.4f` fixes four digits; no format accepts anything)."""
    if part.spec is None:
        return ANY
    found = _SPEC.match(part.spec)
    if not part.spec or not found:
        return ANY
    kind = found["type"] or ""
    if relaxed and part.numeric:
        return NUMBER
    body = _number_expression(kind, found)
    if body == ANY:
        return ANY  # it takes its padding along
    pad = found["width"] is not None
    fill = re.escape(found["fill"]) if found["fill"] else r"\s"
    if found["zero"] or found["fill"] == "0":
        fill = r"[\s0]"  # zeros also stand before inf and nan
    return f"{fill}*{body}{fill}*" if pad or found["sign"] == " " else body


def _number_expression(kind: str, found: re.Match[str]) -> str:
    precision = int(found["precision"]) if found["precision"] else None
    whole = r"\d[\d,_]*" if found["group"] else r"\d+"
    special = r"|[-+]?(?:nan|inf|NAN|INF)"
    if kind in ("d", "n"):
        return rf"[-+ ]?{whole}"
    if kind in ("f", "F", "%"):
        digits = 6 if precision is None else precision
        tail = rf"\.\d{{{digits}}}" if digits else ""
        percent = "%" if kind == "%" else ""
        return rf"(?:[-+ ]?{whole}{tail}{percent}{special}{percent})"
    if kind in ("e", "E"):
        digits = 6 if precision is None else precision
        return rf"(?:[-+ ]?\d{f'[.]{chr(92)}d{{{digits}}}' if digits else ''}[eE][-+]\d+{special})"
    if kind in ("g", "G") or (not kind and precision is not None):
        # `.4` without a type is a number format for numbers and a cut for text.
        return rf"(?:[-+ ]?[\d,_]*\.?\d+(?:[eE][-+]\d+)?{special})" if kind else ANY
    if kind in ("x", "X", "o", "b"):
        return r"[-+]?(?:0[xXob])?[\da-fA-F_]+"
    return ANY
