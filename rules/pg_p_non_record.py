"""PG-P-non-record: Non-record submissions."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import NON_RECORD_FOLDER, RUNS, variant
from rules.measures import headline, seed_claims
from rules.support import at_line, failed, listed, passed

NON_RECORD = {"track": "non_record_16mb"}


def decide(case: Case) -> Finding:
    """A result, a log and a README, on a track without time and significance."""
    lacking = []
    if headline(case) is None and not seed_claims(case):
        lacking.append("val_bpb")
    if not case.submission.logs:
        lacking.append("a log")
    if case.readme is None or len(case.readme.text.split()) < 20:
        lacking.append("a README that justifies the entry")
    if lacking:
        return failed(
            f"missing for a non-record entry: {listed(lacking)}",
            [at_line(case.submission.folder or ".", None, "", "file list")],
        )
    return passed("val_bpb, log and README are there; time, hardware and significance are not judged on this track")


RULE = Rule(
    id="PG-P-non-record",
    title="Non-record submissions",
    statement=(
        "Same packaging and the 16 MB cap; unique or interesting ideas, negative results, unfinished "
        "solutions that run. val_bpb and a log are required. High bar: justify in the README. No significance "
        "or chronology test."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=("no val_bpb/log; over the cap; record-track rules broken silently (val leakage is not excused)",),
    allowed=("other hardware, one seed, > 10 minutes (unlimited) if stated",),
    history=(
        "TTT/normalisation violations make the number meaningless here as well; label such studies as invalid "
        "for ranking (#1550)."
    ),
    legal_precedents=(363, 641, 1388, 1443),
    illegal_precedents=(8, 15, 496),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/8",
        "https://github.com/openai/parameter-golf/pull/15",
        "https://github.com/openai/parameter-golf/pull/363",
        "https://github.com/openai/parameter-golf/pull/496",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "Complete the package (val_bpb and a log are required here too), fit the 16,000,000 bytes and say in "
        "the README what is unusual."
    ),
    legal=(Example("complete non-record package", variant(track="non_record_16mb"), folder=NON_RECORD_FOLDER),),
    illegal=(
        Example(
            "non-record without a log",
            {**variant(track="non_record_16mb"), **{f"train_seed{run.seed}.log": None for run in RUNS}},
            Status.FAIL,
            folder=NON_RECORD_FOLDER,
        ),
    ),
    decide=decide,
)
