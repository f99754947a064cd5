"""`auditor explain`: a rule, or what the analysis knows at one line of a submission."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from auditor.errors import AuditorError
from auditor.findings import Status

if TYPE_CHECKING:
    from auditor.case import Case
    from auditor.judge import Judgement
    from auditor.static.explain import LineReport, Visit
    from auditor.static.explain_words import Words
    from auditor.submission import Submission

_PLACE = re.compile(r"(?P<path>.*?):?(?P<line>\d+)")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
# Different circumstances of one line that are shown, and settings beside it.
MAX_PASSES, MAX_SETTINGS = 4, 6
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_place(what: str) -> bool:
    """Whether the words name a line (`train_gpt.py:184`) and not a rule."""
    return re.fullmatch(r".*:\d+", what) is not None


def run(what: str, place: str | None, repo: Path | None, console: Console | None = None) -> int:
    """Explain a line: `what` is PATH:LINE of a file on disk, or a target with `place` naming a line in it.

    Raises:
        AuditorError: the submission, the file or the line cannot be found.
    """
    console = console or Console()
    submission, path, line = _found(what, place, repo)
    _explain(submission, path, line, console)
    return 0


def _found(what: str, place: str | None, repo: Path | None) -> tuple[Submission, str, int]:
    from auditor.submission import Submission
    from auditor.targets import resolve

    if place is None:
        name, _, number = what.rpartition(":")
        shipped = Path(name.split("!")[0])
        if not shipped.is_file():
            raise AuditorError(
                f"there is no file {shipped}; name a line as PATH:LINE, or the submission first: "
                f"auditor explain TARGET train_gpt.py:{number}"
            )
        folder = _record_folder(shipped.resolve())
        return (
            Submission.from_folder(folder),
            shipped.resolve().relative_to(folder).as_posix() + "".join(f"!{part}" for part in name.split("!")[1:]),
            int(number),
        )
    match = _PLACE.fullmatch(place)
    if match is None:
        raise AuditorError(f"'{place}' names no line; write PATH:LINE, or only LINE for the main script")
    submission = next(iter(resolve([what], repo))).load()
    return submission, match["path"], int(match["line"])


def _record_folder(file: Path) -> Path:
    """The submission's folder of a file on disk: the nearest one above that holds metadata, else its own."""
    for folder in [file.parent, *file.parents[1:4]]:
        if (folder / "submission.json").is_file():
            return folder
    return file.parent


def _layer(case: Case, path: str) -> str:
    """Name of the layer meant by a path; the innermost readable one when the file is packed.

    Raises:
        AuditorError: no file of the program is called so.
    """
    names = [layer.name for layer in case.program.layers]
    if case.program.main is not None:
        names.append(case.program.main.name)
        if not path:
            return case.program.main.name
    wanted = path.removeprefix("./")
    for name in names:
        if name == wanted or name.endswith(f"/{wanted}"):
            inner = [other for other in names if other.startswith(f"{name}!")]
            return max(inner, key=len, default=name) if "!" not in wanted else name
    known = ", ".join(sorted(set(names))[:8])
    raise AuditorError(f"the submission has no program file '{path}'; it has: {known}")


def _explain(submission: Submission, path: str, line: int, console: Console) -> None:
    from auditor.casefile import build_case
    from auditor.judge import judge
    from auditor.static.effective import settings_of_case
    from auditor.static.explain import NoStatement, explain_line
    from auditor.static.explain_words import Words

    case = build_case(submission)
    layer = _layer(case, path)
    settings = settings_of_case(case)
    try:
        report = explain_line(case.program, layer, line, settings)
    except NoStatement as error:
        raise AuditorError(str(error)) from error
    assert report.machine is not None
    words = Words(report.machine)
    _head(report, console)
    _reached(report, words, console)
    _values(report, words, console)
    _events(report, console)
    _settings(report, case, settings.environment, settings.logged, console)
    _rules(report, judge(case), console)


def _head(report: LineReport, console: Console) -> None:
    inside = f" in {report.function}()" if report.function else " at module level"
    lines = f"{report.line}" if report.end == report.line else f"{report.line}-{report.end}"
    console.print(Text(f"{_plain(report.path)}:{lines}{inside}", style="bold"), soft_wrap=True)
    for text in report.text[:12]:
        console.print(Text(_plain(text.rstrip())[:200]), soft_wrap=True)


def _reached(report: LineReport, words: Words, console: Console) -> None:
    if not report.visits:
        _title("Reached", console)
        _item(_never(report), console)
        return
    phases = list(dict.fromkeys(visit.phase.value for visit in report.visits))
    _title("Phase", console)
    _item(", ".join(phases), console)
    _title("Reached", console)
    ways = list(dict.fromkeys(_way(visit, words) for visit in report.visits))
    for way in ways[:MAX_PASSES]:
        _item(way, console)
    if len(ways) > MAX_PASSES:
        _item(f"and {len(ways) - MAX_PASSES} further ways", console)
    if not any(visit.gradients for visit in report.visits):
        _item("gradients are switched off", console)


