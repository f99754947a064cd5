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
    at_line,
    bpb_text,
    claims,
    listing,
    number,
    place,
    row,
    says,
    scope_of,
    seed_key,
    seed_of,
    written,
)
from auditor.documents.ledger.headline import FLOAT, Headline, Scored, evaluations, validation_lines, with_loss
from auditor.documents.metric import Denominator, diagnose, diagnose_line, odd_quotients, pair_of
from auditor.documents.model import Claim, LogRun, ProgressLine, Quantity
from auditor.documents.records import records
from auditor.documents.statistics import TYPICAL_SD, Summary, summarize


def score_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Every row about BPB, loss and their denominator."""
    yield from _headline_rows(parts, head)
    yield from _seed_rows(parts, head)
    yield from _statistics_rows(parts, head)
    yield from _loss_rows(parts, head)
    for run in parts.runs:
        yield from _denominator_rows(run, head)
    yield from _readme_values(parts, head)


def evidence_of(item: Scored) -> Quantity:
    """The log line of an evaluation as evidence."""
    return at_line(item.run, item.line, item.value, item.result.text)


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
    slack = digits / 2 * math.sqrt(summary.n / (summary.n - 1))
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


def _loss_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Claimed losses against the very line the BPB is from, and claimed loss/BPB pairs against the metric identity."""
    data = parts.main
    if data is None:
        return
    lines = {key: item for key, item in head.reported.items() if with_loss(item).val_loss}
    if data.val_loss is not None and data.val_loss.value > 0:
        yield _loss_row("submission", data.val_loss, list(lines.values()))
        if data.val_bpb is not None and data.val_bpb.value > 0:
            yield from _pair_row("submission", data.val_loss, data.val_bpb, parts)
    for name, values in data.seeds.items():
        loss, bpb, seed = values.get("val_loss"), values.get("val_bpb"), seed_key(name)
        if loss is None or loss.value <= 0:
            continue
        yield _loss_row(f"seed {seed}", loss, [lines[seed]] if seed in lines else [])
        if bpb is not None and bpb.value > 0:
            yield from _pair_row(f"seed {seed}", loss, bpb, parts)


def _loss_row(scope: str, claim: Quantity, lines: list[Scored]) -> Claim:
    pairs = [(item, pair[0]) for item in lines if (pair := pair_of(with_loss(item)))]
    if not pairs:
        return row("val_loss", scope, claimed=(claim,), unit="nats/token", status=NO_EVIDENCE)
    mean = mean_interval(loss for _, loss in pairs)
    single = [item for item, loss in pairs if says(claim, loss)]
    found = [(item.run, with_loss(item)) for item, _ in pairs]
    evidence = [at_line(run, line.line, line.val_loss or 0.0, line.text) for run, line in found]
    fits = bool(single) or says(claim, mean)
    note = ""
    if not fits:
        item = pairs[0][0]
        stated_bpb = any(says(claim, o.bpb) for o in lines) or says(claim, mean_interval(o.bpb for o in lines))
        note = (
            f"{place(claim)} says {claim.value:.6f} nats per token, the line of the BPB says "
            f"{mean.middle:.6f} (`{item.label}`, {item.where}"
            + (f" and {len(pairs) - 1} more)" if len(pairs) > 1 else ")")
            + ("; the stated number is the BPB" if stated_bpb else "")
        )
    return row(
        "val_loss",
        scope,
        claimed=(claim,),
        evidence=evidence,
        computed=mean.middle,
        unit="nats/token",
        how="loss of the headline line" + (f", mean of {len(pairs)}" if len(pairs) > 1 else ""),
        status=AGREES if fits else CONFLICTS,
        note=note,
    )


