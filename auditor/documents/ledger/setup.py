"""Ledger rows about what was run: seeds, configuration, steps, parameters, vocabulary, settings, hardware."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from auditor.documents.ledger.common import (
    AGREES,
    CONFLICTS,
    NO_EVIDENCE,
    NOT_CLAIMED,
    Parts,
    at_line,
    contrast,
    listing,
    number,
    place,
    row,
    says,
    scope_of,
    seed_key,
    seed_of,
)
from auditor.documents.ledger.headline import Headline, evaluations
from auditor.documents.ledger.settings import (
    TYPE_NAMES,
    hardware_row,
    number_or_text,
    parameters_row,
    setting_rows,
    settings_claims,
    vocabulary_row,
)
from auditor.documents.model import Claim, LogRun, Quantity, Source

#: Words in the name of a setting that may differ between runs of one configuration (places, identities, measurements).
_PER_RUN = re.compile(
    r"(?:^|[_\W])(?:seed|run|id|runid|paths?|files?|dir|folder|time|rank|local|port|host|hostname|logs?|logfile|name|device"
    r"|date|node|pid|url|wandb|checkpoint|ckpt|allocated|reserved|memory|peak|avg|loss|bpb|budget|bytes|elapsed|fitness"
    r"|params)(?:$|[_\W])",
    re.IGNORECASE,
)
_PER_RUN_NAMES = frozenset({"step", "scale", "code", "artifact"})


def _per_run(name: str) -> bool:
    """Whether a setting's name says that it is of one run, not of the configuration."""
    return len(name) < 3 or bool(_PER_RUN.search(name)) or name.lower() in _PER_RUN_NAMES


def setup_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Every row about seeds, configuration and hardware."""
    yield from _seeds_row(parts, head)
    yield from _configuration_row(parts, head)
    yield from _steps_rows(parts, head)
    yield from parameters_row(parts)
    yield from vocabulary_row(parts)
    yield from setting_rows(parts)
    yield from hardware_row(parts, head)


def _seeds_row(parts: Parts, head: Headline) -> Iterator[Claim]:
    told = _claimed_seeds(parts, head)
    found: dict[str, list[LogRun]] = defaultdict(list)
    for run in parts.runs:
        if evaluations(run) or run.steps:
            found[seed_of(run)].append(run)
    seeds = [seed for seed in found if seed]
    if not told and not parts.logs:
        return
    notes = []
    missing = [seed for seed in told if seed not in found]
    if missing and (seeds or not found.get("")):
        notes.append(f"claimed without a log: {listing(f'seed {seed}' for seed in missing)}")
    notes += _copies(parts)
    evidence = [Quantity(float(len(seeds)), Source(runs[0].path)) for seed, runs in found.items()]
    claimed = (
        [Quantity(float(len(told)), source, ", ".join(told)) for source in _seed_sources(parts, head)[:2]]
        if told
        else []
    )
    computed = float(len(seeds) or len(found))
    yield row(
        "seeds",
        "submission",
        claimed=claimed,
        evidence=evidence,
        computed=computed,
        unit="seeds",
        how=f"logged: {listing(sorted(seeds, key=_order) or ['none named'], 12)}",
        status=CONFLICTS if notes else NOT_CLAIMED if not told else None if found else NO_EVIDENCE,
        note="; ".join(notes),
    )


def _order(seed: str) -> tuple[int, str]:
    return (int(seed), "") if seed.isdigit() else (1 << 62, seed)


def _claimed_seeds(parts: Parts, head: Headline) -> list[str]:
    """Seeds that documents name: per-seed results, else a list of seeds in submission.json."""
    named = [seed for seed in head.seed_claims if seed.isdigit()]
    if named:
        return named
    raw = (parts.main.raw or {}) if parts.main else {}
    listed = raw.get("seeds")
    if isinstance(listed, (list, dict)):
        return [seed_key(str(item)) for item in listed if not isinstance(item, (list, dict))]
    return []


def _seed_sources(parts: Parts, head: Headline) -> list[Source]:
    sources = [values[0].source for values in head.seed_claims.values()][:1]
    return sources or [Source(data.path, key="seeds") for data in parts.metadata[:1]]


def _copies(parts: Parts) -> list[str]:
    """Logs of different names with one content: one run presented as several."""
    by_blob: dict[object, list[str]] = defaultdict(list)
    for log in parts.logs:
        if log.lines:
            by_blob[log.blob or hash("\n".join(log.lines))].append(log.path.rsplit("/", 1)[-1])
    notes = []
    for names in by_blob.values():
        seeds = {match.group() for name in names if (match := re.search(r"\d+", name))}
        if len(names) > 1 and len(seeds) > 1:
            notes.append(f"{listing(names)} are one and the same file")
    return notes


def _configuration_row(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Settings, parameters and code size of the reported runs against each other."""
    runs = list({id(item.run): item.run for item in head.reported.values()}.values())
    if len(runs) < 2:
        return
    differ = []
    params = {int(run.params.value) for run in runs if run.params}
    if len(params) > 1:
        differ.append(f"model_params {listing(map(number, sorted(params)))}")
    for name in sorted(set.union(*(set(run.settings) for run in runs))):
        if _per_run(name):
            continue
        values = {run.settings[name].strip() for run in runs if name in run.settings} - TYPE_NAMES
        if len({number_or_text(value) for value in values}) > 1:
            differ.append(f"{name} {listing(sorted(values))}")
    lacking = _one_sided(runs)
    note = f"runs differ in {listing(differ, 6)}" if differ else ""
    note += ("; " if note and lacking else "") + lacking
    evidence = [Quantity(float(len(run.settings)), Source(run.path, run.first_line)) for run in runs]
    yield row(
        "configuration across seeds",
        "submission",
        evidence=evidence,
        computed=float(len(differ)),
        unit="settings",
        how=f"settings that differ between {len(runs)} reported runs",
        status=CONFLICTS if differ or lacking else AGREES,
        note=note,
    )


