"""Logs that stand in another pull request or record folder under the same content."""

from __future__ import annotations

import hashlib
import json
import re

from auditor.documents.copies import LogIndex, Place, identities
from auditor.documents.forensics.context import CONTRADICTION, NOTABLE, SUSPICIOUS, fact
from auditor.documents.model import ForensicFact, Source, TrainLog
from auditor.errors import MissingBlob
from auditor.submission import Submission

MIN_BYTES = 400


def copied_logs(submission: Submission, logs: list[TrainLog], index: object | None) -> list[ForensicFact]:
    """Facts on logs whose content also exists elsewhere, earlier places first."""
    facts = _same_within(submission, logs)
    if not isinstance(index, LogIndex):
        return facts
    copies: list[tuple[TrainLog, list[Place]]] = []
    for log in logs:
        blob = log.blob or _blob(submission, log.path)
        everywhere = index.places(blob)
        places = [place for place in everywhere if not _own(submission, place)]
        merged = len(places) < len(everywhere)
        if submission.pr is not None or merged:
            # Later copies say nothing about the original; a folder not yet submitted is later than all of them.
            places = [place for place in places if _earlier(submission, place, index)]
        if places and _size(submission, log.path) >= MIN_BYTES:
            copies.append((log, places))
    taken = sum(_by_others(submission, places, index) for _, places in copies)
    every = taken > 0 and taken == len(logs)
    return facts + [_copied_fact(submission, log, places, index, every) for log, places in copies]


def _by_others(submission: Submission, places: list[Place], index: LogIndex) -> bool:
    """True when the content stood in somebody else's submission before, and in none of the same author's."""
    if submission.pr is None:
        return False
    own = _own_people(submission, index)
    known = [people for place in places if _earlier(submission, place, index) and (people := index.people(place))]
    return bool(own) and bool(known) and not any(own & people for people in known)


def _copied_fact(
    submission: Submission, log: TrainLog, places: list[Place], index: LogIndex, every: bool
) -> ForensicFact:
    first = places[0]
    where = f"pull request {first.pr}" if first.pr is not None else "the main branch"
    summary = f"the log is byte for byte {first.path} of {where}" + (
        f" and of {len(places) - 1} more places" if len(places) > 1 else ""
    )
    sources = [Source(log.path), *(Source(p.path, key=f"#{p.pr}" if p.pr else "main") for p in places[:5])]
    if _by_others(submission, places, index):
        explanation = (
            "Another author's run stood there before; two runs never print the same clocks to the millisecond."
        )
        if every:
            explanation += " Every log of this submission is such a copy: none shows a run of its own."
        return fact("copied-log", CONTRADICTION if every else SUSPICIOUS, summary, sources, explanation)
    explanation = "The earlier place is by the same author, or its author is unknown; a baseline log may be reused."
    return fact("copied-log", NOTABLE, summary, sources, explanation)


def _earlier(submission: Submission, place: Place, index: LogIndex) -> bool:
    """True when the other place belongs to a lower pull request, or to the main branch for a folder without one."""
    if submission.pr is None:
        return place.pr is None
    number = index.number(place)
    if number is None or number >= submission.pr:
        return False
    # An old fork that was brought up to date carries folders that came later: dated names tell them apart.
    theirs, ours = _dated(place.path), _dated(submission.folder + "/")
    return not (theirs and ours and theirs > ours)


def _dated(path: str) -> str:
    found = re.search(r"/(\d{4}-\d{2}-\d{2})[_\-]", path)
    return found[1] if found else ""


def _own_people(submission: Submission, index: LogIndex) -> frozenset[str]:
    """Identities of the author: head commit and the metadata's author fields."""
    texts = [index.authors.get(submission.pr, "") if submission.pr is not None else ""]
    for path in submission.metadata[:3]:
        try:
            data = json.loads(submission.read(path))
        except (MissingBlob, KeyError, ValueError):
            continue
        if isinstance(data, dict):
            texts += [str(data[key]).lstrip("@") for key in ("author", "github_id", "github") if data.get(key)]
    return identities(*texts)


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
