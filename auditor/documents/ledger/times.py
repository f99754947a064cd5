"""Ledger rows about time: training and evaluation at every boundary that reviewers have argued about."""

from __future__ import annotations

import re
from collections.abc import Iterator

from auditor.documents.interval import Interval, stated
from auditor.documents.ledger.common import (
    AGREES,
    CONFLICTS,
    NO_EVIDENCE,
    Parts,
    at_line,
    listing,
    place,
    row,
    scope_of,
    seed_key,
    seed_of,
    written,
)
from auditor.documents.ledger.headline import Headline, Scored
from auditor.documents.metric import bpb_interval
from auditor.documents.model import Claim, EvalResult, LogRun, Quantity, StepLine

#: Phases that consume training data or generate calibration text after the training clock.
CALIBRATION = re.compile(r"hessian|gptq|calib|awq|ar[_ ]?self|self[_ -]?gen", re.IGNORECASE)
_PRECOMPUTATION = re.compile(r"hint|precomp|n-?gram|prefix|cache[_ ]?build", re.IGNORECASE)


#: Limit of training and of evaluation, seconds; a README that states it says nothing about a run.
LIMIT = 600.0
_TIME_WORDS = re.compile(
    r"\b(train|eval)(?:ing|uation)?\s*(?:wall[- ]?clock|time|duration)"
    r"|\b(?:ttt|gptq|quanti[sz]|compress|compil|hessian|per)\w*",
    re.IGNORECASE,
)
_LIMIT_WORDS = re.compile(r"\b(?:cap|limit|budget|max|under|within|below|up to)\b|<|≤", re.IGNORECASE)


def time_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Every row about training and evaluation seconds."""
    told_train, told_eval = _claimed(parts, "train_seconds"), _claimed(parts, "eval_seconds")
    clocks: dict[str, Interval] = {}
    passes: dict[str, Interval] = {}
    reported = {id(item.run) for item in head.reported.values()}
    for run in parts.runs:
        seed = seed_of(run)
        clock = train_clock(run)
        # A seed's claims are about its reported run; a second run of the seed (an ablation, a re-run) makes none.
        own = bool(seed) and (id(run) in reported or not reported)
        if clock is not None:
            clocks[run.path + seed] = clock[1]
            yield _train_row(run, clock, _of_run(parts, run, told_train.get(seed, ())) if own else ())
            yield from _step_rows(run, clock)
            yield from _after_clock_rows(run, clock)
        item = next((scored for scored in head.reported.values() if scored.run is run), None)
        timed = headline_pass(run, item)
        if timed is not None:
            passes[run.path + seed] = timed[1]
            yield _eval_row(run, timed, told_eval.get(seed, ()) if own else ())
        yield from _all_passes_row(run)
    whole = {seed: _settled(parts, told.get("", ()), found) for seed, told, found in
             (("train", told_train, clocks), ("eval", told_eval, passes))}  # fmt: skip
    yield from _submission_row("train seconds", whole["train"], clocks, "training clock of the logs")
    yield from _submission_row("eval seconds", whole["eval"], passes, "evaluation passes of the logs")


def _settled(parts: Parts, told: tuple[Quantity, ...], found: dict[str, Interval]) -> tuple[Quantity, ...]:
    """Statements that are about this submission: a README also states limits (600 s) and times of other evaluations or
    runs, so of its numbers those count that a log shows, and the rest only when no log shows any of them."""
    readme = parts.readme.path if parts.readme else None
    own = [claim for claim in told if claim.source.path != readme]
    shown = [claim for claim in told if claim.source.path == readme and claim.value != LIMIT]
    fitting = [claim for claim in shown if any(_same_seconds(claim, value) for value in found.values())]
    return (*own, *(fitting or ([] if own else shown[:1])))


Timed = tuple[Quantity, Interval]


def _claimed(parts: Parts, metric: str) -> dict[str, tuple[Quantity, ...]]:
    """Claimed seconds: "" for the submission, else by seed."""
    found: dict[str, list[Quantity]] = {"": []}
    data = parts.main
    if data is not None:
        top = getattr(data, metric)
        found[""] += [top] if top is not None else []
        for name, values in data.seeds.items():
            if metric in values:
                found.setdefault(seed_key(name), []).append(values[metric])
    if parts.readme is not None:
        found[""] += parts.readme.values.get(metric, [])
        found[""] += [item for item in parts.readme.values.get("seconds", []) if spoken_of(item) == metric]
        for name, values in parts.readme.seeds.items():
            if metric in values:
                found.setdefault(seed_key(name), []).append(values[metric])
    return {seed: tuple(values) for seed, values in found.items()}


def spoken_of(item: Quantity) -> str:
    """Which time a README's number of seconds is: "train_seconds", "eval_seconds", or "" when its line does not say
    `training time`, `eval time` or the like right before it, or speaks of a limit."""
    before, found, _ = item.source.excerpt.partition(item.text) if item.text else ("", "", "")
    words = [(m.end(), (m.group(1) or "").lower()) for m in _TIME_WORDS.finditer(before)]
    if not found or not words or len(before) - words[-1][0] > 40 or _LIMIT_WORDS.search(before[words[-1][0] :]):
        return ""
    return {"train": "train_seconds", "eval": "eval_seconds"}.get(words[-1][1], "")


def train_clock(run: LogRun) -> Timed | None:
    """Training seconds at the end of training: the stop line, the reader's clock, the last step with a clock."""
    if run.stop is not None and run.stop.train_seconds:
        return at_line(run, run.stop.line, run.stop.train_seconds, run.stop.text), _clock(run.stop)
    if run.train_seconds is not None:
        return run.train_seconds, written(run.train_seconds)
    timed = [step for step in run.steps if step.train_seconds]
    if not timed:
        return None
    last = timed[-1]
    return at_line(run, last.line, last.train_seconds or 0.0, last.text), _clock(last)


