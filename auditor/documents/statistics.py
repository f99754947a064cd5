"""Significance of a claimed record: the tests the rules name, from per-seed values.

Two regimes exist (rule book, section 3.G). The README asks for an improvement of at least 0.005 nats per
token at p < 0.01; the leaderboard passes of 28 April and 2 May 2026 used a one-sided Welch test with p <
0.25 and no margin for everything from 9 April on. The README names neither the test nor the convention of
the standard deviation, and published p-values mix both, so every test is given under both.
"""

from __future__ import annotations

import datetime as dt
import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.documents.metric import RECORD_MARGIN_NATS, margin_bpb, tokenizers
from auditor.documents.records import Record
from auditor.documents.student import quantile, upper_tail

#: First day whose rows were judged by p < 0.25 (merged rows below the margin begin here).
PROGRESSION_SINCE = dt.date(2026, 4, 9)
PROGRESSION_P = 0.25
README_P = 0.01
#: Standard deviations over seeds of merged rows, BPB (rule book, section 1.4).
TYPICAL_SD = (0.0002, 0.0011)


class Deviation(enum.StrEnum):
    """Convention of a standard deviation: n-1 (of a sample) or n (of a population)."""

    SAMPLE = "sample"
    POPULATION = "population"


class Regime(enum.StrEnum):
    """Which significance rule was applied to pull requests of a date."""

    README = "0.005 nats per token at p < 0.01"
    PROGRESSION = "chronological progression at p < 0.25"


def regime_at(date: dt.date) -> Regime:
    """The rule that decided about pull requests of this date (the README text itself never changed)."""
    return Regime.PROGRESSION if date >= PROGRESSION_SINCE else Regime.README


@dataclass(frozen=True)
class Summary:
    """Mean and spread of per-seed values.

    `sd_sample` (n-1) is None for one value; `ci` is the two-sided 95 % t interval of the mean, None likewise.
    """

    n: int
    mean: float
    sd_sample: float | None
    sd_population: float
    ci: tuple[float, float] | None = None

    def sd(self, convention: Deviation) -> float | None:
        """Standard deviation in the named convention; None when one value says nothing about spread."""
        if self.n < 2:
            return None
        return self.sd_sample if convention is Deviation.SAMPLE else self.sd_population


