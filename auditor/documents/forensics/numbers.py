"""Arithmetic that holds in every log, whoever wrote the program: clocks, averages, quotients, running means."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import pairwise

from auditor.documents.forensics.context import CONTRADICTION, NOTABLE, SUSPICIOUS, Context, LogView, at, fact
from auditor.documents.forensics.readings import Printed, Progress, Reading, RunReadings, runs
from auditor.documents.model import ForensicFact
from auditor.static.templates import Template

# Relative spread of honest quotients of one log: float32 sums, and a tail of a few hundred tokens that one
# evaluation counts and another does not.
_SPREAD = 3e-6
# Coincidences rarer than this are reported: well below one in all the logs of the challenge.
_CHANCE = 2e-6


def arithmetic(context: Context, view: LogView) -> list[ForensicFact]:
    """Facts on the numbers of one log, run by run."""
    facts: list[ForensicFact] = []
    for run in runs(view):
        facts += _monotone(view, run)
        facts += _averages(context, view, run)
        facts += _quotients(view, run)
        facts += _running_means(view, run)
        facts += _round_values(view, run)
    return facts


def _monotone(view: LogView, run: RunReadings) -> list[ForensicFact]:
    """Steps and clocks never go back within a run."""
    broken: list[tuple[Reading, Reading, str]] = []
    last: Reading | None = None
    for item in run.steps:
        if item.time is None or item.step is None:
            continue
        if last is not None and last.step is not None and last.time is not None and item.total == last.total:
            if item.step < last.step:
                broken.append((last, item, f"step {item.step} after {last.step}"))
            elif item.time.value + item.time.half < last.time.value - last.time.half:
                broken.append((last, item, f"{item.time.value:.3f} s after {last.time.value:.3f} s"))
        last = item
    if not broken:
        return []
    sources = [at(view.log, line.line) for pair in broken for line in pair[:2]]
    summary = f"{len(broken)} times the step or the training clock goes back within one run ({broken[0][2]})"
    explanation = "Within one run steps and time only grow; logs of several runs, appended or resumed, also show this."
    return [fact("not-monotone", SUSPICIOUS, summary, sources, explanation)]


def _averages(context: Context, view: LogView, run: RunReadings) -> list[ForensicFact]:
    """step_avg = train_time / step, within the rounding of both."""
    lines = [item for item in run.steps if item.average is not None and item.time is not None and item.step]
    broken = [(item, _average_excess(item)) for item in lines]
    broken = [(item, excess) for item, excess in broken if excess > 1.0]
    if not broken or len(broken) > max(0.2 * len(lines), 2):
        return []  # another definition of the average (without the first steps, say) breaks on most lines
    sources = [at(view.log, item.line) for item, _ in broken]
    worst = max(excess for _, excess in broken)
    item = broken[0][0]
    true = 1e3 * item.time.value / item.step if item.time and item.step else 0.0
    stated = 1e3 * item.average.value if item.average else 0.0
    summary = (
        f"step_avg of {len(broken)} of {len(lines)} lines is not train_time / step: step {item.step} prints "
        f"{stated:.2f} ms for {true:.4f} ms (off by {worst:.1f} rounding errors)"
    )
    if all(_average_excess(item, truncated=True) <= 1.0 for item, _ in broken):
        text = "The times of these lines are cut to whole units instead of rounded: another format printed them."
        return [fact("step-average", NOTABLE, summary, sources, text)]
    certain = all(_divides(view.matched.get(item.line)) for item, _ in broken)
    explanation = (
        "The program prints the quotient of the two numbers that stand in the same line."
        if certain
        else "All other lines of the run satisfy the identity."
    )
    return [fact("step-average", CONTRADICTION if certain else SUSPICIOUS, summary, sources, explanation)]


def _average_excess(item: Reading, truncated: bool = False) -> float:
    """Distance of the printed average from time / step, in units of what rounding allows (1 is the limit)."""
    assert item.average is not None and item.time is not None and item.step
    time = item.time.value + (item.time.half if truncated else 0.0)
    allowed = item.average.half + item.time.half / item.step + 1e-9
    return abs(item.average.value - time / item.step) / allowed


def _divides(template: Template | None) -> bool:
    """True when the template prints a time and the same time divided by the step."""
    if template is None:
        return False
    names = [part.name for part in template.fields]
    return any(
        re.match(rf"{re.escape(time)} / (?:max\(step, 1\)|step)\Z", average) for time in names for average in names
    )


def _quotients(view: LogView, run: RunReadings) -> list[ForensicFact]:
    """Loss over BPB is ln 2 times bytes per token: one constant for one evaluation surface."""
    facts = []
    surfaces = {name: [item for item in items if _usable(item)] for name, items in run.surfaces().items()}
    for surface, lines in surfaces.items():
        if len(lines) < 3:
            continue
        others = [item for name, items in surfaces.items() if name != surface for item in items]
        centre, anchored = _centre(lines, others)
        broken = [item for item in lines if _excess(item, centre) > 1.02]
        if broken and len(broken) < len(lines):
            facts.append(_quotient_fact(view, surface, lines, broken, centre, anchored))
    return facts


def _quotient_fact(
    view: LogView, surface: str, lines: list[Reading], broken: list[Reading], centre: float, anchored: bool
) -> ForensicFact:
    worst = max(broken, key=lambda item: _excess(item, centre))
    error = _excess(worst, centre)
    summary = (
        f"loss/BPB is not one constant: {len(broken)} of {len(lines)} `{surface}` lines break it, line {worst.line} "
        f"by {error:.1f} rounding errors"
    )
    explanation = (
        "val_loss and val_bpb of the same evaluation differ by a constant factor (ln 2 x bytes per token). "
        f"{len(lines) - len(broken)} lines agree on {centre:.6f}; the others cannot be rounded values of it."
    )
    if anchored:
        explanation += " The most exact result line of the same run has that quotient too."
    flips = _flips(lines, broken)
    deviation = max(abs(sum(_interval(item)) / 2 / centre - 1) for item in broken)
    if len(broken) >= 3 and (flips >= 3 or anchored) and deviation > 1e-4:
        strength = CONTRADICTION
    elif flips <= 1 and not anchored:
        strength = NOTABLE
        explanation += " The change happens once, as it does when another part of the data is evaluated from then on."
    elif deviation < 1e-4 or len(lines) < 5:
        strength = NOTABLE
        explanation += f" The deviation is small ({deviation:.0e} of the value) and may come from how sums are kept."
    else:
        strength = SUSPICIOUS
    sources = [at(view.log, item.line) for item in sorted(broken, key=lambda x: -_excess(x, centre))]
    return fact("quotient", strength, summary, sources, explanation)


def _centre(lines: list[Reading], others: list[Reading]) -> tuple[float, bool]:
    """The quotient to hold the lines against, and whether an exact result line of another surface vouches for it.

    An exact line (8 digits) that lines of this surface agree with, while the majority does not, is the better
    witness: it is computed from the same validation set by the same script.
    """
    centre, _ = _most_common_point([_interval(item) for item in lines])
    exact = [item for item in others if item.val_loss is not None and item.val_loss.half < 1e-6]
    for item in exact[-1:]:
        low, high = _interval(item)
        anchor = (low + high) / 2
        agreeing = sum(_excess(line, anchor) <= 1.02 for line in lines)
        if agreeing >= 2 and abs(anchor / centre - 1) > 2e-5:
            return anchor, True
    return centre, False


def _usable(item: Reading) -> bool:
    loss, bpb = item.val_loss, item.val_bpb
    return loss is not None and bpb is not None and bpb.value > 0.05 and loss.half <= 5e-4 and bpb.half <= 5e-4


def _interval(item: Reading) -> tuple[float, float]:
    assert item.val_loss is not None and item.val_bpb is not None
    loss, bpb = item.val_loss, item.val_bpb
    low = (loss.value - loss.half) / (bpb.value + bpb.half) * (1 - _SPREAD)
    return low, (loss.value + loss.half) / (bpb.value - bpb.half) * (1 + _SPREAD)


def _most_common_point(intervals: list[tuple[float, float]]) -> tuple[float, int]:
    """A point inside as many intervals as possible (middle of the best stretch), and how many hold it."""
    events = sorted([(low, 0) for low, _ in intervals] + [(high, 1) for _, high in intervals])
    depth, best, where, best_end = 0, 0, 0.0, 0.0
    for position, (value, closes) in enumerate(events):
        depth += -1 if closes else 1
        if depth > best:
            best, where = depth, value
            best_end = events[position + 1][0] if position + 1 < len(events) else value
    return (where + best_end) / 2, best


def _excess(item: Reading, centre: float) -> float:
    """Distance of the line's quotient from `centre`, in units of its own rounding error."""
    low, high = _interval(item)
    middle = (low + high) / 2
    return abs(middle - centre) / max((high - low) / 2, 1e-15)


