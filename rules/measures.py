"""What rules measure on a case: the runs that carry the claim, their sizes, times and results, each with its place.

Everything is computed from typed documents (`auditor.documents.model`). Units: bytes, seconds, bits per byte, nats per
token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from auditor.case import Case
from auditor.documents.model import EvalResult, LogRun, Metadata, Quantity, SizeLine
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
        if self.run is not None and self.run.seed is not None:
            return f"seed {self.run.seed}"
        return self.evidence.path.rsplit("/", 1)[-1]


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
    """The claimed val_bpb: metadata first, its mean over seeds else."""
    data = main_metadata(case)
    return (data.val_bpb or data.mean_bpb) if data else None


def seed_claims(case: Case) -> dict[str, Quantity]:
    """Claimed val_bpb per seed, from the metadata, else from the README."""
    data = main_metadata(case)
    for seeds in ((data.seeds if data else {}), (case.readme.seeds if case.readme else {})):
        claims = {seed: values["val_bpb"] for seed, values in seeds.items() if "val_bpb" in values}
        if claims:
            return claims
    return {}


def tolerance(quantity: Quantity) -> float:
    """Half a unit of the last written digit, at most 0.0006 BPB (a claim of two digits proves nothing)."""
    text = quantity.text or repr(quantity.value)
    found = re.search(r"\.(\d+)", text)
    return min(0.5001 * 10.0 ** -len(found[1]), 6e-4) if found else 6e-4


def equals(claim: Quantity, value: float | None) -> bool:
    """Whether a measured BPB is the claimed one, within the digits of the claim."""
    return value is not None and abs(claim.value - value) <= tolerance(claim) + 1e-9


def results_of(run: LogRun) -> list[EvalResult]:
    """Result lines of a run that carry a BPB."""
    return [result for result in run.results if result.val_bpb is not None]


def matching_result(case: Case, run: LogRun) -> tuple[Quantity, EvalResult] | None:
    """The claim this run carries: a claimed value (seed, then headline) and the last result line that equals it."""
    claims = seed_claims(case)
    own = [claims[str(run.seed)]] if str(run.seed) in claims else []
    first = headline(case)
    for claim in [*own, *claims.values(), *([first] if first else [])]:
        equal = [result for result in results_of(run) if equals(claim, result.val_bpb)]
        if equal:
            return claim, equal[-1]
    return None


def reported_runs(case: Case) -> list[LogRun]:
    """Runs whose results are the claimed ones; every run with a result when none matches (a conflict of its own)."""
    finished = [run for run in case.runs if results_of(run)]
    matching = [run for run in finished if matching_result(case, run)]
    return matching or finished


def claim_is_logged(case: Case) -> bool:
    """Whether at least one log carries a claimed result."""
    return any(matching_result(case, run) for run in case.runs)


def final_result(case: Case, run: LogRun) -> EvalResult | None:
    """The result line the claim rests on; the last exact one of the run when none matches."""
    match = matching_result(case, run)
    if match:
        return match[1]
    results = results_of(run)
    return results[-1] if results else None


def exact_result(case: Case, run: LogRun) -> EvalResult | None:
    """The most precise line with loss and BPB that has the value of `final_result` (the `_exact` twin)."""
    final = final_result(case, run)
    if final is None:
        return None
    near = [r for r in results_of(run) if r.val_loss is not None and abs(r.val_bpb - final.val_bpb) < 6e-5]
    return max(near, key=lambda r: r.digits, default=None)


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
    if run.stop is not None and run.stop.train_seconds is not None:
        return Measured(run.stop.train_seconds, at_log(case, run, run.stop.line, "clock at stop"), run)
    if run.train_seconds is not None:
        return Measured(run.train_seconds.value, at(run.train_seconds, "training clock"), run)
    timed = [step for step in run.steps if step.train_seconds]
    if not timed:
        return None
    return Measured(timed[-1].train_seconds, at_log(case, run, timed[-1].line, "last logged clock"), run)


def eval_seconds(case: Case, run: LogRun) -> Measured | None:
    """Seconds of the evaluation pass behind the headline: its own line, its rounded twin, or a total line after it."""
    final = final_result(case, run)
    timed = [result for result in run.results if result.seconds]
    if final is None or not timed:
        return None
    if final.seconds:
        own = final
    else:
        twins = [r for r in timed if r.val_bpb is not None and abs(r.val_bpb - final.val_bpb) < 6e-5]
        own = twins[-1] if twins else timed[-1]
    return Measured(own.seconds, at_log(case, run, own.line, "timed evaluation pass of the headline"), run)


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
