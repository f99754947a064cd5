"""PG-P-submission-json: submission.json content."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.documents.model import Quantity
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import variant
from rules.measures import at_log, claim_is_logged, equals, headline, main_metadata, results_of, tolerance
from rules.package_facts import base_file
from rules.support import at, at_line, failed, listed, passed, warned

MEAN_TOLERANCE = 5e-5


def decide(case: Case) -> Finding:
    """Readable, with author and val_bpb, and equal to the logs."""
    data = main_metadata(case)
    if data is None:
        return failed("there is no submission.json", [at_line(case.submission.folder or ".", None, "", "file list")])
    if data.raw is None:
        return failed(
            f"{base_file(data.path)} cannot be read: {listed(data.problems) or 'not a JSON object'}",
            [at_line(data.path, None, "", "not valid JSON")],
        )
    claim = headline(case)
    if claim is None:
        return failed("submission.json states no val_bpb", [at_line(data.path, None, "", "no val_bpb")])
    if not 0.3 < claim.value < 20:
        return failed(f"val_bpb {claim.value:g} is a placeholder", [at(claim)])
    conflict = _mean_conflict(case, claim) or _log_conflict(case, claim)
    if conflict:
        return conflict
    lacking = [name for name, value in (("author", data.author), ("GitHub id", data.github_id)) if not value]
    if lacking:
        return warned(
            f"submission.json states no {' and no '.join(lacking)}", [at_line(data.path, None, "", "missing keys")]
        )
    return passed(f"val_bpb {claim.text or claim.value} with author and GitHub id", [at(claim)])


def _mean_conflict(case: Case, claim: Quantity) -> Finding | None:
    """The headline has to be the mean of the per-seed values of the same file (or the value of one named seed)."""
    seeds = {seed: values["val_bpb"] for seed, values in main_metadata(case).seeds.items() if "val_bpb" in values}
    if len(seeds) < 2:
        return None
    mean = sum(quantity.value for quantity in seeds.values()) / len(seeds)
    if abs(mean - claim.value) <= MEAN_TOLERANCE + tolerance(claim):
        return None
    if any(equals(claim, quantity.value) for quantity in seeds.values()):
        return warned(
            f"val_bpb {claim.value:.5f} is that of one seed, the mean of {len(seeds)} is {mean:.5f}", [at(claim)]
        )
    return failed(
        f"val_bpb {claim.value:.5f} is not the mean of its {len(seeds)} seeds ({mean:.5f})",
        [at(claim), *(at(quantity, f"seed {seed}") for seed, quantity in seeds.items())],
    )


def _log_conflict(case: Case, claim: Quantity) -> Finding | None:
    """Per-seed values, or the headline of a single run, have to stand in a log."""
    finished = [run for run in case.runs if results_of(run)]
    if not finished or claim_is_logged(case) or _is_mean_of(claim, case):
        return None
    shown = [at_log(case, run, results_of(run)[-1].line, "last result of this log") for run in finished]
    values = sorted(
        {round(result.val_bpb, 5) for run in finished for result in results_of(run)},
        key=lambda value: abs(value - claim.value),
    )
    return failed(
        f"no log carries val_bpb {claim.text or claim.value}; the nearest logged result is {values[0]}",
        [at(claim), *shown],
    )


def _is_mean_of(claim: Quantity, case: Case) -> bool:
    """Whether the headline is the mean of one kind of result over all logs."""
    by_label: dict[str, list[float]] = {}
    for run in case.runs:
        for label in {result.label for result in results_of(run)}:
            by_label.setdefault(label, []).append([r.val_bpb for r in results_of(run) if r.label == label][-1])
    return any(
        len(values) > 1 and abs(sum(values) / len(values) - claim.value) <= MEAN_TOLERANCE + tolerance(claim)
        for values in by_label.values()
    )


RULE = Rule(
    id="PG-P-submission-json",
    title="submission.json content",
    statement=(
        "Valid JSON with author name, GitHub id, val_bpb and related metadata; in practice also val_loss, "
        "date, seeds, per-seed results, bytes_total, hardware. Values must equal the logs."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=(
        (
            "no val_bpb (#8, #496, #631); mean not equal to the mean of the seeds; three_seeds=true with one "
            "log; std without stating n or n-1"
        ),
    ),
    allowed=("free schema",),
    history="No official schema exists; keys vary (seed_results, seeds, per_seed).",
    legal_precedents=(1855,),
    illegal_precedents=(8, 496, 631, 1981, 2124, 2139),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/496",
        "https://github.com/openai/parameter-golf/pull/8",
        "https://github.com/openai/parameter-golf/pull/2124",
        "https://github.com/openai/parameter-golf/pull/2139",
        "https://github.com/openai/parameter-golf/pull/1981",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "Make submission.json valid JSON with author, GitHub id and val_bpb, and let every value equal its log line."
    ),
    legal=(Example("values equal the logs"),),
    illegal=(
        Example("no val_bpb", variant(val_bpb=None, seed_results=None, val_loss=None), Status.FAIL),
        Example("not JSON", {"submission.json": "{val_bpb: 1.04"}, Status.FAIL),
        Example("the mean is not that of the seeds", variant(val_bpb=1.0301), Status.FAIL),
        Example("no log carries the headline", variant(val_bpb=1.0301, seed_results=None), Status.FAIL),
    ),
    decide=decide,
)
