"""What a program prints: calls of `print`, loggers and file writes, followed through wrappers to callers."""

from __future__ import annotations

import ast
import functools
import re

from auditor.static.parse import parse_module
from auditor.static.patterns import (
    Field,
    Lit,
    Many,
    Param,
    Part,
    Pattern,
    expression,
    literal_text,
    split_lines,
    stripped,
    tidy,
)
from auditor.static.scopes import CallSite, Index, Scope, dotted, index, last_name, unparsed
from auditor.static.strings import TextReader, printf_pattern
from auditor.static.templates import Dynamic, Template, TemplateSet

MAX_TEMPLATES = 3000
_ATTRIBUTE_LISTS = ("vars(", "__dict__", "fields(", "dir(", "asdict(")
_LOGGER_NAME = re.compile(r"(?:log|print|echo|say|rank0)[a-z_0-9]*\Z|.*_(?:log|print)\Z")
LOG_METHODS = {"debug", "info", "warning", "warn", "error", "critical", "exception", "log"}
TEXT_WRITERS = {"write", "writelines", "echo", "pprint", "pp", "set_description", "set_postfix_str"}


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
                self._emit(pattern, site, whole, ())

    def _printed(self, site: CallSite, name: str) -> list[tuple[Pattern, bool]]:
        """What a call of a primitive sink prints; an empty list for every other call."""
        func, node = site.node.func, site.node
        if name == "print" and isinstance(func, ast.Name | ast.Attribute):
            return self._print(node, site.scope)
        if not node.args:
            return []
        if isinstance(func, ast.Name):
            # A logger imported from another file of the folder: its own text is read there, the message here.
            imported = func.id in self.index.imports and func.id not in self.index.functions
            named = imported and _LOGGER_NAME.match(func.id)
            return [(option, True) for option in self.reader.read(node.args[0], site.scope)] if named else []
        if not isinstance(func, ast.Attribute):
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
                modes = [
                    a.value for a in (*value.args, *(k.value for k in value.keywords)) if isinstance(a, ast.Constant)
                ]
                if any(
                    isinstance(mode, str) and re.fullmatch(r"[rwax]?\+?b\+?|[rwax]b\+?|[rwax]\+b", mode)
                    for mode in modes
                ):
                    return True
        return False

    def _emit(self, pattern: Pattern, site: CallSite, whole: bool, trail: tuple[str, ...]) -> None:
        """Record a printed pattern, or, where it holds a parameter, ask the callers of that function."""
        asked = next((part.function for part in pattern if isinstance(part, Param)), None)
        if asked is None or len(self.result.templates) > MAX_TEMPLATES:
            self._record(pattern, site, whole)
            return
        callers = self._callers(asked) if asked not in trail and len(trail) < 5 else []
        answered = False
        for caller in callers:
            options = self._substitute(pattern, asked, caller)
            answered = answered or bool(options)
            # A wrapper has no words of its own: the line belongs to the call that brings them.
            worded = any(isinstance(part, Lit) and part.text.strip() for part in pattern)
            shown = _merge(site, caller) if worded else caller
            for option in options:
                self._emit(option, shown, whole, (*trail, asked))
        if not answered and (callers or literal_text(pattern).strip()):
            # A wrapper nobody in this file calls prints nothing here.
            unknown = tuple(_unasked(part, asked) for part in pattern)
            self._emit(unknown, site, whole, trail)

    def _substitute(self, pattern: Pattern, asked: str, caller: CallSite) -> list[Pattern]:
        """The pattern with every parameter of `asked` replaced by what this caller passes; [] if it fits no home."""
        options: list[Pattern] = [()]
        for part in pattern:
            if isinstance(part, Param) and part.function == asked:
                value = _argument(caller.node, part, self.index)
                if value is None:
                    return []
                more = self.reader.read(value, caller.scope)
            else:
                more = [(part,)]
            if len(options) * len(more) > 64:
                more = [(Field(getattr(part, "name", "..."), None),)]
            options = [left + right for left in options for right in more]
        return [tidy(option) for option in options]

    def _callers(self, function: str) -> list[CallSite]:
        names = [function, *(alias for alias, target in self.aliases.items() if target == function)]
        sites = [site for name in names for site in self.index.calls_by_name.get(name, [])]
        return [site for site in sites if not self._foreign(site.node.func)]

    def _foreign(self, func: ast.expr) -> bool:
        """True for a call into an imported module (`math.log`, `tl.log`), which only shares the name of a wrapper."""
        root = dotted(func).partition(".")[0] if isinstance(func, ast.Attribute) else ""
        return root in self.index.imports

    def _record(self, pattern: Pattern, site: CallSite, whole: bool) -> None:
        key = (pattern, site.node.lineno)
        if key in self._seen:
            return
        self._seen.add(key)
        prefixed = _is_logger(dotted(site.node.func.value)) if isinstance(site.node.func, ast.Attribute) else False
        for line in split_lines(pattern):
            if not stripped(line):
                continue
            if any(isinstance(part, Lit) and re.search(r"\w", part.text) for part in line) or _structured(line):
                template = Template(
                    line,
                    self.path,
                    site.node.lineno,
                    site.scope.name,
                    site.guards,
                    site.loops,
                    site.scope,
                    whole,
                    prefixed,
                    site.in_handler,
                )
                self.result.templates.append(template)
            else:
                self._dynamic(line, site)

    def _dynamic(self, pattern: Pattern, site: CallSite) -> None:
        """An output without fixed words: the program itself, a list of settings, a rule, or an unknown value."""
        fields = _fields(pattern)
        node = site.node.args[-1] if site.node.args else site.node
        line = site.node.lineno
        if not fields:
            self.result.dynamic.append(Dynamic(self.path, line, "prints a rule", r"[\W_]*$"))
        elif _is_source(node, site.scope):
            self.result.dumps_source.append(line)
        elif len(fields) > 1 and re.search(r"[:=|,\->]", literal_text(pattern)):
            dump = _lists_settings(site, node)
            self.result.dynamic.append(
                Dynamic(self.path, line, f"lists {fields[0].name}", _dump_shape(pattern), dump=dump)
            )
        else:
            reason = f"prints the value of {fields[0].name}"
            shape = _shape(node, site.scope)
            self.result.dynamic.append(Dynamic(self.path, line, reason, shape, site.in_handler))


