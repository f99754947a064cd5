"""The abstract machine: walks statements of a program in the order in which they would run.

Loops are walked twice (the first iteration and a later one), undecided branches on both sides from the same state,
calls are followed. It never executes code of the submission: it only reads its syntax tree.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from auditor.static.arguments import Arguments
from auditor.static.assignments import Assignments
from auditor.static.builtin_calls import BuiltinCalls
from auditor.static.calls import Calls
from auditor.static.counting import Counting
from auditor.static.detours import Detours
from auditor.static.effective import logged_constant
from auditor.static.expressions import Expressions
from auditor.static.heap import Class, Frame, Function, Instance, Journal, Listing, Module
from auditor.static.iteration import Iteration
from auditor.static.learning import Learning
from auditor.static.libcalls import LibraryCalls
from auditor.static.library import NO_GRAD
from auditor.static.making import Making
from auditor.static.program import Sources
from auditor.static.records import BranchRecord, LoopRecord, Record, Where
from auditor.static.subscripts import Subscripts
from auditor.static.values import FLAG, NONE, PARAMS, SCORED, UNKNOWN, Value, constant, join

# Syntax nodes visited before the machine gives up, and how deep loops are walked twice.
STEP_BUDGET = 400_000
DOUBLE_PASS_DEPTH = 5
MAX_DEPTH = 60
UNROLL = 6
# How a block ends: by falling through, or by leaving.
RETURN, BREAK, CONTINUE, RAISE = "return", "break", "continue", "raise"


class Exhausted(Exception):
    """The step budget is spent."""


class Machine(
    Arguments,
    Expressions,
    Subscripts,
    Assignments,
    Calls,
    BuiltinCalls,
    LibraryCalls,
    Learning,
    Making,
    Counting,
    Detours,
    Iteration,
):
    """One walk of one program under one set of settings.

    Attributes:
        records: events as a tree (`auditor.static.records`).
        scores, updates, reports: the same events by kind, in order.
        unknowns: (place, reason) of what could not be followed.
    """

    def __init__(self, sources: Sources, environment: dict[str, str], overrides: dict[str, str]) -> None:
        self.sources, self.environment, self.overrides = sources, environment, overrides
        self.journal = Journal()
        self.steps = 0
        self.depth = 0
        self.no_grad = 0
        self.loops: list[tuple[int, int]] = []
        self.loop_count = 0
        self.loop_trips: dict[int, int | None] = {}
        self.records: list = []
        self.sink: list = self.records
        self.scores: list = []
        self.updates: list = []
        self.reports: list = []
        self.unknowns: list[tuple[Where, str]] = []
        self.instances: dict[int, Instance] = {}
        self.hooks: dict = {"list": (), "forwards": ()}
        self.files: dict[str, frozenset] = {}
        self.exported: dict[str, Value] = {}
        self.modules: dict[str, Module] = {}
        self.frame: Frame = Frame("", None)
        self.stack: list[Where] = []
        self.calling: list = []
        self.dead: list[tuple[Where, str, list[ast.stmt], bool]] = []
        self.forced: dict[tuple, bool] = {}
        self.printed_literals: set[str] = set()
        self.unsaid: list[tuple[tuple, ast.expr, bool]] = []  # text that conditional expressions leave out
        self.other_prints: dict[str, Where] = {}  # lines without a loss in them that could be followed
        self.order = 0
        self.pending: list[dict[str, list[dict]]] = []
        self.table_count = 0
        self.choosing = 0
        self.steps_limit = STEP_BUDGET
        self.read_places: dict[str, Where] = {}
        self.notes: dict[tuple[str, int], list[Value]] = {}
        self.last_backward: Where | None = None
        self.entries: list[Value] = []
        self.losses: dict[str, frozenset] = {}
        self.trained_losses, self.mixed_losses = set[int](), set[int]()
        self.table_places: dict[tuple[Where, ...], tuple] = {}
        self.trying = 0
        self.moved: dict[tuple[int, int], Where] = {}

    # -- running ---------------------------------------------------------------------------------------------------

    def run(self, path: str) -> None:
        """Walk the main module; stops quietly when the budget is spent, leaving an unknown."""
        try:
            self.load_module(path, "__main__")
            for entry in self.entries:
                self.call(entry, [], {}, None)
        except Exhausted:
            self.unknown("the step budget of the analysis is spent")
        except RecursionError:
            self.unknown("calls nest too deep")

    def load_module(self, path: str, name: str) -> Module:
        """Walk a module of the submission once."""
        if path in self.modules:
            return self.modules[path]
        tree = self.sources.tree(path)
        frame = Frame(path, None)
        module = Module(path, frame)
        self.modules[path] = module
        if tree is None:
            self.unknowns.append(((path, self.sources.error_line(path)), "source does not parse"))
            return module
        frame.slots["__name__"] = constant(name)
        frame.slots["__file__"] = constant(path)
        outer, self.frame = self.frame, frame
        self.pending.append({})
        self.block(tree.body)
        self.pending.pop()
        self.frame = outer
        return module

    def tick(self, cost: int = 1) -> None:
        """Count steps against the budget."""
        self.steps += cost
        if self.steps > self.steps_limit:
            raise Exhausted

    def here(self) -> Where:
        """The line being walked."""
        return (self.frame.path, self.frame.line)

    def unknown(self, reason: str) -> None:
        """Note what could not be followed."""
        place = self.here()
        if (place, reason) not in self.unknowns:
            self.unknowns.append((place, reason))
            self.emit(Record("unknown", place, detail=reason))

    def emit(self, record: Record) -> None:
        """Add an event at the present point of the tree."""
        self.order += 1
        record.order = self.order
        record.stack = tuple(self.stack)
        record.loops = tuple(self.loops)
        self.sink.append(record)

    # -- statements ------------------------------------------------------------------------------------------------

    def block(self, body: list[ast.stmt]) -> str | None:
        """Walk statements; returns how the block ends, None when it falls through."""
        for statement in body:
            self.tick()
            self.frame.line = statement.lineno
            walk = _STATEMENTS.get(type(statement))
            ends = walk(self, statement) if walk else None
            if ends:
                return ends
        return None

    def do_expr(self, node: ast.Expr) -> None:
        self.eval(node.value)

    def do_assign(self, node: ast.Assign) -> None:
        value = self.eval(node.value)
        for target in node.targets:
            self.assign(target, value)

    def do_annassign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.assign(node.target, self.eval(node.value))

    def do_augassign(self, node: ast.AugAssign) -> None:
        change = self.eval(node.value)
        if isinstance(node.target, ast.Subscript):
            held, index = self.eval(node.target.value), self.eval_index(node.target.slice)
            self.add_at(held, index, change, counting=isinstance(node.op, ast.Add))
            return
        held = self.eval(_load(node.target))
        if isinstance(held.obj, Listing):
            self.extend(held, change)
            return
        numeric = held.obj is None and not held.base and (held.known or held.low is not None or not held.solid)
        if PARAMS in {f[0] for f in held.facts} or (not numeric and held.obj is None):
            joined = self.joined(held, change) if held.obj is None else NONE
            self.mutate(held, self.used(change) | joined, overwrite=False)
            return
        self.assign(node.target, self.arithmetic(node.op, held, change))

    def do_return(self, node: ast.Return) -> str:
        value = self.eval(node.value) if node.value is not None else constant(None)
        slots = self.frame.slots
        self.journal.put(slots, "$return", join(slots.get("$return"), value))
        return RETURN

    def do_if(self, node: ast.If) -> str | None:
        test = self.eval(node.test)
        truth = self.truth(test)
        if (proved := self.forced.get(self.here())) is not None:
            truth = proved
            self.switched(node.test, proved)
        elif truth and _refuses(node.body):
            truth = False  # the run came past this guard: a setting is known less well than it seems
        if truth is not None:
            branch = BranchRecord(self.here(), _source(node.test), truth)
            if truth and not self.trying and node.body and isinstance(node.body[-1], ast.Raise):
                truth = branch.taken = False  # the run behind the claim got past this guard: a setting differs
            body, dead = (node.body, node.orelse) if truth else (node.orelse, node.body)
            if dead:
                self.dead.append((self.here(), branch.condition, dead, not truth))
            return self.within(branch.then if truth else branch.otherwise, branch, lambda: self.block(body))
        return self.both(node)

    def both(self, node: ast.If) -> str | None:
        """Walk both sides from the same state and join them."""
        branch = BranchRecord(self.here(), _source(node.test), None)
        mark = self.journal.mark()
        self.narrow(node.test, True)
        choosing = self.compares_losses(node.test)
        self.choosing += choosing
        first = self.within(branch.then, branch, lambda: self.block(node.body))
        self.choosing -= choosing
        written = self.journal.undo(mark)
        self.narrow(node.test, False)
        second = self.within(branch.otherwise, None, lambda: self.block(node.orelse)) if node.orelse else None
        if first is None and second is None:
            self.journal.merge(written)
            return None
        if first is not None and second is None:
            self.leave(first, written)
            return None
        if first is None:
            other = self.journal.undo(mark)
            self.leave(second or "", other)
            self.journal.replay(written)
            return None
        self.leave(first, written)
        return first if second == RAISE else second

    def compares_losses(self, test: ast.expr) -> bool:
        """`if new_nll < old_nll`: two losses of validation tokens decide what happens next."""
        if not isinstance(test, ast.Compare) or not isinstance(test.ops[0], ast.Lt | ast.Gt | ast.LtE | ast.GtE):
            return False
        sides = [self.spread(self.eval(side)) for side in (test.left, test.comparators[0])]
        return all(any(f[0] == SCORED for f in facts) for facts in sides)

    def leave(self, how: str, written: dict) -> None:
        """Keep the state of a path that leaves the block, to be joined where it arrives."""
        if how == RAISE or not self.pending:
            return
        self.pending[-1].setdefault(how, []).append(written)

    def arrive(self, *ways: str) -> None:
        """Join the states of the paths that arrive here."""
        for how in ways:
            for written in self.pending[-1].pop(how, []):
                self.journal.merge(written)

    def within(self, sink: list, record: object, walk: Callable[[], str | None]) -> str | None:
        """Collect events of `walk` in `sink`; `record` joins the tree when anything happened in it."""
        outer, self.sink = self.sink, sink
        try:
            return walk()
        finally:
            self.sink = outer
            if record is not None:
                outer.append(record)

    def narrow(self, test: ast.expr, outcome: bool) -> None:
        """What a branch tells about a name: `x is None`, `x is not None`."""
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.left, ast.Name):
            against = test.comparators[0]
            if isinstance(against, ast.Constant) and against.value is None:
                is_none = isinstance(test.ops[0], ast.Is | ast.Eq) == outcome
                held = self.frame.slots.get(test.left.id)
                if isinstance(held, Value) and held.obj is None:
                    fresh = constant(None) if is_none else join(held, held)
                    if not is_none:
                        fresh = Value(held.facts, UNKNOWN, None, held.at, held.base, solid=True)
                    self.journal.put(self.frame.slots, test.left.id, fresh)

    # -- loops -----------------------------------------------------------------------------------------------------

    def do_for(self, node: ast.For) -> str | None:
        over = self.eval(node.iter)
        items = self.known_items(over)
        if items is not None and len(items) <= UNROLL:
            return self.unrolled(node, items)
        trips, first, later = self.loop_values(node.iter, over, items)
        if trips == 0:
            return None
        return self.loop(node, _source(node.iter), trips, (first, later), node.target)

    def unrolled(self, node: ast.For, items: tuple[Value, ...]) -> str | None:
        for item in items:
            self.assign(node.target, item)
            self.pending.append({})
            ends = self.block(node.body)
            self.arrive(CONTINUE)
            rest = self.pending.pop()
            for how, states in rest.items():
                if how == BREAK:
                    for state in states:
                        self.journal.merge(state)
                else:
                    self.pending[-1].setdefault(how, []).extend(states)
            if ends == BREAK:
                break
            if ends in (RETURN, RAISE):
                return ends
        return None

    def do_while(self, node: ast.While) -> str | None:
        truth = self.truth(self.eval(node.test))
        if truth is False:
            return None
        return self.loop(node, _source(node.test), None, None, None)

    def loop(
        self,
        node: ast.For | ast.While,
        over: str,
        trips: int | None,
        values: tuple[Value, Value] | None,
        target: ast.expr | None,
    ) -> str | None:
        """Walk the first and, where it can matter, a later iteration."""
        self.loop_count += 1
        number = self.loop_count
        self.loop_trips[number] = trips
        record = LoopRecord(number, self.here(), over, trips)
        advancing = self.sources.advancing(node)
        steps = self.increments(node, advancing)
        passes = 1 if trips == 1 or len(self.loops) >= DOUBLE_PASS_DEPTH or not self.worth_twice(node) else 2
        self.pending.append({})
        ends = None
        numeric: set[str] = set()
        mark_sink = self.sink
        for step in range(1, passes + 1):
            self.loops.append((number, step))
            self.advance(advancing, number, step, numeric, steps)
            if values is not None and target is not None:
                self.assign(target, self.item(values[min(step, 2) - 1], number, step))
            events: list = []
            self.sink = events
            if isinstance(node, ast.While):
                self.eval(node.test)
            ends = self.block(node.body)
            self.arrive(CONTINUE)
            self.sink = mark_sink
            record.passes.append(events)
            self.loops.pop()
            if ends in (BREAK, RETURN, RAISE):
                break
        self.arrive(BREAK)
        rest = self.pending.pop()
        if self.pending:
            for how, states in rest.items():
                self.pending[-1].setdefault(how, []).extend(states)
        if any(record.passes):
            self.sink.append(record)
        if node.orelse and ends not in (RETURN, RAISE):
            mark = self.journal.mark()
            self.block(node.orelse)
            self.journal.merge(self.journal.undo(mark))
        return ends if ends in (RETURN, RAISE) else None

    def worth_twice(self, node: ast.stmt) -> bool:
        """True when a second iteration can tell more than the first: something in the body touches state."""
        return self.sources.loop_matters(node)

    # -- definitions -----------------------------------------------------------------------------------------------

    def do_function(self, node: ast.FunctionDef) -> None:
        function = Function(node, self.frame, self.frame.path)
        function.slots["defaults"] = self.defaults(node.args)
        value = Value(obj=function)
        for decorator in reversed(node.decorator_list):
            value = self.decorated(value, function, decorator)
        self.assign(ast.Name(node.name, ast.Store(), lineno=node.lineno), value)

    def decorated(self, value: Value, function: Function, decorator: ast.expr) -> Value:
        name = _last(decorator.func if isinstance(decorator, ast.Call) else decorator)
        if name in NO_GRAD:
            function.wrapped = "no_grad"
        elif name == "enable_grad":
            function.wrapped = name
        elif name == "local_entrypoint":
            self.entries.append(value)
        elif name in ("property", "cached_property"):
            function.wrapped = "property"
        elif name in ("staticmethod", "classmethod"):
            function.wrapped = name
        else:
            wrapper = self.eval(decorator)
            if isinstance(wrapper.obj, Function):
                out = self.call(wrapper, [value], {}, decorator)
                return out if out.obj is not None else value
        return value

    def do_class(self, node: ast.ClassDef) -> None:
        cls = Class(node, self.frame, self.frame.path)
        for base in node.bases:
            value = self.eval(base)
            if isinstance(value.obj, Class):
                cls.bases.append(value.obj)
                cls.is_module |= value.obj.is_module
                cls.fields += value.obj.fields
            else:
                cls.lib_bases.append(repr(value.obj))
        cls.is_module |= any(name.endswith(("Module", "ModuleList", "Linear", "Embedding")) for name in cls.lib_bases)
        cls.advancing = self.sources.advancing_attributes(node)
        outer, self.frame = self.frame, Frame(self.frame.path, self.frame)
        self.frame.slots = cls.slots
        self.frame.function = cls
        self.block(node.body)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                cls.fields.append(statement.target.id)
        self.frame = outer
        for held in cls.slots.values():
            if isinstance(held, Value) and isinstance(held.obj, Function) and held.obj.owner is None:
                held.obj.owner = cls
        self.override(cls.slots)
        self.assign(ast.Name(node.name, ast.Store(), lineno=node.lineno), Value(obj=cls))

    def override(self, slots: dict) -> None:
        """Settings that the log says were in force replace defaults of the same name."""
        for name, held in list(slots.items()):
            text = self.overrides.get(name.lower())
            if text is not None and isinstance(held, Value) and held.obj is None and not name.startswith("$"):
                self.journal.put(slots, name, logged_constant(text, held))

    def do_import(self, node: ast.Import) -> None:
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            self.assign_name(bound, self.imported(alias.name if alias.asname else bound))

    def do_importfrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self.import_star(node)
                continue
            value = self.imported_from(node.module or "", alias.name)
            self.assign_name(alias.asname or alias.name, value)

    def import_star(self, node: ast.ImportFrom) -> None:
        path = self.sources.find(node.module or "", self.frame.path)
        if path:
            for name, value in list(self.load_module(path, node.module or "").frame.slots.items()):
                if not name.startswith("__"):
                    self.assign_name(name, value)

    # -- other statements ------------------------------------------------------------------------------------------

    def do_with(self, node: ast.With) -> str | None:
        quiet = 0
        for item in node.items:
            value = self.eval(item.context_expr)
            if (FLAG, "no_grad") in value.facts:
                quiet += 1
            elif (FLAG, "enable_grad") in value.facts:
                quiet = -self.no_grad
            if item.optional_vars is not None:
                self.assign(item.optional_vars, value)
        self.no_grad += quiet
        try:
            return self.block(node.body)
        finally:
            self.no_grad -= quiet

    def do_try(self, node: ast.Try) -> str | None:
        self.trying += bool(node.handlers)
        try:
            ends = self.block(node.body)
        finally:
            self.trying -= bool(node.handlers)
        if ends == RAISE or (node.handlers and ends is None and _import_guard(node)):
            for handler in node.handlers[:1]:
                mark = self.journal.mark()
                if handler.name:
                    self.assign_name(handler.name, Value(solid=True))
                how = self.block(handler.body)
                if ends == RAISE:
                    ends = how
                else:
                    written = self.journal.undo(mark)
                    if how is None:
                        self.journal.merge(written)
        if ends is None and node.orelse:
            ends = self.block(node.orelse)
        final = self.block(node.finalbody) if node.finalbody else None
        return final or ends

    def do_delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.journal.put(self.frame.slots, target.id, Value())

    def do_global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.frame.globals_.update(node.names)

    def do_raise(self, node: ast.Raise) -> str:
        return RAISE

    def do_match(self, node: ast.Match) -> str | None:
        self.eval(node.subject)
        for case in node.cases:
            mark = self.journal.mark()
            ends = self.block(case.body)
            written = self.journal.undo(mark)
            if ends:
                self.leave(ends, written)
            else:
                self.journal.merge(written)
        return None


def _load(target: ast.expr) -> ast.expr:
    return target


def _refuses(body: list[ast.stmt]) -> bool:
    """A guard: the branch does nothing but end the program."""
    last = body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        name = last.value.func
        return (name.attr if isinstance(name, ast.Attribute) else getattr(name, "id", "")) in ("exit", "_exit", "quit")
    return isinstance(last, ast.Raise)


def _source(node: ast.expr) -> str:
    try:
        text = ast.unparse(node)
    except (ValueError, RecursionError):
        return "..."
    return text if len(text) <= 120 else text[:117] + "..."


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _import_guard(node: ast.Try) -> bool:
    return any(isinstance(s, ast.Import | ast.ImportFrom | ast.Assign) for s in node.body)


_STATEMENTS: dict[type, Callable] = {
    ast.Expr: Machine.do_expr,
    ast.Assign: Machine.do_assign,
    ast.AnnAssign: Machine.do_annassign,
    ast.AugAssign: Machine.do_augassign,
    ast.Return: Machine.do_return,
    ast.If: Machine.do_if,
    ast.For: Machine.do_for,
    ast.AsyncFor: Machine.do_for,
    ast.While: Machine.do_while,
    ast.FunctionDef: Machine.do_function,
    ast.AsyncFunctionDef: Machine.do_function,
    ast.ClassDef: Machine.do_class,
    ast.Import: Machine.do_import,
    ast.ImportFrom: Machine.do_importfrom,
    ast.With: Machine.do_with,
    ast.AsyncWith: Machine.do_with,
    ast.Try: Machine.do_try,
    ast.Delete: Machine.do_delete,
    ast.Global: Machine.do_global,
    ast.Nonlocal: Machine.do_global,
    ast.Raise: Machine.do_raise,
    ast.Match: Machine.do_match,
    ast.Break: lambda self, node: BREAK,
    ast.Continue: lambda self, node: CONTINUE,
    ast.Assert: lambda self, node: None,
    ast.Pass: lambda self, node: None,
}
