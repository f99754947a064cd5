"""PG-P-required-files: Required files."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.documents.ledger.common import seed_of
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import RUNS
from rules.measures import reported_runs, seed_claims
from rules.package_facts import base_file
from rules.support import at_line, failed, listed, passed, plural, warned


def decide(case: Case) -> Finding:
    """The file list of the folder; an empty script is a missing one, a log without a result is none."""
    submission = case.submission
    missing = []
    if not submission.main_script:
        missing.append("a train script")
    elif (entry := submission.files.get(submission.main_script)) is not None and entry.size == 0:
        missing.append(f"the script ({base_file(submission.main_script)} is empty)")
    if not submission.readme:
        missing.append("README.md")
    if not submission.metadata:
        missing.append("submission.json")
    if not submission.logs:
        missing.append("a train log")
    elif not any(run.results or run.steps for run in case.runs) and case.logs:
        missing.append("a train log (no file has a progress or result line)")
    where = submission.folder or "."
    if missing:
        return failed(f"missing: {listed(missing)}", [at_line(where, None, "", "file list of the folder")])
    seeds = len({seed_of(run) for run in reported_runs(case)})
    claimed = len(seed_claims(case))
    if submission.track is Track.RECORD and claimed > max(seeds, 1):
        return warned(
            f"{claimed} seeds are claimed, logs of {seeds} are there", [at_line(where, None, "", "logs of the folder")]
        )
    return passed(f"script, README, metadata and {plural(len(submission.logs), 'log')}")


RULE = Rule(
    id="PG-P-required-files",
    title="Required files",
    statement=(
        "README.md, submission.json, train log(s) produced by the script (one per seed for a record), "
        "train_gpt.py and any other dependency."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README + rulings",
    violations=(
        (
            "no submission.json or no logs: not graded at all (#529, #631, #639, #656, #674, #2013, #2103); "
            "missing train_gpt.py (#1204 at first)"
        ),
    ),
    allowed=("additional files; log names are free (train.log, train_seed42.log, logs/*.txt)",),
    history="",
    legal_precedents=(549, 1855),
    illegal_precedents=(15, 505, 529, 631, 639, 656, 674, 2013, 2103),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/505",
        "https://github.com/openai/parameter-golf/pull/529",
        "https://github.com/openai/parameter-golf/pull/631",
        "https://github.com/openai/parameter-golf/pull/639",
        "https://github.com/openai/parameter-golf/pull/656",
        "https://github.com/openai/parameter-golf/pull/674",
        "https://github.com/openai/parameter-golf/pull/1204",
        "https://github.com/openai/parameter-golf/pull/2013",
        "https://github.com/openai/parameter-golf/pull/2103",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "Add what is missing: README.md, submission.json, train_gpt.py, and one train log per seed written by "
        "that script."
    ),
    legal=(Example("everything there"),),
    illegal=(
        Example("no log", {f"train_seed{run.seed}.log": None for run in RUNS}, Status.FAIL),
        Example("no submission.json", {"submission.json": None}, Status.FAIL),
        Example("empty script", {"train_gpt.py": ""}, Status.FAIL),
    ),
    decide=decide,
)
