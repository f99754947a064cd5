"""Passes of adaptation that a log shows and the submitted program does not have.

Authors repair their program and leave the log, and with it the claim, as it was: the program that was read is then
innocent of what the number was made by.
"""

from __future__ import annotations

import re

from auditor.case import Case
from auditor.findings import Finding
from rules.measures import at_log, reported
from rules.support import warned

_PASS = re.compile(r"(?i)epoch\W{0,3}(\d+)\s?/\s?(\d+)\b.*loss")
#: As many passes, each of which is printed once, are no loop inside the chunks of a score-first evaluation.
_LEAST = 2


def foreign_passes(case: Case) -> Finding | None:
    """A warning where numbered passes with a loss stand between the end of training and the score, unknown to the program.

    Only lines that no print of the program gives are taken, and only when they count from one pass to the last and do
    so once: the training loop and an adaptation chunk by chunk print otherwise.
    """
    foreign = {
        (source.path, source.line)
        for fact in case.forensics
        if fact.kind == "line-without-template"
        for source in fact.sources
    }
    for item in reported(case):
        run = item.run
        lines = next((log.lines for log in case.logs if log.path == run.path), [])
        start = run.stop.line if run.stop is not None else run.steps[-1].line if run.steps else None
        if start is None:
            continue
        found = [
            (number, match)
            for number in range(start + 1, min(item.line, len(lines) + 1))
            if (match := _PASS.search(lines[number - 1]))
        ]
        if not any((run.path, number) in foreign for number, _ in found):
            continue
        counted = [int(match[1]) for _, match in found]
        wanted = int(found[0][1][2])
        if len(counted) >= _LEAST and wanted in counted and len(set(counted)) == len(counted):
            return warned(
                f"the log shows {wanted} passes with a loss between training and the score, "
                "which the submitted program does not make",
                [at_log(case, run, number, "a pass before the score") for number, _ in (found[0], found[-1])]
                + [at_log(case, run, item.line, "the score that follows")],
                "The claimed number was made by another program than the one that was read. What it was trained on "
                "between training and the score nobody can tell from here; passes over the validation tokens would void it.",
            )
    return None
