"""What every family of observations needs: the templates of the program, the program printed in the log, the rest."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from auditor.documents.forensics.embedded import EmbeddedSource, find_sources
from auditor.documents.model import ForensicFact, LogRun, Source, TrainLog
from auditor.errors import MissingBlob
from auditor.static.library_lines import is_library_line
from auditor.static.printing import extract
from auditor.static.templates import Template, TemplateSet, variants
from auditor.submission import Submission
from auditor.unpack import Program

CONTRADICTION, SUSPICIOUS, NOTABLE = "contradiction", "suspicious", "notable"
MAX_SOURCES = 12
_ECHO = re.compile(r"^\s*(?:echo|printf)\s+(?:-[ne]+\s+)?(?P<text>.+?)\s*(?:[|>&;].*)?$")


@dataclass
class Context:
    """One submission with its logs, as the analyses see it.

    Attributes:
        submission, program, logs: as given.
        templates: lines of every layer of every Python file of the folder.
        echoes: regular expressions of what the shell scripts of the folder print.
    """

    submission: Submission
    program: Program
    logs: list[TrainLog]
    templates: TemplateSet = field(default_factory=TemplateSet)
    echoes: list[re.Pattern[str]] = field(default_factory=list)

    @functools.cached_property
    def texts(self) -> dict[str, str]:
        """Readable layers of the program by name."""
        return {layer.name: layer.text for layer in self.program.layers}

    @functools.cached_property
    def readable(self) -> bool:
        """True when the main script could be read and every print of it understood."""
        return self.program.main is not None and self.templates.complete


@dataclass
class LogView:
    """A log with its lines sorted by what they are. Line numbers are 1-based.

    Attributes:
        log: the log; `sources`: programs printed in it.
        lines: (number, text) outside those, blank lines dropped.
        matched: line number -> template of the submitted program.
        unmatched: (number, text) that neither program, library nor shell can print.
        elsewhere: the part of `unmatched` that the program printed in the log can print.
    """

    log: TrainLog
    sources: list[EmbeddedSource] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    matched: dict[int, Template] = field(default_factory=dict)
    unmatched: list[tuple[int, str]] = field(default_factory=list)
    elsewhere: list[tuple[int, str]] = field(default_factory=list)

    def run_of(self, number: int) -> LogRun | None:
        """The run a line belongs to."""
        return next((run for run in self.log.runs if run.first_line <= number <= run.last_line), None)


def build_context(submission: Submission, program: Program, logs: list[TrainLog]) -> Context:
    """Read the program's templates and the echoes of its shell scripts."""
    context = Context(submission, program, logs)
    for layer in program.layers:
        context.templates.add(extract(layer.text, layer.name))
    for path in sorted(submission.files):
        if path.endswith(".sh"):
            context.echoes += _echoes(submission, path)
    return context


def view(context: Context, log: TrainLog) -> LogView:
    """Sort the lines of a log by who can have printed them."""
    found = LogView(log, find_sources(log.lines))
    inside = [range(source.first, source.last) for source in found.sources]
    for number, text in enumerate(log.lines, 1):
        if text.strip() and not any(number in block for block in inside):
            found.lines.append((number, text))
    for number, text in found.lines:
        template = context.templates.match(text)
        if template is not None:
            found.matched[number] = template
        elif not _explained(context, text):
            found.unmatched.append((number, text))
    if found.unmatched and found.sources:
        own = TemplateSet()
        for source in found.sources[:4]:
            own.add(extract(source.text, f"{log.path}:{source.first}"))
        found.elsewhere = [(n, t) for n, t in found.unmatched if own.match(t) or _dumped(own, t)]
    return found


def _explained(context: Context, text: str) -> bool:
    if any(is_library_line(variant) for variant in variants(text)):
        return True
    if _dumped(context.templates, text):
        return True
    return any(echo.match(text.strip()) for echo in context.echoes)


def _dumped(templates: TemplateSet, text: str) -> bool:
    found = templates.may_be_dynamic(text)
    return found is not None and found.shape is not None


def _echoes(submission: Submission, path: str) -> list[re.Pattern[str]]:
    try:
        text = submission.read(path).decode("utf-8", "replace")
    except (MissingBlob, KeyError):
        return []
    patterns = []
    for line in text.splitlines():
        found = _ECHO.match(line)
        if found:
            words = found["text"].strip("\"'")
            # Variables and command substitutions of the shell may expand to anything.
            parts = re.split(r"\$\([^)]*\)|\$\{[^}]*\}|\$\w+|%[\w.]+|`[^`]*`", words)
            if any(re.search(r"\w{2}", part) for part in parts):
                patterns.append(re.compile(r".*?".join(re.escape(part) for part in parts) + r"\s*$"))
    return patterns


def documents(context: Context) -> str:
    """README, shell scripts and metadata of the folder, run together."""
    parts = []
    for path in context.submission.files:
        if PurePosixPath(path).suffix.lower() in (".md", ".sh", ".json", ".toml", ".yaml", ".yml", ".env"):
            try:
                parts.append(context.submission.read(path)[:200_000].decode("utf-8", "replace"))
            except (MissingBlob, KeyError):
                continue
    return "\n".join(parts)


def fact(
    kind: str,
    strength: str,
    summary: str,
    sources: list[Source],
    explanation: str = "",
) -> ForensicFact:
    """A fact with at most `MAX_SOURCES` places."""
    return ForensicFact(kind, strength, summary, tuple(sources[:MAX_SOURCES]), explanation)


def short(path: str) -> str:
    """File name without its folder, for summaries."""
    return path.rpartition("/")[2]


def at(log: TrainLog, number: int, text: str | None = None) -> Source:
    """A line of a log as a source, cut to 200 characters."""
    shown = text if text is not None else (log.lines[number - 1] if 0 < number <= len(log.lines) else "")
    return Source(log.path, number, shown.strip()[:200])
