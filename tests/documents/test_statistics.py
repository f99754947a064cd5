"""Tests of significance against the record history, and the rule book's published p-values from per-seed data."""

from __future__ import annotations

import datetime as dt
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.documents.records import record_at, record_before, record_of, records
from auditor.documents.statistics import (
    Deviation,
    Regime,
    compare,
    describe,
    detectable_difference,
    regime_at,
    seeds_needed,
    summarize,
    welch,
)

values = st.lists(st.floats(min_value=1.0, max_value=1.3), min_size=2, max_size=6)


def p_between(new: int, old: int, convention: Deviation) -> float:
    return welch(summarize(record_of(new).values), summarize(record_of(old).values), 0.0, convention).p


@pytest.mark.parametrize(
    ("new", "old", "published", "convention"),
    [
        (1514, 1493, 0.020, Deviation.SAMPLE),
        (1529, 1514, 0.001, Deviation.SAMPLE),
        (1769, 1736, 0.063, Deviation.SAMPLE),
        (2135, 2014, 0.014, Deviation.SAMPLE),
        (1945, 1855, 0.034, Deviation.POPULATION),
        (1953, 1945, 0.063, Deviation.POPULATION),
        (2014, 1953, 0.011, Deviation.POPULATION),
        (1945, 1855, 0.056, Deviation.SAMPLE),
        (1953, 1945, 0.090, Deviation.SAMPLE),
        (2014, 1953, 0.020, Deviation.SAMPLE),
    ],
)
def test_published_p_values_follow_from_per_seed_data(
    new: int, old: int, published: float, convention: Deviation
) -> None:
    # Published from means and deviations rounded to five decimals, hence one unit of the last digit.
    assert p_between(new, old, convention) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize(("new", "old", "published"), [(1610, 1530, 0.202), (1667, 1626, 0.228)])
def test_closest_calls_of_the_progression(new: int, old: int, published: float) -> None:
    assert p_between(new, old, Deviation.SAMPLE) == pytest.approx(published, abs=1e-3)


def test_own_seeds_of_the_pooled_row_do_not_decide() -> None:
    assert 0.25 < p_between(1855, 1851, Deviation.SAMPLE) < 0.4


def test_two_conventions_of_the_deviation() -> None:
    summary = summarize([1.0, 2.0, 4.0], 0.95)
    assert summary.sd_sample == pytest.approx(math.sqrt(7 / 3))
    assert summary.sd_population == pytest.approx(math.sqrt(14 / 9))
    half = 4.302653 * summary.sd_sample / math.sqrt(3)  # t table, two degrees of freedom, 97.5 %
    assert summary.ci == pytest.approx((summary.mean - half, summary.mean + half), rel=1e-6)


def test_one_value_has_no_spread() -> None:
    single = summarize([1.1], 0.95)
    assert (single.sd_sample, single.ci) == (None, None)
    assert welch(single, single).p is None
    point = welch(summarize([1.10, 1.11, 1.12]), single)
    assert (point.kind, point.df) == ("point", 2)
    with pytest.raises(ValueError, match="no values"):
        summarize([])


@given(values, values)
def test_welch_is_antisymmetric(a: list[float], b: list[float]) -> None:
    one, other = welch(summarize(a), summarize(b)), welch(summarize(b), summarize(a))
    if one.p is None:
        return
    assert one.t == pytest.approx(-other.t)
    assert one.p + other.p == pytest.approx(1.0)


def test_welch_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    new, old = [1.0611, 1.0602, 1.0619], [1.0634, 1.0630, 1.0641, 1.0629]
    expected = stats.ttest_ind(new, old, equal_var=False, alternative="less")
    test = welch(summarize(new), summarize(old))
    assert (test.t, test.p) == (pytest.approx(-expected.statistic), pytest.approx(expected.pvalue))


def test_level_of_the_test_is_kept_when_nothing_improved() -> None:
    """Under the null hypothesis a test at 25 % calls about a quarter of comparisons significant."""
    random.seed(7)
    draws = [[random.gauss(1.1, 0.0005) for _ in range(3)] for _ in range(4000)]
    hits = sum(welch(summarize(a), summarize(b)).p < 0.25 for a, b in zip(draws[::2], draws[1::2], strict=True))
    assert 0.21 < hits / 2000 < 0.28


