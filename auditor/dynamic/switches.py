"""Settings a log proves: a line that only a branch prints was printed, so the branch was taken in the run behind the claim.

Documents often leave out how a run was switched on (a variable of a shell that nobody noted). A run with the defaults would
then be another program's, and its last number not the claimed one. Where the claimed run's log holds a line whose every
origin in the program stands behind a condition that the settings in force contradict, the setting is changed so that the
condition holds; nothing is guessed that has more than one way to come true.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from typing import Any

from auditor.static.evaluate import UNKNOWN, evaluate
from auditor.static.parse import parse_module
from auditor.static.printing import extract
from auditor.static.program import interesting_names
from auditor.static.scopes import Guard, Index, index
from auditor.static.settings import Setting
from auditor.static.templates import Template, variants

_MIN_LETTERS = 8  # of a line's fixed text: what says less may stem from anywhere
_MOST_LINES = 3000
_DEEP = 3
_MACHINE = re.compile(r"(^|_)rank$|world_size|^(is_)?master")
# Switches that leave out training and take a file of another run, which is not here.
_FILES = re.compile(r"_only$|resume|(^|_)load|checkpoint|ckpt|skip_train")
_TRUTH = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}


class _ByLastName(dict[str, Any]):
    """Values of settings, found for `seed` and for `args.seed`; one without a value decides nothing."""

    def get(self, written: str, default: Any = None) -> Any:
        value = super().get(written.rsplit(".", 1)[-1])
        return default if value is None else value


def shown_by(
    lines: Iterable[str],
    text: str,
    settings: Iterable[Setting],
    effective: dict[str, str],
    logged: Iterable[str] = (),
) -> dict[str, str]:
    """Settings that have to differ from those in force for the lines to have been printed: variable (or name) -> value.

    Args:
        lines: of the log of the claimed run. text: source of the main script.
        settings: what the program declares. effective: values in force, by variable or name, in any case.
        logged: lower-case names whose value that log states; those are not touched.
    """
    tree = parse_module(text).tree
    if tree is None:
        return {}
    known = _Known(settings, effective, frozenset(logged))
    found, program = extract(text, "main"), index(tree)
    for line in _distinct(lines):
        origins = [
            origin for variant in variants(line) for origin in found.candidates(variant) if origin.prints(variant)
        ]
        if not origins or max(len(origin.words) for origin in origins) < _MIN_LETTERS:
            continue
        blocked = [known.contradicted(_guards(origin, program)) for origin in origins]
        if all(blocked):
            # Of several origins the one that says most is the line's; the others match anything.
            best = max(range(len(origins)), key=lambda i: len(origins[i].words))
            known.repair(blocked[best])
    return known.changed


def _distinct(lines: Iterable[str]) -> Iterator[str]:
    """Lines that begin alike once: a counter's values prove what the first one does."""
    seen: set[str] = set()
    for line in lines:
        line = line.strip()
        head = "".join(letter for letter in line if not letter.isdigit())[:48]
        if head and head not in seen and len(seen) < _MOST_LINES:
            seen.add(head)
            yield line


def _guards(origin: Template, program: Index) -> list[Guard]:
    """Conditions around the printing call, and around the only call of the function it stands in."""
    guards, function = list(origin.guards), origin.function
    for _ in range(_DEEP):
        calls = [site for site in program.calls if site.name == function]
        if len(calls) != 1 or not function:
            break
        guards += calls[0].guards
        function = getattr(calls[0].scope.node, "name", "")
    return guards


class _Known:
    """Settings in force; `changed` collects what the log proves otherwise."""

    def __init__(self, settings: Iterable[Setting], effective: dict[str, str], logged: frozenset[str]) -> None:
        given = {name.lower(): value for name, value in effective.items()}
        self.logged, self.changed = logged, {}
        self.settings: dict[str, Setting] = {}
        self.values: dict[str, Any] = {}
        for setting in settings:
            if setting.name in self.settings:
                continue
            named = (setting.environment.lower(), setting.name.lower())
            value = next((given[name] for name in named if name and name in given), setting.default)
            self.settings[setting.name], self.values[setting.name] = setting, plain(value)

    def contradicted(self, guards: list[Guard]) -> list[Guard]:
        """Conditions that the settings in force make false."""
        return [guard for guard in guards if self._holds(guard, self.values) is False]

    def _holds(self, guard: Guard, values: dict[str, Any]) -> bool | None:
        value = evaluate(guard.test, _ByLastName(values))
        return None if value is UNKNOWN else bool(value) is guard.holds

    def repair(self, guards: list[Guard]) -> None:
        """Change one setting for each condition, where exactly one setting can make it come true."""
        for guard in guards:
            if self._holds(guard, self.values) is not False:
                continue
            ways = [
                (name, value)
                for name in dict.fromkeys(interesting_names(guard.test))
                if name in self.settings and not self._stated(name) and not _MACHINE.search(name.lower())
                for value in self._others(name, guard)
                if not (value and _FILES.search(name.lower()))
                and self._holds(guard, {**self.values, name: value}) is not False
            ]
            if len({name for name, _ in ways}) == 1:
                name, value = ways[0]
                self.values[name] = value
                self.changed[self.settings[name].environment or name] = _text(value)

    def _stated(self, name: str) -> bool:
        return name.lower() in self.logged or self.settings[name].environment.lower() in self.logged

    def _others(self, name: str, guard: Guard) -> list[Any]:
        """Values a setting may have had: the program's default, the other side of a switch, what it is compared with."""
        default, now = plain(self.settings[name].default), self.values[name]
        others = [default]
        written = getattr(self.settings[name].default, "const", self.settings[name].default)
        if default in (0, 1) and "." not in str(written):  # a share or a strength is no switch
            others.append(not now)
        others += [
            node.value
            for node in ast.walk(guard.test)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        return [value for value in others if value != now]


def plain(value: Any) -> Any:
    """A setting's value as the program compares it: numbers and switches that are written as text become what they say."""
    value = getattr(value, "const", value)
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in _TRUTH:
        return _TRUTH[word]
    try:
        number = float(word)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
