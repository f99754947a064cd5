"""Static analysis of one submission: from its sources and effective settings to a timeline and what decides rules.

Nothing of the submission is executed. When the log holds lines that only a branch disabled by the known settings can
print, the branch is taken after all and the program is walked again.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

from auditor.findings import Status
from auditor.static.carried import carried_verdicts
from auditor.static.causality import causality
from auditor.static.effective import Effective
from auditor.static.machine import Machine
from auditor.static.order import Verdict, answers
from auditor.static.program import Sources
from auditor.static.records import ReportRecord, ScoreRecord
from auditor.static.timeline_builder import build_timeline
from auditor.timeline import Timeline
from auditor.unpack import Program

MAX_WALKS = 3
#: Rules about how the counted score came about.
OF_THE_SCORE = "PG-C"
# Literal text of a log line must have this many letters to identify it.
MIN_LITERAL = 8


@dataclass
class StaticResult:
    """What static analysis says about one submission.

    Attributes:
        timeline: the evaluation as a tree of events.
        unknowns: (path, line, reason) of what could not be followed.
        dead: (path, line, condition) of branches that the effective settings switch off although they hold updates,
            scores or caches.
        steps: syntax nodes visited.
        forced: (path, line) of branches taken because the log shows their output.
        headline: line that prints the claimed number, None when it could not be told.
        answers: rule id -> verdict (`auditor.static.order`).
        machine: the walk itself, only on request (it is large).
    """

    timeline: Timeline
    unknowns: list[tuple[str, int, str]] = field(default_factory=list)
    dead: list[tuple[str, int, str]] = field(default_factory=list)
    steps: int = 0
    forced: list[tuple[str, int]] = field(default_factory=list)
    headline: tuple[str, int] | None = None
    answers: dict[str, Verdict] = field(default_factory=dict)
    machine: Machine | None = None


def static_timeline(
    program: Program, settings: Effective | None = None, keep: bool = False, machine: type[Machine] = Machine
) -> StaticResult:
    """Timeline of the program's main script under `settings` (None: its own defaults).

    `keep` hands the walk back, `machine` is the kind of machine that makes it (one that takes notes, for example).

    Never raises for what a submission contains; what it could not follow stands in `unknowns` and in the timeline.
    """
    settings = settings or Effective()
    sources = Sources(program)
    walked, forced = _settled(sources, settings, machine)
    for environment in settings.alternatives:
        if not forced:
            break
        if environment == settings.environment:
            continue
        other, contradictions = _settled(sources, settings.with_environment(environment), machine)
        if len(contradictions) < len(forced):
            walked, forced = other, contradictions
    headline = _headline(walked, settings.headline_text, settings.lines)
    _count(walked, headline)
    timeline = build_timeline(walked, headline)
    found = answers(timeline)
    lost = _lost_headline(walked, settings.headline_text)
    for verdict in carried_verdicts(timeline, found):
        found.setdefault(verdict.rule, verdict)
    causal = causality(walked, timeline)
    if causal is not None and causal.rule not in found:
        found[causal.rule] = causal
    if lost is not None:
        # What was found to be right is so of another number of the program.
        found = {
            rule: v for rule, v in found.items() if v.status is not Status.PASS or not rule.startswith(OF_THE_SCORE)
        }
    unknowns = [(*place, reason) for place, reason in walked.unknowns]
    return StaticResult(
        timeline=timeline,
        unknowns=unknowns
        if lost is None
        else [*unknowns, (*lost, "the claimed number is printed here; where it comes from could not be followed")],
        dead=_sleeping(walked),
        steps=walked.steps,
        forced=sorted({place[:2] for place in forced}),
        headline=headline[0].where if headline else None,
        answers=found,
        machine=walked if keep else None,
    )


def _settled(sources: Sources, settings: Effective, kind: type[Machine]) -> tuple[Machine, dict[tuple, bool]]:
    """Walk until no disabled branch is contradicted by the log; also says which had to be taken."""
    forced: dict[tuple, bool] = {}
    machine = _walk(sources, settings, forced, kind)
    for _ in range(MAX_WALKS - 1):
        fresh = _proved_by_output(machine, settings, forced)
        if not fresh:
            break
        forced.update(fresh)
        machine = _walk(sources, settings, forced, kind)
    return machine, forced


def _walk(sources: Sources, settings: Effective, forced: dict[tuple, bool], kind: type[Machine]) -> Machine:
    machine = kind(sources, dict(settings.environment), settings.logged)
    machine.forced, machine.options = forced, settings.options
    if sources.main:
        machine.run(sources.main)
    return machine


# -- output decides branches -------------------------------------------------------------------------------------------


def _proved_by_output(machine: Machine, settings: Effective, forced: dict[tuple, bool]) -> dict[tuple, bool]:
    """Disabled branches whose output stands in the log: more of what they print is there than is missing.

    A label that the dump of the settings has too (`ttt_weight_decay: 0.5`) proves nothing.
    """
    if not settings.lines:
        return {}
    text = "\n".join([*settings.lines, *settings.twin_lines])
    live = {p for p in machine.printed_literals if p in text}
    out: dict[tuple, bool] = {}
    for place, _, body, side in machine.dead:
        if place in forced or place in out:
            continue
        literals = {p for statement in body for p in printed_literals(statement)}
        literals = {p for p in literals if p.rstrip(" :=").lower() not in settings.logged}
        found = {p for p in literals if p in text}
        if found - live and 2 * len(found) >= len(literals):
            out[place] = side
    for place, words, side in machine.unsaid:
        template = _template(words)
        if place not in forced and any(_template_match(template, line) >= MIN_LITERAL for line in settings.lines):
            out[place] = side
    return out


def _template(words: ast.expr) -> str:
    """Constant parts of a text, zero bytes for what is filled in."""
    parts = words.values if isinstance(words, ast.JoinedStr) else [words]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in parts)


def printed_literals(node: ast.AST) -> list[str]:
    """Leading literal text of every f-string or string that is an argument of a call, long enough to identify it."""
    found = []
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        for argument in call.args[:1]:
            literal = leading_literal(argument)
            if len(re.sub(r"[^A-Za-z]", "", literal)) >= MIN_LITERAL:
                found.append(literal)
    return found


def leading_literal(node: ast.expr) -> str:
    """Text a string expression begins with."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.strip()
    if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
        return str(node.values[0].value).strip()
    return ""