def summarize(values: Sequence[float], confidence: float | None = None) -> Summary:
    """Mean and both standard deviations of per-seed values; with `confidence` also the t interval of the
    mean.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values to summarise")
    n = len(values)
    mean = math.fsum(values) / n
    squares = math.fsum((value - mean) ** 2 for value in values)
    sample = math.sqrt(squares / (n - 1)) if n > 1 else None
    interval = None
    if confidence is not None and sample is not None:
        half = quantile(0.5 + confidence / 2, n - 1) * sample / math.sqrt(n)
        interval = (mean - half, mean + half)
    return Summary(n, mean, sample, math.sqrt(squares / n), interval)


@dataclass(frozen=True)
class WelchTest:
    """A one-sided test that the new mean is lower than the old by more than `margin` (same unit as the
    values).

    `kind` is "Welch", or "point" when the old side is a single number taken as exact. `p` is None when
    neither side has a spread.
    """

    kind: str
    convention: Deviation
    margin: float
    delta: float
    t: float | None
    df: float | None
    p: float | None


def welch(new: Summary, old: Summary, margin: float = 0.0, convention: Deviation = Deviation.SAMPLE) -> WelchTest:
    """One-sided Welch test of H0 `mean_old - mean_new <= margin`.

    t = (mean_old - mean_new - margin) / sqrt(s_new^2/n_new + s_old^2/n_old), Satterthwaite degrees of
    freedom. A side with one value has no spread: it enters as an exact number and the test is called "point".
    """
    delta = old.mean - new.mean
    terms = [(side.sd(convention), side.n) for side in (new, old)]
    parts = [(sd * sd / n, n) for sd, n in terms if sd is not None]
    kind = "Welch" if len(parts) == 2 else "point"
    variance = math.fsum(part for part, _ in parts)
    if variance == 0.0:
        return WelchTest(kind, convention, margin, delta, None, None, None)
    t = (delta - margin) / math.sqrt(variance)
    df = variance**2 / math.fsum(part**2 / (n - 1) for part, n in parts)
    return WelchTest(kind, convention, margin, delta, t, df, upper_tail(t, df))


@dataclass(frozen=True)
class Comparison:
    """A submission against the standing record, under both regimes.

    Attributes:
        new, old: summaries of the per-seed BPB. `record`: the row compared with.
        delta_bpb: improvement of the mean, BPB (positive: better). `delta_nats`: the same in nats per token,
        None
            when the two tokenizers differ and no losses are known.
        margin: 0.005 nats per token in BPB of the submission's tokenizer; None when the tokenizer is unknown.
        plain: tests without margin by convention. `shifted`: tests with the margin (None without one).
        regime: the rule in force at the submission's date.
        passes: regime -> True, False, or None when it cannot be decided, by sample standard deviation.
        detectable: smallest improvement (BPB) that these seeds could show, by regime.
        notes: what limits the comparison, in words.
    """

    new: Summary
    old: Summary
    record: Record
    delta_bpb: float
    delta_nats: float | None
    margin: float | None
    plain: dict[Deviation, WelchTest]
    shifted: dict[Deviation, WelchTest] | None
    regime: Regime
    passes: dict[Regime, bool | None]
    detectable: dict[Regime, float | None]
    notes: tuple[str, ...] = ()


def compare(values: Sequence[float], record: Record, date: dt.date, tokenizer: str = "") -> Comparison:
    """Test per-seed BPB of a submission against a standing record.

    Args:
        values: per-seed val_bpb of the submission, at least one.
        record: the row to beat (`records.record_at`).
        date: of the submission, decides which regime was in force.
        tokenizer: name in `metric.tokenizers()`, converts the margin from nats per token to BPB.

    Raises:
        ValueError: no values.
    """
    new, old = summarize(values, 0.95), summarize(record.values, 0.95)
    ratio = next((item.tokens_per_byte for item in tokenizers() if item.name == tokenizer), None)
    margin = margin_bpb(ratio) if ratio else None
    plain = {side: welch(new, old, 0.0, side) for side in Deviation}
    shifted = {side: welch(new, old, margin, side) for side in Deviation} if margin is not None else None
    delta = old.mean - new.mean
    same = tokenizer == record.tokenizer and ratio is not None
    return Comparison(
        new,
        old,
        record,
        delta,
        delta * math.log(2) / ratio if same and ratio else None,
        margin,
        plain,
        shifted,
        regime_at(date),
        {
            Regime.PROGRESSION: _decide(plain[Deviation.SAMPLE], new, PROGRESSION_P),
            Regime.README: _decide(shifted[Deviation.SAMPLE], new, README_P) if shifted else None,
        },
        {
            Regime.PROGRESSION: detectable_difference(new, old, PROGRESSION_P),
            Regime.README: _plus(detectable_difference(new, old, README_P), margin),
        },
        tuple(_notes(new, old, record, tokenizer)),
    )


def _plus(value: float | None, margin: float | None) -> float | None:
    return None if value is None or margin is None else value + margin


def _decide(test: WelchTest, new: Summary, level: float) -> bool | None:
    """A worse mean fails whatever the spread; one seed of the submission proves nothing."""
    if test.delta <= test.margin:
        return False
    return None if test.p is None or new.n < 2 else test.p < level


def detectable_difference(new: Summary, old: Summary, level: float) -> float | None:
    """Smallest difference of means (BPB) that a one-sided Welch test at `level` would call significant with
    these spreads and numbers of seeds; None when no spread is known."""
    reference = welch(new, old)
    if reference.df is None or reference.t is None or reference.t == 0:
        return None
    return quantile(1 - level, reference.df) * abs(reference.delta / reference.t)


def seeds_needed(difference: float, sd: float, level: float, limit: int = 50) -> int | None:
    """Seeds per side (equal numbers, equal spread) for which an observed `difference` is significant at
    `level`; None when `limit` seeds do not suffice."""
    for n in range(2, limit + 1):
        if difference >= quantile(1 - level, 2 * n - 2) * sd * math.sqrt(2 / n):
            return n
    return None


def _notes(new: Summary, old: Summary, record: Record, tokenizer: str) -> list[str]:
    notes = []
    if new.n < 3:
        notes.append(f"{_seeds(new.n)} of the submission: three are the rule")
    if old.n < 2:
        notes.append(
            f"the standing record ({_name(record)}) has one known value: it enters as an exact number, "
            "which makes every p-value too small"
        )
    if not tokenizer:
        notes.append("the tokenizer is unknown, so 0.005 nats per token cannot be converted to BPB")
    elif record.tokenizer and tokenizer != record.tokenizer:
        notes.append(f"tokenizers differ ({tokenizer}, record {record.tokenizer}): only BPB can be compared")
    if record.note:
        notes.append(record.note)
    return notes


def _name(record: Record) -> str:
    return f"PR {record.pr}" if record.pr else record.title


def describe(comparison: Comparison) -> str:
    """The comparison in two or three sentences with its numbers, for reports."""
    new, old = comparison.new, comparison.old
    test, other = comparison.plain[Deviation.SAMPLE], comparison.plain[Deviation.POPULATION]
    better = "better" if comparison.delta_bpb > 0 else "worse"
    parts = [
        f"Mean {new.mean:.5f} BPB over {_seeds(new.n)} against {old.mean:.5f} over {_seeds(old.n)} "
        f"({_name(comparison.record)}): {better} by {abs(comparison.delta_bpb):.5f} BPB"
    ]
    if test.p is not None:
        values = f"{_p(test.p)} (sample SD), {_p(other.p)} (population SD)"
        parts.append(f"{test.kind} p = {values} without a margin")
    if comparison.shifted and (shifted := comparison.shifted[Deviation.SAMPLE]).p is not None:
        margin = f"{RECORD_MARGIN_NATS} nats per token ({comparison.margin:.5f} BPB)"
        parts.append(f"p = {_p(shifted.p)} for more than {margin}")
    parts.append(f"in force at the date: {comparison.regime}")
    return "; ".join(parts) + "."


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _p(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