def _flips(lines: list[Reading], broken: list[Reading]) -> int:
    """How often agreeing and breaking lines alternate: a changed evaluation set changes once."""
    numbers = {item.line for item in broken}
    return sum(a != b for a, b in pairwise([item.line in numbers for item in lines]))


def _running_means(view: LogView, run: RunReadings) -> list[ForensicFact]:
    """A running mean over equal chunks fixes the mean of every stretch between two lines."""
    facts = []
    for series in _series(run.progress):
        stretches = [_stretch(a, b) for a, b in pairwise(series)]
        impossible = [
            (a, b, mean) for (a, b, mean, error) in stretches if mean + error <= 0 or mean - error > 16 * b.bpb.value
        ]
        if impossible:
            a, b, mean = impossible[0]
            summary = (
                f"the running BPB moves from {a.digits} at chunk {a.index} to {b.digits} at chunk {b.index}: the "
                f"chunks between would average {mean:.3f}"
            )
            sources = [at(view.log, item.line) for pair in impossible for item in pair[:2]]
            facts.append(fact("running-mean", SUSPICIOUS, summary, sources, _MEAN_TEXT))
        facts += _drift(view, series, stretches)
    return facts


_MEAN_TEXT = (
    "Chunks hold the same number of tokens, so a mean over i chunks can change by at most 1/i of a chunk's own value "
    "for every further chunk."
)