def _sleeping(machine: Machine) -> list[tuple[str, int, str]]:
    """Disabled branches that would score, update or count if they were switched on."""
    wanted = frozenset({"backward", "scatter_add_", "cross_entropy", "bincount"})
    out = []
    for place, condition, body, _ in machine.dead:
        if any(machine.sources.reaches(statement, wanted, 80) for statement in body):
            out.append((*place, condition))
    return out


# -- which number is the claim -----------------------------------------------------------------------------------------


def _headline(machine: Machine, text: str, lines: list[str]) -> list[ReportRecord]:
    """Reports that print the claimed number: those whose literal text is in the claimed line, else the last."""
    reports = [r for r in machine.reports if r.text]
    if text:
        best: list[ReportRecord] = []
        score = 0
        for report in reports:
            matched = _template_match(report.text, text)
            if matched > score:
                best, score = [report], matched
            elif matched == score and matched:
                best.append(report)
        if best:
            return _same_occurrence(best, text, lines)
    candidates = [r for r in reports if "bpb" in r.text.lower() or "bits" in r.text.lower()] or reports
    if not candidates:
        return []
    # What is printed last may be the collected log of training; the claim is a loss of validation tokens.
    evaluated = {score.number for score in machine.scores if score.split == "val"}
    candidates = [r for r in candidates if any(f[0] == "scored" and f[1] in evaluated for f in r.facts)] or candidates
    last = max(candidates, key=lambda r: r.order)
    return [r for r in candidates if r.where == last.where]


def _lost_headline(machine: Machine, text: str) -> tuple[str, int] | None:
    """Where the claimed line is printed from values that hold no score, None when a report prints it or nothing does."""
    if not text or any(_template_match(report.text, text) for report in machine.reports if report.text):
        return None
    letters = {said: _template_match(said, text) for said in machine.other_prints}
    best = max(letters, key=lambda said: letters[said], default="")
    return machine.other_prints[best] if best and letters[best] >= MIN_LITERAL else None


def _same_occurrence(reports: list[ReportRecord], text: str, lines: list[str]) -> list[ReportRecord]:
    """Several places can print the same label: the claimed line is the n-th of them in the log, so is its place."""
    places = list(dict.fromkeys((r.where, r.stack) for r in sorted(reports, key=lambda r: r.order)))
    if len(places) < 2:
        return reports
    printed = [line for line in lines if _template_match(reports[0].text, line)]
    at = max((n for n, line in enumerate(printed) if text.strip() in line), default=len(printed) - 1)
    chosen = places[min(at, len(places) - 1)] if len(printed) <= len(places) else places[-1]
    return [r for r in reports if (r.where, r.stack) == chosen]


def _template_match(template: str, line: str) -> int:
    """Letters of the template's literal text when it matches the line, 0 when it does not."""
    parts = [p for p in template.split("\0")]
    literal = sum(len(re.sub(r"[^A-Za-z_]", "", p)) for p in parts)
    if literal < 4:
        return 0
    pattern = ".*?".join(re.escape(p.strip("\n")) for p in parts)
    return literal if re.search(pattern, line) else 0


def _count(machine: Machine, headline: list[ReportRecord]) -> None:
    """Mark the scores that reach the claimed number."""
    numbers = {f[1] for report in headline for f in report.facts if f[0] == "scored"}
    for score in machine.scores:
        score.counted = score.number in numbers


def counted_scores(machine: Machine) -> list[ScoreRecord]:
    """Scores that reach the claimed number."""
    return [score for score in machine.scores if score.counted]