def test_margin_shifts_the_hypothesis() -> None:
    new, old = summarize([1.1190, 1.1195, 1.1200]), summarize([1.1225, 1.1228, 1.1231])
    assert welch(new, old, 0.0).p < 0.01
    assert welch(new, old, 0.00296).p > welch(new, old, 0.0).p
    assert welch(new, old, 0.0034).p > 0.25


def test_detectable_difference_is_just_significant() -> None:
    new, old = summarize([1.0601, 1.0611, 1.0606]), summarize([1.0634, 1.0630, 1.0641])
    difference = detectable_difference(new, old, 0.25)
    shift = (old.mean - new.mean) - difference
    moved = summarize([value + shift for value in (1.0601, 1.0611, 1.0606)])
    assert welch(moved, old).p == pytest.approx(0.25, abs=1e-9)


def test_more_seeds_are_needed_for_less() -> None:
    assert seeds_needed(0.0020, 0.0005, 0.01) < seeds_needed(0.0008, 0.0005, 0.01)
    assert seeds_needed(1e-6, 0.001, 0.01) is None


def test_regimes_by_date() -> None:
    assert regime_at(dt.date(2026, 3, 25)) is Regime.README
    assert regime_at(dt.date(2026, 4, 9)) is Regime.PROGRESSION


def test_standing_record_by_evidence_and_by_listing() -> None:
    frontier = record_at(dt.date(2026, 3, 31))
    listed = record_at(dt.date(2026, 3, 31), basis="listed")
    assert (frontier.score, listed.score) == (1.1063, 1.1147)
    assert record_at(dt.date(2026, 3, 24)).pr == 549
    assert record_at(dt.date(2026, 3, 17)) is None or record_at(dt.date(2026, 3, 17)).score == 1.2244
    with pytest.raises(ValueError, match="frontier"):
        record_at(dt.date(2026, 4, 1), basis="best")


def test_a_submission_is_not_compared_with_itself_or_later_ones() -> None:
    row = record_of(1493)
    before = record_at(row.date, before_pr=1493)
    assert before.pr == 1477
    assert before.score > row.score


def test_a_merged_folder_is_not_its_own_predecessor() -> None:
    """A folder has no number: a row with its mean is itself, and what came before that row is what it had to beat."""
    row = record_of(1493)
    assert record_before(row.date, values=row.values).pr == record_at(row.date, before_pr=1493).pr
    assert record_before(row.date, values=[1.0700, 1.0705, 1.0702]).date < row.date
    assert record_before(dt.date(2026, 4, 12), pr=1530).pr == 1529


def test_history_is_consistent() -> None:
    """Every row has a source and, where seeds are known, a mean that is its listed score."""
    rows = records()
    assert sum(row.track == "record" for row in rows) >= 44
    for row in rows:
        assert row.source.startswith("https://github.com/openai/parameter-golf/")
        if row.seeds and "listed score is that of seed" in row.note:
            assert min(abs(value - row.score) for value in row.values) <= 1e-4, row.title
        elif row.seeds:
            unit = 10.0 ** -min(len(repr(row.score).partition(".")[2]), 4)
            assert sum(row.values) / len(row.values) == pytest.approx(row.score, abs=unit), row.title


def test_first_margin_rows_clear_the_readme_bar_and_april_rows_do_not() -> None:
    """The organisers accepted 549 by the margin in March; the rows of April are below it."""
    march = compare(record_of(549).values, record_of(414), dt.date(2026, 3, 23), "sp1024")
    assert march.delta_bpb > march.margin
    april = compare(record_of(1493).values, record_of(1477), dt.date(2026, 4, 9), "sp8192")
    assert 0 < april.delta_bpb < april.margin
    assert (april.regime, april.passes[Regime.README]) == (Regime.PROGRESSION, False)


def test_description_names_both_conventions_and_the_regime() -> None:
    text = describe(compare(record_of(1769).values, record_of(1736), dt.date(2026, 4, 22), "CaseOps sp8192"))
    assert "0.063 (sample SD)" in text
    assert "population SD" in text
    assert str(Regime.PROGRESSION) in text


def test_single_seed_cannot_pass() -> None:
    result = compare([1.05], record_of(1493), dt.date(2026, 4, 20), "sp8192")
    assert result.passes[Regime.PROGRESSION] is None
    assert any("1 seed" in note for note in result.notes)