def _merge(inner: CallSite, caller: CallSite) -> CallSite:
    """A call inside a helper function: reported there, exceptional when the helper is called from a handler."""
    handler = inner.in_handler or caller.in_handler
    return CallSite(inner.node, inner.scope, inner.guards, inner.loops, handler)


def _unasked(part: Part, function: str) -> Part:
    if isinstance(part, Param) and part.function == function:
        return Field(part.name, None)
    return part


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


def _is_source(node: ast.expr, scope: Scope) -> bool:
    """True when the printed value is the program's own text (`open(__file__).read()`, `inspect.getsource`)."""
    values: list[ast.expr] = [node]
    for name in {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}:
        home = scope.find(name)
        values += [value for _, value in (home.bound.get(name, []) if home else []) if value is not None]
    return any("__file__" in (text := ast.unparse(value)) or "getsource" in text for value in values)


def _fields(pattern: Pattern) -> list[Field]:
    """Fields of a pattern, those inside repetitions included."""
    found: list[Field] = []
    for part in pattern:
        if isinstance(part, Field):
            found.append(part)
        elif isinstance(part, Many):
            found += [item for option in part.options for item in _fields(option)]
    return found


def _dump_shape(pattern: Pattern) -> str:
    """`{key}: {value}` lists: the first field is a short name, everything else is open."""
    first = next(i for i, part in enumerate(pattern) if isinstance(part, Field | Many))
    if isinstance(pattern[first], Many):
        option = pattern[first].options[0]
        mark = next((part.text for part in option if isinstance(part, Lit)), "")
        return expression(pattern[:first]) + r"[\w.\-]{1,80}" + re.escape(mark) + ".*$"
    name = r"[\w.\-\[\]/()+ ]{1,80}? *"
    # An empty value leaves a blank at the end of the line that editors and terminals drop.
    rest = re.sub(r"\\ \(\.\*\?\)\Z", " ?(.*?)", expression(pattern[first + 1 :]))
    return expression(pattern[:first]) + name + rest + r"\s*$"


def _lists_settings(site: CallSite, node: ast.expr) -> bool:
    """True for a listing of the attributes of a settings object (`vars(args).items()`, `__dict__`, `fields`)."""
    around = [ast.unparse(loop.iter) for loop in site.loops if isinstance(loop, ast.For)]
    return any(word in text for text in (*around, ast.unparse(node)) for word in _ATTRIBUTE_LISTS)


def _shape(node: ast.expr, scope: Scope) -> str | None:
    """What an unreadable value may look like, where the call that makes it says so."""
    text = ast.unparse(node)
    if "nvidia-smi" in text:
        return r"[|+].*|.*NVIDIA.*|.*Processes.*|[A-Z][a-z]{2} [A-Z][a-z]{2} .*|.*(?:nvidia-smi|Driver).*$"
    if "dumps(" in text or "json" in text.lower():
        return r"[\[{].*[\]}]$" if "indent" not in text else r"[\[\]{}\"\d.,\-tfnNI].*"
    if re.search(r"\blogfile\b|log_path|logs_path|log_file", text) or _is_path(node, scope):
        return r"[\w./\-]+\.(?:txt|log|out|json)$"
    if isinstance(node, ast.List | ast.Dict | ast.Tuple):
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
