"""Whether a program counts the bytes of its scored tokens as the rules say: table and sum are evaluated, not read.

The code that builds the table is evaluated over a vocabulary whose byte counts are known (`byte_stand_in`), the sum over
pairs of tokens, and both together are compared with the bytes of the decoded text. Nothing is executed by the host.
"""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from auditor.static import byte_find as find
from auditor.static import byte_stand_in as known
from auditor.static.byte_interpreter import Function, Interpreter, _Return
from auditor.static.byte_operators import Stuck
from auditor.static.byte_stand_in import OPAQUE, Argument, Opaque, Table
from auditor.static.parse import parse_module

if TYPE_CHECKING:
    from auditor.unpack import Layer, Program

CORRECT, WRONG, UNDECIDED, NONE = "correct", "wrong", "undecided", "none"
DOUBLE, MARKER, BYTES, CREDITED = (
    "double leading space",
    "marker counted",
    "byte tokens counted wrongly",
    "boundary tokens credited",
)
EXTERNAL = "external table"
DROPPED, CONSTANT, OTHER = "leading space not counted", "constant ratio", "byte counts differ from the text"
# Per byte of the published validation text: tokens with a leading space (sp8192: 25,251,857 of 151,080,891), document
# starts (50,000), byte-fallback tokens of a vocabulary without common characters (half of 6,246,229 surplus bytes).
# They turn errors per token into an estimate of the whole denominator.
LEAD_SHARE, BYTE_SHARE, START_SHARE = 0.16714, 0.0206, 0.00033


@dataclass(frozen=True)
class BytePlace:
    """A line that the verdict rests on: layer, 1-based line, its text, what it does."""

    path: str
    line: int
    excerpt: str
    what: str


@dataclass
class ByteTable:
    """Verdict on the byte count of a program.

    Attributes:
        status: "correct", "wrong", "undecided", or "none" when nothing in the program counts bytes.
        bug: name of the defect, "" when there is none.
        reason: the verdict in a sentence.
        places: builder and sums.
        ratio: estimated bytes counted over bytes of the text; 1.0 when they agree, None when not known.
        minor: a difference at document starts only (below 0.04 % of the bytes).
        sidecar: per-token bytes can also come from a file (transformed texts).
    """

    status: str
    bug: str = ""
    reason: str = ""
    places: list[BytePlace] = field(default_factory=list)
    ratio: float | None = None
    minor: str = ""
    sidecar: list[BytePlace] = field(default_factory=list)


@dataclass
class Tables:
    """Tables of a builder by what they hold: lists over the ids of the stand-in vocabulary."""

    base: list[Any]
    lead: list[Any] | None
    bound: list[Any] | None
    builder: find.Builder
    path: str
    order: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def byte_table(program: Program) -> ByteTable:
    """Verdict on the main script, its own modules consulted where the script holds no builder or no sum."""
    layers = _layers(program)
    if not layers:
        return ByteTable(UNDECIDED, reason="there is no readable script")
    reader = _Reader(_parsed(layers))
    if not reader.modules:
        return ByteTable(UNDECIDED, reason="the script is not Python")
    result = reader.verdict()
    if result.status == NONE:
        # The script may start another file of the folder that nothing imports.
        rest = [item for item in program.layers if item not in layers and any(word in item.text for word in find.ASKS)]
        elsewhere = _Reader(_parsed(rest[:MAX_ELSEWHERE])).verdict()
        return elsewhere if elsewhere.status in (CORRECT, WRONG) else result
    return result


MAX_ELSEWHERE = 6


def _parsed(layers: list[Layer]) -> list[tuple[Layer, ast.Module]]:
    return [(layer, tree) for layer in layers if (tree := parse_module(layer.text).tree) is not None]


