"""Whether a program counts the bytes of its scored tokens as the rules say: table and sum are evaluated, not read.

The code that builds the table is evaluated over a vocabulary whose byte counts are known (`byte_stand_in`), the sum over
pairs of tokens, and both together are compared with the bytes of the decoded text. Nothing is executed by the host.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from auditor.static import byte_find as find
from auditor.static import byte_stand_in as known
from auditor.static.byte_absence import absence
from auditor.static.byte_compare import compare, samples
from auditor.static.byte_evaluate import Tables, after, bytes_at, called, classify, row_of
from auditor.static.byte_interpreter import Interpreter
from auditor.static.byte_operators import Stuck
from auditor.static.byte_roles import absent_calls, defined, idle, looked_at, roles, strangers
from auditor.static.byte_units import TOKENS_FOR_BYTES, formulas
from auditor.static.byte_verdict import (
    CONSTANT,
    CORRECT,
    DROPPED,
    EXTERNAL,
    NONE,
    UNDECIDED,
    WRONG,
    BytePlace,
    ByteTable,
    FormulaFault,
    Sample,
)
from auditor.static.parse import parse_module

if TYPE_CHECKING:
    from auditor.unpack import Layer, Program


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
# A data set or a model of a tokenizer whose pieces are longer than bytes.
_PIECES = re.compile(r"sp1024|sp2048|sp4096|sp8192|\d_bpe\.model")


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
        self.number: tuple[float, BytePlace] | None = None  # bytes per token of a whole vocabulary

    def verdict(self) -> ByteTable:
        tables = self._tables()
        counts = [
            (site, path, layer, tree)
            for layer, tree in self.modules
            for site in find.sites(tree)
            for path in [layer.name]
        ]
        result = self._judge(tables, counts)
        constant = self._constant() if result.status != CORRECT else None
        result = constant or result
        result.sidecar = self._sidecar()
        if result.sidecar:
            from auditor.static.byte_sidecar import takings

            modules = [(layer.name, tree) for layer, tree in self.modules]
            result.takings = [
                (t.state, self._place(t.path, t.line, f"bytes from a file, {t.state or 'position not known'}"))
                for t in takings(modules)
            ]
        self._formula(result, tables)
        return result

    def _formula(self, result: ByteTable, tables: list[Tables]) -> None:
        """Adds what the printed BPBs are made of."""
        trees = [tree for _, tree in self.modules]
        bases = {name for table in tables for name, role in roles(trees, table).of.items() if role == "base"}
        printed = formulas([(layer.name, tree) for layer, tree in self.modules], frozenset(bases))
        known_ones = [formula for formula in printed if formula.fault is not None]
        wrong = [formula for formula in known_ones if formula.fault]
        result.formulas = (len(known_ones) - len(wrong), len(known_ones), len(printed))
        for bug in dict.fromkeys(formula.fault for formula in wrong):
            if bug == TOKENS_FOR_BYTES and result.status != NONE:
                continue  # the table that counts is there: a progress print of bits per token
            same = [formula for formula in wrong if formula.fault == bug]
            where = [self._place(f.path, f.line, "BPB printed here") for f in same[-2:]]
            where += [self._place(path, line, "made here") for path, line in same[-1].lines if line != same[-1].line]
            result.faults.append(FormulaFault(bug or "", tuple(where), len(same) == len(known_ones)))
        if result.status == NONE:
            self._without_a_table(result)

    def _tokens_for_bytes(self, result: ByteTable, fault: FormulaFault, idle_table: bool) -> None:
        """Tokens are what has to be counted where the vocabulary is one of bytes; who brings a tokenizer has pieces."""
        pieces = any(
            isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) < 200 and _PIECES.search(n.value)
            for _, tree in self.modules
            for n in find.outline(tree).all
        )
        byte_sized = any(_is_byte_size(n) for _, tree in self.modules for n in find.outline(tree).all)
        result.places = list(fault.places)
        if idle_table:
            result.status, result.bug = WRONG, fault.bug
            result.reason = f"{fault.bug}: a table of bytes is made and nothing counts with it"
        elif byte_sized and not pieces:
            result.faults.remove(fault)
            result.status, result.ratio = CORRECT, 1.0
            result.reason = "tokens are counted, and the vocabulary is one of bytes"
        else:
            result.faults[result.faults.index(fault)] = FormulaFault(fault.bug, fault.places, False)
            result.status = UNDECIDED
            result.reason = "tokens are counted as bytes, which is right for a vocabulary of bytes only"

    def _without_a_table(self, result: ByteTable) -> None:
        """Decides a program whose BPB rests on no table: decoded text, a byte vocabulary, tokens taken for bytes."""
        idle_table = bool(result.places)
        right, known_ones, printed = result.formulas
        decoded = self._decoded()
        if decoded and right and right == known_ones:
            result.status, result.places, result.ratio = CORRECT, decoded, 1.0
            result.reason = "the bytes of the decoded targets are counted"
        fault = next((f for f in result.faults if f.bug == TOKENS_FOR_BYTES and f.everywhere), None)
        if fault is not None:
            self._tokens_for_bytes(result, fault, idle_table)
        if result.status == NONE and printed and not known_ones:
            result.reason = "a BPB is printed, but what counts its bytes was not found"
        if result.status == NONE and not idle_table:
            trees = [tree for _, tree in self.modules]
            result.absence, words = absence(trees, absent_calls(trees))
            result.reason = words or result.reason

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
                values = called(interpreter, builder.scope)
            else:
                values = after(interpreter, builder.statements or [], builder.scope)
        except Stuck as stuck:
            self.why.append(f"the table at {layer.name}:{builder.line} could not be evaluated ({stuck})")
            return None
        only = values[0][1] if len(values) == 1 else None
        if builder.statements is None and isinstance(only, float) and 1 < only < 16:
            self.number = (only, self._place(layer.name, builder.line, "one number of bytes per token"))
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
        answers, shown = [], []
        for site, path, _, tree in counts:
            answer = self._count(table, site, tree)
            if answer is not None:
                shown.append(self._samples(table, site, tree) if not shown else [])
                answers.append((answer, self._place(path, site.line, "bytes of the scored tokens")))
        if not answers:
            return self._table_alone(table, places)
        wrong = [(a, p) for a, p in answers if a[0] == WRONG]
        if wrong:
            places += [self._place(table.path, line, "fills the table") for line in _filling(table.builder)]
        if wrong and len(wrong) < len(answers):
            text = f"{len(wrong)} of {len(answers)} sums count otherwise: {wrong[0][0][2]}"
            return ByteTable(UNDECIDED, wrong[0][0][1], text, places + [p for _, p in answers], None)
        status, bug, reason, ratio, minor = answers[0][0]
        result = ByteTable(status, bug, reason, places + [p for _, p in answers][:6], ratio, minor)
        result.samples = shown[0]
        return result

    def _count(self, table: Tables, site: find.Site, tree: ast.Module) -> tuple[str, str, str, float, str] | None:
        if table.lead is None or table.bound is None:
            return None
        rows = {"base": table.base, "lead": table.lead, "bound": table.bound}
        try:
            return compare(lambda previous, token: bytes_at(site, tree, rows, previous, token))
        except Stuck as stuck:
            self.why.append(f"the sum at line {site.line} could not be evaluated ({stuck})")
            return None

    def _samples(self, table: Tables, site: find.Site, tree: ast.Module) -> list[Sample]:
        rows = {"base": table.base, "lead": table.lead or [], "bound": table.bound or []}
        return samples(lambda previous, token: bytes_at(site, tree, rows, previous, token))

    def _table_alone(self, table: Tables, places: list[BytePlace]) -> ByteTable:
        """No conditional space in any sum: the table must hold it, or the sum adds it to every leading space."""
        trees = [tree for _, tree in self.modules]
        held = roles(trees, table)
        names, functions = held.of, defined(trees)
        decoded = self._decoded()
        if decoded:
            return ByteTable(CORRECT, "", "the bytes of the decoded targets are counted", [*decoded, *places], 1.0)
        uses = self._plain_uses(table, names)
        if not uses and idle(trees, table, held, functions):
            text = "a table of bytes is made, but nothing in the program counts with it"
            return ByteTable(NONE, reason=text, places=places)
        if not uses and _over_tokens(table.builder):
            uses = [(places[0], False)]
        if not uses:
            absent = [f"they are handed to {name}, which is not in the submission" for name in strangers(trees, held)]
            reason = "; ".join([*absent, *self.why][:2]) or "no sum over the table was found"
            return ByteTable(UNDECIDED, reason=reason, places=places)
        added = any(extra for _, extra in uses)
        lead = table.lead or [False] * known.SIZE

        def count(_: int, token: int) -> int:
            return int(table.base[token]) + (int(bool(lead[token])) if added else 0)

        status, bug, reason, ratio, minor = compare(count)
        maker = table.builder.scope if table.builder.statements is None else None
        spaces = {name for name, role in names.items() if role == "lead"}
        if bug == DROPPED and table.lead is not None and looked_at(trees, spaces, functions, maker):
            # There is a table of spaces: what adds it is somewhere this reading does not reach.
            status, reason, ratio = UNDECIDED, "no sum that adds the leading space was found", 1.0
        result = ByteTable(status, bug, reason, places + [p for p, _ in uses][:4], ratio, minor)
        result.samples = samples(count)
        return result

    def _decoded(self) -> list[BytePlace]:
        """Sums that grow by the bytes of a decoded run of tokens."""
        return [
            self._place(layer.name, node.lineno, "bytes of the decoded targets")
            for layer, tree in self.modules
            for node in find.decoded_sums(tree)
        ][:4]

    def _plain_uses(self, table: Tables, names: dict[str, str]) -> list[tuple[BytePlace, bool]]:
        """Look-ups of the bytes by the names the table is given, and whether the space is looked up beside them."""
        found = []
        for layer, tree in self.modules:
            seen = find.outline(tree)
            for scope in seen.scopes:
                pairs = [
                    (names[pair[0].rpartition(".")[2]], pair[1], node)
                    for node in seen.own[id(scope)]
                    if isinstance(node, ast.Subscript | ast.Call)
                    and isinstance(getattr(node, "ctx", None), ast.Load | None)
                    and not _inside(table.builder, node, layer.name == table.path)
                    and (pair := find.lookup(node)) is not None
                    and pair[0].rpartition(".")[2] in names
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
        if self.number is not None and not counts:
            text = "bytes per token are one number, computed from the vocabulary and not from the scored tokens"
            return ByteTable(WRONG, CONSTANT, text, [self.number[1]])
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
                    values = [row for _, v in called(Interpreter(tree), node) if (row := row_of(v)) is not None]
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


def _is_byte_size(node: ast.AST) -> bool:
    """A name given the size of a byte vocabulary: 256 and up to eight special ids."""
    value = getattr(node, "value", None) if isinstance(node, ast.Assign | ast.AnnAssign) else None
    while isinstance(value, ast.Call) and value.args:
        value = value.args[-1]
    number = getattr(value, "value", None)
    return str(number).isdigit() and 256 <= int(number) <= 264


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


def _filling(builder: find.Builder) -> list[int]:
    """Lines of a builder that put a computed length into a table, at most four."""
    body = builder.statements if builder.statements is not None else getattr(builder.scope, "body", [])
    found = [
        node.lineno
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Assign | ast.AugAssign)
        and any(isinstance(t, ast.Subscript) for t in getattr(node, "targets", None) or [node.target])  # type: ignore[union-attr]
        and any(isinstance(n, ast.Call) and getattr(n.func, "id", "") == "len" for n in ast.walk(node.value))
    ]
    return sorted(set(found))[:4]
