"""Finds the copy of the program that many scripts print at the head of their log, and compares it with a source."""

from __future__ import annotations

import ast
import difflib
import functools
import re
from dataclasses import dataclass

from auditor.static.parse import parse_module

_IMPORT = re.compile(r"^(?:import \w|from [\w.]+ import )")
_CODE = re.compile(
    r"^(?:\s*(?:import |from [\w.]+ import |def |class |async def |if .*:|elif .*:|else:|for .*:|while .*:|try:|except"
    r"|finally:|with .*:|return\b|raise\b|assert\b|del |global |pass$|break$|continue$|@\w|#|\"\"\"|''')"
    r"|\s*[\w.\[\]\"', ]+ [-+*/|&@%]?= \S|\s+[\w.]+\(.*|\s*[\])}]+[,:]?$|\s{4,}\S)"
)
_END = re.compile(r"^(?:=|-){40,}$|^Running Python|^Hyperparameters:?$|^logs/\S+\.txt$")
_TRAILING_COMMENT = re.compile(r"\s+#[^'\"]*$")
_MIN_LINES = 20
_MIN_PACKED = 2000


@dataclass(frozen=True)
class EmbeddedSource:
    """A program printed into a log: half-open 1-based line range, its text, whether it parses as it stands."""

    first: int
    last: int
    text: str
    parses: bool


@dataclass(frozen=True)
class Difference:
    """How two sources differ.

    Attributes:
        kind: "identical", "comments" (comments, blanks, docstrings only), "code", "other program".
        added, removed: changed code lines (added: in the second, here the submitted one, only).
        examples: up to eight changed lines as (sign, 1-based line, text); "-" is in the first source only.
    """

    kind: str
    added: int = 0
    removed: int = 0
    examples: tuple[tuple[str, int, str], ...] = ()

    @property
    def changed(self) -> int:
        """Number of changed code lines, both directions."""
        return self.added + self.removed


def find_sources(lines: list[str]) -> list[EmbeddedSource]:
    """Every program printed into a log, in order."""
    found: list[EmbeddedSource] = []
    position = 0
    while position < len(lines):
        start = next((i for i in range(position, len(lines)) if _starts_source(lines, i)), None)
        if start is None:
            break
        region = _region(lines, _back_to_docstring(lines, start, position), start)
        if region is not None:
            found.append(region)
        position = region.last if region is not None else start + 1
    return found


def _starts_source(lines: list[str], i: int) -> bool:
    """An import at the first column with more code after it, a packed one-line program, or the middle of a program."""
    following = lines[i : i + 60]
    if _IMPORT.match(lines[i]):
        if any(len(line) >= _MIN_PACKED for line in following[:12]):
            return True
        return sum(bool(_CODE.match(line)) for line in following if line.strip()) >= 12
    if not _CODE.match(lines[i]):
        return False
    # A log may begin in the middle of the printed program (cut by a terminal or a pager).
    filled = [line for line in following if line.strip()]
    code = sum(bool(_CODE.match(line)) for line in filled)
    return code >= 20 and code >= 0.75 * len(filled) and any(re.match(r"\s*(?:def|class|return) ?", x) for x in filled)


def _back_to_docstring(lines: list[str], start: int, floor: int) -> int:
    """Start of the comments and the docstring that stand before the first import."""
    first = start
    i = start - 1
    while i >= floor and (not lines[i].strip() or lines[i].startswith("#")):
        i -= 1
    quote = next((q for q in ('"""', "'''") if i >= floor and lines[i].rstrip().endswith(q)), None)
    if quote is not None:
        if lines[i].count(quote) < 2:
            i = next((k for k in range(i - 1, floor - 1, -1) if lines[k].startswith((quote, "r" + quote))), i)
        first = i
        i -= 1
    while i >= floor and lines[i].startswith("#"):
        first = i
        i -= 1
    return min(first, next((k for k in range(i + 1, start) if lines[k].startswith("#")), start))


def _region(lines: list[str], first: int, anchor: int) -> EmbeddedSource | None:
    end = next((k for k in range(anchor + 1, len(lines)) if _END.match(lines[k])), None)
    if end is None or not _mostly_code(lines[anchor:end]):
        end = _last_code_line(lines, anchor) + 1
    end, parses = _shrink_until_parsed(lines, first, end)
    text = "\n".join(lines[first:end])
    if end - first < _MIN_LINES and len(text) < _MIN_PACKED:
        return None
    return EmbeddedSource(first + 1, end + 1, text, parses)


def _mostly_code(region: list[str]) -> bool:
    filled = [line for line in region if line.strip()]
    return bool(filled) and sum(bool(_CODE.match(line)) for line in filled) >= 0.5 * len(filled)


def _last_code_line(lines: list[str], anchor: int) -> int:
    """Last line of the run of code from `anchor` on: the run ends where eight lines in a row are not code."""
    last, misses = anchor, 0
    for i in range(anchor, len(lines)):
        if not lines[i].strip():
            continue
        if _CODE.match(lines[i]) or len(lines[i]) > _MIN_PACKED:
            last, misses = i, 0
        else:
            misses += 1
            if misses >= 8:
                break
    return last


def _shrink_until_parsed(lines: list[str], first: int, end: int) -> tuple[int, bool]:
    """Cut the region at the first line Python refuses, while that line is in its last part."""
    original = end
    for _ in range(6):
        parsed = parse_module("\n".join(lines[first:end]))
        if parsed.tree is not None:
            return end, True
        if parsed.line is None or parsed.line < 0.6 * (end - first):
            break
        end = first + parsed.line - 1
    return original, False


@functools.lru_cache(maxsize=32)
def compare(first: str, second: str) -> Difference:
    """How `second` (the submitted program) differs from `first` (the one in the log), comments aside."""
    if first.strip() == second.strip():
        return Difference("identical")
    left, right = _code_lines(first), _code_lines(second)
    left_text, right_text = [text for _, text in left], [text for _, text in right]
    if left_text == right_text:
        return Difference("comments")
    shared = len(set(left_text) & set(right_text))
    if shared < 0.35 * min(len(set(left_text)), len(set(right_text))) or min(len(left), len(right)) < 3:
        return Difference("other program", len(right), len(left))
    return _line_difference(left, right)


def _line_difference(left: list[tuple[int, str]], right: list[tuple[int, str]]) -> Difference:
    matcher = difflib.SequenceMatcher(None, [t for _, t in left], [t for _, t in right], autojunk=False)
    removed: list[tuple[str, int, str]] = []
    added: list[tuple[str, int, str]] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            removed += [("-", number, text) for number, text in left[i1:i2]]
            added += [("+", number, text) for number, text in right[j1:j2]]
    examples = (*removed[:4], *added[:4])
    return Difference("code", len(added), len(removed), examples)


def _code_lines(text: str) -> list[tuple[int, str]]:
    """(line number, text without indentation) of the lines that are not blank, comments or docstrings."""
    prose = _docstring_lines(text)
    return [
        (number, bare)
        for number, line in enumerate(text.splitlines(), 1)
        if number not in prose and (bare := _TRAILING_COMMENT.sub("", line).strip()) and not bare.startswith("#")
    ]


def _docstring_lines(text: str) -> set[int]:
    """Lines of string statements, which do nothing."""
    tree = parse_module(text).tree
    if tree is None:
        return set()
    lines: set[int] = set()
    blocks: list[ast.AST] = [tree]
    while blocks:
        for statement in getattr(blocks.pop(), "body", ()):
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                blocks.append(statement)
            elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                lines.update(range(statement.lineno, (statement.end_lineno or statement.lineno) + 1))
    return lines
