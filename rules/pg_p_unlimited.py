"""PG-P-unlimited: Unlimited-compute track."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import NON_RECORD_FOLDER, runs, variant
from rules.measures import reported_runs, train_seconds
from rules.support import passed

SAYS_SO = "This run is not meant to meet the 10-minute limit: unlimited compute, four hours."


def decide(case: Case) -> Finding:
    """The folder and the note; time and significance are not judged."""
    times = [time for run in reported_runs(case) if (time := train_seconds(case, run))]
    longest = max((time.value for time in times), default=None)
    took = f"{longest:,.0f} s of training" if longest else "training time not logged"
    return passed(
        f"unlimited compute ({took}): size, data and metric rules bind, time does not",
        [time.evidence for time in times],
    )


RULE = Rule(
    id="PG-P-unlimited",
    title="Unlimited-compute track",
    statement=(
        "Runs not meant to meet the 10-minute limit go to the non-record folder with a note in the README; "
        "cap, data and metric rules stay."
    ),
    severity=Severity.ADVICE,
    tracks=frozenset({Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=("claiming a record row with more than 600 s",),
    allowed=("4-hour baseline 1.2074; 2-hour 1-bit 1.1239",),
    history="Eval time above 600 s occurs in accepted entries (1-bit run: 769 s).",
    legal_precedents=(641,),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/commit/9f44bc69f",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "State in the README that the run is not meant for the 10 minute limit, and keep it in the non-record folder."
    ),
    legal=(
        Example(
            "four hours, and the README says so",
            variant(done=runs(train_ms=14_400_039), readme_more=SAYS_SO, track="non-record-unlimited-compute-16mb"),
            folder=NON_RECORD_FOLDER,
        ),
    ),
    illegal=(Example("filed on the record track", variant(done=runs(train_ms=14_400_039)), Status.NOT_APPLICABLE),),
    decide=decide,
)