def _series(items: list[Progress]) -> list[list[Progress]]:
    """Progress lines by total, cut where the position starts again."""
    found: list[list[Progress]] = []
    for item in items:
        if found and found[-1][-1].total == item.total and found[-1][-1].index < item.index:
            found[-1].append(item)
        else:
            found.append([item])
    return [series for series in found if len(series) >= 4]


def _stretch(a: Progress, b: Progress) -> tuple[Progress, Progress, float, float]:
    """Mean of the chunks between two lines and its rounding error."""
    width = b.index - a.index
    mean = (b.bpb.value * b.index - a.bpb.value * a.index) / width
    return a, b, mean, (b.bpb.half * b.index + a.bpb.half * a.index) / width


def _drift(view: LogView, series: list[Progress], stretches: list) -> list[ForensicFact]:
    """Long stretches of one text differ by a few per cent, not steadily more and more."""
    total = series[-1].total
    long = [item for item in stretches if item[1].index - item[0].index >= 0.04 * total]
    if len(long) < 3:
        return []
    means = [mean for _, _, mean, _ in long]
    final = series[-1].bpb.value
    falling = all(later < earlier for earlier, later in pairwise(means))
    if not falling or means[0] / means[-1] < 1.08 or final <= 0:
        return []
    shown = ", ".join(f"{mean:.3f}" for mean in means)
    summary = f"the running BPB implies stretch means that fall steadily: {shown} (total {final:.4f})"
    explanation = (
        _MEAN_TEXT + " Long stretches of the same validation text have nearly the same difficulty for a fixed model, "
        "and adaptation to it saturates early."
    )
    sources = [at(view.log, item.line) for item in series]
    return [fact("running-mean", SUSPICIOUS, summary, sources, explanation)]


