"""Effective settings: what was in force in the run behind the claim.

Defaults of the program are overridden by the documented run command (variables of the README's commands), and that by
what the log of the claimed run says (settings dump or header lines). Log text itself is kept: a line that only a
disabled branch can print proves that the branch ran.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from auditor.documents.model import written
from auditor.documents.shell import Shell
from auditor.static.arguments import options_of
from auditor.static.values import Value, constant

if TYPE_CHECKING:
    from auditor.case import Case

# Values every full-scale run has unless something says otherwise.
_STANDARD = {"WORLD_SIZE": "8"}
_MAX_LINES = 4000
_MAX_ALTERNATIVES = 5
# Steps with the same loss at the same millisecond that make two logs one run.
_SAME_STEPS = 3
# Shorter names in a log are abbreviations of its own, not names of settings.
MIN_NAME = 4
_STARTS = re.compile(r"\.py\b|torchrun")
_ASSIGNMENT = re.compile(r"\b([A-Z][A-Z0-9_]{2,})=(\S+)")


@dataclass
class Effective:
    """Settings in force, by where they were read.

    Attributes:
        environment: variables of the run command.
        logged: settings the log of the claimed run states, lower-case name -> text.
        lines: text of that log, for branches that only their output can decide; embedded source left out.
        twin_lines: text of other logs of the same run (what it printed besides writing its own log).
        options: flags of the documented commands (`--slot-steps 100`), None when no command is documented.
        headline_text: the log line the claim rests on, "" when there is none.
        alternatives: variables of each documented command on its own, and none at all: a README often shows several
            commands, and only the log tells which of them made the claim.
    """

    environment: dict[str, str] = field(default_factory=dict)
    logged: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    twin_lines: list[str] = field(default_factory=list)
    options: dict[str, str] | None = None
    headline_text: str = ""
    alternatives: list[dict[str, str]] = field(default_factory=list)

    def with_environment(self, environment: dict[str, str]) -> Effective:
        """The same settings under other variables."""
        return replace(self, environment=environment, alternatives=[])


def settings_of_case(case: Case) -> Effective:
    """Settings from the documents of a case."""
    return effective_settings(case.readme, case.logs, case.headline, case.scripts)


def effective_settings(readme: Any, logs: list[Any], headline: Any = None, scripts: Sequence[Shell] = ()) -> Effective:
    """Settings from the documents (`auditor.documents.model` types); every argument may be empty.

    `scripts` are the shell scripts of the folder. The one that the README starts, or else the only one, where it starts
    one run or the README starts none, sets what the README's commands leave open; further ones are alternatives.
    """
    found = Effective(environment=dict(_STANDARD))
    if readme is not None:
        found.environment |= written(readme.environment)
        for command in readme.commands:
            own = dict(_ASSIGNMENT.findall(command.excerpt or command.key or ""))
            if own and _STANDARD | own not in found.alternatives:
                found.alternatives.append(_STANDARD | {k: v.strip("'\"") for k, v in own.items()})
        found.alternatives = [*found.alternatives[:3], dict(_STANDARD)]
        texts = [command.excerpt or command.key or "" for command in readme.commands]
        found.options = options_of(texts) if any(".py" in text for text in texts) else None
    _run_scripts(found, readme, [script for script in scripts if script.launches])
    run, text = _claimed_run(logs, headline)
    found.headline_text = text
    if run is not None:
        found.logged = {name.lower(): value for name, value in run.settings.items() if len(name) >= MIN_NAME}
        found.lines = _lines(logs, run)
        found.twin_lines = [line for other in _twins(logs, run) for line in _lines(logs, other)]
    elif readme is not None:
        found.environment = _of_the_first_command(found.environment, readme.commands)
    return found


def _run_scripts(found: Effective, readme: Any, scripts: list[Shell]) -> None:
    """Add the variables of the script behind the documented command; those of the others are alternatives."""
    commands = [command.excerpt or command.key or "" for command in readme.commands] if readme is not None else []
    named = [s for s in scripts if any(s.launches[0].path.rsplit("/", 1)[-1] in text for text in commands)]
    started = any(_STARTS.search(text) for text in commands)
    # The only script says more than a bare command; one with several starts has modes, and nobody knows which.
    alone = len(scripts) == 1 and (not started or len(scripts[0].launches) == 1)
    chosen = named[0] if named else scripts[0] if alone else None
    if chosen is not None and started and not named:
        found.alternatives.append(dict(found.environment))
    for script in scripts:
        own = written(script.environment)
        if script is chosen:
            found.environment = _STANDARD | own | _without_standard(found.environment)
        elif len(found.alternatives) < _MAX_ALTERNATIVES:
            found.alternatives.append(_STANDARD | own | _without_standard(found.environment))


def _without_standard(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if _STANDARD.get(name) != value}


def _twins(logs: list[Any], run: Any) -> list[Any]:
    """Runs of other logs that print the same steps at the same times: the same run, written down twice."""
    own = {step.text.strip() for step in run.steps if step.train_seconds}
    others = [other for log in logs if log.path != run.path for other in log.runs]
    return [other for other in others if len(own & {step.text.strip() for step in other.steps}) >= _SAME_STEPS][:2]


def _of_the_first_command(environment: dict[str, str], commands: list[Any]) -> dict[str, str]:
    """Without a log the command shown first is the one meant; what only later ones set are variants of it."""
    texts = [command.excerpt or command.key or "" for command in commands]
    started = [dict(_ASSIGNMENT.findall(text)) for text in texts if _STARTS.search(text)]
    later = {name for own in started[1:] for name in own} - set(started[0] if started else ())
    kept = {name: value for name, value in environment.items() if name not in later}
    return kept | {name: value.strip("'\"") for name, value in (started[0] if started else {}).items()}


def _claimed_run(logs: list[Any], headline: Any) -> tuple[Any, str]:
    """The run the claim rests on, and its line."""
    if headline is not None and headline.reported:
        scored = next(iter(headline.reported.values()))
        return scored.run, scored.result.text
    runs = [run for log in logs for run in log.runs]
    best = next((run for run in runs if run.results), runs[0] if runs else None)
    return best, (best.results[-1].text if best is not None and best.results else "")


def _lines(logs: list[Any], run: Any) -> list[str]:
    for log in logs:
        if log.path == run.path:
            skip = range(*run.source_lines) if run.source_lines else range(0)
            last = min(run.last_line, len(log.lines))
            chosen = [n for n in range(run.first_line, last + 1) if n not in skip]
            if len(chosen) > _MAX_LINES:
                chosen = chosen[: _MAX_LINES // 2] + chosen[-_MAX_LINES // 2 :]
            return [log.lines[n - 1] for n in chosen]
    return []


def logged_constant(text: str, default: Value) -> Value:
    """A logged setting as a constant of the default's type."""
    lowered = text.strip().lower()
    if lowered in ("true", "false"):
        out: object = lowered == "true"
    elif lowered == "none":
        out = None
    else:
        try:
            number = float(text)
            out = int(number) if number.is_integer() and "." not in text and "e" not in lowered else number
        except ValueError:
            out = text.strip().strip("'\"")
    if default.known and isinstance(default.const, bool) and isinstance(out, int | float):
        out = bool(out)
    elif default.known and isinstance(default.const, str):
        out = text.strip().strip("'\"")
    elif isinstance(out, str):
        return default
    value = constant(out)
    value.facts = default.facts
    return value
