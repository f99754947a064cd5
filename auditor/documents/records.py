"""History of the leaderboard as data: which score stood when, with per-seed values and sources.

`auditor/data/records.json` is made by `python -m auditor.data.build_records` from a clone of the public
repository.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from auditor.submission import Track


@dataclass(frozen=True)
class Record:
    """One leaderboard row.

    Attributes:
        pr: pull request that holds the evidence; None for the launch baseline.
        title: title of the row. `score`: BPB as listed (4 decimals).
        track: "record" or "non-record".
        date: date of the evidence (the row's Date column). `listed`: first day on which the README showed
        the row. tokenizer: name in `auditor.documents.metric`, "" when unknown.
        seeds: seed -> val_bpb from the logs or the submission.json of the evidence; empty when not
        recoverable. losses: seed -> val_loss (nats per token), where known.
        source: address of the evidence. `note`: what a reader of the numbers has to know.
    """

    pr: int | None
    title: str
    score: float
    track: str
    date: dt.date
    listed: dt.date
    tokenizer: str
    seeds: dict[str, float]
    losses: dict[str, float]
    source: str
    note: str = ""

    @property
    def values(self) -> list[float]:
        """Per-seed BPB, in the order of the evidence; the listed score alone when no seed is known."""
        return list(self.seeds.values()) or [self.score]


@functools.cache
def records() -> tuple[Record, ...]:
    """Every row that was ever on a leaderboard, in the order of (date, pull request)."""
    text = resources.files("auditor.data").joinpath("records.json").read_text("utf-8")
    rows = [_record(item) for item in json.loads(text)["records"]]
    return tuple(sorted(rows, key=lambda row: (row.date, row.pr or 0)))


def _record(item: dict) -> Record:
    return Record(
        pr=item["pr"],
        title=item["title"],
        score=item["score"],
        track=item["track"],
        date=dt.date.fromisoformat(item["date"]),
        listed=dt.date.fromisoformat(item["listed"]),
        tokenizer=item.get("tokenizer", ""),
        seeds=item.get("seeds", {}),
        losses=item.get("losses", {}),
        source=item["source"],
        note=item.get("note", ""),
    )


def record_of(pr: int) -> Record | None:
    """The row whose evidence is this pull request, or None."""
    return next((row for row in records() if row.pr == pr), None)


def record_at(
    date: dt.date, track: Track | str = Track.RECORD, *, before_pr: int | None = None, basis: str = "frontier"
) -> Record | None:
    """Best listed score standing on a date.

    Two readings of "standing" are in use, so the caller chooses:

    * `basis="frontier"` (default): rows whose evidence is dated on or before `date`. This is the
    chronological order
      the organisers apply, in hindsight: a row counts from the day its evidence was public, even when the
      README listed it weeks later. With `before_pr`, rows of later pull requests are left out: days are too
      coarse when ten pull requests arrive on one.
    * `basis="listed"`: rows that the README showed on `date`: what a participant could know.

    Returns None when no row qualifies (before the launch, or a track without a leaderboard).

    Raises:
        ValueError: `basis` is neither.
    """
    if basis not in ("frontier", "listed"):
        raise ValueError(f"basis is {basis!r}; use 'frontier' or 'listed'")
    standing = [
        row
        for row in records()
        if row.track == str(track)
        and (row.date if basis == "frontier" else row.listed) <= date
        and (before_pr is None or (row.pr or 0) < before_pr)
    ]
    return min(standing, key=lambda row: row.score, default=None)


def record_before(date: dt.date, pr: int | None = None, values: Sequence[float] = ()) -> Record | None:
    """The record a submission had to beat: the frontier of its date without itself and what came after it.

    With a pull request number, rows of later numbers are left out. Without one (a folder) a row whose mean is that of
    `values` is taken for the submission itself; failing that the day before counts, because rows dated the same day
    may have come later.
    """
    if pr is None and values:
        mean = sum(values) / len(values)
        own = [
            row
            for row in records()
            if abs(sum(row.values) / len(row.values) - mean) < _SAME_SCORE and abs(row.date - date) < _SAME_WEEK
        ]
        pr = own[0].pr if own else None
    if pr is not None:
        return record_at(date, before_pr=pr)
    return record_at(date - dt.timedelta(days=1)) or record_at(date)


#: Two means that round to one listed score of four decimals.
_SAME_SCORE = 6e-5
_SAME_WEEK = dt.timedelta(days=7)
