"""Plots and their series: scales, units, the claim against the evidence, nothing invented where nothing was logged."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import HOSTILE, Page

from auditor.documents.model import LogRun, Quantity, Source, StepLine
from auditor.report import plots, run_plot, series
from auditor.submission import Track
from reports.gallery import examples

FINITE = st.floats(min_value=-1e9, max_value=1e9)


@given(FINITE, FINITE)
def test_ticks_are_round_few_and_inside(a, b):
    low, high = sorted((a, b))
    ticks = plots.nice_ticks(low, high)
    if high - low > 1e-6 * max(abs(low), abs(high), 1e-6):
        assert 2 <= len(ticks) <= 11
        slack = (high - low) * 1e-6
        assert all(low - slack <= tick <= high + slack for tick in ticks)
        assert len({plots.tick_text(tick, ticks) for tick in ticks}) == len(ticks), "two ticks read alike"


@given(st.lists(st.integers(), min_size=1, max_size=500), st.integers(min_value=2, max_value=60))
def test_thinning_keeps_the_ends_and_the_order(items, limit):
    numbered = list(enumerate(items))
    kept = series.thin(numbered, limit)
    assert len(kept) == min(limit, len(items)) and kept == sorted(kept)
    assert kept[0] == numbered[0] and kept[-1] == numbered[-1]


def test_bars_over_the_cap_say_so(documents):
    over = Page(plots.bytes_plot(documents["not-eligible"]["series"])).words
    under = Page(plots.bytes_plot(documents["clean"]["series"])).words
    assert "16,336,927 OVER" in over and "OVER" not in under


def test_bar_length_is_proportional(documents):
    page = Page(plots.bytes_plot(documents["not-eligible"]["series"]))
    model = float(page.all("rect", cls="b-model")[0]["width"])
    code = float(page.all("rect", cls="b-code")[0]["width"])
    assert model / code == pytest.approx(16_265_723 / 71_204, rel=0.2)


def test_time_after_training_is_shown_apart_and_not_judged(documents):
    words = Page(plots.time_plot(documents["clean"]["series"])).words
    assert "599.9 s + 4.2 s" in words and "OVER" not in words
    assert "1,386.5 s + 4.2 s OVER" in Page(plots.time_plot(documents["not-eligible"]["series"])).words


def test_nothing_logged_is_no_plot():
    review = examples.clean()
    review.case.logs, review.case.metadata = [], []
    made = series.series(review.case)
    drawn = [plots.training_plot(made), plots.running_plot(made), plots.bytes_plot(made), plots.time_plot(made)]
    assert drawn == [""] * 4


def test_log_with_one_line_or_odd_values_still_draws():
    review = examples.clean()
    run = LogRun("a.log", 1, 9, seed=1)
    run.steps = [StepLine(1, 0, val_bpb=math.nan), StepLine(2, 5, val_bpb=1.2), StepLine(3, 6, val_bpb=math.inf)]
    run.train_seconds = Quantity(math.inf, Source("a.log", 3))
    review.case.logs[0].runs = [run]
    made = series.series(review.case)
    assert made["training"][0]["val_bpb"] == [[5, 1.2, 2]]
    assert all(bar["label"] != "seed 1" for bar in made["time"])
    Page(plots.training_plot(made))


def test_runs_of_one_seed_are_told_apart():
    review = examples.clean()
    for log in review.case.logs:
        log.runs[0].seed = 42
    labels = [curve["label"] for curve in series.series(review.case)["training"]]
    assert labels == ["seed 42 (1)", "seed 42 (2)", "seed 42 (3)"]


def test_more_runs_than_can_be_read_are_counted():
    review = examples.clean()
    review.case.logs = [log for log in review.case.logs for _ in range(6)]
    made = series.series(review.case)
    assert len(made["training"]) == series.MAX_RUNS and made["runs_left_out"] == 6
    assert "2 further bars are left out" not in Page(plots.bytes_plot(made)).words
    assert "further bars are left out" in Page(plots.time_plot(made)).words


def test_labels_are_escaped(documents):
    made = {**documents["clean"]["series"]}
    made["training"] = [{**curve, "label": HOSTILE} for curve in made["training"]]
    page = Page(plots.training_plot(made))
    assert not page.all("script") and not page.all("img") and HOSTILE[:20] in page.words


def test_order_plot_marks_scores_that_come_late(documents):
    bad = Page(run_plot.order_plot(documents["violation"]["timelines"]["run"]))
    good = Page(run_plot.order_plot(documents["clean"]["timelines"]["run"]))
    assert len(bad.all("rect", cls="o-late")) == 16 + 1, "sixteen chunks and the key of the legend"
    assert not good.all("rect", cls="o-late") and len(good.all("rect", cls="o-score")) == 16 + 1


def test_second_pass_over_the_stream_is_a_second_curve():
    review = examples.clean()
    run = review.case.logs[0].runs[0]
    again = [replace(line, bpb=line.bpb - 0.05, line=line.line + 500) for line in run.progress]
    run.progress += again
    names = [curve["name"] for curve in series.series(review.case)["running"]]
    assert names == ["ttt_chunk, pass 1", "ttt_chunk, pass 2", "ttt_chunk", "ttt_chunk"]
    assert all(curve["bpb"] == sorted(curve["bpb"]) for curve in series.series(review.case)["running"])


def test_one_pass_told_three_times_counts_once():
    review = examples.clean()
    run = review.case.logs[0].runs[0]
    last = run.results[-1]
    run.results += [replace(last, line=last.line + i, label=f"{last.label}_{i}") for i in (1, 2)]
    told = series.series(review.case)["time"][0]["evaluation"]
    assert sum(segment["seconds"] == last.seconds for segment in told) == 1


def test_budgets_do_not_bind_an_unlimited_run():
    review = examples.not_eligible()
    review.case.submission.track = Track.UNLIMITED
    words = Page(plots.time_plot(series.series(review.case))).words
    assert "OVER" not in words and "600 s each (record track)" in words
