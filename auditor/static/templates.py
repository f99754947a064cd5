"""Every line a program can print: the templates that reach `print`, a logger, or a file, with the conditions.

A log whose lines no template can produce was not written by that program (rule PG-P-log-provenance). The list is an
over-approximation on purpose: wrappers are followed by name, a variable may hold anything ever assigned to it, and
what cannot be read is listed under `TemplateSet.dynamic` so that no line that could stem from it is held against
the program.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from auditor.static.patterns import Field, Lit, Many, Param, Pattern, expression, literal_text, stripped
from auditor.static.scopes import Guard, Scope

# Prefixes that loggers, shells and launchers put before a line: epoch seconds, clock times, ranks.
LINE_PREFIX = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?\]?[:,]?\s*|\[\d\d:\d\d:\d\d(?:\.\d+)?\]\s*|\d{9,10}\.\d+ "
    r"|\[(?:default|rank|Rank)?\s*\d*\]:\s*|\[rank\s*\d+\]\s*|\d+:\s(?=\S)|(?:INFO|WARNING|DEBUG|ERROR)[: ]\s*)+"
)


@dataclass(frozen=True)
class Template:
    """One printed line.

    Attributes:
        pattern: literal text and fields in order.
        path, line, function: the call that prints it.
        guards: conditions under which it prints, outermost first; `loops` the loops around it.
        whole: False when the line goes on after it (`end=""`) or something may stand before it.
        prefixed: True when a logging format may put text before it.
        exceptional: True inside an exception handler.
    """

    pattern: Pattern
    path: str
    line: int
    function: str
    guards: tuple[Guard, ...] = field(default=(), compare=False, repr=False)
    loops: tuple[ast.For | ast.While, ...] = field(default=(), compare=False, repr=False)
    scope: Scope | None = field(default=None, compare=False, repr=False)
    whole: bool = True
    prefixed: bool = False
    exceptional: bool = False

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        """Matches a whole log line this template can produce (leading and trailing blanks ignored)."""
        return self._compile(relaxed=False)

    @functools.cached_property
    def relaxed(self) -> re.Pattern[str]:
        """The same words with numbers of any precision."""
        return self._compile(relaxed=True)

    def _compile(self, relaxed: bool) -> re.Pattern[str]:
        before = r".*?" if self.prefixed or not self.whole else r"\s*"
        after = r"\s*" if self.whole else ".*"
        return re.compile(expression(stripped(self.pattern), relaxed, before, after) + r"\Z", re.DOTALL)

    @functools.cached_property
    def literals(self) -> tuple[str, ...]:
        """Fixed text every line of this template holds: a cheap test before the regular expression."""
        return tuple(part.text for part in stripped(self.pattern) if isinstance(part, Lit) and len(part.text) > 1)

    def prints(self, text: str) -> bool:
        """Whether this template can print the stripped line `text`."""
        return all(literal in text for literal in self.literals) and self.regex.match(text) is not None

    def words_of(self, text: str) -> bool:
        """Whether the line has this template's words, whatever the precision of its numbers."""
        return all(literal in text for literal in self.literals) and self.relaxed.match(text) is not None

    @functools.cached_property
    def fields(self) -> tuple[Field, ...]:
        """Fields in the order of the groups of `regex`."""
        return tuple(part for part in stripped(self.pattern) if isinstance(part, Field))

    @functools.cached_property
    def text(self) -> str:
        """The template as a reader would write it: `step:{step}/{n} loss:{loss:.4f}`."""
        return "".join(_shown(part) for part in self.pattern)

    @functools.cached_property
    def words(self) -> str:
        """Letters of the literal text: how much the template says."""
        return re.sub(r"[^A-Za-z]+", "", literal_text(self.pattern))


@dataclass(frozen=True)
class Dynamic:
    """Output whose text cannot be read.

    Attributes:
        path, line: the call; `reason`: what it prints, in words.
        shape: regular expression of what it may print, matched from the first column; None: anything.
        exceptional: True inside an exception handler.
        dump: True when it lists the attributes of a settings object.
    """

    path: str
    line: int
    reason: str
    shape: str | None = None
    exceptional: bool = False
    dump: bool = False


@dataclass
class TemplateSet:
    """The lines of one or more source layers.

    Attributes:
        templates: readable ones; `dynamic`: the rest.
        unreadable: layers that do not parse, with the reason.
        dumps_source: lines that print the program itself.
    """

    templates: list[Template] = field(default_factory=list)
    dynamic: list[Dynamic] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    dumps_source: list[int] = field(default_factory=list)
    _by_start: dict[str, list[Template]] = field(default_factory=dict, repr=False)

    @property
    def complete(self) -> bool:
        """True when every output could be read: only then is a line without a template impossible."""
        unknown = [item for item in self.dynamic if item.shape is None and not item.exceptional]
        return bool(self.templates) and not unknown and not self.unreadable

    def add(self, other: TemplateSet) -> None:
        """Merge another layer's templates into this set."""
        self.templates += other.templates
        self.dynamic += other.dynamic
        self.unreadable |= other.unreadable
        self.dumps_source += other.dumps_source
        self._by_start.clear()

    def candidates(self, line: str) -> Iterable[Template]:
        """Templates worth trying on a stripped line: those whose first letters agree, then the rest."""
        if not self._by_start:
            for template in self.templates:
                self._by_start.setdefault(_start(template), []).append(template)
        for length in (4, 3, 2, 1, 0):
            if length <= len(line):
                yield from self._by_start.get(line[:length], ())

    def match(self, line: str) -> Template | None:
        """The template with most words of its own among those that can print this line, or None."""
        best: Template | None = None
        for text in variants(line):
            for template in self.candidates(text):
                if template.prints(text) and (best is None or len(template.words) > len(best.words)):
                    best = template
            if best is not None:
                return best
        return None

    def nearest(self, line: str) -> Template | None:
        """A template with the words of this line whose digits do not fit (only for lines `match` refuses)."""
        for text in variants(line):
            for template in self.candidates(text):
                if len(template.words) >= 4 and template.words_of(text):
                    return template
        return None

    def may_be_dynamic(self, line: str) -> Dynamic | None:
        """An unreadable output this line may stem from."""
        bare = LINE_PREFIX.sub("", line)
        for item in self.dynamic:
            if item.shape is None or re.match(item.shape, line) or re.match(item.shape, bare):
                return item
        return None


def variants(line: str) -> list[str]:
    """The stripped line, and the same without a time stamp or rank before it."""
    text = line.strip()
    bare = LINE_PREFIX.sub("", text)
    return [text] if bare == text else [text, bare]


def _start(template: Template) -> str:
    """First letters every line of this template begins with, up to four; "" when unknown."""
    pattern = stripped(template.pattern)
    if template.prefixed or not template.whole or not pattern or not isinstance(pattern[0], Lit):
        return ""
    return pattern[0].text[:4]


def _shown(part: Lit | Field | Many | Param) -> str:
    if isinstance(part, Lit):
        return part.text
    if isinstance(part, Field):
        return "{" + part.name + (f":{part.spec}" if part.spec else "") + "}"
    if isinstance(part, Many):
        return "{...}"
    return "{" + part.name + "}"
