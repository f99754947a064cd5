"""Which script made the claimed number: not always the one that trains.

A folder often holds a second program that loads the artifact and scores it some other way; its line is the claim. The
order of events that matters is then that of the second program, read on its own, and what the first one shows about its
own evaluations answers nothing.
"""

from __future__ import annotations

import ast
from dataclasses import replace

from auditor.findings import Status
from auditor.static.analysis import OF_THE_SCORE, StaticResult, static_timeline
from auditor.static.effective import Effective
from auditor.static.printing import extract
from auditor.static.program import Sources
from auditor.unpack import Layer, Program

_GRAVITY = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS, Status.NOT_APPLICABLE)
# A template needs this many letters of its own, or any line would do.
_MIN_LETTERS = 6


def claimed_timeline(program: Program, settings: Effective) -> StaticResult:
    """The reading of the main script; questions about the score are answered by the script that prints the claim."""
    result = static_timeline(program, settings)
    other = scoring_script(program, settings.headline_text)
    if other is None:
        return result
    scored = static_timeline(replace(program, main=other), settings)
    answers = {rule: found for rule, found in scored.answers.items() if rule.startswith(OF_THE_SCORE)}
    for found in (*result.answers.values(), *scored.answers.values()):
        held = answers.get(found.rule)
        if found.rule.startswith(OF_THE_SCORE):
            continue
        if held is None or _GRAVITY.index(found.status) < _GRAVITY.index(held.status):
            answers[found.rule] = found
    place = (other.name, scored.headline[1] if scored.headline else 1)
    return replace(
        scored,
        answers=answers,
        unknowns=[*scored.unknowns, *result.unknowns, (*place, "the claimed number is printed by this script, not by the main one")],
        dead=[*scored.dead, *result.dead],
        forced=sorted({*scored.forced, *result.forced}),
        steps=scored.steps + result.steps,
    )  # fmt: skip


def scoring_script(program: Program, text: str) -> Layer | None:
    """The script beside the main one that prints this line; None when the main one can, or when nobody does."""
    if program.main is None or not text.strip() or len(program.layers) < 2:
        return None
    own = extract(program.main.text, program.main.name)
    if own.match(text) is not None or own.may_be_dynamic(text) is not None:
        return None
    part_of_main = _imported(program)
    best: tuple[int, Layer] | None = None
    for layer in program.layers:
        if layer.name in part_of_main or layer.text == program.main.text:
            continue
        found = extract(layer.text, layer.name).match(text)
        letters = sum(c.isalpha() for c in found.words) if found is not None else 0
        if letters >= _MIN_LETTERS and (best is None or letters > best[0]):
            best = (letters, layer)
    return best[1] if best is not None else None


def _imported(program: Program) -> set[str]:
    """Paths of the modules that the main script imports, directly or through others, and its own."""
    sources = Sources(program)
    found, queue = {sources.main}, [sources.main]
    while queue:
        path = queue.pop()
        tree = sources.tree(path)
        for module in _modules(tree) if tree is not None else ():
            inner = sources.find(module, path)
            if inner and inner not in found:
                found.add(inner)
                queue.append(inner)
    return found


def _modules(tree: ast.Module) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.ImportFrom):
            names += [alias.name for alias in node.names]
    return names
