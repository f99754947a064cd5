"""A rule explained on the terminal: its text, its sources, legal and illegal code side by side."""

from __future__ import annotations

import ast
import difflib
import re
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
        f"decided by: {witnesses}" + (f"\napplied to older submissions: {rule.reaches_back}" * bool(rule.reaches_back)),
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
    for path, lexer, lines in changes(example):
        parts.append(Text(path, style="dim"))
        if lines:
            parts.append(Syntax("\n".join(lines), lexer, word_wrap=True, background_color="default"))
    if len(parts) == 1 and not example.pull_request:
        parts.append(Text("the clean example package, unchanged", style="dim"))
    parts.extend(Text(f"pull request: {change}", style="dim") for change in example.pull_request)
    if example.folder:
        parts.append(Text(f"folder: {example.folder}", style="dim"))
    return Group(*parts)


def changes(example: Example) -> list[tuple[str, str, list[str]]]:
    """What an example changes in the clean package: (path, language of the lines, lines), the program first.

    Of a program the changed functions are shown; of other files the lines that differ, with `+` or `-`; one log
    stands for all. Lines that follow from a changed program (its size in logs and tables) are left out.
    """
    clean = {path.removeprefix(f"{FOLDER}/"): text for path, text in package().items()}
    program_differs = any(
        path.endswith(".py") and content is not None and content != clean.get(path)
        for path, content in example.files.items()
    )
    found: list[tuple[str, str, list[str]]] = []
    for path in sorted(example.files, key=lambda name: (not name.endswith(".py"), name)):
        content = example.files[path]
        if content is None:
            found += [(f"{path} (removed)", "text", [])] if path in clean else []
            continue
        text = content if isinstance(content, str) else content.decode("utf-8", "replace")
        if path.endswith(".py"):
            lines = _changed_parts(clean.get(path, ""), text)
            found += [(path, "python", lines)] if lines else []
        elif lines := _difference(clean.get(path, ""), text, program_differs):
            log_shown = any(name.endswith(".log") for name, _, _ in found)
            found += [(path, "diff", lines)] if not (path.endswith(".log") and log_shown) else []
    return found


def _changed_parts(old: str, new: str) -> list[str]:
    """Top-level statements of `new` that `old` has not; a long one that changed little as the lines that differ."""
    before, after = _statements(old), _statements(new)
    if after is None:
        return _cut(new.splitlines())
    known = set((before or {}).values())
    lines: list[str] = []
    for name, text in after.items():
        if text in known:
            continue
        differing = _difference((before or {}).get(name, ""), text, False)
        whole = text.splitlines()
        if len(whole) > 15 and len(differing) < len(whole) / 3:
            lines += [f"{whole[0]}  # ...", *(line[1:] for line in differing if line.startswith("+")), ""]
        else:
            lines += [*whole, ""]
    return _cut(lines[:-1])


def _statements(source: str) -> dict[str, str] | None:
    """Name (or text) of every top-level statement -> its source; None when it does not parse."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    texts = ((node, ast.get_source_segment(source, node) or "") for node in tree.body)
    return {getattr(node, "name", text): text for node, text in texts}


def _difference(old: str, new: str, program_differs: bool) -> list[str]:
    """Lines of a unified diff without context; with `program_differs` those without what depends on its size."""
    lines = [
        line
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@")) and not (program_differs and _FOLLOWS.search(line))
    ]
    return _cut(lines)


_FOLLOWS = re.compile(
    r"^[+-](?:Code size|Total submission size|\| \d+ \|)|\"(?:artifact_bytes|bytes_total|bytes_code)\""
)


def _cut(lines: list[str]) -> list[str]:
    hidden = len(lines) - _MAX_LINES
    return lines if hidden <= 0 else [*lines[:_MAX_LINES], f"... {hidden} more lines"]