def _never(report: LineReport) -> str:
    if report.dead is not None:
        _, number, condition, side = report.dead
        return f"never: line {number}, `{_plain(condition)}`, is {side} under the settings in force"
    if report.function and report.called_from:
        lines = ", ".join(str(number) for number in report.called_from)
        return f"never: no call of {report.function}() was followed; its name stands at line {lines}"
    if report.function:
        return f"never: nothing in this file names {report.function}()"
    return "never: the walk ended before it, or the statement evaluates nothing"


def _way(visit: Visit, words: Words) -> str:
    """What encloses the line, outermost first, in one line."""
    from auditor.static.records import BranchRecord, CallRecord, LoopRecord

    parts = []
    for record in visit.around:
        if isinstance(record, CallRecord):
            parts.append(f"call of {record.function}() at line {record.where[1]}")
        elif isinstance(record, LoopRecord):
            parts.append(f"loop at {words.loop(record)}")
        elif isinstance(record, BranchRecord):
            outcome = {True: "true", False: "false", None: "undecided: both sides are followed"}[record.taken]
            parts.append(f"line {record.where[1]}: {record.condition[:60]} is {outcome}")
    return " > ".join(_plain(part) for part in parts) or "straight from the module"


def _values(report: LineReport, words: Words, console: Console) -> None:
    from auditor.static.explain import MAX_VALUES

    if not report.visits:
        return
    # The last time tells the most: what earlier rounds of the loops around it did is known by then.
    told: dict[str, list[str]] = {}
    for text, value in report.visits[-1].values.items():
        rows = words.value(value)
        if rows and rows not in told.values():
            told[text] = rows
    if not told:
        return
    _title("Values, when the walk came past for the last time", console)
    for text, rows in list(told.items())[:MAX_VALUES]:
        _item(_plain(text)[:100], console)
        for row in rows[:8]:
            _item(_plain(row), console, 4)


def _events(report: LineReport, console: Console) -> None:
    from auditor.static.explain_words import event_words

    rows = list(dict.fromkeys(f"{event_words(e)} [{e.phase.value}]" for e in report.events))
    if rows:
        _title("Events", console)
        for row in rows[:10]:
            _item(_plain(row), console)


def _settings(report: LineReport, case: Case, environment: dict, logged: dict, console: Console) -> None:
    """Settings named at the line or in a branch around it, with what was in force and why."""
    from auditor.static.settings import declared_settings

    texts = [*report.text, *(r.condition for v in report.visits for r in v.around if hasattr(r, "condition"))]
    if report.dead is not None:
        texts.append(report.dead[2])
    named = set(_WORD.findall("\n".join(texts)))
    rows = []
    for layer in case.program.layers:
        for item in declared_settings(layer.text, layer.name):
            if item.name in named or item.environment in named:
                force, why = item.default, f"default, line {item.line}"
                if item.environment in environment:
                    force, why = environment[item.environment], f"{item.environment} in the run command"
                if item.name.lower() in logged:
                    force, why = logged[item.name.lower()], "log"
                rows.append(f"{item.name} = {force!s:.60} ({why})")
    if rows:
        _title("Settings in force", console)
        for row in list(dict.fromkeys(rows))[:MAX_SETTINGS]:
            _item(_plain(row), console)


def _rules(report: LineReport, judged: Judgement, console: Console) -> None:
    """Findings whose evidence names the line, and what the analysis answered with it."""
    inside = range(report.line, report.end + 1)
    rows: dict[str, str] = {}
    for finding in judged.findings:
        for evidence in finding.evidence:
            if evidence.path == report.path and evidence.line in inside:
                note = f" - here: {evidence.note}" if evidence.note else ""
                rows.setdefault(finding.rule, f"{finding.status.value.upper()} {finding.rule}: {finding.summary}{note}")
    for rule, status, summary, note in report.verdicts:
        if status != Status.UNKNOWN.value:
            rows.setdefault(rule, f"{status.upper()} {rule}: {summary} - here: {note}")
    if rows:
        _title("Rules that used the line", console)
        for row in rows.values():
            _item(_plain(row), console)


def _title(text: str, console: Console) -> None:
    console.print(Text(f"\n{text}", style="bold"))


def _item(text: str, console: Console, indent: int = 2) -> None:
    console.print(Padding(Text(text), (0, 0, 0, indent)))


def _plain(text: str) -> str:
    """Text of a submission without control characters."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
