"""Can the declared settings produce this schedule? Learning rate scale at logged steps and times; the vocabulary."""

from __future__ import annotations

import ast
import functools
import math
import re

from auditor.documents.forensics.context import NOTABLE, SUSPICIOUS, Context, LogView, at, documents, fact
from auditor.documents.forensics.readings import Reading, runs
from auditor.documents.forensics.revision import listed_settings
from auditor.documents.model import ForensicFact, TrainLog
from auditor.static.evaluate import UNKNOWN, Value, call, evaluate
from auditor.static.parse import parse_module
from auditor.static.scopes import Scope, index
from auditor.static.settings import declared_settings

_LR_FUNCTION = re.compile(r"(?:get_)?lr_?(?:mul|scale|mult|multiplier|factor|schedule)?\Z|lr_at_step\Z")
_LATE = re.compile(r"late_qat\S*\s.*?step[:=\s]*(\d+).*?scale[:=\s]*(\d\.\d+)")
_ASSIGNED = re.compile(r"(?:^|[\s;&\"'`(])(?:export\s+)?([A-Z][A-Z0-9_]{2,})=[\"']?([^\s\"'`\\;)]+)")


def vocabulary(context: Context, log: TrainLog) -> int | None:
    """Vocabulary the run declares: in the log, else in its run's settings, else None."""
    for line in log.lines:
        found = re.search(r"\bvocab_size\s*[:=]\s*(\d+)", line)
        if found:
            return int(found[1])
        found = re.search(r"\bfineweb_(\d{3,5})_bpe\.model", line)
        if found and "environ" not in line:
            return int(found[1])
    return None


def schedule(context: Context, view: LogView) -> list[ForensicFact]:
    """Facts on the learning rate schedule, where the function that computes it can be evaluated."""
    function = _lr_function(context)
    if function is None:
        return []
    values, documented = _values(context, view)
    facts: list[ForensicFact] = []
    for run in runs(view):
        timed = [item for item in run.steps if item.time is not None and item.step]
        if len(timed) < 5:
            continue
        facts += _late_lines(view, function, values, timed, documented, (run.first, run.last))
        facts += _never_decays(view, function, values, timed, documented)
    return facts


def _late_lines(
    view: LogView,
    function: _Function,
    values: dict[str, Value],
    timed: list[Reading],
    documented: bool,
    span: tuple[int, int],
) -> list[ForensicFact]:
    """A printed scale against the one the settings give at that step and time."""
    for number, text in view.lines:
        found = _LATE.search(text)
        if not found or not span[0] <= number <= span[1]:
            continue
        step, shown = int(found[1]), float(found[2])
        expected = function.scale(step, _clock(timed, step), values)
        if expected is None or abs(expected - shown) < 0.03:
            continue
        summary = f"the log switches at step {step} with scale {shown:.4f}; the settings give {expected:.3f} there"
        text = "Computed with the program's own schedule function from "
        text += (
            "the settings the log lists." if documented else "defaults and documented commands; others may have run."
        )
        return [fact("schedule", SUSPICIOUS if documented else NOTABLE, summary, [at(view.log, number)], text)]
    return []


def _never_decays(
    view: LogView,
    function: _Function,
    values: dict[str, Value],
    timed: list[Reading],
    documented: bool,
) -> list[ForensicFact]:
    """The run ends while the schedule has hardly begun to decay."""
    last = timed[-1]
    if last.step is None or last.time is None or last.total is None:
        return []
    iterations = values.get("iterations")
    if isinstance(iterations, int | float) and iterations != last.total:
        return []  # other settings than the known ones were in force
    scale = function.scale(last.step, last.time.value * 1e3, values)
    complete = last.step >= last.total or "stopping_early" in last.text
    if scale is None or scale < 0.6 or not complete or not function.decays(values):
        return []
    summary = (
        f"with the known settings the lr scale at the last step ({last.step}, {last.time.value:.0f} s) is still "
        f"{scale:.3f}: the declared warm-down and whatever waits for a low scale (late QAT) cannot have happened"
    )
    text = "The schedule function of the program was evaluated with "
    text += "the settings the log lists." if documented else "its defaults and the documented commands."
    return [fact("schedule", NOTABLE, summary, [at(view.log, last.line)], text)]


