"""The order of events by position, on timelines built by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auditor.case import Case
from auditor.findings import Status, Witness
from auditor.submission import Submission, Track
from auditor.timeline import (
    Branch,
    Calibrate,
    Event,
    Extent,
    External,
    Loop,
    Phase,
    Place,
    Score,
    Sequence,
    Span,
    Split,
    Timeline,
    Unknown,
    Update,
)  # fmt: skip
from auditor.unpack import Program
from rules import rule
from rules.order import Positions, order_of

LINE = Place("train_gpt.py", 10)


def val(low: int, high: int) -> Span:
    return Span(Split.VAL, Extent.PART, positions=((low, high),))


def score(low: int, high: int, counted: bool = True) -> Score:
    return Score(Place("train_gpt.py", 20), val(low, high), counted, phase=Phase.EVALUATION)


def update(low: int, high: int, phase: Phase = Phase.EVALUATION) -> Update:
    return Update(Place("train_gpt.py", 30), val(low, high), "parameters", phase=phase)


def case_with(*events: Event, witness: Witness = Witness.RUN, **others: Timeline) -> Case:
    submission = Submission("a", "records/track_10min_16mb/a", {}, lambda path: b"", track=Track.RECORD)
    case = Case(submission, Program())
    case.timelines[witness] = Timeline(witness.value, Sequence(tuple(events)))
    case.timelines |= {Witness[name]: timeline for name, timeline in others.items()}
    return case


def status(name: str, *events: Event) -> Status:
    return rule(name).decide(case_with(*events)).status


def test_score_first_is_legal_and_train_first_is_not() -> None:
    legal = [event for i in range(4) for event in (score(i * 8, i * 8 + 8), update(i * 8, i * 8 + 8))]
    assert status("PG-C3-score-first", *legal) is Status.PASS
    finding = rule("PG-C3-score-first").decide(case_with(update(0, 32), *[score(i * 8, i * 8 + 8) for i in range(4)]))
    assert finding.status is Status.FAIL
    assert finding.summary.startswith("32 of 32")
    assert [evidence.line for evidence in finding.evidence] == [20, 30]


def test_only_counted_scores_weigh() -> None:
    events = (score(0, 8), update(0, 8), score(0, 8, counted=False), score(8, 16))
    assert status("PG-C3-score-first", *events) is Status.PASS
    assert status("PG-C4-single-pass", *events) is Status.PASS


def test_last_epoch_score_counts_tokens_that_were_trained_on() -> None:
    events = (score(0, 8, counted=False), update(0, 8), score(0, 8))
    assert status("PG-C3-multi-epoch", *events) is Status.FAIL


def test_context_tokens_of_an_overlapping_window_are_no_breach() -> None:
    assert status("PG-C4-single-pass", score(0, 8), score(8, 12), score(12, 16)) is Status.PASS
    assert status("PG-B-window-once", score(0, 8), score(4, 12)) is Status.FAIL


def test_update_before_the_export() -> None:
    early = update(0, 8, Phase.AFTER_TRAINING)
    assert status("PG-C3-prequant-ttt", early, score(0, 8)) is Status.FAIL
    assert status("PG-C3-prequant-ttt", score(0, 8), update(0, 8)) is Status.PASS


def test_calibration_network_and_side_channel_from_events() -> None:
    on_val = Calibrate(LINE, Span(Split.VAL, Extent.PART), phase=Phase.AFTER_TRAINING)
    assert status("PG-D-gptq-calibration", on_val) is Status.FAIL
    call = External(LINE, "network", "urlopen", phase=Phase.EVALUATION)
    assert status("PG-E-network", call) is Status.FAIL
    opened = External(LINE, "path", "prior.npy", phase=Phase.EVALUATION)
    assert status("PG-S-side-channel", opened) is Status.FAIL


def test_a_blind_spot_is_not_innocence() -> None:
    blind = Unknown(LINE, "exec of a computed string")
    for name in ("PG-D-val-in-train", "PG-D-train-at-eval", "PG-S-side-channel"):
        assert status(name) is Status.PASS
        assert status(name, blind) is Status.UNKNOWN


def test_witnesses_that_disagree_are_a_finding() -> None:
    static = Timeline("static analysis", Sequence((update(0, 8), score(0, 8))))
    finding = rule("PG-C3-score-first").decide(case_with(score(0, 8), update(0, 8), STATIC=static))
    assert finding.status is Status.WARN
    assert "disagree" in finding.summary and finding.witness is Witness.STATIC


def test_symbolic_timelines_are_left_to_their_own_reading() -> None:
    span = Span(Split.VAL, Extent.ITEM, loop="chunks")
    body = Sequence((Score(LINE, span, True), Update(LINE, span, "parameters")))
    timeline = Timeline("static analysis", Sequence((Loop("chunks", LINE, "chunks", body),)))
    assert order_of(timeline) is None
    case = case_with()
    case.timelines = {Witness.STATIC: timeline}
    assert rule("PG-C3-score-first").decide(case).status is Status.UNKNOWN


def test_dead_branches_do_not_count() -> None:
    dead = Branch(LINE, "TTT == 'old'", False, Sequence((update(0, 8),)), Sequence(()))
    order = order_of(Timeline("run", Sequence((dead, score(0, 8)))))
    assert order is not None and order.late == 0


ranges = st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(ranges, max_size=12), ranges)
def test_position_sets_agree_with_python_sets(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    positions, plain = Positions(), set()
    for low, high in added:
        positions.add(((low, high),))
        plain |= set(range(low, high))
    assert len(positions) == len(plain)
    assert positions.common((asked,)) == len(plain & set(range(*asked)))


@given(st.lists(st.tuples(st.sampled_from("su"), ranges), max_size=14))
def test_late_scores_are_those_with_an_earlier_update(moves: list[tuple[str, tuple[int, int]]]) -> None:
    events = [score(*where) if kind == "s" else update(*where) for kind, where in moves if where[0] < where[1]]
    order = order_of(Timeline("run", Sequence(tuple(events))))
    trained: set[int] = set()
    late = scored = 0
    for event in events:
        tokens = set(range(*event.span.positions[0]))
        if isinstance(event, Update):
            trained |= tokens
        else:
            scored += len(tokens)
            late += len(tokens & trained)
    assert (order.scored, order.late) == (scored, late) if scored else order is None
