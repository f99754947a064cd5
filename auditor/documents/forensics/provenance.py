"""Can this program have printed these lines? Lines without template, impossible digits, cadence, missing lines."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict

from auditor.documents.forensics.context import (
    CONTRADICTION,
    NOTABLE,
    SUSPICIOUS,
    Context,
    LogView,
    at,
    fact,
    short,
)
from auditor.documents.model import ForensicFact
from auditor.static.cadence import describe, refused_by
from auditor.static.templates import Template

# What makes a line evidence of a result rather than decoration.
_RESULT = re.compile(
    r"(?:val|train|ttt|eval|bpb|loss|bits|ppl|acc)\w*\s*[:=\[]|\bbpb\b|\bloss\b"
    r"|step\s*[:=]?\s*\d+\s*/|bytes|\bsize\b",
    re.I,
)
_NUMBER = re.compile(r"\d+\.\d{2,}|\d{4,}")


# `[40/120]`, `step 40/120`: one of many.
_COUNTED = re.compile(r"\d\s*/\s*\d")


def provenance(context: Context, view: LogView) -> list[ForensicFact]:
    """Facts on where the lines of one log come from."""
    if not context.templates.templates:
        return []
    facts = _precision(context, view)
    explained = {source.line for item in facts for source in item.sources}
    facts += _without_template(context, view, explained)
    facts += _cadence(context, view)
    facts += _missing(context, view)
    return facts


def is_result_line(text: str) -> bool:
    """True for a line that states a loss, a score, a size or progress with a number."""
    return bool(_RESULT.search(text) and _NUMBER.search(text))


def _without_template(context: Context, view: LogView, explained: set[int | None]) -> list[ForensicFact]:
    lines = [(n, t) for n, t in view.unmatched if n not in explained and not _follows_warning(view, n)]
    if not lines:
        return []
    results = [(n, t) for n, t in lines if is_result_line(t)]
    elsewhere = {n for n, _ in view.elsewhere}
    if results and all(n in elsewhere for n, _ in results):
        return []  # the program printed in the log explains them: reported once, as `source-differs`
    share = len(lines) / max(len(view.lines), 1)
    # Final results first: what carries the claim has to be among the few lines that are shown.
    shown = sorted(results, key=lambda item: (_COUNTED.search(item[1]) is not None, -item[0]))
    shown += [item for item in lines if item not in results]
    summary = f"{len(lines)} of {len(view.lines)} lines of the log have no template in the submitted program" + (
        f", {len(results)} of them results or progress" if results else " (no results among them)"
    )
    if context.templates.complete:
        explanation = "Every print of the program was read; none of them can produce these lines."
    else:
        explanation = "Some output of the program could not be read, so these lines may still be its own: " + (
            _why_incomplete(context)
        )
    # One or two odd lines are a rewording of the script or a note of the launcher.
    many = len(results) >= 3 or len(results) >= 0.1 * len(view.lines)
    strength = SUSPICIOUS if many and context.templates.complete else NOTABLE
    if share > 0.5 and len(results) >= 5:
        explanation += " Most of the log does not fit: it was written by another program or another revision of it."
    sources = [at(view.log, number, text) for number, text in shown]
    return [fact("line-without-template", strength, summary, sources, explanation)]


def _why_incomplete(context: Context) -> str:
    unknown = next((d for d in context.templates.dynamic if d.shape is None and not d.exceptional), None)
    if unknown is not None:
        return f"{short(unknown.path)}:{unknown.line} {unknown.reason}."
    broken = next(iter(context.templates.unreadable.items()), None)
    return f"{broken[0]} does not parse ({broken[1]})." if broken else "no print was found."


def _follows_warning(view: LogView, number: int) -> bool:
    """Source line that Python prints under a warning or a stack frame."""
    if not view.log.lines[number - 1].startswith("  ") or number < 2:
        return False
    return bool(re.search(r"Warning: |File \"[^\"]+\", line \d+", view.log.lines[number - 2]))


def _precision(context: Context, view: LogView) -> list[ForensicFact]:
    """The right words with digits the format cannot print."""
    groups: dict[Template, list[tuple[int, str]]] = defaultdict(list)
    elsewhere = {n for n, _ in view.elsewhere}
    for number, text in view.unmatched:
        if number in elsewhere:
            continue
        template = context.templates.nearest(text)
        if template is not None and any(part.digits is not None for part in template.fields):
            groups[template].append((number, text))
    facts = []
    for template, lines in groups.items():
        wanted = ", ".join(f"{p.name}: {p.digits} digits" for p in template.fields if p.digits is not None)
        summary = (
            f"{len(lines)} lines have the words of {short(template.path)}:{template.line} but digits it cannot print"
        )
        explanation = f"The program prints `{template.text.strip()}` ({wanted})."
        sources = [at(view.log, number, text) for number, text in lines]
        strength = SUSPICIOUS if context.templates.complete and any(is_result_line(t) for _, t in lines) else NOTABLE
        facts.append(fact("impossible-digits", strength, summary, sources, explanation))
    return facts


def _cadence(context: Context, view: LogView) -> list[ForensicFact]:
    """Progress at positions where the condition around the print is false."""
    groups: dict[tuple[Template, str], list[tuple[int, str]]] = defaultdict(list)
    for number, text in view.lines:
        template = view.matched.get(number) or context.templates.nearest(text)
        if template is None or not template.guards:
            continue
        if _other_template_allows(context, text, template):
            continue
        guard = refused_by(template, text)
        if guard is not None:
            groups[template, describe(guard)].append((number, text))
    facts = []
    for (template, condition), lines in groups.items():
        summary = (
            f"{len(lines)} progress lines stand at positions where {short(template.path)}:{template.line} cannot print"
        )
        explanation = f"The print `{template.text.strip()[:120]}` runs only when `{condition}`."
        sources = [at(view.log, number, text) for number, text in lines]
        facts.append(fact("cadence", SUSPICIOUS, summary, sources, explanation))
    return facts


def _other_template_allows(context: Context, text: str, chosen: Template) -> bool:
    """True when a second print with the same words can produce the line under its own condition."""
    for template in context.templates.templates:
        if template is not chosen and template.words == chosen.words:
            found = template.relaxed.match(text.strip())
            if found and refused_by(template, text) is None:
                return True
    return False


def _missing(context: Context, view: LogView) -> list[ForensicFact]:
    """Kinds of lines the program prints beside the ones present, none of which is in the log."""
    if not context.readable or view.elsewhere:
        return []
    present = set(view.matched.values())
    wanted = {"train loss": re.compile(r"train_loss|train loss", re.I)}
    shown_steps = [t for t in present if re.search(r"val_loss|val loss", t.text, re.I) and "step" in t.text.lower()]
    facts = []
    for label, pattern in wanted.items():
        templates = [t for t in context.templates.templates if pattern.search(t.text) and "step" in t.text.lower()]
        steps = sum(1 for template in view.matched.values() if template in shown_steps)
        if not templates or not shown_steps or steps < 5 or any(pattern.search(text) for _, text in view.lines):
            continue
        if any(template in present for template in templates):
            continue
        template = templates[0]
        place = f"{short(template.path)}:{template.line}"
        summary = f"no {label} line in a log with {steps} validation lines, although {place} prints them"
        explanation = (
            f"`{template.text.strip()[:140]}` "
            + (f"runs when `{describe(template.guards[-1])}`. " if template.guards else "")
            + "A log of this program holds such lines between the validation lines unless they were switched off."
        )
        facts.append(fact("missing-lines", SUSPICIOUS, summary, [at(view.log, view.lines[0][0])], explanation))
    return facts


def sharpen(facts: list[ForensicFact]) -> list[ForensicFact]:
    """Raise provenance facts to contradictions where the numbers of the same log are impossible too.

    A line no print can produce proves that another text than the submitted one wrote it; an earlier revision is the
    innocent reading. It falls away where the same log also breaks arithmetic that holds for every revision.
    """
    broken = {s.path for f in facts if f.kind in ("quotient", "step-average", "round-sequence") for s in f.sources}
    kinds = {"line-without-template", "impossible-digits", "cadence"}
    by_log: dict[str, set[str]] = defaultdict(set)
    for item in facts:
        if item.kind in kinds and item.strength == SUSPICIOUS and item.sources:
            by_log[item.sources[0].path].add(item.kind)
    certain = {path for path, found in by_log.items() if path in broken and len(found) >= 2}
    return [
        ForensicFact(f.kind, CONTRADICTION, f.summary, f.sources, f.explanation)
        if f.kind in kinds and f.sources and f.sources[0].path in certain
        else dataclasses.replace(f, strength=SUSPICIOUS)
        if f.kind == "schedule" and f.sources and f.sources[0].path in certain
        else f
        for f in facts
    ]