def _one_sided(runs: list[LogRun]) -> str:
    """Settings that some dumps have and others of comparable length lack: another program printed them."""
    dumps = [run for run in runs if len(run.settings) >= 20]
    if len(dumps) < 2:
        return ""
    common = set.intersection(*(set(run.settings) for run in dumps))
    extra = {scope_of(run): sorted(name for name in set(run.settings) - common if not _per_run(name)) for run in dumps}
    extra = {scope: names for scope, names in extra.items() if names}
    if not extra:
        return ""
    return "; ".join(f"only {scope} prints {listing(names)}" for scope, names in list(extra.items())[:3])


def last_step(run: LogRun) -> Quantity | None:
    """Last training step of a run, from its stop line or its progress."""
    if run.stop is not None:
        return at_line(run, run.stop.line, float(run.stop.step), run.stop.text)
    last = max(run.steps, key=lambda step: step.step, default=None)
    return at_line(run, last.line, float(last.step), last.text) if last else None


def _steps_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    data = parts.main
    told: dict[str, list[Quantity]] = defaultdict(list)
    tables = ([data.seeds] if data else []) + ([parts.readme.seeds] if parts.readme else [])
    for table in tables:
        for name, values in table.items():
            if "steps" in values:
                told[seed_key(name)].append(values["steps"])
    reported = {key: step for key, item in head.reported.items() if (step := last_step(item.run))}
    for seed, values in told.items():
        if seed not in reported:
            continue
        step = reported[seed]
        wrong = [claim for claim in values if not says(claim, step.value)]
        note = contrast(wrong[0], step, "steps") if wrong else ""
        yield row(
            "steps",
            f"seed {seed}",
            claimed=values,
            evidence=(step,),
            computed=step.value,
            unit="steps",
            how="last logged step",
            status=CONFLICTS if wrong else AGREES,
            note=note,
        )
    whole = settings_claims(parts, ("step_stop", "steps", "training_steps", "num_steps", "train_steps"))
    if whole and reported:
        yield _whole_steps(whole, list(reported.values()))


def _whole_steps(whole: list[Quantity], steps: list[Quantity]) -> Claim:
    values = [step.value for step in steps]
    wrong = [claim for claim in whole if not min(values) - 1 <= claim.value <= max(values) + 1]
    note = ""
    if wrong:
        logs = number(values[0]) if len(set(values)) == 1 else f"{number(min(values))}-{number(max(values))}"
        note = f"{place(wrong[0])} says {number(wrong[0].value)} steps, the logs {logs}"
    return row(
        "steps",
        "submission",
        claimed=whole,
        evidence=steps,
        computed=max(values),
        unit="steps",
        how="last logged step",
        status=CONFLICTS if wrong else AGREES,
        note=note,
    )
