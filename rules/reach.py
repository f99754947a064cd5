"""A score that nothing of this size has come near: a result that has to be explained before it is believed.

What sixteen megabytes can predict is bounded by experience: no accepted row of the leaderboard was more than 1.5 %
below the row before it, and all legal techniques together moved the frontier by 14 % in six weeks. A logged score far
below the frontier of its days came, wherever it was looked into, from tokens that were seen before they were scored,
from values that are no probabilities, or from a wrong byte count. It proves none of these, and accuses nobody; it shows
that a reading which found nothing has missed something.
"""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.documents.records import Record, record_at, records
from auditor.findings import Finding
from rules.measures import at_log, reported
from rules.support import warned

#: Share of the standing record below which a score is out of reach.
OUT_OF_REACH = 0.95
#: Folders are dated when they are begun; the frontier of the days after is within reach too.
_WHILE = dt.timedelta(days=4)


def out_of_reach(case: Case) -> Finding | None:
    """A warning when the logged headline is below `OUT_OF_REACH` of the record standing on its day, else None."""
    found = [item for item in reported(case) if item.value > 0]
    standing = _standing(case)
    if not found or standing is None:
        return None
    lowest = min(found, key=lambda item: item.value)
    if lowest.value >= OUT_OF_REACH * standing.score:
        return None
    what = f"#{standing.pr}" if standing.pr else "the baseline"
    return warned(
        f"{lowest.value:.4f} BPB is out of reach for an artifact of this size "
        f"({what} stood at {standing.score:.4f}); nothing that was read explains it",
        [at_log(case, lowest.run, lowest.line, "the score as logged")],
        "Scores like this came from tokens that were seen before they were scored, from values that are no probabilities "
        "or from a wrong byte count. Nothing of that was proved here: let the program run, or read how the losses are made.",
    )


def _standing(case: Case) -> Record | None:
    date = case.submission.date
    if date is None:
        return min(records(), key=lambda row: row.score, default=None)
    return record_at(date + _WHILE) or min(records(), key=lambda row: row.date, default=None)
