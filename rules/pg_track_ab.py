"""PG-TRACK-AB: Track A / Track B labels."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import runs, variant
from rules.measures import at_log, reported_runs, setting
from rules.support import at_line, not_applicable, passed, warned

TTT_ON = ("Hyperparameters:", "  ttt_enabled: True", "  ttt_lr: 0.002")
ADAPTS = ("ttt_enabled", "ngram_tilt_enabled", "phased_ttt_enabled")
_TRACK_A = re.compile(r"\btrack[ -]?a\b", re.IGNORECASE)


def decide(case: Case) -> Finding:
    """A README that says Track A beside a log in which adaptation was on."""
    text = case.readme.text if case.readme else ""
    said = _TRACK_A.search(text)
    if not said or re.search(r"\btrack[ -]?b\b", text, re.IGNORECASE):
        return not_applicable("the README does not claim Track A")
    active = [
        (run, name)
        for run in reported_runs(case)
        for name in ADAPTS
        if (setting(run, name) or "0").strip().lower() in ("1", "true")
    ]
    line = text.count("\n", 0, said.start()) + 1
    claim = at_line(case.readme.path, line, text.splitlines()[line - 1].strip(), "claims a fixed predictor")
    if not active:
        return passed("the README claims Track A and no log shows adaptation switched on", [claim])
    run, name = active[0]
    return warned(
        f"the README claims Track A, but the log has {name} on",
        [claim, at_log(case, run, run.setting_lines.get(name), "adaptation in force")],
    )


RULE = Rule(
    id="PG-TRACK-AB",
    title="Track A / Track B labels",
    statement=(
        "Track A = fixed predictor: no state is built from validation tokens during evaluation. Track B = "
        "adaptive compression: state may be built from already scored tokens. All four conditions bind both "
        "(C3/C4 are trivially met by a pure Track A run). The two share one leaderboard; the label is a "
        "statement of the author, useful for choosing checks, not a rule of the README."
    ),
    severity=Severity.ADVICE,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 28),
    authority="community text",
    violations=(
        (
            "claiming Track A while a TTT/cache path is active in the logged configuration (metadata error, "
            "and PG-C3 checks then apply)"
        ),
    ),
    allowed=("not stating a track at all",),
    history="Do not confuse with the folder tracks track_10min_16mb / track_non_record_16mb.",
    legal_precedents=(1019, 1204, 1394, 1493),
    illegal_precedents=(),
    sources=("https://github.com/openai/parameter-golf/issues/1017",),
    witnesses=(Witness.DOCUMENTS,),
    remedy="Correct the label in the README: a run that adapts during evaluation is Track B.",
    legal=(
        Example("Track A without adaptation", variant(readme_more="This is a Track A submission: a fixed predictor.")),
    ),
    illegal=(
        Example(
            "Track A claimed, adaptation on in the logs",
            variant(done=runs(settings=TTT_ON), readme_more="This is a Track A submission: a fixed predictor."),
            Status.WARN,
        ),
    ),
    decide=decide,
)
