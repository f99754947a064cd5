"""Ledger rows about the score: BPB and loss against the log, means, spreads, the byte denominator."""

from __future__ import annotations

import math
from collections.abc import Iterator

from auditor.documents.interval import Interval, mean_interval, stated, unit_of_value
from auditor.documents.ledger.common import (
    AGREES,
    CONFLICTS,
    NO_EVIDENCE,
    NOT_CLAIMED,
    Parts,
    bpb_text,
    claims,
    listing,
    place,
    row,
    says,
    seed_of,
    written,
)
from auditor.documents.ledger.denominator import denominator_rows, loss_rows
from auditor.documents.ledger.headline import (
    FLOAT,
    Headline,
    Scored,
    evaluations,
    evidence_of,
    validation_lines,
)
from auditor.documents.ledger.result_files import stated_elsewhere
from auditor.documents.model import Claim, ProgressLine, Quantity
from auditor.documents.records import records
from auditor.documents.statistics import TYPICAL_SD, Summary, summarize


def score_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Every row about BPB, loss and their denominator."""
    yield from _headline_rows(parts, head)
    yield from _seed_rows(parts, head)
    yield from _statistics_rows(parts, head)
    yield from loss_rows(parts, head)
    for run in parts.runs:
        yield from denominator_rows(run, head)
    yield from _readme_values(parts, head)


def _headline_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    evidence = tuple(evidence_of(item) for item in head.reported.values())
    how = _mean_text(head)
    if not head.claimed:
        yield row(
            "val_bpb",
            "submission",
            evidence=evidence,
            computed=head.mean,
            how=how,
            unit="BPB",
            status=NOT_CLAIMED,
            note="no document states a val_bpb" if not evidence else "",
        )
        return
    if not evidence:
        note = "no log has a result line with a BPB" if parts.logs else "there is no log"
        yield row("val_bpb", "submission", claimed=head.claimed, unit="BPB", status=NO_EVIDENCE, note=note)
        return
    for group in _groups(head.claimed):
        status, note = _judge(parts, head, group[0])
        yield row(
            "val_bpb",
            "submission",
            claimed=group,
            evidence=evidence,
            computed=head.mean,
            how=how,
            unit="BPB",
            status=status,
            note=note,
        )


def _mean_text(head: Headline) -> str:
    if len(head.reported) > 1:
        return f"mean of {len(head.reported)} logged runs, line {head.label}"
    return f"line {next(iter(head.reported.values())).label}" if head.reported else ""


def _groups(stated: tuple[Quantity, ...]) -> list[tuple[Quantity, ...]]:
    """Claims that can be the same number, together."""
    groups: list[list[Quantity]] = []
    for claim in stated:
        for group in groups:
            if says(claim, written(group[0])):
                group.append(claim)
                break
        else:
            groups.append([claim])
    return [tuple(group) for group in groups]


def _judge(parts: Parts, head: Headline, claim: Quantity) -> tuple[str, str]:
    """Status and note of one stated headline value: what it is when rounded, then what it may be with digits cut."""
    for tight in (True, False):
        found = _known_value(parts, head, claim, tight)
        if found is not None:
            return found
    return CONFLICTS, _no_line(parts, head, claim)


def _known_value(parts: Parts, head: Headline, claim: Quantity, tight: bool) -> tuple[str, str] | None:
    """Status and note when the value is the logged mean, a reported line, any line, or the mean of claims."""
    reported = list(head.reported.values())
    if says(claim, mean_interval(item.bpb for item in reported), tight):
        return _float_or_fine(head, reported[-1] if len(reported) == 1 else None)
    unlogged = _unlogged_mean(head, claim, tight)
    if unlogged:
        return NO_EVIDENCE, unlogged
    for key, item in head.reported.items():
        if says(claim, item.bpb, tight):
            status, note = _float_or_fine(head, item)
            return status, note or _single(head, claim, key, item)
    label = _mean_of_another(parts, claim, tight)
    if label:
        return AGREES, f"{bpb_text(claim.value)} is the mean of `{label}` over the logs"
    other = _elsewhere(parts, claim, tight)
    if other is None:
        return None
    if other.kind != FLOAT:
        return AGREES, f"{bpb_text(claim.value)} is `{other.label}` at {other.where}"
    artifact = listing(f"{bpb_text(item.value)} ({item.label})" for item in reported)
    return CONFLICTS, (
        f"{bpb_text(claim.value)} BPB is `{other.label}` at {other.where}, measured before quantisation; "
        f"the artifact scores {artifact}"
    )


def _mean_of_another(parts: Parts, claim: Quantity, tight: bool) -> str:
    """Label of another evaluation of the quantised model whose mean over the seeds is the claim, "" for none."""
    labels: dict[str, dict[str, Scored]] = {}
    for run in parts.runs:
        for item in evaluations(run):
            if item.kind != FLOAT:
                labels.setdefault(item.label, {})[seed_of(run) or run.path] = item
    for label, items in labels.items():
        if len(items) > 1 and says(claim, mean_interval(item.bpb for item in items.values()), tight):
            return label
    return ""


def _single(head: Headline, claim: Quantity, key: str, item: Scored) -> str:
    if len(head.reported) < 2:
        return ""
    what = f"the value of seed {key}" if key.isdigit() else f"the value at {item.where}"
    return f"{bpb_text(claim.value)} is {what}, not the mean of {len(head.reported)} runs ({bpb_text(head.mean or 0)})"


def _unlogged_mean(head: Headline, claim: Quantity, tight: bool) -> str:
    """What to say of a mean over claimed seeds of which some have no log; "" when the claim is no such mean."""
    missing = [seed for seed in head.seed_claims if seed not in head.reported]
    values = [stated_values[0].value for stated_values in head.seed_claims.values()]
    if not missing or len(values) < 2 or not says(claim, sum(values) / len(values), tight):
        return ""
    have = "has" if len(missing) == 1 else "have"
    names = listing(f"seed {seed}" for seed in missing)
    return f"{bpb_text(claim.value)} is the mean of {len(values)} claimed seeds, of which {names} {have} no log"


def _float_or_fine(head: Headline, item: Scored | None) -> tuple[str, str]:
    """A headline that equals a float line is a conflict when the same run also scored its quantised model."""
    item = item or next(iter(head.reported.values()))
    if item.kind != FLOAT:
        return AGREES, ""
    later = [other for other in evaluations(item.run) if other.kind != FLOAT]
    if not later:
        return AGREES, f"the line (`{item.label}`) scores float weights; no line scores the quantised model"
    return CONFLICTS, (
        f"the claim equals `{item.label}` at {item.where}, measured before quantisation; the artifact's own line "
        f"`{later[-1].label}` at {later[-1].where} says {bpb_text(later[-1].value)}"
    )


def _elsewhere(parts: Parts, claim: Quantity, tight: bool) -> Scored | None:
    """Any other line of any log that states the claimed value: results of artifacts first."""
    every = [item for run in parts.runs for item in evaluations(run)]
    every.sort(key=lambda item: item.kind == FLOAT)
    every += [item for run in parts.runs for item in validation_lines(run)]
    return next((item for item in every if says(claim, item.bpb, tight)), None)


def _no_line(parts: Parts, head: Headline, claim: Quantity) -> str:
    every = [item for run in parts.runs for item in evaluations(run)] or list(head.reported.values())
    nearest = min(every, key=lambda item: abs(item.value - claim.value))
    text = (
        f"{bpb_text(claim.value)} BPB ({place(claim)}) is in no log; the nearest result is {bpb_text(nearest.value)} "
        f"(`{nearest.label}`, {nearest.where}), {abs(nearest.value - claim.value):.4f} away"
    )
    if len(head.reported) > 1 and head.mean is not None:
        text += f", and the mean of {len(head.reported)} logged runs is {bpb_text(head.mean)}"
    file = stated_elsewhere(parts, claim.value, unit_of_value(claim.value, claim.text))
    if file is not None:
        text += f"; {place(file)} states it, without a log of the run"
    return text


def _seed_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    for seed in [*head.seed_claims, *(key for key in head.reported if key not in head.seed_claims)]:
        stated_values, item = head.seed_claims.get(seed, ()), head.reported.get(seed)
        scope = f"seed {seed}" if seed.isdigit() else seed.rsplit("/", 1)[-1]
        if item is None:
            yield row(
                "val_bpb",
                scope,
                claimed=stated_values,
                unit="BPB",
                status=NO_EVIDENCE,
                note=f"no log of seed {seed} with a result",
            )
            continue
        wrong, note = _wrong_seed_claims(parts, item, stated_values)
        if wrong:
            note = _other_value(item, wrong[0])
        elif item.kind == FLOAT and stated_values:
            note = _float_or_fine(head, item)[1]
        conflict = bool(wrong) or (item.kind == FLOAT and bool(stated_values) and "before quantisation" in note)
        status = NOT_CLAIMED if not stated_values else CONFLICTS if conflict else AGREES
        yield row(
            "val_bpb",
            scope,
            claimed=stated_values,
            evidence=(evidence_of(item),),
            computed=item.value,
            how=f"line {item.label}",
            unit="BPB",
            status=status,
            note=note,
        )


def _wrong_seed_claims(parts: Parts, item: Scored, stated_values: tuple[Quantity, ...]) -> tuple[list[Quantity], str]:
    """Claims of a seed that none of its runs has in that evaluation, and what to say of those that another run has."""
    wrong, notes = [], []
    for claim in stated_values:
        if says(claim, item.bpb):
            continue
        again = [
            other
            for run in parts.runs
            if run is not item.run and seed_of(run) == seed_of(item.run)
            for other in evaluations(run)
            if other.label == item.label and says(claim, other.bpb)
        ]
        if again:
            notes.append(f"{place(claim)} states another run of the seed ({again[0].where})")
        else:
            wrong.append(claim)
    return wrong, listing(notes)


def _other_value(item: Scored, claim: Quantity) -> str:
    near = [other for other in evaluations(item.run) if says(claim, other.bpb)]
    note = (
        f"{place(claim)} says {bpb_text(claim.value)} BPB, the log {bpb_text(item.value)} "
        f"(`{item.label}`, {item.where})"
    )
    return note + (f"; the claim equals `{near[-1].label}` at {near[-1].where}" if near else "")


def seed_values(head: Headline) -> list[float]:
    """Per-seed BPB: the logged values when at least as many seeds are logged as claimed, else the claimed ones."""
    logged = [item.value for item in head.reported.values()]
    told = [values[0].value for values in head.seed_claims.values()]
    return logged if len(logged) >= len(told) else told


def _statistics_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    values = seed_values(head)
    if len(values) < 2:
        return
    summary = summarize(values)
    source = "logs" if len(head.reported) >= len(head.seed_claims) else "claimed per-seed values"
    means = _claimed_means(parts)
    if means:
        wrong = [claim for claim in means if not says(claim, summary.mean)]
        note = listing(f"{place(claim)} says {bpb_text(claim.value)}" for claim in wrong)
        if wrong:
            note += f"; the mean of {summary.n} values ({source}) is {summary.mean:.6f}"
        yield row(
            "mean val_bpb",
            "submission",
            claimed=means,
            computed=summary.mean,
            unit="BPB",
            how=f"mean of {summary.n} values ({source})",
            status=CONFLICTS if wrong else AGREES,
            note=note,
        )
    units = [unit_of_value(claim.value, claim.text) for values in head.seed_claims.values() for claim in values[:1]]
    yield _deviation_row(parts, summary, source, max(units, default=0.0))


def _claimed_means(parts: Parts) -> tuple[Quantity, ...]:
    data = parts.main
    readme = parts.readme.seeds.items() if parts.readme else ()
    table = [values["val_bpb"] for name, values in readme if "mean" in name.lower() and "val_bpb" in values]
    return claims(data.mean_bpb if data else None, *table)


def _deviation_row(parts: Parts, summary: Summary, source: str, digits: float) -> Claim:
    """`digits`: unit of the coarsest per-seed value as stated; a deviation computed from rounded values inherits it."""
    data = parts.main
    told = claims(data.std_bpb if data else None, *(parts.readme.values.get("std", [])[:1] if parts.readme else []))
    sample, population = summary.sd_sample or 0.0, summary.sd_population
    # Two significant digits are more than the deviation of a handful of runs can carry.
    two_digits = 10.0 ** (math.floor(math.log10(sample)) - 1) if sample > 0 else 0.0
    slack = max(two_digits, digits / 2 * math.sqrt(summary.n / (summary.n - 1)))
    how = f"sample (n-1) {sample:.6f}, population (n) {population:.6f}, {summary.n} values ({source})"
    fits = {
        "sample": [claim for claim in told if says(claim, Interval.exact(sample).widened(slack))],
        "population": [claim for claim in told if says(claim, Interval.exact(population).widened(slack))],
    }
    wrong = [claim for claim in told if claim not in fits["sample"] and claim not in fits["population"]]
    note = ""
    if wrong:
        note = f"{place(wrong[0])} says {wrong[0].value:g}; {how}"
    elif told and not fits["sample"]:
        note = f"the stated deviation is the population one (n), the sample one (n-1) is {sample:.6f}"
    elif sample < TYPICAL_SD[0] / 2:
        note = (
            f"the spread over seeds is {sample:.6f} BPB; merged records have {TYPICAL_SD[0]}-{TYPICAL_SD[1]}, so "
            "identical or selected runs are possible"
        )
    elif sample > 3 * TYPICAL_SD[1]:
        note = f"the spread over seeds is {sample:.6f} BPB; merged records have {TYPICAL_SD[0]}-{TYPICAL_SD[1]}"
    return row(
        "standard deviation",
        "submission",
        claimed=told,
        computed=sample,
        how=how,
        unit="BPB",
        status=CONFLICTS if wrong else AGREES if told else NOT_CLAIMED,
        note=note,
    )


def _readme_values(parts: Parts, head: Headline) -> Iterator[Claim]:
    """BPB values of the README that no log line, no claimed seed and no leaderboard row has: ablations, baselines of
    others, or results that nobody can check."""
    if parts.readme is None or not head.reported:
        return
    known = [item.bpb for run in parts.runs for item in (*evaluations(run), *validation_lines(run))]
    known += [bpb for run in parts.runs for line in run.progress if (bpb := _progress_bpb(line))]
    known += [written(claim) for values in head.seed_claims.values() for claim in values]
    known += [written(claim) for claim in head.claimed]
    known.append(Interval.exact(head.mean or 0.0))
    known += [Interval.exact(value) for row in records() for value in (row.score, *row.seeds.values())]
    unknown = {}
    for value in parts.readme.values.get("val_bpb", []):
        told = written(value)
        if 0.5 < value.value < 5 and not any(told.overlaps(other) for other in known):
            unknown.setdefault(round(value.value, 5), value)
    if unknown:
        shown = listing((f"{bpb_text(v.value)} (line {v.source.line})" for v in unknown.values()), 6)
        yield row(
            "BPB values of the README",
            "submission",
            claimed=tuple(unknown.values()),
            unit="BPB",
            status=NO_EVIDENCE,
            note=f"in no log and on no leaderboard: {shown}",
        )


def _progress_bpb(line: ProgressLine) -> Interval | None:
    return None if line.bpb is None else stated(line.bpb)