def _layers(program: Program) -> list[Layer]:
    """The main script first, then modules of the folder it imports by name."""
    main = program.main
    if main is None:
        return []
    tree = parse_module(main.text).tree
    wanted = set()
    for node in find.outline(tree).all if tree is not None else ():
        if isinstance(node, ast.Import):
            wanted |= {name.name.rpartition(".")[2] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            wanted |= {(node.module or "").rpartition(".")[2], *(name.name for name in node.names)}
    others = [
        layer
        for layer in program.layers
        if layer.name != main.name and layer.name.partition("!")[0].rpartition("/")[2].removesuffix(".py") in wanted
    ]
    return [main, *others]


class _Reader:
    def __init__(self, modules: list[tuple[Layer, ast.Module]]) -> None:
        self.modules = modules
        self.why: list[str] = []

    def verdict(self) -> ByteTable:
        tables = self._tables()
        counts = [
            (site, path, layer, tree)
            for layer, tree in self.modules
            for site in find.sites(tree)
            for path in [layer.name]
        ]
        result = self._judge(tables, counts)
        result.sidecar = self._sidecar()
        constant = self._constant() if result.status != CORRECT else None
        return constant or result

    # ---- tables

    def _tables(self) -> list[Tables]:
        found = []
        for layer, tree in self.modules:
            for builder in find.builders(tree):
                if any(t.builder.scope is builder.scope and t.lead and t.bound for t in found):
                    continue
                tables = self._evaluate(layer, tree, builder)
                if tables is not None:
                    found.append(tables)
        return found

    def _evaluate(self, layer: Layer, tree: ast.Module, builder: find.Builder) -> Tables | None:
        interpreter = Interpreter(tree)
        try:
            if builder.statements is None and isinstance(builder.scope, ast.FunctionDef):
                values = _called(interpreter, builder.scope)
            else:
                values = _part(interpreter, builder.statements or [], builder.scope)
        except Stuck as stuck:
            self.why.append(f"the table at {layer.name}:{builder.line} could not be evaluated ({stuck})")
            return None
        return classify(values, builder, layer.name)

    # ---- verdict

    def _judge(self, tables: list[Tables], counts: list[Any]) -> ByteTable:
        full = [t for t in tables if t.lead is not None and t.bound is not None] or tables
        if not full:
            return self._without_table(counts)
        loaded = self._loaded(counts)
        if loaded is not None:
            return loaded
        table = max(full, key=lambda t: (t.lead is not None) + (t.bound is not None))
        places = [self._place(table.path, table.builder.line, "table of bytes")]
        answers = []
        for site, path, _, tree in counts:
            answer = self._count(table, site, tree)
            if answer is not None:
                answers.append((answer, self._place(path, site.line, "bytes of the scored tokens")))
        if not answers:
            return self._table_alone(table, places)
        wrong = [(a, p) for a, p in answers if a[0] == WRONG]
        if wrong and len(wrong) < len(answers):
            text = f"{len(wrong)} of {len(answers)} sums count otherwise: {wrong[0][0][2]}"
            return ByteTable(UNDECIDED, wrong[0][0][1], text, places + [p for _, p in answers], None)
        status, bug, reason, ratio, minor = answers[0][0]
        return ByteTable(status, bug, reason, places + [p for _, p in answers][:6], ratio, minor)

    def _count(self, table: Tables, site: find.Site, tree: ast.Module) -> tuple[str, str, str, float, str] | None:
        if table.lead is None or table.bound is None:
            return None
        rows = {"base": table.base, "lead": table.lead, "bound": table.bound}
        try:
            return compare(lambda previous, token: _at(site, tree, rows, previous, token))
        except Stuck as stuck:
            self.why.append(f"the sum at line {site.line} could not be evaluated ({stuck})")
            return None

    def _table_alone(self, table: Tables, places: list[BytePlace]) -> ByteTable:
        """No conditional space in any sum: the table must hold it, or the sum adds it to every leading space."""
        uses = self._plain_uses(table)
        if not uses and _over_tokens(table.builder):
            uses = [(places[0], False)]
        if not uses:
            reason = "; ".join(self.why[:2]) or "no sum over the table was found"
            return ByteTable(UNDECIDED, reason=reason, places=places)
        added = any(extra for _, extra in uses)
        lead = table.lead or [False] * known.SIZE
        status, bug, reason, ratio, minor = compare(
            lambda _, t: int(table.base[t]) + (int(bool(lead[t])) if added else 0)
        )
        if bug == DROPPED and table.lead is not None:
            # There is a table of spaces: what adds it is somewhere this reading does not reach.
            status, reason, ratio = UNDECIDED, "no sum that adds the leading space was found", 1.0
        return ByteTable(status, bug, reason, places + [p for p, _ in uses][:4], ratio, minor)

    def _plain_uses(self, table: Tables) -> list[tuple[BytePlace, bool]]:
        """Look-ups of the bytes by the name the table is given, and whether the space is looked up beside them."""
        found = []
        for layer, tree in self.modules:
            roles = _roles(tree, table)
            seen = find.outline(tree)
            for scope in seen.scopes:
                pairs = [
                    (roles[pair[0].rpartition(".")[2]], pair[1], node)
                    for node in seen.own[id(scope)]
                    if isinstance(node, ast.Subscript | ast.Call)
                    and isinstance(getattr(node, "ctx", None), ast.Load | None)
                    and not _inside(table.builder, node, layer.name == table.path)
                    and (pair := find.lookup(node)) is not None
                    and pair[0].rpartition(".")[2] in roles
                ]
                spaces = {index for role, index, _ in pairs if role == "lead"}
                found += [
                    (self._place(layer.name, node.lineno, "bytes of the scored tokens"), index in spaces)
                    for role, index, node in pairs
                    if role == "base"
                ]
        return found

    def _without_table(self, counts: list[Any]) -> ByteTable:
        alone = self._byte_vocabulary(counts) if counts else None
        if alone is not None:
            return alone
        if self.why:
            return ByteTable(UNDECIDED, reason="; ".join(self.why[:2]), places=self._site_places(counts))
        if counts:
            text = "the sums look tables up that are not built in the submission"
            return ByteTable(UNDECIDED, EXTERNAL, text, self._site_places(counts))
        return ByteTable(NONE, reason="nothing in the program counts bytes with a tokenizer")

    def _loaded(self, counts: list[Any]) -> ByteTable | None:
        """Undecided when what fills the tables of the sums can take them from a file as well."""
        wanted = {table.rpartition(".")[2] for site, *_ in counts for table in site.roles}
        for layer, tree in self.modules:
            for node in _makers(tree, wanted):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Call) and _reads_file(inner):
                        text = "the tables can come from a file that is not the tokenizer"
                        places = [self._place(layer.name, inner.lineno, "table read from a file")]
                        return ByteTable(UNDECIDED, EXTERNAL, text, places + self._site_places(counts))
        return None

    def _byte_vocabulary(self, counts: list[Any]) -> ByteTable | None:
        """Tables that ask no tokenizer: right when every id after the special ones counts one byte and no space."""
        wanted = {table.rpartition(".")[2] for site, *_ in counts for table in site.roles}
        for layer, tree in self.modules:
            for node in _makers(tree, wanted):
                try:
                    values = [row for _, v in _called(Interpreter(tree), node) if (row := _row(v)) is not None]
                except Stuck as stuck:
                    self.why.append(f"the table at {layer.name}:{node.lineno} could not be evaluated ({stuck})")
                    continue
                rows = [row[known.FIRST_BYTE : known.FIRST_BYTE + 252] for row in values]
                counted = [row for row in rows if all(item == 1 for item in row) and not isinstance(row[0], bool)]
                if counted and all(not any(row) or all(row) for row in rows):
                    places = [self._place(layer.name, node.lineno, "table of bytes"), *self._site_places(counts)]
                    return ByteTable(CORRECT, "", "every id of a byte vocabulary counts one byte", places, 1.0)
        return None

    def _site_places(self, counts: list[Any]) -> list[BytePlace]:
        return [self._place(path, site.line, "bytes of the scored tokens") for site, path, _, _ in counts[:4]]

    def _place(self, path: str, line: int, what: str) -> BytePlace:
        for layer, _ in self.modules:
            if layer.name == path:
                lines = layer.text.split("\n")
                return BytePlace(path, line, lines[line - 1].strip()[:200] if 0 < line <= len(lines) else "", what)
        return BytePlace(path, line, "", what)

    def _sidecar(self) -> list[BytePlace]:
        from auditor.static.byte_formula import sidecar_lines

        return [
            self._place(layer.name, n, "bytes from a file") for layer, tree in self.modules for n in sidecar_lines(tree)
        ][:4]

    def _constant(self) -> ByteTable | None:
        from auditor.static.byte_formula import constant_ratios

        for layer, tree in self.modules:
            for line, value in constant_ratios(tree):
                place = self._place(layer.name, line, f"a constant of {value:g} bytes per token")
                return ByteTable(WRONG, CONSTANT, f"the denominator is a constant, {value:g} bytes per token", [place])
        return None


