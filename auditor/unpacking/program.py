"""Layers of a script and the program of a submission: follows what the stubs run, inwards and to sibling files."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from auditor.errors import AuditorError, UnpackLimit
from auditor.static.parse import parse_module
from auditor.submission import Submission
from auditor.text import decode
from auditor.unpack import MAX_COMPANIONS, MAX_LAYERS, MAX_SOURCE, STUB_SIZE, Layer, Program, suspicious
from auditor.unpacking.decoders import Budget
from auditor.unpacking.evaluate import Evaluator
from auditor.unpacking.search import long_literals, looks_like_python, search
from auditor.unpacking.values import Place, Sink, Unknown, origin

# Below this (characters) an executed text is a formula or a statement, not a program.
MIN_PROGRAM = 200
Siblings = Mapping[str, Callable[[], bytes]]


@dataclass
class Found:
    """Layers of one script.

    Attributes:
        layers: the script itself, then what is packed inside, outer before inner.
        runs: layer name -> layers and sibling paths it executes, in order.
        problems: what could not be decoded.
        notes: layer name -> what it runs that could not be followed; of interest when the layer is what is run.
    """

    layers: list[Layer] = field(default_factory=list)
    runs: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def note(self, layer: Layer, line: int, words: str) -> None:
        """Add a note on a line of a layer, once."""
        text = f"{layer.name}:{line}: {words}"
        if text not in self.notes.setdefault(layer.name, []):
            self.notes[layer.name].append(text)


def unpack_script(data: bytes, siblings: Siblings, name: str) -> Found:
    """Unpack one script; see `auditor.unpack.unpack_bytes`."""
    found = Found([Layer(name, decode(data, cookie=True), data)])
    budget = Budget()
    position = 0
    while position < len(found.layers):
        layer = found.layers[position]
        position += 1
        try:
            _open_layer(layer, siblings, budget, found)
        except UnpackLimit as error:
            found.problems.append(f"{layer.name}: {error}; what it holds was not read")
        except RecursionError:
            found.problems.append(f"{layer.name}: nested too deeply to be followed")
    return found


def _open_layer(layer: Layer, siblings: Siblings, budget: Budget, found: Found) -> None:
    if len(layer.text) > MAX_SOURCE:
        found.problems.append(f"{layer.name}: {len(layer.data)} bytes, too big for a script; it was not looked into")
        return
    if not suspicious(layer.text) and not _imports_sibling(layer, siblings):
        return
    parsed = parse_module(layer.text)
    literals = long_literals(parsed.tree, layer.text)
    before = len(found.layers)
    if parsed.tree is not None:
        script = layer.name.split("!")[0]
        evaluator = Evaluator(script, siblings, budget)
        try:
            evaluator.walk(parsed.tree)
        finally:
            for sink in evaluator.sinks:
                _follow(sink, evaluator.sinks, layer, siblings, found)
    if len(found.layers) == before:
        _search_literals(layer, literals, budget, found)
    if len(found.layers) == before and parsed.tree is not None and residual(layer, literals) < STUB_SIZE:
        for line, words in evaluator.troubles[:5]:
            found.note(layer, line, words)
        _note_unfollowed(evaluator.sinks, layer, found)


def _imports_sibling(layer: Layer, siblings: Siblings) -> bool:
    """A short file that imports another of the folder may be nothing but its launcher."""
    return len(layer.text) < STUB_SIZE and any(p.endswith(".py") for p in siblings) and "import" in layer.text


def _note_unfollowed(sinks: list[Sink], layer: Layer, found: Found) -> None:
    if found.runs.get(layer.name):
        return
    hidden = [s for s in sinks if s.how in ("exec", "compile") and isinstance(s.value, Unknown)]
    for sink in hidden[:3]:
        found.note(layer, sink.line, f"{sink.how} of something that only running the program would tell")


def _follow(sink: Sink, sinks: list[Sink], layer: Layer, siblings: Siblings, found: Found) -> None:
    """Turn one sink into a layer, or into a note that a sibling file is run."""
    value: Any = sink.value
    if sink.how in ("run", "import"):
        _follow_file(sink, sinks, layer, siblings, found)
        return
    if sink.how == "marshal":
        found.note(layer, sink.line, "runs Python byte code (marshal), which has no source to read")
        return
    changed = isinstance(value, Unknown) and isinstance(value.source, str | bytes)
    value = value.source if changed else value
    if not isinstance(value, str | bytes):
        return
    codecs, file = origin(value)
    if file and not codecs:
        if sink.how != "write":
            _note(found, layer.name, file)
            if changed:
                found.note(layer, sink.line, f"{file} is changed before it runs, in a way that could not be followed")
        return
    written = sink.how == "write" and not codecs
    if written and not sink.target.endswith(".py"):
        return
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)
    text = decode(data, cookie=True)
    if (not codecs and len(text) < MIN_PROGRAM) or (sink.how == "write" and not looks_like_python(text)):
        return
    if changed:
        found.note(layer, sink.line, "the source is changed before it runs, in a way that could not be followed")
    _add(found, layer, data, codecs or ("literal",), file, runs=True)


def _follow_file(sink: Sink, sinks: list[Sink], layer: Layer, siblings: Siblings, found: Found) -> None:
    if not isinstance(sink.value, Place):
        return
    script = layer.name.split("!")[0]
    target = Evaluator(script, siblings, Budget()).find(sink.value)
    if target and target != script:
        _note(found, layer.name, target)
        return
    path = posixpath.normpath(sink.value.path).replace("*/", "")
    written = posixpath.basename(path) in {posixpath.basename(s.target) for s in sinks if s.how == "write"}
    if sink.how == "run" and path.endswith(".py") and target is None and not written:
        found.note(layer, sink.line, f"runs {path}, which is not among the files of the submission")


def _note(found: Found, name: str, target: str) -> None:
    runs = found.runs.setdefault(name, [])
    if target not in runs:
        runs.append(target)


def _add(found: Found, parent: Layer, data: bytes, codecs: tuple[str, ...], file: str, runs: bool) -> None:
    if any(known.data == data for known in found.layers):
        same = next(known for known in found.layers if known.data == data)
        if runs and same.name != parent.name:
            _note(found, parent.name, same.name)
        return
    if len(found.layers) >= MAX_LAYERS:
        if len(found.layers) == MAX_LAYERS:
            found.problems.append(f"{parent.name}: more than {MAX_LAYERS} layers, the rest was not read")
        return
    base = file or parent.name
    name = "!".join((base, *codecs))
    taken = sum(known.name.split("#")[0] == name for known in found.layers)
    name = f"{name}#{taken + 1}" if taken else name
    found.layers.append(Layer(name, decode(data, cookie=True), data, (*parent.codecs, *codecs), parent.name))
    if runs:
        _note(found, parent.name, name)


def _search_literals(layer: Layer, literals: list[tuple[bytes, int]], budget: Budget, found: Found) -> None:
    for content, line in literals[:16]:
        try:
            result = search(content, budget)
        except UnpackLimit as error:
            found.problems.append(f"{layer.name}:{line}: {error}")
            continue
        if result:
            _add(found, layer, result[0], result[1], "", runs=True)
    if (
        literals
        and not found.runs.get(layer.name)
        and residual(layer, literals) < STUB_SIZE
        and len(literals[0][0]) > 4000
    ):
        found.note(layer, literals[0][1], f"holds {len(literals[0][0])} characters of data that no known chain decodes")


def residual(layer: Layer, literals: list[tuple[bytes, int]] | None = None) -> int:
    """Characters of source a layer has of its own: its text without its long literals."""
    if literals is None:
        tree = parse_module(layer.text).tree if len(layer.text) <= MAX_SOURCE else None
        literals = long_literals(tree, layer.text)
    return max(0, len(layer.text) - sum(len(content) for content, _ in literals))


class Reader:
    """Reads the program of one submission."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.program = Program()
        self.found: dict[str, Found] = {}

    def read(self) -> Program:
        """See `auditor.unpack.read_program`."""
        submission, program = self.submission, self.program
        if submission.main_script:
            self._read_script(submission.main_script)
        left, skipped = MAX_COMPANIONS, 0
        for path in submission.modules:
            left -= submission.files[path].size or 0
            if left >= 0:
                self._read_script(path)
            skipped += left < 0
        if skipped:
            program.problems.append(
                f"{submission.folder}: {skipped} of {len(submission.modules)} further Python files were not read, "
                f"together they are above {MAX_COMPANIONS} bytes"
            )
        program.layers = [f.layers[0] for f in self.found.values()]
        program.layers += [layer for f in self.found.values() for layer in f.layers[1:]]
        for found in self.found.values():
            program.problems += found.problems
        if submission.main_script:
            self._choose_main(submission.main_script)
        program.problems = list(dict.fromkeys(program.problems))
        return program

    def _read_script(self, path: str) -> None:
        try:
            data = self.submission.read(path)
        except (AuditorError, KeyError) as error:
            self.program.problems.append(f"{path}: {error}" if path not in str(error) else str(error))
            return
        self.found[path] = unpack_script(data, self._siblings(), path)
        self._name_non_python(self.found[path].layers)

    def _siblings(self) -> dict[str, Callable[[], bytes]]:
        paths = [path for path, entry in self.submission.files.items() if entry.kind == "file"]
        return {path: lambda path=path: self._sibling(path) for path in paths + self.submission.neighbours}

    def _sibling(self, path: str) -> bytes:
        try:
            return self.submission.read(path)
        except (AuditorError, KeyError) as error:
            self.program.problems.append(f"{path}: {error}" if path not in str(error) else str(error))
            return b""

    def _choose_main(self, path: str) -> None:
        program = self.program
        entry = self.submission.files.get(path)
        program.counted_bytes = entry.size or 0 if entry else 0
        layers = {layer.name: layer for layer in program.layers}
        self._fetch_outside(layers)
        runs = {name: targets for f in self.found.values() for name, targets in f.runs.items()}
        notes = {name: words for f in self.found.values() for name, words in f.notes.items()}
        layer = layers.get(path)
        seen: set[str] = set()
        while layer is not None and layer.name not in seen:
            seen.add(layer.name)
            program.main = layer
            program.problems += notes.get(layer.name, [])
            own = residual(layer)
            inner = [layers[n] for n in runs.get(layer.name, []) if n in layers and n not in seen]
            inner = [child for child in inner if _replaces(layer, own, child)]
            layer = max(inner, key=lambda child: len(child.text), default=None)
        if program.main is not None and program.main.name != path:
            program.packed = bool(program.main.codecs) or program.main.parent != ""

    def _fetch_outside(self, layers: dict[str, Layer]) -> None:
        """Layers of files outside the record folder that a script of the folder runs."""
        outside = set(self.submission.neighbours)
        for name, targets in [item for f in self.found.values() for item in f.runs.items()]:
            for target in outside.intersection(targets) - self.found.keys():
                self.program.problems.append(
                    f"{name}: runs {target}, which lies outside the record folder and is not part of the submission"
                )
                self._read_script(target)
                if target in self.found:
                    self.program.layers += self.found[target].layers
                    layers.update((layer.name, layer) for layer in self.found[target].layers)

    def _name_non_python(self, layers: list[Layer]) -> None:
        for layer in layers:
            # an empty main script is reported by the submission
            if len(layer.text) > MAX_SOURCE or not layer.data:
                continue
            parsed = parse_module(layer.text)
            if parsed.tree is None:
                place = f"{layer.name}:{parsed.line}" if parsed.line else layer.name
                self.program.problems.append(
                    f"{place}: not Python in any version ({parsed.error}); it cannot be analysed"
                )


def _replaces(layer: Layer, own: int, child: Layer) -> bool:
    """Whether a stub's child is the program: the stub has little of its own, and less than the child."""
    return own < STUB_SIZE and own * 2 < len(child.text) and not (_defines_much(layer) and not child.codecs)


def _defines_much(layer: Layer) -> bool:
    """More than a launcher: a model, or several functions of its own."""
    tree = parse_module(layer.text).tree
    if tree is None:
        return False
    return sum(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in tree.body) > 6
