"""What rules measure on a case: the runs that carry the claim, their sizes, times and results, each with its place.

Everything is computed from typed documents (`auditor.documents.model`). Units: bytes, seconds, bits per byte, nats per
token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from auditor.case import Case
from auditor.documents.ledger import Headline, Scored
from auditor.documents.ledger import headline as find_headline
from auditor.documents.ledger.common import scope_of
from auditor.documents.ledger.times import headline_pass, train_clock
from auditor.documents.model import LogRun, Metadata, Quantity, SizeLine
from auditor.findings import Evidence
from rules.support import at, at_line


@dataclass(frozen=True)
class Measured:
    """A number with its place and the run it belongs to (None: said by a document, not logged)."""

    value: float
    evidence: Evidence
    run: LogRun | None = None

    @property
    def who(self) -> str:
        """`seed 42` or the file it was read in."""
        return scope_of(self.run) if self.run is not None else self.evidence.path.rsplit("/", 1)[-1]


def line_text(case: Case, path: str, line: int | None) -> str:
    """Text of a log line, "" when there is none."""
    for log in case.logs:
        if log.path == path and line is not None and 0 < line <= len(log.lines):
            return log.lines[line - 1].strip()[:300]
    return ""


def at_log(case: Case, run: LogRun, line: int | None, note: str = "") -> Evidence:
    """Evidence from a line of a run."""
    return at_line(run.path, line, line_text(case, run.path, line), note)


def main_metadata(case: Case) -> Metadata | None:
    """The submission.json that speaks for the folder."""
    return case.metadata[0] if case.metadata else None


def headline(case: Case) -> Quantity | None:
    """The claimed val_bpb: metadata first, then the README's title; None when nothing is claimed."""
    data = main_metadata(case)
    stated = [data.val_bpb, data.mean_bpb] if data else []
    return next((item for item in stated if item is not None), None) or next(iter(_found(case).claimed), None)


def seed_claims(case: Case) -> dict[str, Quantity]:
    """Claimed val_bpb per seed (seeds as text), from the metadata, else from the README."""
    return {seed: stated[0] for seed, stated in _found(case).seed_claims.items() if stated}


def reported(case: Case) -> list[Scored]:
    """The evaluation of each reported run that the claim rests on, in file order.

    When no log fits the claim these are the last evaluations of every finished run (a conflict of its own).
    """
    return list(_found(case).reported.values())


def reported_runs(case: Case) -> list[LogRun]:
    """Runs behind `reported`."""
    return [item.run for item in reported(case)]


def claim_is_logged(case: Case) -> bool:
    """Whether a log line, or the mean of one kind of line over the logs, is the claimed headline."""
    return _found(case).matched_by in ("mean", "line", "float line")


def matched_by(case: Case) -> str:
    """How the headline was found in the logs: "mean", "line", "float line", "mean of claims" or "" (not at all)."""
    return _found(case).matched_by


def _found(case: Case) -> Headline:
    if case.headline is None:
        case.headline = find_headline(case.submission, case.program, case.metadata, case.readme, case.logs)
    return case.headline


def who(run: LogRun) -> str:
    """`seed 42`, or the name of the log of a run whose seed nobody says."""
    return scope_of(run)


# --- size -------------------------------------------------------------------------------------------------------


def size_lines(run: LogRun, kind: str) -> list[SizeLine]:
    """Size lines of one kind ("total", "model", "code", "code packed", ...)."""
    return [size for size in run.sizes if size.kind == kind]


def logged_total(case: Case, run: LogRun) -> Measured | None:
    """Total the run prints for its compressed artifact plus code; the last such line counts."""
    totals = size_lines(run, "total")
    if not totals:
        return None
    last = totals[-1]
    return Measured(last.size, at_log(case, run, last.line, "total as logged"), run)


def logged_model(case: Case, run: LogRun) -> Measured | None:
    """Compressed model bytes as logged."""
    models = size_lines(run, "model")
    if not models:
        return None
    return Measured(models[-1].size, at_log(case, run, models[-1].line, "compressed model as logged"), run)


def counts_packed_code(run: LogRun) -> bool:
    """Convention (b) of PG-S-code-count: the log counts the size a packed script would have."""
    return bool(size_lines(run, "code packed"))


def claimed_total(case: Case) -> Measured | None:
    """Largest artifact size the metadata states, per submission or per seed."""
    data = main_metadata(case)
    if data is None:
        return None
    stated = [data.artifact_bytes] if data.artifact_bytes else []
    stated += [values["artifact_bytes"] for values in data.seeds.values() if "artifact_bytes" in values]
    if not stated and data.model_bytes and data.code_bytes:
        return Measured(data.model_bytes.value + data.code_bytes.value, at(data.model_bytes, "model plus code"))
    largest = max(stated, key=lambda quantity: quantity.value, default=None)
    return Measured(largest.value, at(largest, "size as stated")) if largest else None


# --- time -------------------------------------------------------------------------------------------------------


def train_seconds(case: Case, run: LogRun) -> Measured | None:
    """Training clock at the end of training, seconds."""
    clock = train_clock(run)
    return Measured(clock[0].value, at(clock[0], "training clock at its end"), run) if clock else None


def eval_seconds(case: Case, run: LogRun) -> Measured | None:
    """Seconds of the evaluation pass behind the headline: its own line, its rounded twin, or a total line after it."""
    item = next((item for item in reported(case) if item.run is run), None)
    timed = headline_pass(run, item)
    return Measured(timed[0].value, at(timed[0], "timed evaluation pass of the headline"), run) if timed else None


def all_eval_seconds(run: LogRun) -> float:
    """Sum of every timed evaluation of the run, diagnostics included, seconds (twin lines counted once)."""
    seen = {(round(result.seconds, 3)) for result in run.results if result.seconds}
    return sum(seen)


def phases_named(run: LogRun, *words: str) -> Iterator[tuple[str, int, float]]:
    """Timed phases whose name holds one of the words."""
    for name, line, seconds in run.phases:
        if any(word in name.lower() for word in words):
            yield name, line, seconds


def setting(run: LogRun, *names: str) -> str | None:
    """Value of the first of these settings the log states, compared without case and underscores."""
    wanted = [name.replace("_", "").lower() for name in names]
    stated = {name.replace("_", "").lower(): value for name, value in run.settings.items()}
    return next((stated[name] for name in wanted if name in stated), None)


def as_number(text: str | None) -> float | None:
    """Leading number of a setting's text (`0.5s`, `600000ms`), None when it has none."""
    found = re.match(r"\s*[\"']?(-?\d+(?:\.\d+)?(?:e-?\d+)?)", text or "", re.IGNORECASE)
    return float(found[1]) if found else None


def largest(values: Iterable[Measured | None]) -> Measured | None:
    """The largest of the measurements that exist."""
    known = [value for value in values if value is not None]
    return max(known, key=lambda value: value.value, default=None)