def _called(interpreter: Interpreter, node: ast.FunctionDef) -> list[tuple[str, Any]]:
    """Tables a function returns or leaves on its object."""
    owner = Argument()
    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
    given: list[Any] = [owner if name == "self" else Argument() for name in names]
    required = len(names) - len(node.args.defaults)
    optional: list[tuple[str, ast.expr | None]] = [*zip(names[required:], node.args.defaults, strict=True)]
    optional += [(a.arg, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)]
    # What is left out by default (None) is what the program's own call hands in.
    keywords = {n: Argument() for n, d in optional if d is None or (isinstance(d, ast.Constant) and d.value is None)}
    result = interpreter.call(Function(node, {}), given[:required], keywords)
    return [*_flat("", result), *((n, v) for n, v in owner.attributes.items())]


def _flat(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, tuple):
        return [pair for item in value for pair in _flat(name, item)]
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        return list(value.items())
    if isinstance(value, Argument):
        return list(value.attributes.items())
    return [(name, value)]


def _part(interpreter: Interpreter, statements: list[ast.stmt], scope: ast.AST) -> list[tuple[str, Any]]:
    """Tables that are there after some statements; what cannot be followed on the way stays unknown."""
    inside = isinstance(scope, ast.FunctionDef)
    names: dict[str, Any] = {}
    if isinstance(scope, ast.FunctionDef):
        names = {a.arg: Argument() for a in (*scope.args.args, *scope.args.kwonlyargs)}
    for statement in statements:
        try:
            interpreter.run([statement], names)
        except _Return:
            break
        except Stuck:
            if isinstance(statement, ast.For | ast.While):  # half-filled tables are worth nothing
                names |= dict.fromkeys(_written(statement), OPAQUE)
    return [(n, v) for n, v in names.items() if not isinstance(v, Argument) or inside]


