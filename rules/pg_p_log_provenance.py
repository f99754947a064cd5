"""PG-P-log-provenance: Logs must stem from the submitted code."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.documents.model import ForensicFact, LogRun
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import edited, program
from rules.examples import RUNS, log, runs, variant
from rules.measures import at_log, claim_is_logged, headline, reported, seed_claims
from rules.support import at, failed, passed, plural, unknown, warned

# Progress of an adaptation that this program does not have.
FOREIGN = tuple(f"  ttt_chunk [{done}/120] bpb=1.0{512 - done} time={done * 1.7:.1f}s" for done in range(10, 121, 10))
# The program prints the clock divided by the step; no run of it can print another quotient.
WRONG_QUOTIENT = edited(
    log(RUNS[0], program()), "train_time:253611ms step_avg:84.54ms", "train_time:253611ms step_avg:81.20ms"
)


def decide(case: Case) -> Finding:
    """What the examination of the logs found, and whether any log carries the claim."""
    facts = sorted(case.forensics, key=lambda fact: _STRENGTH.get(fact.strength, 9))
    hard = [fact for fact in facts if fact.strength == "contradiction"]
    soft = [fact for fact in facts if fact.strength == "suspicious"]
    if not case.runs:
        return unknown("there is no log to examine")
    if hard:
        return failed(f"{hard[0].summary}{_more(hard)}", _evidence(hard), hard[0].explanation)
    foreign = _foreign_headline(case, soft)
    if foreign:
        return failed(
            f"the submitted program cannot print the line that carries the headline: {foreign[0].excerpt[:90]!r}",
            foreign,
            " ".join(fact.explanation for fact in soft if fact.kind == "line-without-template"),
        )
    claim = headline(case)
    if claim is not None and not claim_is_logged(case) and not seed_claims(case):
        finished = reported(case)
        if finished:
            return warned(
                f"no log carries the headline {claim.text or claim.value}",
                [at(claim), *(at_log(case, item.run, item.line, "result of this log") for item in finished)],
            )
    if soft:
        return warned(f"{soft[0].summary}{_more(soft)}", _evidence(soft), soft[0].explanation)
    if "forensics" in _absent(case):
        return unknown("the logs were not examined")
    return passed(f"nothing in {plural(len(case.logs), 'log')} contradicts the program")


def _foreign_headline(case: Case, facts: list[ForensicFact]) -> list[Evidence]:
    """The result lines that the claim rests on, when the program has no print for any of them."""
    foreign = {
        (source.path, source.line) for fact in facts if fact.kind == "line-without-template" for source in fact.sources
    }
    results = [(item.run, item.line, item.value) for item in reported(case)]
    if not results or any(_own_line(run, value, foreign) for run, _, value in results):
        return []
    return [at_log(case, run, line, "no print of the program gives this line") for run, line, _ in results]


def _own_line(run: LogRun, value: float, foreign: set[tuple[str, int | None]]) -> bool:
    """Whether a line that the program can print states the value too: a launcher repeats results in its own words."""
    return any(
        result.val_bpb is not None
        and abs(result.val_bpb - value) < 10.0**-result.digits
        and (run.path, result.line) not in foreign
        for result in run.results
    )


_STRENGTH = {"contradiction": 0, "suspicious": 1, "notable": 2}


def _more(facts) -> str:
    return f" (and {plural(len(facts) - 1, 'further observation')})" if len(facts) > 1 else ""


def _evidence(facts) -> list[Evidence]:
    return [at(source, fact.summary) for fact in facts for source in fact.sources[:3]]


def _absent(case: Case) -> str:
    return " ".join(str(reason) for reason in case.absent.values())


RULE = Rule(
    id="PG-P-log-provenance",
    title="Logs must stem from the submitted code",
    statement=(
        "The logs have to be produced automatically by the submitted script and show the submitted "
        "configuration. The stock script writes its own source, Python/torch versions and nvidia-smi into the "
        "log."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README; maintainer repro notes",
    violations=(
        (
            "hyper-parameters in a log that the code does not know (#1493 seed 42: ttt_hash_embed, code size "
            "16,630 vs 16,594: issue #1594)"
        ),
        "stale log of another model (#86: 21.8 M-parameter log for a 26.5 M-parameter claim)",
        "edited, concatenated or summarised logs; missing source dump when the script prints one",
    ),
    allowed=(
        "wrapper/unpacked variants with identical program text",
        "eval-only continuation logs marked as such",
    ),
    history=(
        "Two months after merging, on 2026-05-04, cocohearts asked authors of merged rows (#86, #1334) for "
        "the exact source/logs."
    ),
    legal_precedents=(1868,),
    illegal_precedents=(86, 1493),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/issues/1594",
        "https://github.com/openai/parameter-golf/pull/86",
        "https://github.com/openai/parameter-golf/pull/1334",
        "https://github.com/openai/parameter-golf/pull/2124",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy=("Ship the logs that this script wrote, whole and unedited, one per seed; run again where they are gone."),
    legal=(Example("logs of this program"),),
    illegal=(
        Example("lines that the program cannot print", variant(done=runs(before_score=FOREIGN)), Status.WARN),
        Example(
            "a headline printed under a label that the program does not have",
            variant(done=runs(label="final_int6_lzma_sliding", before_score=FOREIGN)),
            Status.FAIL,
        ),
        Example("an average that is not clock by step", {"train_seed42.log": WRONG_QUOTIENT}, Status.FAIL),
    ),
    decide=decide,
)