def _pair_row(scope: str, loss: Quantity, bpb: Quantity, parts: Parts) -> Iterator[Claim]:
    """A claimed pair that no right denominator can produce; agreement is not worth a row of its own."""
    if says(loss, written(bpb)):
        note = f"val_loss and val_bpb are both {bpb.value:.6f}: one of them holds the other"
        yield row("loss and BPB", scope, claimed=(loss, bpb), unit="tokens/byte", status=CONFLICTS, note=note)
        return
    answer = diagnose(written(loss), written(bpb))
    known = [d for run in parts.runs for item in evaluations(run)[-1:] if (d := diagnose_line(item.result, run))]
    # A tokenizer of the submission's own has no known ratio: its log lines say which one is right.
    own = any(answer.ratio.overlaps(other.ratio.widened(other.ratio.middle * 5e-4)) for other in known)
    if own or (answer.accepted is not False and not known and answer.tokenizer):
        return
    if answer.accepted is False or (known and answer.kind != "right ratio, coverage unknown"):
        expected = f"; the logs have {known[-1].ratio.middle:.5f}" if known else ""
        note = (
            f"loss {loss.value:.6f} and BPB {bpb.value:.6f} as stated make {answer.ratio.middle:.5f} tokens per byte"
            f"{expected}: they are not of one evaluation, or the denominator is wrong"
        )
        yield row(
            "loss and BPB",
            scope,
            claimed=(loss, bpb),
            computed=answer.ratio.middle,
            unit="tokens/byte",
            how="bpb * ln 2 / loss",
            status=CONFLICTS,
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
        if 0.5 < value.value < 5 and not any(says(value, other) for other in known):
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


def _denominator_rows(run: LogRun, head: Headline) -> Iterator[Claim]:
    lines = [(item, answer) for item in evaluations(run) if (answer := diagnose_line(with_loss(item), run))]
    main = _main_line(run, head, lines)
    if main:
        item, answer = main
        status = {True: AGREES, False: CONFLICTS, None: NO_EVIDENCE}[answer.accepted]
        others = [f"`{o.label}` ({a.kind})" for o, a in lines if a.accepted is False and o.label != item.label]
        note = answer.reason if answer.accepted is not True else ""
        note += ("; " if note and others else "") + (f"other lines: {listing(others)}" if others else "")
        value = answer.bytes.middle if answer.bytes else None
        yield row(
            "scored bytes",
            scope_of(run),
            evidence=(evidence_of(item),),
            computed=value,
            unit="bytes",
            how=_identity(answer),
            status=status,
            note=note,
        )
    ratio, odd = odd_quotients(run)
    if odd:
        yield _quotient_row(run, ratio, odd)


def _main_line(
    run: LogRun, head: Headline, lines: list[tuple[Scored, Denominator]]
) -> tuple[Scored, Denominator] | None:
    """The headline's line of the run where it has a pair, else the last line that has one."""
    wanted = {id(item.result) for item in head.reported.values() if item.run is run}
    return next((pair for pair in lines if id(pair[0].result) in wanted), lines[-1] if lines else None)


def _identity(answer: Denominator) -> str:
    if answer.tokens is None:
        return f"{answer.ratio.middle:.5f} tokens per byte ({answer.kind})"
    return f"{number(answer.tokens)} targets x loss / (ln 2 x BPB): {answer.kind}, {answer.tokenizer or 'unlisted'}"


def _quotient_row(run: LogRun, ratio: Interval, odd: list) -> Claim:
    total = sum(1 for step in run.steps if pair_of(step))
    first = odd[0]
    expected = first.val_loss * ratio.middle / math.log(2)
    note = (
        f"{len(odd)} of {total} validation lines have a BPB that their loss cannot give: line {first.line} says loss "
        f"{first.val_loss:.4f}, BPB {first.val_bpb:.4f}, which would be {expected:.4f} at {ratio.middle:.5f} tokens "
        "per byte"
    )
    evidence = [at_line(run, step.line, step.val_bpb or 0.0, step.text) for step in odd[:12]]
    return row(
        "loss/BPB quotient",
        scope_of(run),
        evidence=evidence,
        computed=float(len(odd)),
        unit="lines",
        how=f"lines whose BPB differs from loss x {ratio.middle:.5f} / ln 2",
        status=CONFLICTS,
        note=note,
    )
