"""What the analysis knows at one line: values and where they come from, phase, loops, settings, events, rules.

The program is walked once more by a machine that takes notes whenever it comes past the line; the notes decide nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from auditor.static.analysis import StaticResult, static_timeline
from auditor.static.effective import Effective
from auditor.static.machine import Machine
from auditor.static.program import Sources
from auditor.static.records import BranchRecord, CallRecord, LoopRecord, Record
from auditor.static.timeline_builder import _Builder
from auditor.static.values import Value
from auditor.timeline import Event, Phase
from auditor.unpack import Program

# Values shown for one line, and notes kept: a line inside nested loops is passed many times.
MAX_VALUES, MAX_NOTES = 14, 60
_SHOWN = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.BinOp)
_STATEMENT_PARTS = ("value", "test", "iter", "exc", "subject")


@dataclass
class Visit:
    """One time the walk came past the line.

    Attributes:
        phase: part of the run.
        around: what encloses the line, outermost first: calls, loops and branches of the record tree.
        values: source text -> value, in the order of evaluation.
        gradients: False inside `no_grad` or `inference_mode`.
    """

    phase: Phase = Phase.UNKNOWN
    around: tuple[CallRecord | LoopRecord | BranchRecord, ...] = ()
    values: dict[str, Value] = field(default_factory=dict)
    gradients: bool = True


@dataclass
class LineReport:
    """What is known of a statement.

    Attributes:
        path, line, end: the statement that holds the line asked for.
        text: its source lines.
        function: name of the function it stands in, "" at module level.
        visits: every time the walk came past it; empty when it never did.
        dead: (path, line, condition, side taken) of the branch that keeps it from running, None when it runs.
        called_from: lines that name the function it stands in, when it was never reached.
        events: events of the timeline at this statement.
        verdicts: (rule, status, summary, words) of static verdicts whose chain names this statement.
        result: the analysis it was taken from.
        machine: its walk.
    """

    path: str
    line: int
    end: int
    text: list[str]
    function: str
    visits: list[Visit] = field(default_factory=list)
    dead: tuple[str, int, str, bool] | None = None
    called_from: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    verdicts: list[tuple[str, str, str, str]] = field(default_factory=list)
    result: StaticResult | None = None
    machine: Machine | None = None


class NoStatement(ValueError):
    """There is no statement at the line, or the file does not parse."""


def explain_line(program: Program, path: str, line: int, settings: Effective | None = None) -> LineReport:
    """Everything the analysis knows of the statement that holds `line` (1-based) of the layer `path`.

    Raises:
        NoStatement: the layer does not parse, or ends before the line.
    """
    tree = Sources(program).tree(path)
    if tree is None:
        raise NoStatement(f"{path} does not parse: nothing is known of its lines")
    statements, function = _statements(tree, line, path)
    watched = {key: text for statement in statements for key, text in _watched(statement).items()}

    class Noting(_Noting):
        wanted = watched
        entry = next((key for key in map(_entry, statements) if key), 0)

    result = static_timeline(program, settings, keep=True, machine=Noting)
    machine = result.machine
    assert isinstance(machine, _Noting)
    start, end = statements[0].lineno, max(_header_end(statement) for statement in statements)
    lines = program_text(program, path).split("\n")
    report = LineReport(path, start, end, lines[start - 1 : end], function)
    report.result, report.machine = result, machine
    report.visits = list(_visits(machine))
    report.dead = None if report.visits else _dead(machine, path, start)
    if not report.visits and function and report.dead is None:
        report.called_from = _named(tree, function)
    inside = range(start, end + 1)
    report.events = [e for e in result.timeline.events() if e.place.path == path and e.place.line in inside]
    for verdict in result.answers.values():
        for place, words in verdict.chain:
            if place.path == path and place.line in inside:
                report.verdicts.append((verdict.rule, verdict.status.value, verdict.summary, words))
                break
    return report


def program_text(program: Program, path: str) -> str:
    """Source of a layer, "" when there is none of that name."""
    return next((layer.text for layer in program.layers if layer.name == path), "")


# -- the statement -----------------------------------------------------------------------------------------------------


def _statements(tree: ast.Module, line: int, path: str) -> tuple[list[ast.stmt], str]:
    """The statements that stand on the line, else the next one; and the function they stand in.

    Minified programs have several on a line; of one that spans several lines its whole extent counts.
    """
    best: list[tuple[ast.stmt, str]] = []
    later: tuple[ast.stmt, str] | None = None

    def visit(node: ast.AST, function: str) -> None:
        nonlocal later
        for child in ast.iter_child_nodes(node):
            inner = function
            if isinstance(child, ast.stmt):
                if child.lineno <= line <= _header_end(child):
                    best.append((child, function))
                elif child.lineno > line and (later is None or child.lineno < later[0].lineno):
                    later = (child, function)
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = child.name
            visit(child, inner)

    visit(tree, "")
    found = best or ([later] if later is not None else [])
    if not found:
        raise NoStatement(f"{path} has no statement at or after line {line}")
    return [statement for statement, _ in found], found[-1][1]


def _header_end(node: ast.stmt) -> int:
    """Last line of a statement, of a compound one without its body."""
    body = getattr(node, "body", None)
    if isinstance(body, list) and body:
        return max(node.lineno, body[0].lineno - 1) if body[0].lineno > node.lineno else node.lineno
    return node.end_lineno or node.lineno


def _parts(node: ast.stmt) -> list[ast.expr]:
    """Expressions a statement evaluates itself, its body left out."""
    found = [getattr(node, name, None) for name in _STATEMENT_PARTS]
    found += [item.context_expr for item in getattr(node, "items", ())]
    if isinstance(node, ast.AugAssign):
        found.append(node.target)
    return [part for part in found if isinstance(part, ast.expr)]


def _entry(node: ast.stmt) -> int:
    """Identity of the expression that is evaluated first whenever the statement runs."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for inner in node.body:
            if _parts(inner) and not (isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant)):
                return id(_parts(inner)[0])
    parts = _parts(node)
    return id(parts[0]) if parts else 0