def _clock(step: StepLine) -> Interval:
    """Clock of a progress line with the precision it was printed with (whole milliseconds, or decimals of seconds)."""
    value = step.train_seconds or 0.0
    in_ms = re.search(r"train_time[:=]\s*([\d.]+)\s*ms", step.text)
    if in_ms:
        return stated(value, in_ms.group(1), 1e-3)
    shown = re.search(r"train_time[:=]\s*([\d.]+)\s*(m|s)", step.text)
    if shown:
        return stated(value, shown.group(1), 60.0 if shown.group(2) == "m" else 1.0)
    return stated(value)


def _of_run(parts: Parts, run: LogRun, told: tuple[Quantity, ...]) -> tuple[Quantity, ...]:
    """Claims of a seed without those that are the clock of another run of the seed."""
    others = [clock for other in parts.runs if other is not run and seed_of(other) == seed_of(run)
              and (clock := train_clock(other)) is not None]  # fmt: skip
    return tuple(claim for claim in told if not any(_same_seconds(claim, clock[1]) for clock in others))


def _train_row(run: LogRun, clock: Timed, told: tuple[Quantity, ...]) -> Claim:
    quantity, value = clock
    wrong = [claim for claim in told if not _same_seconds(claim, value)]
    note = ""
    if wrong:
        note = f"{place(wrong[0])} says {wrong[0].value:,.1f} s, the log {quantity.value:,.1f} s ({place(quantity)})"
    how = "clock at the stop line" if run.stop is not None else "last training clock"
    return row(
        "train seconds",
        scope_of(run),
        claimed=told,
        evidence=(quantity,),
        computed=quantity.value,
        how=how,
        unit="seconds",
        status=CONFLICTS if wrong else None,
        note=note,
    )


def _same_seconds(claim: Quantity, value: Interval) -> bool:
    """Stated seconds fit a clock when their digits allow it; whole minutes and seconds are often cut or rounded, and
    a number of thousands (6000) is a rounded one."""
    told = written(claim).widened(0.5)
    if claim.value >= 1000 and claim.value % 1000 == 0:
        told = Interval(claim.value, claim.value).widened(100.0)
    return told.overlaps(value)


def _step_rows(run: LogRun, clock: Timed) -> Iterator[Claim]:
    """Steps times average step time against the clock: the average is the clock divided by the steps."""
    for step in reversed(run.steps):
        if step.step_ms and step.train_seconds and step.step:
            break
    else:
        return
    printed = re.search(r"step_avg[:=]\s*([\d.]+)\s*ms", step.text)
    average = stated(step.step_ms, printed.group(1) if printed else "").scaled(step.step / 1000)
    if average.overlaps(_clock(step)):
        return
    note = (
        f"line {step.line}: {step.step:,} steps at {step.step_ms:g} ms are {average.middle:,.1f} s, the clock of the "
        f"same line says {step.train_seconds:,.1f} s"
    )
    yield row(
        "train seconds",
        f"{scope_of(run)}, steps x average",
        evidence=(at_line(run, step.line, step.train_seconds, step.text),),
        computed=average.middle,
        how="steps x step_avg",
        unit="seconds",
        status=CONFLICTS,
        note=note,
    )


def _after_clock_rows(run: LogRun, clock: Timed) -> Iterator[Claim]:
    """Calibration after the training clock stopped, added to it."""
    after = clock[0].source.line or run.first_line
    late = [(name, line, seconds) for name, line, seconds in run.phases if CALIBRATION.search(name) and line > after]
    if not late:
        return
    seconds = sum(item[2] for item in late)
    total = clock[0].value + seconds
    text = listing(f"{name} {value:.1f} s (line {line})" for name, line, value in late)
    evidence = [at_line(run, line, value, name) for name, line, value in late]
    yield row(
        "train seconds with calibration",
        scope_of(run),
        evidence=(clock[0], *evidence),
        computed=total,
        how=f"{clock[0].value:,.1f} s training + {seconds:,.1f} s",
        unit="seconds",
        note=f"after the training clock: {text}",
    )


