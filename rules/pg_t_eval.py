"""PG-T-eval: 600 s evaluation, separate budget."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import runs, variant
from rules.measures import (
    Measured,
    all_eval_seconds,
    at_log,
    eval_seconds,
    largest,
    line_text,
    main_metadata,
    reported_runs,
)
from rules.support import at, failed, passed, unknown

LIMIT = 600.0
PRECOMPUTED_OUTSIDE = ("ngram_tilt:precompute_outside_timer_done elapsed=157.31s",)
_OUTSIDE = re.compile(r"(?i)(?:precompute|hints?)\w*[^\n]*(?:outside|before)[^\n]*?([\d.]+)\s*s\b")


def decide(case: Case) -> Finding:
    """Seconds of the pass behind the headline; diagnostics are shown but not counted (practice since #1530)."""
    times = [time for run in reported_runs(case) if (time := eval_seconds(case, run))]
    if not times:
        return _by_claim(case)
    top = max(times, key=lambda time: time.value)
    everything = max(all_eval_seconds(run) for run in reported_runs(case))
    evidence = [time.evidence for time in sorted(times, key=lambda time: -time.value)]
    beside = f"; with all diagnostics {everything:.0f} s" if everything > top.value + 1 else ""
    if top.value > LIMIT:
        return failed(
            f"the scored pass took {top.value:.1f} s ({top.who}), {top.value - LIMIT:.1f} s too long{beside}", evidence
        )
    outside = _precomputed(case)
    if outside and top.value + outside.value > LIMIT:
        return failed(
            f"the scored pass took {top.value:.1f} s and {outside.value:.1f} s of hints were built before the timer",
            [outside.evidence, *evidence],
        )
    return passed(f"the scored pass took {top.value:.1f} s at most ({top.who}){beside}", evidence)


def _precomputed(case: Case) -> Measured | None:
    found = []
    for run in reported_runs(case):
        for name, line, seconds in run.phases:
            text = line_text(case, run.path, line)
            if "outside" in name.lower() or _OUTSIDE.search(text):
                found.append(
                    Measured(seconds, at_log(case, run, line, "work on validation tokens before the timer"), run)
                )
    return largest(found)


def _by_claim(case: Case) -> Finding:
    data = main_metadata(case)
    if data and data.eval_seconds and data.eval_seconds.value > LIMIT:
        return failed(f"the metadata states {data.eval_seconds.value:.0f} s of evaluation", [at(data.eval_seconds)])
    return unknown("no log shows the time of the scored pass", (Witness.REPRODUCTION,))


RULE = Rule(
    id="PG-T-eval",
    title="600 s evaluation, separate budget",
    statement=(
        "Evaluation may take at most another 10 minutes on 8xH100. Conventions in merged rows: (i) #1514 sums "
        "roundtrip + sliding + n-gram precomputation + TTT; (ii) from #1530 on the timer covers only the "
        "scored pass with its adaptation, and deserialisation, compile warm-up and diagnostic evaluations are "
        "left out. Precomputation from validation tokens (n-gram hints) belongs inside."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README + rulings",
    violations=(
        "eval_time > 600 s (#529: 616 s; #1972: ~688 s; #1722: 395+405 s)",
        "NGRAM_HINT_PRECOMPUTE_OUTSIDE=1: ~150-160 s of hint building before the timer (#1967)",
        "several timed phases each below 600 s whose sum is above",
    ),
    allowed=(
        (
            "sliding + TTT diagnostics run besides the headline pass (merged rows print them; sum of all can "
            "exceed 600 s)"
        ),
        "AR self-calibration (~200 s in #1019) counted in neither budget when it was merged",
    ),
    history=(
        'Severity: illegal (record track). Never fixed by an explicit text: cocohearts counted "eval '
        'operations" (#1972) and "final process timing" (#2121) in refusals, while merged rows report only '
        "total_eval_time of the TTT pass. Report both numbers."
    ),
    legal_precedents=(549, 1530, 1855, 2135),
    illegal_precedents=(529, 1722, 1967, 1972, 2022),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/commit/9f170d4c8",
        "https://github.com/openai/parameter-golf/pull/529",
        "https://github.com/openai/parameter-golf/pull/1972",
        "https://github.com/openai/parameter-golf/pull/2121",
        "https://github.com/openai/parameter-golf/pull/1967",
        "https://github.com/openai/parameter-golf/pull/2018",
        "https://github.com/openai/parameter-golf/pull/2135",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.REPRODUCTION),
    remedy=(
        "Bring the scored pass with its adaptation and precomputation under 600 s on 8xH100, or file the run "
        "as non-record."
    ),
    legal=(Example("61 s for the scored pass"),),
    illegal=(Example("616 s", variant(done=runs(eval_ms=616_204)), Status.FAIL),),
    decide=decide,
)