def _written(statement: ast.stmt) -> set[str]:
    """Names a statement assigns or writes into."""
    stores = [n for n in ast.walk(statement) if isinstance(getattr(n, "ctx", None), ast.Store)]
    return {n.id for store in stores for n in ast.walk(store) if isinstance(n, ast.Name)}


def classify(values: list[tuple[str, Any]], builder: find.Builder, path: str) -> Tables | None:
    """Which of the values are tables over the vocabulary, and what each holds; None without a table of bytes."""
    held: dict[str, list[Any]] = {}
    order = []
    for _, value in values:
        row = _row(value)
        role = _role(row) if row is not None else ""
        order.append(role)
        if row is not None and role:
            held.setdefault(role, row)
    if "base" not in held and "text" in held:
        held["base"] = [
            len(t.encode() if isinstance(t, str) else t) if isinstance(t, str | bytes) else 0 for t in held["text"]
        ]
        order = ["base" if role == "text" else role for role in order]
    if "base" not in held:
        return None
    names = [name for name, _ in values]
    return Tables(held["base"], held.get("lead"), held.get("bound"), builder, path, order, names)


def _role(row: list[Any]) -> str:
    """What a table over the vocabulary holds, "" when it is none of those that bytes are counted with."""
    plain, leading = [row[i] for i in known.PLAIN], [row[i] for i in known.LEADING[1:]]
    outside = [row[i] for i in known.BOUNDARY_IDS[:2]]
    flags = all(item in (0, 1) for item in row)
    if all(isinstance(item, str | bytes) for item in plain):
        return "text"
    if all(plain) and not all(item in (0, 1) for item in plain):
        return "base"
    if not any(plain) and all(leading) and flags:
        return "lead"
    if not any(plain) and not any(leading) and any(outside):
        return "bound"
    return "bound" if all(plain) and flags and not any(outside) else ""


