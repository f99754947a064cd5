"""Log forensics: does the log come from this program, and do its numbers fit together?

Kinds of facts: `line-without-template`, `impossible-digits`, `cadence`, `missing-lines` (provenance of lines),
`source-differs`, `code-size`, `foreign-setting`, `undocumented-setting` (another revision), `not-monotone`,
`step-average`, `quotient`, `quotient-between-logs`, `running-mean`, `round-sequence`, `initial-loss`, `schedule`
(arithmetic), `copied-log`.

Strengths: "contradiction" cannot be, given this program; "suspicious" has an innocent reading that should be shown
to be the case (an earlier revision, several runs in one file); "notable" is worth a look and proves nothing.
"""

from __future__ import annotations

import dataclasses

from auditor.case import Case
from auditor.documents.forensics.between import between_logs
from auditor.documents.forensics.context import MAX_SOURCES, build_context, view
from auditor.documents.forensics.numbers import arithmetic, initial_loss
from auditor.documents.forensics.provenance import provenance, sharpen
from auditor.documents.forensics.revision import revision
from auditor.documents.model import ForensicFact, TrainLog
from auditor.submission import Submission
from auditor.unpack import Program

__all__ = ["examine", "forensics"]

_ORDER = {"contradiction": 0, "suspicious": 1, "notable": 2}


def forensics(
    submission: Submission,
    program: Program,
    logs: list[TrainLog],
    corpus_index: object | None = None,
) -> list[ForensicFact]:
    """Every observation on the logs of a submission, the strongest first.

    Args:
        submission: files of the folder (shell scripts and README are read).
        program: source layers; without readable ones only the arithmetic of the logs is checked.
        logs: the train logs as read.
        corpus_index: `auditor.documents.copies.LogIndex` of a clone, to find logs that stand elsewhere too.
    """
    from auditor.documents.forensics.copied import copied_logs
    from auditor.documents.forensics.schedule import schedule, vocabulary

    context = build_context(submission, program, logs)
    facts: list[ForensicFact] = []
    views = [view(context, log) for log in logs]
    for log, seen in zip(logs, views, strict=True):
        facts += provenance(context, seen)
        facts += revision(context, seen)
        facts += arithmetic(context, seen)
        facts += initial_loss(context, seen, vocabulary(context, log))
        facts += schedule(context, seen)
    facts += between_logs(views)
    facts += copied_logs(submission, logs, corpus_index)
    facts = _grouped(_ablations(sharpen(facts), logs))
    return sorted(facts, key=lambda item: _ORDER.get(item.strength, 3))


def _ablations(facts: list[ForensicFact], logs: list[TrainLog]) -> list[ForensicFact]:
    """Where some logs hold no other revision, those that do are side experiments: notable, not suspicious."""
    other = {item.sources[0].path for item in facts if item.kind == "source-differs" and item.sources}
    if not other or len(other) >= len(logs):
        return facts
    return [dataclasses.replace(item, strength="notable") if item.kind == "source-differs" else item for item in facts]


def _grouped(facts: list[ForensicFact]) -> list[ForensicFact]:
    """The same observation on several logs told once, with a place from each."""
    groups: dict[tuple[str, str, str], list[ForensicFact]] = {}
    for item in facts:
        groups.setdefault((item.kind, item.strength, item.summary), []).append(item)
    merged = []
    for same in groups.values():
        first = same[0]
        if len(same) > 1:
            sources = tuple(source for item in same for source in item.sources[: max(1, MAX_SOURCES // len(same))])
            summary = f"{first.summary} (in {len(same)} logs)"
            first = dataclasses.replace(first, summary=summary, sources=sources[:MAX_SOURCES])
        merged.append(first)
    return merged


def examine(case: Case) -> list[ForensicFact]:
    """`forensics` for a case whose documents have been read; a clone's log index is used when the case has one."""
    return forensics(case.submission, case.program, case.logs, case.facts.get("log_index"))
