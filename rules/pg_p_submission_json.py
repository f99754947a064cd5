"""PG-P-submission-json: submission.json content."""

from __future__ import annotations

import datetime as dt
import json
from statistics import mean

from auditor.case import Case
from auditor.documents.ledger.common import says
from auditor.documents.ledger.headline import evaluations
from auditor.documents.model import Quantity
from auditor.errors import AuditorError
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import variant
from rules.measures import at_log, claim_is_logged, headline, main_metadata, reported, seed_claims
from rules.package_facts import base_file
from rules.support import at, at_line, failed, listed, passed, warned

MEAN_TOLERANCE = 5e-5


def decide(case: Case) -> Finding:
    """Readable, with author and val_bpb, and equal to the logs."""
    data = main_metadata(case)
    if data is None:
        return failed("there is no submission.json", [at_line(case.submission.folder or ".", None, "", "file list")])
    error = _not_json(case, data.path)
    if error or data.raw is None:
        reason = error or listed(data.problems) or "not a JSON object"
        return failed(f"{base_file(data.path)} is not valid JSON: {reason}", [at_line(data.path, None, "", reason)])
    claim = headline(case)
    if claim is None:
        return failed("submission.json states no val_bpb", [at_line(data.path, None, "", "no val_bpb")])
    if not 0.3 < claim.value < 20:
        return failed(f"val_bpb {claim.value:g} is a placeholder", [at(claim)])
    conflict = _mean_conflict(case, claim) or _log_conflict(case, claim)
    if conflict:
        return conflict
    if claim.source.key.rsplit(".", 1)[-1] == "val_loss":
        return warned(f"submission.json states its BPB ({claim.value:g}) as val_loss", [at(claim)])
    lacking = [name for name, value in (("author", data.author), ("GitHub id", data.github_id)) if not value]
    if lacking:
        return warned(
            f"submission.json states no {' and no '.join(lacking)}", [at_line(data.path, None, "", "missing keys")]
        )
    return passed(f"val_bpb {claim.text or claim.value} with author and GitHub id", [at(claim)])


def _not_json(case: Case, path: str) -> str:
    """Why strict JSON refuses the file (readers are tolerant), "" when it is valid or cannot be read at all."""
    try:
        json.loads(case.submission.read_text(path))
    except json.JSONDecodeError as error:
        return f"line {error.lineno}: {error.msg}"
    except (AuditorError, KeyError):
        return ""
    return ""


def _mean_conflict(case: Case, claim: Quantity) -> Finding | None:
    """The headline has to be the mean of the per-seed values of the same file (or the value of one named seed)."""
    seeds = {seed: values["val_bpb"] for seed, values in main_metadata(case).seeds.items() if "val_bpb" in values}
    named = (main_metadata(case).raw or {}).get("seeds")
    if isinstance(named, list) and len(counted := {str(seed) for seed in named} & seeds.keys()) > 1:
        # Further runs that are disclosed beside the reported ones do not count.
        seeds = {seed: seeds[seed] for seed in sorted(counted)}
    if len(seeds) < 2:
        return None
    average = mean(quantity.value for quantity in seeds.values())
    if says(claim, average) or abs(average - claim.value) <= MEAN_TOLERANCE:
        return None
    if any(says(claim, quantity.value) for quantity in seeds.values()):
        return warned(
            f"val_bpb {claim.value:.5f} is that of one seed, the mean of {len(seeds)} is {average:.5f}", [at(claim)]
        )
    return failed(
        f"val_bpb {claim.value:.5f} is not the mean of its {len(seeds)} seeds ({average:.5f})",
        [at(claim), *(at(quantity, f"seed {seed}") for seed, quantity in seeds.items())],
    )


def _log_conflict(case: Case, claim: Quantity) -> Finding | None:
    """The headline, or each seed it is the mean of, has to stand in a log."""
    lines = reported(case)
    if not lines or claim_is_logged(case):
        return None
    logged = [item for run in case.runs for item in evaluations(run)]
    told = list(seed_claims(case).values())
    if told and says(claim, mean(quantity.value for quantity in told)):
        unlogged = [quantity for quantity in told if not any(says(quantity, item.bpb) for item in logged)]
        if len(unlogged) < len(told):
            return None
    nearest = min(logged, key=lambda item: abs(item.value - claim.value), default=lines[-1])
    if says(claim, nearest.bpb):
        return None
    return failed(
        f"no log carries val_bpb {claim.text or claim.value}; the nearest logged result is {nearest.value:.5f}",
        [at(claim), at_log(case, nearest.run, nearest.line, "nearest logged result")],
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
