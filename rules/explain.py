"""A rule explained on the terminal: its text, its sources, legal and illegal code side by side."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from rules.base import Example, Rule
from rules.examples import FOLDER, package

_REPOSITORY = "https://github.com/openai/parameter-golf/pull/"
_MAX_LINES = 40


def render_rule(rule: Rule, console: Console) -> None:
    """Print a rule: statement, what breaks it and what does not, history, precedents, sources, remedy, examples."""
    console.print(Text(f"{rule.id}  {rule.title}", style="bold"))
    console.print(_facts(rule))
    for heading, text in (("Rule", rule.statement), ("History and disputes", rule.history), ("Remedy", rule.remedy)):
        if text:
            console.print(_section(heading, Text(text)))
    console.print(_section("Breaks it", _bullets(rule.violations)))
    console.print(_section("Does not break it", _bullets(rule.allowed)))
    console.print(_section("Precedents", _precedents(rule)))
    console.print(_section("Sources", _bullets(rule.sources)))
    for table in _examples(rule, console.width):
        console.print(table)


def _facts(rule: Rule) -> Text:
    tracks = ", ".join(sorted(track.value for track in rule.tracks))
    witnesses = ", ".join(witness.value for witness in rule.witnesses)
    return Text(
        f"{rule.severity.value} | {tracks} | since {rule.since.isoformat()} | {rule.authority}\n"
        f"decided by: {witnesses}",
        style="dim",
    )


def _section(heading: str, body: RenderableType) -> Group:
    return Group(Text(f"\n{heading}", style="bold"), Padding(body, (0, 0, 0, 2)))


def _bullets(items: Iterable[str]) -> Text:
    return Text("\n".join(f"- {item}" for item in items) or "none")


def _precedents(rule: Rule) -> Text:
    legal = ", ".join(f"#{number}" for number in rule.legal_precedents) or "none"
    illegal = ", ".join(f"#{number}" for number in rule.illegal_precedents) or "none"
    return Text(f"treated as legal: {legal}\ntreated against: {illegal}\n{_REPOSITORY}<number>")


def _examples(rule: Rule, width: int) -> Iterator[Table]:
    """Legal beside illegal, pair by pair; a narrow terminal gets them one below the other."""
    pairs = max(len(rule.legal), len(rule.illegal))
    for index in range(pairs):
        table = Table(box=box.SIMPLE_HEAD, expand=True, title="Examples" if index == 0 else None)
        sides = [
            (side, examples[index])
            for side, examples in (("legal", rule.legal), ("not legal", rule.illegal))
            if index < len(examples)
        ]
        if width < 100:
            table.add_column("example", overflow="fold")
            for side, example in sides:
                table.add_row(Group(Text(side, style="bold"), _shown(example)))
        else:
            for side, _ in sides:
                table.add_column(side, ratio=1, overflow="fold")
            table.add_row(*(_shown(example) for _, example in sides))
        yield table


def _shown(example: Example) -> Group:
    """Title, expected status, and what the example changes in the clean package."""
    parts: list[RenderableType] = [Text(f"{example.title} ({example.expect.value})", style="italic")]
    for path, lines in changes(example):
        lexer = "diff"
        parts.append(Text(path, style="dim"))
        parts.append(Syntax("\n".join(lines), lexer, word_wrap=True, background_color="default"))
    if len(parts) == 1 and not example.pull_request:
        parts.append(Text("the clean example package, unchanged", style="dim"))
    parts.extend(Text(f"pull request: {change}", style="dim") for change in example.pull_request)
    if example.folder:
        parts.append(Text(f"folder: {example.folder}", style="dim"))
    return Group(*parts)


def changes(example: Example) -> list[tuple[str, list[str]]]:
    """What an example changes in the clean package: (path, changed lines), the program first, logs once.

    Lines begin with `+` or `-`. Logs of further seeds that change in the same way are left out.
    """
    clean = {path.removeprefix(f"{FOLDER}/"): text for path, text in package().items()}
    found: list[tuple[str, list[str]]] = []
    logs = 0
    for path in sorted(example.files, key=lambda name: (not name.endswith(".py"), name)):
        content = example.files[path]
        if content is None:
            if path in clean:
                found.append((f"{path} (removed)", []))
            continue
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        lines = _difference(clean.get(path, ""), text)
        is_log = path.endswith(".log")
        if lines and not (is_log and logs):
            found.append((path, lines))
            logs += is_log
    program_changed = any(path.endswith(".py") for path, _ in found)
    return [item for item in found if not program_changed or item[0].endswith((".py", "(removed)")) or "log" in item[0]]


def _difference(old: str, new: str) -> list[str]:
    lines = [
        line
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    hidden = len(lines) - _MAX_LINES
    return lines if hidden <= 0 else [*lines[:_MAX_LINES], f"... {hidden} more changed lines"]
