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

from auditor.static.parse import parse_module
from auditor.static.patterns import (
    Field,
    Lit,
    Many,
    Param,
    Pattern,
    expression,
    literal_text,
    split_lines,
    tidy,
)
from auditor.static.scopes import CallSite, Guard, Index, Scope, dotted, index, last_name, unparsed
from auditor.static.strings import TextReader, printf_pattern

MAX_TEMPLATES = 3000
LOG_METHODS = {"debug", "info", "warning", "warn", "error", "critical", "exception", "log"}
TEXT_WRITERS = {"write", "writelines", "echo", "pprint", "pp", "set_description", "set_postfix_str"}
# Prefixes that loggers, shells and launchers put before a line: epoch seconds, clock times, ranks.
LINE_PREFIX = re.compile(
    r"^(?:\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?\]?[:,]?\s*|\[\d\d:\d\d:\d\d(?:\.\d+)?\]\s*|\d{9,10}\.\d+\s+"
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
        body = expression(_stripped(self.pattern), relaxed)
        start = r".*?" if self.prefixed or not self.whole else r"\s*"
        return re.compile(start + body + (r"\s*" if self.whole else ".*") + r"\Z", re.DOTALL)

    @functools.cached_property
    def fields(self) -> tuple[Field, ...]:
        """Fields in the order of the groups of `regex`."""
        return tuple(part for part in _stripped(self.pattern) if isinstance(part, Field))

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
    """Output whose text cannot be read: why, and a regular expression of what it may print (None: anything)."""

    path: str
    line: int
    reason: str
    shape: str | None = None
    exceptional: bool = False


@dataclass
class TemplateSet:
    """The lines of one or more source layers.

    Attributes:
        templates: readable ones; `dynamic`: the rest; `unreadable`: layers that do not parse, with the reason.
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
        """Templates worth trying on a stripped line: those whose first letters agree, then those without any."""
        if not self._by_start:
            for template in self.templates:
                self._by_start.setdefault(_start(template), []).append(template)
        for length in (4, 3, 2, 1, 0):
            if length <= len(line):
                yield from self._by_start.get(line[:length], ())

    def match(self, line: str) -> Template | None:
        """A template that can print this line, the most specific of those tried first; None if there is none."""
        best: Template | None = None
        for text in variants(line):
            for template in self.candidates(text):
                if template.regex.match(text) and (best is None or len(template.words) > len(best.words)):
                    best = template
            if best is not None:
                return best
        return None

    def nearest(self, line: str) -> Template | None:
        """A template with the words of this line whose digits do not fit (only for lines `match` refuses)."""
        for text in variants(line):
            for template in self.candidates(text):
                if len(template.words) >= 4 and template.relaxed.match(text):
                    return template
        return None

    def may_be_dynamic(self, line: str) -> Dynamic | None:
        """An unreadable output this line may stem from."""
        for item in self.dynamic:
            if item.shape is None or re.match(item.shape, line.strip()):
                return item
        return None


def variants(line: str) -> list[str]:
    """The stripped line, and the same without a time stamp or rank before it."""
    text = line.strip()
    bare = LINE_PREFIX.sub("", text)
    return [text] if bare == text else [text, bare]


@functools.lru_cache(maxsize=64)
def extract(text: str, path: str) -> TemplateSet:
    """Templates of one Python source (`path` names it in the result). Cached; do not modify the result."""
    parsed = parse_module(text)
    if parsed.tree is None:
        return TemplateSet(unreadable={path: parsed.error})
    return _Extractor(index(parsed.tree), path).result


class _Extractor:
    """Finds sinks, follows wrappers to their callers, reads what is printed."""

    def __init__(self, found: Index, path: str) -> None:
        self.index, self.path = found, path
        self.reader = TextReader(found)
        self.result = TemplateSet()
        self._seen: set[tuple[Pattern, int]] = set()
        self.aliases = _aliases(found)
        self._run()

    def _run(self) -> None:
        for site in self.index.calls:
            name = self.aliases.get(site.name, site.name)
            for pattern, whole in self._printed(site, name):
                self._emit(pattern, site, whole, (), 0)

    def _printed(self, site: CallSite, name: str) -> list[tuple[Pattern, bool]]:
        """What a call of a primitive sink prints; an empty list for every other call."""
        func, node = site.node.func, site.node
        if name == "print" and isinstance(func, ast.Name | ast.Attribute):
            return self._print(node, site.scope)
        if not isinstance(func, ast.Attribute) or not node.args:
            return []
        owner = dotted(func.value)
        if name in LOG_METHODS and _is_logger(owner):
            return self._logged(node, name, site.scope)
        if name in TEXT_WRITERS and not self._binary(func.value, site.scope):
            return [(option, name != "set_description") for option in self.reader.read(node.args[0], site.scope)]
        return []

    def _print(self, node: ast.Call, scope: Scope) -> list[tuple[Pattern, bool]]:
        keywords = {k.arg: k.value for k in node.keywords}
        separator = keywords.get("sep", ast.Constant(" "))
        items: list[ast.expr] = []
        for position, argument in enumerate(node.args):
            if isinstance(argument, ast.Starred):
                return [((Field(unparsed(argument.value), None),), True)]
            items += ([separator] if position else []) + [argument]
        options: list[Pattern] = [()]
        for item in items:
            more = self.reader.read(item, scope)
            more = more if len(more) * len(options) <= 48 else [(Field(unparsed(item), None),)]
            options = [left + right for left in options for right in more]
        end = keywords.get("end")
        whole = end is None or (isinstance(end, ast.Constant) and str(end.value).endswith("\n"))
        return [(option, whole) for option in options]

    def _logged(self, node: ast.Call, name: str, scope: Scope) -> list[tuple[Pattern, bool]]:
        args = node.args[1:] if name == "log" and len(node.args) > 1 else node.args
        first = args[0]
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and len(args) > 1:
            return [(printf_pattern(first.value, args[1:]), True)]
        return [(option, True) for option in self.reader.read(first, scope)]

    def _binary(self, owner: ast.expr, scope: Scope) -> bool:
        """True when the file written to is opened in binary mode or is a buffer in memory."""
        name = last_name(owner)
        home = scope.find(name) if name else None
        values = home.bound.get(name, []) if home else []
        for _, value in values:
            if isinstance(value, ast.Call):
                if last_name(value.func) in ("BytesIO", "GzipFile", "LZMAFile"):
                    return True
                modes = [a.value for a in (*value.args, *(k.value for k in value.keywords)) if isinstance(a, ast.Constant)]
                if any(isinstance(mode, str) and re.fullmatch(r"[rwax]?\+?b\+?|[rwax]b\+?|[rwax]\+b", mode) for mode in modes):
                    return True
        return False

    def _emit(self, pattern: Pattern, site: CallSite, whole: bool, trail: tuple[str, ...], depth: int) -> None:
        """Record a printed pattern, or, where it holds a parameter, ask the callers of that function."""
        if len(self.result.templates) > MAX_TEMPLATES:
            return
        asked = next((part for part in pattern if isinstance(part, Param)), None)
        if asked is None or depth > 4:
            self._record(tuple(Field(p.name, None) if isinstance(p, Param) else p for p in pattern), site, whole)
            return
        callers = self._callers(asked.function) if asked.function not in trail else []
        answered = False
        for caller in callers:
            value = _argument(caller.node, asked, self.index)
            if value is None:
                continue
            answered = True
            for option in self.reader.read(value, caller.scope):
                replaced = tidy(tuple(p for part in pattern for p in (option if part == asked else (part,))))
                shown = caller if not any(isinstance(p, Lit) and p.text.strip() for p in pattern) else site
                merged = _merge(shown, site, caller)
                self._emit(replaced, merged, whole, (*trail, asked.function), depth + 1)
        if not answered and callers:
            replaced = tuple(Field(p.name, None) if p == asked else p for p in pattern)
            self._emit(replaced, site, whole, trail, depth + 1)

    def _callers(self, function: str) -> list[CallSite]:
        names = [function, *(alias for alias, target in self.aliases.items() if target == function)]
        if function == "__init__":
            return self.index.calls
        return [site for name in names for site in self.index.calls_by_name.get(name, [])]

    def _record(self, pattern: Pattern, site: CallSite, whole: bool) -> None:
        key = (pattern, site.node.lineno)
        if key in self._seen:
            return
        self._seen.add(key)
        prefixed = _is_logger(dotted(site.node.func.value)) if isinstance(site.node.func, ast.Attribute) else False
        for line in split_lines(pattern):
            if not _stripped(line):
                continue
            if any(isinstance(part, Lit) and re.search(r"\w", part.text) for part in line) or _structured(line):
                template = Template(
                    line, self.path, site.node.lineno, site.scope.name, site.guards, site.loops, site.scope,
                    whole, prefixed, site.in_handler,
                )
                self.result.templates.append(template)
            else:
                self._dynamic(line, site)

    def _dynamic(self, pattern: Pattern, site: CallSite) -> None:
        names = [part.name for part in pattern if isinstance(part, Field)]
        if not names:
            self.result.dynamic.append(Dynamic(self.path, site.node.lineno, "rule", r"[\W_]*$"))
            return
        node = site.node.args[-1] if site.node.args else site.node
        if _is_source(node, site.scope, self.index):
            self.result.dumps_source.append(site.node.lineno)
            return
        shape = _shape(pattern, node, site.scope)
        reason = f"prints the value of {names[0]}"
        self.result.dynamic.append(Dynamic(self.path, site.node.lineno, reason, shape, site.in_handler))


def _merge(shown: CallSite, inner: CallSite, caller: CallSite) -> CallSite:
    """A call through a wrapper: reported at `shown`, under the conditions of the caller and of the wrapper."""
    if shown is caller:
        return caller
    return CallSite(inner.node, inner.scope, inner.guards, inner.loops, inner.in_handler or caller.in_handler)


def _argument(call: ast.Call, asked: Param, found: Index) -> ast.expr | None:
    """The expression a call passes for a parameter, its default when it passes none."""
    for keyword in call.keywords:
        if keyword.arg == asked.name:
            return keyword.value
    for scope in found.functions.get(asked.function, []):
        if asked.name not in scope.parameters:
            continue
        position = scope.parameters.index(asked.name)
        if scope.in_class or scope.parameters[:1] in (("self",), ("cls",)):
            position -= 1
        starred = any(isinstance(argument, ast.Starred) for argument in call.args)
        if not starred and 0 <= position < len(call.args):
            return call.args[position]
        return scope.keyword_defaults.get(asked.name)
    return None


def _aliases(found: Index) -> dict[str, str]:
    """Other names of `print` and of functions: `log = log0`, `self.log = print`, a parameter that receives one."""
    known = {"print", "pprint", *found.functions}
    aliases: dict[str, str] = {}
    scopes = [found.module, *(scope for group in found.functions.values() for scope in group)]
    bound = [(name, value) for scope in scopes for name, values in scope.bound.items() for _, value in values]
    bound += [(name, value) for name, values in found.attributes.items() for value in values]
    for name, value in bound:
        for target in _function_names(value):
            if target in known and target != name and name not in known:
                aliases.setdefault(name, target)
    for site in found.calls:
        for parameter, value in _passed(site, found):
            for target in _function_names(value):
                target = aliases.get(target, target)
                if target in known and target != parameter and parameter not in known:
                    aliases.setdefault(parameter, target)
    return aliases


def _function_names(value: ast.expr | None) -> list[str]:
    if isinstance(value, ast.Name | ast.Attribute):
        return [last_name(value)]
    if isinstance(value, ast.IfExp):
        return _function_names(value.body) + _function_names(value.orelse)
    if isinstance(value, ast.BoolOp):
        return [name for item in value.values for name in _function_names(item)]
    if isinstance(value, ast.Call) and last_name(value.func) == "partial" and value.args:
        return _function_names(value.args[0])
    if isinstance(value, ast.Lambda) and isinstance(value.body, ast.Call):
        return _function_names(value.body.func)
    return []


def _passed(site: CallSite, found: Index) -> list[tuple[str, ast.expr]]:
    pairs = [(keyword.arg, keyword.value) for keyword in site.node.keywords if keyword.arg]
    for scope in found.functions.get(site.name, []):
        skip = 1 if scope.parameters[:1] in (("self",), ("cls",)) else 0
        pairs += list(zip(scope.parameters[skip:], site.node.args, strict=False))
    return pairs


def _is_logger(owner: str) -> bool:
    last = owner.rpartition(".")[2].lower()
    return "log" in last or last in ("tqdm", "accelerator")


def _is_source(node: ast.expr, scope: Scope, found: Index) -> bool:
    """True when the printed value is the program's own text (`open(__file__).read()`, `inspect.getsource`)."""
    values = [node]
    if isinstance(node, ast.Name):
        home = scope.find(node.id)
        values += [value for _, value in (home.bound.get(node.id, []) if home else []) if value is not None]
    return any("__file__" in (text := ast.unparse(value)) or "getsource" in text for value in values)


def _shape(pattern: Pattern, node: ast.expr, scope: Scope) -> str | None:
    """What an unreadable value may look like, where the call that makes it says so."""
    text = unparsed(node)
    if "nvidia-smi" in ast.unparse(node):
        return r"[|+].*|.*NVIDIA.*|.*Processes.*|[A-Z][a-z]{2} [A-Z][a-z]{2} .*|.*(?:nvidia-smi|Driver).*$"
    if "dumps(" in text:
        return r"[\[{\"}\]].*" if "indent" not in ast.unparse(node) else r"[\[\]{}\"\d.,].*"
    if re.search(r"\blogfile\b|log_path|logs_path|log_file", text) or _is_path(node, scope):
        return r"[\w./\-]+\.(?:txt|log|out|json)$"
    if isinstance(node, ast.Constant | ast.List | ast.Dict | ast.Tuple):
        return r"[\[{(].*"
    return None


def _is_path(node: ast.expr, scope: Scope) -> bool:
    if not isinstance(node, ast.Name):
        return False
    home = scope.find(node.id)
    values = [value for _, value in (home.bound.get(node.id, []) if home else []) if value is not None]
    return any(re.search(r"\.(?:txt|log|out|json)\b", ast.unparse(value)) for value in values)


def _structured(pattern: Pattern) -> bool:
    """True for patterns without words that still say something: fields with number formats, fixed separators."""
    return any(isinstance(part, Field) and part.numeric for part in pattern)


def _stripped(pattern: Pattern) -> Pattern:
    """Without blanks at either end (log lines are compared stripped)."""
    parts = list(pattern)
    if parts and isinstance(parts[0], Lit):
        parts[0] = Lit(parts[0].text.lstrip())
    if parts and isinstance(parts[-1], Lit):
        parts[-1] = Lit(parts[-1].text.rstrip())
    return tidy(tuple(parts))


def _start(template: Template) -> str:
    """First letters every line of this template begins with, up to four; "" when unknown."""
    pattern = _stripped(template.pattern)
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