def headline_pass(run: LogRun, item: Scored | None) -> Timed | None:
    """Seconds of the evaluation behind the headline: its line, its rounded twin, a timed line with the same label
    stem, or a total printed after it."""
    timed = [result for result in run.results if result.seconds]
    if not timed:
        return None
    chosen = timed[-1]
    if item is not None:
        same = [r for r in timed if r.val_bpb is not None and abs(r.val_bpb - item.value) < 6e-5]
        own = [r for r in timed if r.line == item.line]
        after = [r for r in timed if r.line > item.line and r.val_bpb is None]
        chosen = (own or same or after or timed)[-1]
    seconds = chosen.seconds or 0.0
    return at_line(run, chosen.line, seconds, chosen.text), stated(seconds)


def _eval_row(run: LogRun, timed: Timed, told: tuple[Quantity, ...]) -> Claim:
    quantity, value = timed
    total = sum(_pass_seconds(run))
    wrong = [claim for claim in told if not (_same_seconds(claim, value) or _same_seconds(claim, stated(total)))]
    note = ""
    if wrong:
        note = (
            f"{place(wrong[0])} says {wrong[0].value:,.1f} s, the log {quantity.value:,.1f} s for the headline pass "
            f"({place(quantity)}) and {total:,.1f} s for all timed passes"
        )
    return row(
        "eval seconds",
        scope_of(run),
        claimed=told,
        evidence=(quantity,),
        computed=quantity.value,
        how="timed pass of the headline",
        unit="seconds",
        status=CONFLICTS if wrong else None,
        note=note,
    )


def _passes(run: LogRun) -> list[EvalResult]:
    """Every timed pass once: lines of one pass (rounded, exact, "done" lines) print one BPB, a total has none."""
    kept: list[EvalResult] = []
    for result in run.results:
        if not result.seconds or (result.val_bpb is None and "total" in result.label.lower()):
            continue
        twin = next((other for other in kept if _one_pass(other, result)), None)
        if twin is None:
            kept.append(result)
        elif result.seconds > (twin.seconds or 0.0):
            kept[kept.index(twin)] = result
    return kept


def _one_pass(one: EvalResult, other: EvalResult) -> bool:
    a, b = bpb_interval(one), bpb_interval(other)
    if a is None or b is None:
        return one.seconds == other.seconds
    return a.overlaps(b)


def _pass_seconds(run: LogRun) -> list[float]:
    return [result.seconds or 0.0 for result in _passes(run)]


def _all_passes_row(run: LogRun) -> Iterator[Claim]:
    passes = _pass_seconds(run)
    before = [(name, line, seconds) for name, line, seconds in run.phases if _PRECOMPUTATION.search(name)]
    if len(passes) < 2 and not before:
        return
    extra = sum(seconds for _, _, seconds in before)
    note = f"with {listing(f'{name} {seconds:.1f} s' for name, _, seconds in before)}" if before else ""
    evidence = [at_line(run, r.line, r.seconds or 0.0, r.text) for r in _passes(run)]
    yield row(
        "eval seconds, all passes",
        scope_of(run),
        evidence=evidence,
        computed=sum(passes) + extra,
        how=f"sum of {len(passes)} timed passes" + (" and precomputation" if before else ""),
        unit="seconds",
        note=note,
    )


def _submission_row(subject: str, told: tuple[Quantity, ...], found: dict[str, Interval], how: str) -> Iterator[Claim]:
    """The submission's own statement against the slowest run, the mean, or any one of the runs."""
    if not told:
        return
    if not found:
        yield row(
            subject, "submission", claimed=told, unit="seconds", status=NO_EVIDENCE, note="no log states the time"
        )
        return
    values = [value.middle for value in found.values()]
    span = Interval(min(v.low for v in found.values()), max(v.high for v in found.values()))
    wrong = [claim for claim in told if not _same_seconds(claim, span)]
    note = ""
    if wrong:
        logs = f"{values[0]:,.1f} s" if len(values) == 1 else f"{min(values):,.1f}-{max(values):,.1f} s"
        note = f"{listing(f'{place(claim)} says {claim.value:,.1f} s' for claim in wrong)}; the logs say {logs}"
    yield row(
        subject,
        "submission",
        claimed=told,
        computed=max(values),
        how=f"largest {how}",
        unit="seconds",
        status=CONFLICTS if wrong else AGREES,
        note=note,
    )
