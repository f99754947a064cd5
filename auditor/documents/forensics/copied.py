"""Logs that stand in another pull request or record folder under the same content."""

from __future__ import annotations

import hashlib

from auditor.documents.copies import LogIndex, Place
from auditor.documents.forensics.context import NOTABLE, SUSPICIOUS, fact
from auditor.documents.model import ForensicFact, Source, TrainLog
from auditor.errors import MissingBlob
from auditor.submission import Submission

MIN_BYTES = 400


def copied_logs(submission: Submission, logs: list[TrainLog], index: object | None) -> list[ForensicFact]:
    """Facts on logs whose content also exists elsewhere, earlier places first."""
    facts = _same_within(submission, logs)
    if not isinstance(index, LogIndex):
        return facts
    for log in logs:
        blob = log.blob or _blob(submission, log.path)
        places = [place for place in index.places(blob) if not _own(submission, place)]
        if places and _size(submission, log.path) >= MIN_BYTES:
            facts.append(_copied_fact(submission, log, places, index))
    return facts


def _copied_fact(submission: Submission, log: TrainLog, places: list[Place], index: LogIndex) -> ForensicFact:
    earlier = [place for place in places if _earlier(submission, place)]
    author = index.author(submission.pr) if submission.pr is not None else ""
    same = bool(author) and all(index.author(p.pr) == author for p in (earlier or places) if p.pr is not None)
    first = (earlier or places)[0]
    where = f"pull request {first.pr}" if first.pr is not None else "the main branch"
    summary = f"the log is byte for byte {first.path} of {where}" + (
        f" and of {len(places) - 1} more places" if len(places) > 1 else ""
    )
    strength = SUSPICIOUS if earlier and not same else NOTABLE
    explanation = (
        "Both pull requests are by the same author, who may reuse a baseline log."
        if same
        else "Two runs never print the same clocks to the millisecond: the file was copied."
    )
    if not earlier:
        explanation += " The other pull request is the later one, so the copy is more likely there."
    sources = [Source(log.path), *(Source(place.path, key=f"#{place.pr}") for place in places[:5])]
    return fact("copied-log", strength, summary, sources, explanation)


def _earlier(submission: Submission, place: Place) -> bool:
    """True when the other place is on the main branch or has a lower number."""
    return place.pr is None or (submission.pr is not None and place.pr < submission.pr)


def _own(submission: Submission, place: Place) -> bool:
    """The same folder: in the pull request itself, merged to main, or carried along by a stale fork."""
    return place.path.startswith(submission.folder.rstrip("/") + "/") or (
        submission.pr is not None and place.pr == submission.pr
    )


def _same_within(submission: Submission, logs: list[TrainLog]) -> list[ForensicFact]:
    """Two logs of one folder with equal content although they claim different seeds."""
    seen: dict[tuple[str, ...], TrainLog] = {}
    facts = []
    for log in logs:
        key = tuple(line.rstrip() for line in log.lines)
        if len(key) < 10:
            continue
        if key in seen and "seed" in log.path.lower() and "seed" in seen[key].path.lower():
            summary = f"{log.path.rpartition('/')[2]} and {seen[key].path.rpartition('/')[2]} are the same log"
            sources = [Source(log.path), Source(seen[key].path)]
            facts.append(fact("copied-log", SUSPICIOUS, summary, sources, "Runs of two seeds cannot print the same."))
        seen.setdefault(key, log)
    return facts


def _blob(submission: Submission, path: str) -> str:
    """Git blob hash of a file: as listed, else computed from its content."""
    entry = submission.files.get(path)
    if entry is not None and entry.blob:
        return entry.blob
    try:
        data = submission.read(path)
    except (MissingBlob, KeyError):
        return ""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _size(submission: Submission, path: str) -> int:
    entry = submission.files.get(path)
    return entry.size if entry is not None and entry.size is not None else MIN_BYTES
