"""PG-ST-seeds: At least three seeds of one configuration."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

from auditor.case import Case
from auditor.documents.ledger.common import name_of, seed_in_name, seed_of
from auditor.documents.model import LogRun
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import RUNS, variant
from rules.measures import at_log, reported, seed_claims, who
from rules.support import at, failed, listed, passed, plural, unknown, warned

OTHER_SETTINGS = tuple(
    replace(run, settings=(f"  num_layers: {layers}",)) for run, layers in zip(RUNS, (9, 9, 10), strict=True)
)
NEEDED = 3


def decide(case: Case) -> Finding:
    """Distinct seeds with a logged result that the claim counts, and one configuration in all of them."""
    claimed = seed_claims(case)
    lines = reported(case)
    runs = [item.run for item in lines]
    logged = {seed_of(run) or run.path for run in runs}
    evidence = [at_log(case, item.run, item.line, who(item.run)) for item in lines]
    said = [at(quantity, f"seed {seed} as stated") for seed, quantity in list(claimed.items())[:5]]
    if not runs and not claimed:
        return unknown("neither log nor metadata states a seed")
    if len(logged) >= NEEDED:
        return _one_configuration(case, runs, evidence, len(logged))
    missing = sorted(seed for seed in claimed if seed not in logged)
    if len(claimed) >= NEEDED and missing:
        summary = (
            f"{plural(len(claimed), 'seed')} claimed, results of {len(logged)} logged; "
            f"no log carries seed {listed(missing)}"
        )
        named = [run for log in case.logs for run in log.runs if seed_in_name(run.path) in missing and run.results]
        other = "; ".join(f"{name_of(run.path)} states seed {run.seed}" for run in named if run.seed is not None)
        return failed(f"{summary} ({other})" if other else summary, [*evidence, *said])
    return failed(f"{plural(max(len(logged), len(claimed)), 'seed')}: three are the rule", [*evidence, *said])


def _one_configuration(case: Case, runs: list[LogRun], evidence: list[Evidence], count: int) -> Finding:
    differing = _differing(runs)
    if not differing:
        return passed(f"{count} seeds of one configuration", evidence)
    name = next((name for name in differing if not _EVALUATION.match(name)), next(iter(differing)))
    lines = [at_log(case, run, run.setting_lines.get(name), name) for run in runs if name in run.settings]
    summary = f"the seeds were not run with one configuration: {name} is {listed(sorted(differing[name]))}"
    if _EVALUATION.match(name):
        return warned(summary, lines, "A switch of an evaluation that may not be the reported one.")
    return failed(summary, lines)


# Settings that name a run or a place and may differ between seeds of one configuration.
_FREE = re.compile(
    r"(?i)^\w{1,2}$|seed|shards|run_?id|path|dir$|files?$|log|host|rank|port|time|name|date|checkpoint|artifact|wandb|eval_only|"
    r"reserve|wallclock|device|init_model|load|save|prefix|url|warm|val_loss_every|world|vocab_?bytes"
)
_EVALUATION = re.compile(r"(?i)(?:ttt|eval|ngram|slot|etlb|sliding|phased)_")


def _differing(runs: list[LogRun]) -> dict[str, set[str]]:
    """Settings stated before training that differ between runs, with their values."""
    stated: dict[str, set[str]] = {}
    for run in runs:
        begins = min((item.line for item in (*run.steps, *run.results, *run.progress)), default=run.last_line)
        for name, value in run.settings.items():
            if run.setting_lines.get(name, 0) < begins and not _FREE.search(name):
                stated.setdefault(name, set()).add(value.strip())
    return {name: values for name, values in sorted(stated.items()) if len(values) > 1}


RULE = Rule(
    id="PG-ST-seeds",
    title="At least three seeds of one configuration",
    statement=(
        "Headline = mean over >= 3 seeds run with the same submitted code and settings; per-seed values, not "
        "a best seed. No particular seeds are prescribed (42/1337/2024 is a community habit)."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 20),  # the text came on the 19th, 15:03 UTC
    authority="README + rulings",
    violations=(
        ("one or two seeds (#1963, #2020, #2103, #2121, #2139 although submission.json said three_seeds=true)"),
        ("third seed from another configuration (#2124); corrected/offset numbers instead of logged ones (#1981)"),
    ),
    allowed=(
        "a single-seed PR completed by an independent reproduction (#1851 + #1868)",
        "later eval-only reruns on the same artifacts if disclosed",
    ),
    history="",
    legal_precedents=(549, 1855, 2135),
    illegal_precedents=(181, 1963, 2020, 2103, 2121, 2124, 2139),
    sources=(
        "https://github.com/openai/parameter-golf/commit/d2bd76079",
        "https://github.com/openai/parameter-golf/pull/181",
        "https://github.com/openai/parameter-golf/pull/2020",
        "https://github.com/openai/parameter-golf/pull/2121",
        "https://github.com/openai/parameter-golf/pull/2124",
        "https://github.com/openai/parameter-golf/pull/2139",
        "https://github.com/openai/parameter-golf/pull/1963",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy="Run the final code with three seeds, same settings, and ship the log and the values of each.",
    legal=(Example("three seeds of one configuration"),),
    illegal=(
        Example("one seed", variant(done=(RUNS[0],)), Status.FAIL),
        Example("three seeds claimed, two logged", {"train_seed2024.log": None}, Status.FAIL),
        Example("the third seed has another configuration", variant(done=OTHER_SETTINGS), Status.FAIL),
    ),
    decide=decide,
)