def _row(value: Any) -> list[Any] | None:
    if isinstance(value, dict) and value and all(isinstance(key, int) for key in value):
        value = [value.get(i, 0) for i in range(known.SIZE)]
    items = value.items if isinstance(value, Table) else value
    if not isinstance(items, list) or not known.SIZE <= len(items) <= 4 * known.SIZE:
        return None
    if any(isinstance(item, Opaque) or not isinstance(item, int | float | str | bytes) for item in items[: known.SIZE]):
        return None
    return items


def _at(site: find.Site, tree: ast.Module, rows: dict[str, list[Any]], previous: int, token: int) -> int:
    """Bytes that a site counts for one pair of tokens."""

    def look(node: ast.expr) -> Any:
        pair = find.lookup(node) if isinstance(node, ast.Subscript | ast.Call) else None
        if pair is None or pair[0] not in site.roles or pair[1] not in (site.target, site.previous):
            return NotImplemented
        return rows[site.roles[pair[0]]][token if pair[1] == site.target else previous]

    interpreter = Interpreter(ast.Module([], []), look)
    interpreter.imports = _imports(tree)
    scope: dict[str, Any] = {}
    value: Any = OPAQUE
    for part in site.run:
        if isinstance(part, ast.stmt):
            interpreter.run([part], scope)
            value = scope.get(site.result, OPAQUE)
        else:
            value = interpreter.value(part, scope)
    if isinstance(value, Opaque) or not isinstance(value, int | float):
        raise Stuck("its value is not known")
    return int(value) + (int(rows["base"][token]) if site.partial else 0)


def _makers(tree: ast.Module, wanted: set[str]) -> list[ast.FunctionDef]:
    """Functions whose results are given names out of `wanted`, and those they call."""
    by_name = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found: dict[str, ast.FunctionDef] = {}

    def add(call: ast.AST | None) -> None:
        name = getattr(call.func, "id", "") if isinstance(call, ast.Call) else ""
        if name in by_name and name not in found:
            found[name] = by_name[name]
            for node in ast.walk(by_name[name]):
                add(node)

    for node in find.outline(tree).all:
        if isinstance(node, ast.Assign):
            names = {getattr(t, "id", getattr(t, "attr", "")) for target in node.targets for t in ast.walk(target)}
            if names & wanted:
                add(node.value)
    return list(found.values())


def _imports(tree: ast.Module) -> dict[str, str]:
    return Interpreter(ast.Module([n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)], [])).imports


def _over_tokens(builder: find.Builder) -> bool:
    """Whether the code goes over token ids it was handed: then it is table and sum in one."""
    if not isinstance(builder.scope, ast.FunctionDef) or builder.statements is not None:
        return False
    handed = {a.arg for a in builder.scope.args.args}
    for node in ast.walk(builder.scope):
        over = node.iter if isinstance(node, ast.For | ast.comprehension) else None
        if over is not None and getattr(find.strip(over), "id", "") in handed:
            return True
    return False