def _clock(timed: list[Reading], step: int) -> float:
    """Training time at a step in ms, interpolated from the nearest timed line."""
    near = min(timed, key=lambda item: abs((item.step or 0) - step))
    assert near.time is not None and near.step
    return near.time.value * 1e3 * step / near.step


class _Function:
    """The schedule function of the program with the scope it closes over."""

    def __init__(self, node: ast.FunctionDef, scope: Scope) -> None:
        self.node, self.scope = node, scope
        self.parameters = [arg.arg for arg in node.args.args if arg.arg not in ("self", "args", "h", "cfg")]

    def scale(self, step: int, elapsed_ms: float, settings: dict[str, Value]) -> float | None:
        """Scale at a step and a training time (ms), None when it cannot be computed."""
        arguments: dict[str, Value] = {}
        for name in self.parameters:
            if name in ("step", "it", "iteration", "i"):
                arguments[name] = step
            elif "elapsed" in name and not name.endswith(("_s", "seconds")):
                arguments[name] = elapsed_ms
            else:
                return None
        value = call(self.node, arguments, self._names(settings))
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    def decays(self, settings: dict[str, Value]) -> bool:
        """True when the function falls below one half somewhere (a constant schedule has nothing to miss)."""
        cap = self._names(settings).get("max_wallclock_ms")
        end = cap if isinstance(cap, int | float) else 1e12
        value = self.scale(10_000, end * 0.999 if end < 1e12 else 1e6, settings)
        return value is not None and value < 0.5

    def _names(self, settings: dict[str, Value]) -> dict[str, Value]:
        """Values of attributes and free variables the function uses."""
        names: dict[str, Value] = {}
        for item in ast.walk(self.node):
            if isinstance(item, ast.Attribute) and item.attr in settings:
                names[ast.unparse(item)] = settings[item.attr]
        for item in ast.walk(self.node):
            if isinstance(item, ast.Name) and item.id not in names and item.id not in self.parameters:
                value = self._free(item.id, settings)
                if value is not UNKNOWN:
                    names[item.id] = value  # type: ignore[assignment]
        return names

    def _free(self, name: str, settings: dict[str, Value]) -> object:
        home = self.scope.find(name)
        bound = home.bound.get(name, []) if home else []
        if len(bound) != 1 or bound[0][0] != "=" or bound[0][1] is None:
            return settings.get(name, UNKNOWN)
        names: dict[str, Value] = {
            ast.unparse(item): settings[item.attr]
            for item in ast.walk(bound[0][1])
            if isinstance(item, ast.Attribute) and item.attr in settings
        }
        return evaluate(bound[0][1], names)


def _lr_function(context: Context) -> _Function | None:
    if context.program.main is None:
        return None
    return _find(context.program.main.text)


@functools.lru_cache(maxsize=16)
def _find(text: str) -> _Function | None:
    tree = parse_module(text).tree
    if tree is None:
        return None
    for name, scopes in index(tree).functions.items():
        if _LR_FUNCTION.match(name) and len(scopes) == 1 and isinstance(scopes[0].node, ast.FunctionDef):
            return _Function(scopes[0].node, scopes[0])
    return None


def _values(context: Context, view: LogView) -> tuple[dict[str, Value], bool]:
    """Settings by attribute name: defaults, then documented commands, then what the log lists.

    The flag is True when the log itself lists its settings.
    """
    assert context.program.main is not None
    environment = dict(_ASSIGNED.findall(documents(context)))
    listed = {name: value for name, (_, value) in listed_settings(view).items()}
    values: dict[str, Value] = {}
    for setting in declared_settings(context.program.main.text, context.program.main.name):
        text = listed.get(setting.name, environment.get(setting.environment))
        value = _number(text) if text is not None else setting.default
        values[setting.name] = _number(value) if isinstance(value, str) else value
    for run in view.log.runs:
        for name, text in run.settings.items():
            if name in values:
                values[name] = _number(text)
    known = len(listed) >= 8 or any(len(run.settings) >= 8 for run in view.log.runs)
    return values, known


def _number(text: str) -> Value:
    try:
        return float(text) if re.search(r"[.eE]", text) else int(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)