def _watched(node: ast.stmt) -> dict[int, str]:
    """Expressions of the statement by identity, with their source text."""
    found: dict[int, str] = {}
    for part in _parts(node):
        callees = {id(n.func) for n in ast.walk(part) if isinstance(n, ast.Call)}
        holders = {
            id(n.value)
            for n in ast.walk(part)
            if isinstance(n, ast.Attribute) and not (isinstance(n.value, ast.Name) and id(n) in callees)
        }
        for inner in ast.walk(part):
            if isinstance(inner, _SHOWN) and id(inner) not in callees | holders:
                found[id(inner)] = ast.unparse(inner)
    return found


def _named(tree: ast.Module, function: str) -> list[int]:
    lines = {
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == function)
        or (isinstance(node, ast.Attribute) and node.attr == function)
    }
    return sorted(lines)[:5]


# -- the walk ----------------------------------------------------------------------------------------------------------


class _Noting(Machine):
    """A machine that leaves a record where it comes past the watched statement."""

    wanted: dict[int, str] = {}  # noqa: RUF012 - set by the subclass that is made for one statement
    entry = 0

    def eval(self, node: ast.expr) -> Value:
        key = id(node)
        if key == self.entry:
            self._arrive()
        out = super().eval(node)
        if key in self.wanted:
            notes = self.__dict__.get("taken")
            if notes:
                held = Value(self.spread(out), out.const, out.obj, out.at, offset=out.offset)
                held.others = out.others
                notes[-1].values.setdefault(self.wanted[key], held)
        return out

    def _arrive(self) -> None:
        notes = self.__dict__.setdefault("taken", [])
        if len(notes) < MAX_NOTES:
            record = Record("visit", self.here(), detail=str(len(notes)))
            notes.append(Visit(gradients=not self.no_grad))
            self.emit(record)


class _Phases(_Builder):
    """Walks the records as the builder of timelines does and notes the phase of every visit."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, [])
        self.phases: dict[str, Phase] = {}

    def plain(self, record: Record, place: object) -> Event | None:
        if record.kind == "visit":
            self.phases.setdefault(record.detail, self.phase)
            return None
        return super().plain(record, place)  # type: ignore[arg-type]


def _visits(machine: _Noting) -> Iterator[Visit]:
    taken: list[Visit] = machine.__dict__.get("taken", [])
    builder = _Phases(machine)
    builder.nodes(machine.records)
    for key, around in _paths(machine.records, ()):
        visit = taken[int(key)]
        visit.phase, visit.around = builder.phases.get(key, Phase.UNKNOWN), around
        yield visit


def _paths(records: list, around: tuple) -> Iterator[tuple[str, tuple]]:
    """(number of the visit, what encloses it) for every visit in the tree."""
    for record in records:
        if isinstance(record, LoopRecord):
            for events in record.passes:
                yield from _paths(events, (*around, record))
        elif isinstance(record, BranchRecord):
            yield from _paths(record.then, (*around, record))
            yield from _paths(record.otherwise, (*around, record))
        elif isinstance(record, CallRecord):
            yield from _paths(record.body, (*around, record))
        elif isinstance(record, Record) and record.kind == "visit":
            yield record.detail, around


def _dead(machine: Machine, path: str, line: int) -> tuple[str, int, str, bool] | None:
    """The branch that is switched off and holds the line; the innermost one."""
    found = None
    for where, condition, body, side in machine.dead:
        for statement in body:
            if where[0] == path and statement.lineno <= line <= (statement.end_lineno or statement.lineno):
                if found is None or where[1] > found[1]:
                    found = (*where, condition, not side)
    return found