def _round_values(view: LogView, run: RunReadings) -> list[ForensicFact]:
    """Values whose last digits agree far more often than chance allows."""
    facts = []
    for series in _series(run.progress):
        inner = series[1:-1] if len(series) >= 6 else series
        facts += _repeated_ending(view, "running BPB", [(i.line, i.digits) for i in inner], series[0].bpb)
    return facts + _round_times(view, run)


def _round_times(view: LogView, run: RunReadings) -> list[ForensicFact]:
    """Clocks in milliseconds that stand at whole seconds again and again."""
    times: dict[int, int] = {}
    steps: dict[int, int] = {}
    for item in run.steps:
        if item.time is not None and item.step and item.time.half < 1e-3 and item.time.value > 10.0:
            times.setdefault(round(item.time.value * 1e3), item.line)
            steps.setdefault(round(item.time.value * 1e3), item.step)
    whole = [(value, line) for value, line in times.items() if value % 1000 == 0]
    chance = _chance(len(times), len(whole), _whole_second_rate(steps))
    if len(whole) < 3 or chance > _CHANCE:
        return []
    summary = f"{len(whole)} of {len(times)} training clocks are whole seconds although milliseconds are printed"
    explanation = f"Measured clocks would be with a probability of about {chance:.0e}."
    sources = [at(view.log, line) for _, line in whole]
    return [fact("round-sequence", SUSPICIOUS, summary, sources, explanation)]


def _whole_second_rate(steps: dict[int, int]) -> float:
    """Mean probability that a clock (milliseconds -> step) stands at a whole second.

    1 in 1000, but 1 in 10 where a steady pace leads there: at 95.00 ms a step every 200th step ends near one.
    """
    if not steps:
        return 1e-3
    last = max(steps)
    pace = last / steps[last]
    near = sum(min(step * pace % 1000, -step * pace % 1000) < 50 for step in steps.values())
    return (0.1 * near + 1e-3 * (len(steps) - near)) / len(steps)


def _chance(trials: int, hits: int, rate: float) -> float:
    """Probability of at least `hits` successes in `trials` (binomial)."""
    if hits <= 0:
        return 1.0
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(hits, trials + 1)
    )
    return min(sum(math.exp(value) for value in logs), 1.0)


def _repeated_ending(view: LogView, label: str, values: list[tuple[int, str]], unit: Printed) -> list[ForensicFact]:
    if len(values) < 4 or unit.half > 0.5e-3:
        return []
    endings = Counter(text[-2:] for _, text in values)
    ending, count = endings.most_common(1)[0]
    chance = 100 * _chance(len(values), count, 0.01)
    if chance > _CHANCE:
        return []
    summary = f"{count} of {len(values)} {label} values end in the same two digits ({ending})"
    explanation = f"Measured values would do so with a probability of about {chance:.0e}."
    sources = [at(view.log, number) for number, text in values if text.endswith(ending)]
    return [fact("round-sequence", SUSPICIOUS, summary, sources, explanation)]


def initial_loss(context: Context, view: LogView, vocabulary: int | None) -> list[ForensicFact]:
    """A fresh model is near uniform: its first loss is close to ln V (nats per token)."""
    facts = []
    for run in runs(view):
        first = next((item for item in run.steps if item.step in (0, 1) and _first_loss(item) is not None), None)
        value = _first_loss(first) if first is not None else None
        if first is None or value is None or vocabulary is None:
            continue
        expected = math.log(vocabulary)
        implied = math.exp(min(value, 20.0))
        if abs(value - expected) > 0.35 and not 0.5 < implied / vocabulary < 2.5:
            summary = (
                f"first loss {value:.4f} is that of a uniform model over about {implied:.0f} tokens, "
                f"not over the declared {vocabulary} (ln {vocabulary} = {expected:.4f})"
            )
            facts.append(fact("initial-loss", NOTABLE, summary, [at(view.log, first.line)], _INITIAL_TEXT))
    return facts


_INITIAL_TEXT = "A model that has seen nothing scores ln V; warm starts, other losses and unusual inits differ."


def _first_loss(item: Reading) -> float | None:
    if item.val_loss is not None and item.step == 0:
        return item.val_loss.value
    return item.train_loss.value if item.train_loss is not None else None