def _roles(tree: ast.Module, table: Tables) -> dict[str, str]:
    """Names that hold what a builder made -> what they hold."""
    builder = table.builder
    roles = {name: role for name, role in zip(table.names, table.order, strict=True) if name and role}
    wanted = builder.scope.name if isinstance(builder.scope, ast.FunctionDef) and builder.statements is None else ""
    whole: set[str] = set()  # names of the tables together, taken apart elsewhere
    for node in find.outline(tree).all if wanted else ():
        if isinstance(node, ast.Assign):
            calls = [n for n in ast.walk(node.value) if isinstance(n, ast.Call)]
            made = any(getattr(n.func, "id", getattr(n.func, "attr", "")) == wanted for n in calls)
            if not made and getattr(node.value, "id", "") not in whole:
                continue
            if made and len(table.order) > 1:
                whole |= {t.id for t in node.targets if isinstance(t, ast.Name)}
            for target in node.targets:
                parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
                if len(parts) == 1 and len(table.order) > 1:
                    continue
                for part, role in zip(parts, table.order, strict=False):
                    roles[getattr(part, "id", getattr(part, "attr", ""))] = role
    return {name: role for name, role in roles.items() if name and role}


def _reads_file(call: ast.Call) -> bool:
    """A load by numpy, json, torch or pickle (a tokenizer has a `load` of its own)."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("load", "loads", "loadtxt"):
        return False
    return getattr(call.func.value, "id", "").strip("_") in ("np", "numpy", "json", "torch", "pickle")


def _inside(builder: find.Builder, node: ast.AST, same_file: bool) -> bool:
    line = getattr(node, "lineno", 0)
    if not same_file:
        return False
    if builder.statements is not None:
        return any(s.lineno <= line <= (s.end_lineno or s.lineno) for s in builder.statements)
    scope = builder.scope
    return isinstance(scope, ast.FunctionDef) and scope.lineno <= line <= (scope.end_lineno or scope.lineno)


def compare(count: Any) -> tuple[str, str, str, float, str]:
    """Status, bug, sentence, estimated ratio and minor remark for a way of counting.

    Args:
        count: (previous, token) -> bytes counted.

    Raises:
        Stuck: it cannot be evaluated.
    """

    def error(previous: int, tokens: tuple[int, ...]) -> list[int]:
        return [count(previous, token) - known.true_bytes(previous, token) for token in tokens]

    lead, plain = error(known.FO, known.LEADING), error(known.FO, known.PLAIN)
    byte, outside = error(known.FO, known.BYTE_IDS), error(known.FO, known.BOUNDARY_IDS)
    start = [e for p in (1, 2) for e in error(p, known.LEADING)] + error(1, known.PLAIN)
    # Byte-fallback pieces are rare in the published exports; their share is known of a vocabulary that needs them.
    spaces = _mean(lead) * LEAD_SHARE
    ratio = 1 + (spaces or _mean(byte) * BYTE_SHARE) + _mean(outside[:2]) * START_SHARE
    bug = _named(lead, plain, byte, outside)
    if bug:
        errors = Counter(e for e in (*lead, *plain, *byte, *outside) if e).most_common(1)[0][0]
        return WRONG, bug, f"{bug}: up to {errors:+d} bytes a token against the decoded text", ratio, ""
    minor = "a space after a document start is counted too" if any(start) else ""
    text = "table and sum give the bytes of the text that the tokens decode to" + (f", but {minor}" if minor else "")
    return CORRECT, "", text, ratio, minor


def _mean(errors: list[int]) -> float:
    return sum(errors) / len(errors)


def _named(lead: list[int], plain: list[int], byte: list[int], outside: list[int]) -> str:
    if any(plain):
        return OTHER
    words = lead[1:]
    if all(e == 1 for e in words):
        return DOUBLE
    if all(e in (2, 3) for e in words):
        return MARKER
    if all(e == -1 for e in words):
        return DROPPED
    if any(words):
        return OTHER
    if any(byte):
        return BYTES
    if any(e for e in outside):
        return CREDITED
    return OTHER if any(lead) else ""
