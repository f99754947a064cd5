"""Whether a model's forward pass lets later tokens in, where that can be read from its operations.

Every method that a forward pass can reach is read. An operation either works on each position alone, or is one of the
few that mix positions: attention, convolution, shifts, prefix sums, products of two activations. Of those the direction
is read. A pass is given only when every operation is known and every mixing one looks back; a failure only for an
operation that plainly looks ahead and that nothing switches; everything else is left open, with its line.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from auditor.findings import Status
from auditor.static.attention import UNMASKED
from auditor.static.convolution import TWO_SIDED
from auditor.static.forward import AHEAD, BACK, BOTH, BY_CALLER, OPEN, Note, Program, Reader
from auditor.static.machine import Machine
from auditor.static.round_trip import CARRIED, ROUND_TRIP, carried_on, round_trip, takes_final_state
from auditor.static.verdicts import Verdict
from auditor.timeline import Place, Report, Timeline

RULE = "PG-C1-causality"
# Drawing tokens to hide is how models that look both ways are trained and scored (masked and diffusion models).
_HIDES = frozenset({"rand", "rand_like", "bernoulli", "bernoulli_"})
_MOST = 3
#: What lets later tokens in unless something that was not read keeps them out.
DOUBTS = (ROUND_TRIP, CARRIED, TWO_SIDED)


def causality(machine: Machine, timeline: Timeline) -> Verdict | None:
    """What the forward passes of the modules that the program makes show; None without any."""
    program = _program(machine)
    if not program.classes:
        return None
    reader = Reader(program)
    for path, node in program.classes:
        reader.built(path, node)
        for method in _methods(node):
            if method.name in ("forward", "__call__") or (method.name in program.called and method.name[:2] != "__"):
                reader.read(path, method, None)
    _told_round_trips(program, reader)
    back = [note for note in reader.notes if note.kind == BACK]
    sure = (AHEAD,) if _hides(machine) or _restricted(reader.notes) else (AHEAD, BOTH)
    ahead = [note for note in reader.notes if note.kind in sure]
    rest = [note for note in reader.notes if note.kind not in (BACK, *sure)]
    if ahead and not _hides(machine):
        return Verdict(RULE, Status.FAIL, f"the forward pass looks ahead: {ahead[0].words}", _chain(ahead))
    rest = sorted([*rest, *ahead], key=lambda note: note.words not in DOUBTS)
    if rest or not back:
        words = "whether the forward pass looks ahead could not be read"
        if rest:
            words += f": {rest[0].words}" + (f" and {len(rest) - 1} more" if len(rest) > 1 else "")
        return Verdict(RULE, Status.UNKNOWN, words, _chain(rest))
    mixed = _mixed(timeline)
    if mixed is not None:
        words = "the forward pass looks back only; what is mixed into its result afterwards was not read for this"
        return Verdict(RULE, Status.UNKNOWN, words, ((mixed, "is mixed in"),))
    return Verdict(
        RULE, Status.PASS, "every operation of the forward pass that mixes positions looks back only", _chain(back)
    )


def _told_round_trips(program: Program, reader: Reader) -> None:
    """Say so where attention without a mask stands in a model that sends the stream through slots and back."""
    scans = any(takes_final_state(node) for _, node in program.classes)
    for path, node in program.classes if scans else ():
        for method in _methods(node):
            line = carried_on(method)
            if line is not None:
                reader.note(OPEN, path, line, CARRIED)
    if not any(note.words == UNMASKED for note in reader.notes):
        return
    for path, node in program.classes:
        for method in _methods(node):
            line = round_trip(method) if method.name == "forward" else None
            if line is not None:
                reader.note(OPEN, path, line, ROUND_TRIP)


def _restricted(notes: list[Note]) -> bool:
    """True when some attention is causal, or may be: one among such may read a summary or a chunk that is past.

    Where none is, the tokens meet nowhere else: what looks both ways is what mixes them.
    """
    plain = {(note.path, note.line) for note in notes if note.kind == BOTH}
    attention = [note for note in notes if "attention" in note.words and note.kind in (BACK, OPEN)]
    return any((n.path, n.line) not in plain and n.words != BY_CALLER for n in attention)


def _mixed(timeline: Timeline) -> Place | None:
    """Where something beside the model enters the claimed number: counts, compiled code, a choice, the targets."""
    for event in timeline.events():
        if isinstance(event, Report) and event.headline:
            places = [*event.native, *event.choices, *event.indicators, *event.spread, *(c.place for c in event.counts)]
            if places:
                return places[0]
    return None


def _chain(notes: list[Note]) -> tuple[tuple[Place, str], ...]:
    return tuple((Place(note.path, note.line), note.words) for note in notes[:_MOST])


def _program(machine: Machine) -> Program:
    program = Program()
    made = {id(i.cls.node): i.cls for i in machine.instances.values() if i.cls is not None and i.cls.is_module}
    program.classes = sorted(((cls.path, cls.node) for cls in made.values()), key=lambda c: (c[0], c[1].lineno))
    for path in machine.modules:
        tree = machine.sources.tree(path)
        for node in tree.body if tree is not None else ():
            if isinstance(node, ast.ClassDef):
                program.defined.add(node.name)
                program.parts |= _parts(node)
            elif isinstance(node, ast.FunctionDef):
                program.functions[node.name] = (path, node)
                program.parts |= _parts(node)
                program.called |= {n.func.attr for n in _calls(node) if isinstance(n.func, ast.Attribute)}
    for path, node in program.classes:
        for method in _methods(node):
            program.methods.setdefault(method.name, []).append((path, method))
    return program


def _parts(node: ast.ClassDef | ast.FunctionDef) -> set[str]:
    """Attributes that the methods of a class set, or a helper they call: the parts a module calls."""
    return {
        target.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Assign)
        for each in inner.targets
        for target in (each.elts if isinstance(each, ast.Tuple) else [each])
        if isinstance(target, ast.Attribute)
    }


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (item for item in node.body if isinstance(item, ast.FunctionDef))


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (n for n in ast.walk(node) if isinstance(n, ast.Call))


def _hides(machine: Machine) -> bool:
    """True when the program draws which tokens to hide from the model."""
    for path in machine.modules:
        tree = machine.sources.tree(path)
        for call in _calls(tree) if tree is not None else ():
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name in _HIDES:
                return True
    return False
