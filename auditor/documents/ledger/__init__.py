"""The claims ledger: every number a submission claims beside its primary evidence and our own recomputation.

A row (`auditor.documents.model.Claim`) says what is claimed where, which log lines or files show it, what we compute
and how, and whether they agree. A conflict's note is one sentence with the numbers and their places. Tolerances come
from the digits that were printed, nowhere else (`auditor.documents.interval`).

Subjects: "val_bpb", "mean val_bpb", "standard deviation", "val_loss", "loss and BPB", "scored bytes",
"loss/BPB quotient", "BPB values of the README", "p-value", "artifact bytes" (and ", script as shipped",
", script packed", ", with local files"), "scored share", "model bytes", "code bytes", "size unit", "artifact file",
"train seconds", "train seconds with calibration", "eval seconds", "eval seconds, all passes", "seeds",
"configuration across seeds", "steps", "parameters", "vocabulary", "hardware", and the names of other settings.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.documents.ledger.common import Parts
from auditor.documents.ledger.headline import Headline, Scored, evaluations, find_headline, kind_of
from auditor.documents.ledger.result_files import result_rows
from auditor.documents.ledger.scores import score_rows, seed_values
from auditor.documents.ledger.setup import setup_rows
from auditor.documents.ledger.significance import against_record, significance_rows
from auditor.documents.ledger.sizes import size_rows
from auditor.documents.ledger.times import time_rows
from auditor.documents.model import Claim, Metadata, Readme, TrainLog
from auditor.submission import Submission
from auditor.unpack import Program

__all__ = [
    "Headline",
    "Scored",
    "against_record",
    "build_ledger",
    "evaluations",
    "headline",
    "kind_of",
    "seed_values",
]


def build_ledger(
    submission: Submission,
    program: Program,
    metadata: list[Metadata],
    readme: Readme | None,
    logs: list[TrainLog],
    local_files: Sequence[str] = (),
) -> list[Claim]:
    """Every claimed number beside its evidence, conflicts first within each subject's place.

    Args:
        metadata: every submission.json, the main one first.
        local_files: paths of local files that the program imports or runs, where known (they add to the size).
    """
    parts = Parts(submission, program, metadata, readme, logs, local_files)
    head = find_headline(parts)
    rows = [
        *score_rows(parts, head),
        *significance_rows(parts, head),
        *size_rows(parts, head),
        *result_rows(parts),
        *time_rows(parts, head),
        *setup_rows(parts, head),
    ]
    return rows


def headline(
    submission: Submission,
    program: Program,
    metadata: list[Metadata],
    readme: Readme | None,
    logs: list[TrainLog],
) -> Headline:
    """The claimed BPB and the log line of each reported run that it rests on."""
    return find_headline(Parts(submission, program, metadata, readme, logs))
