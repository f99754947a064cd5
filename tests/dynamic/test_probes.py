"""A second run with another future: what honest scorers cannot do, and programs that do it."""

from __future__ import annotations

import cpu_programs as parts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.dynamic.attribution import SPLIT_BITS, VAL, Attribution, Printed
from auditor.dynamic.probes import causal, fair
from auditor.dynamic.streams import BOS, Future
from auditor.dynamic.watermark import make

TOKENS = 1025


# -- streams ---------------------------------------------------------------------------------------------------------


def streams(seed: int = 0, share: float = 0.4):
    mark = make(600, {"train": 20_000, "val": TOKENS}, first_id=100, document=200)
    before = mark.streams["val"].copy()
    future = Future(share, seed)
    future.apply(mark)
    return mark, before, future


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 0.8))
def test_altered_stream_keeps_past_documents_and_watermark(seed, share):
    mark, before, future = streams(seed, share)
    after = mark.streams["val"]
    assert np.array_equal(after[: future.start], before[: future.start])
    assert np.array_equal(after == BOS, before == BOS)
    assert (after[future.start :] != before[future.start :]).mean() > 0.9
    for code, name in enumerate(mark.splits):
        ids = mark.streams[name].astype(int)
        split, position = mark.locate(ids[:-1], ids[1:])
        assert (split == code).all() and np.array_equal(position, np.arange(1, len(ids)))
    assert (future.choices[: future.start] == 1).all()
    assert (future.choices[future.start :][after[future.start :] != BOS] > 100).all()


def test_no_id_is_preferred_in_the_new_tokens():
    ids = np.concatenate([streams(seed)[0].streams["val"][500:] for seed in range(12)])
    counts = np.bincount(ids[ids != BOS] - 100, minlength=499)
    expected = counts.sum() / 499
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert chi2 < 499 + 6 * np.sqrt(2 * 499), "as far from even as chance allows"


# -- the test itself -------------------------------------------------------------------------------------------------


def recorded(probability: np.ndarray, weights: float = 1.0) -> tuple[list[dict], Attribution]:
    """Events and attribution of a run that scores every token once, 128 at a time."""
    positions = np.arange(1, TOKENS)
    loss = -np.log(probability[1:])
    events = []
    for index, part in enumerate(np.array_split(np.arange(len(positions)), 8)):
        events.append(
            {
                "kind": "score", "n": index + 1, "grad": False, "site": 0, "base": int(part[0]),
                "places": (VAL << SPLIT_BITS) + positions[part], "losses": loss[part], "uses": [[1, weights, 1.0]],
            }
        )  # fmt: skip
    event = np.repeat(np.arange(1, 9), [len(part) for part in np.array_split(positions, 8)])
    printed = Printed(99, "final", float(loss.mean()), 1.0, 8, "final")
    return events, Attribution(printed, "all", positions, loss, event, 0, 0.0, 0.0, 0, False, 0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.9))
def test_no_honest_distribution_beats_chance(seed, learnt):
    """Any distribution fixed before the token: here one that favours what was frequent in the past."""
    mark, _, future = streams(seed % 7)
    ids = mark.streams["val"].astype(int)
    probability, counts = np.ones(TOKENS), np.random.default_rng(seed).gamma(0.5, 1.0, 600) + 1e-6
    for position in range(1, TOKENS):
        share = learnt * counts / counts.sum() + (1 - learnt) / 600
        probability[position] = share[ids[position]]
        counts[ids[position]] += 1
    found = fair(*recorded(probability), future, TOKENS)
    assert found.holds and found.tokens > 500 and found.mass <= 1 + 4 * found.error


@pytest.mark.parametrize("weight", [0.02, 0.2, 0.9])
def test_probability_for_whatever_token_comes_is_seen(weight):
    _, _, future = streams()
    found = fair(*recorded(np.full(TOKENS, (1 - weight) / 600 + weight)), future, TOKENS)
    assert found.holds is False and found.mass > 1


def test_a_future_that_moves_the_past_is_seen():
    one = np.full(TOKENS, 1 / 600)
    other = one.copy()
    other[300:] *= 1.2
    assert causal(*recorded(one), *recorded(one), 400).holds is True
    moved = causal(*recorded(one), *recorded(other), 400)
    assert moved.holds is False and moved.moved == 100 and moved.positions.min() == 300
    assert causal(*recorded(one), *recorded(other), 300).holds is True
    # Weights that differ got there by training; the rule on the order of score and update asks how.
    trained = causal(*recorded(one), *recorded(other, weights=2.0), 400)
    assert trained.holds is None and trained.by_weights == 100


def test_losses_moved_after_altered_tokens_were_scored_are_no_proof():
    one = np.full(TOKENS, 1 / 600)
    other = one.copy()
    other[10] *= 2
    events, attribution = recorded(one)
    again, second = recorded(other)
    for run in (events, again):  # the last part of the stream is scored first
        run.insert(0, run.pop())
        run[0]["n"] = 0
    for each in (attribution, second):
        each.event[each.event == 8] = 0
    found = causal(events, attribution, again, second, 1000)
    assert found.holds is None and found.after_future == 1


# -- programs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def probes():
    """Runs a program twice in the sandbox: question -> whether it holds."""
    pytest.importorskip("torch")
    from auditor.dynamic import witness
    from auditor.dynamic.sandbox import available_layers
    from auditor.submission import Submission
    from auditor.timeline import Probed
    from auditor.unpack import read_program

    if available_layers()[1]:
        pytest.skip("this machine cannot contain a program")

    def run(*program: str, changes: tuple[tuple[str, str], ...] = ()) -> dict[str, bool | None]:
        text = parts.program(*program)
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        submission = Submission.from_files({"records/track_10min_16mb/2026-04-01_Small/train_gpt.py": text})
        made = witness.testify(submission, read_program(submission), seconds=40, probe=True)
        assert made.run.status == "finished", made.run.reason
        assert made.experiment.absent == ""
        return {e.question: e.holds for e in made.timeline.events() if isinstance(e, Probed)}

    return run


@pytest.mark.parametrize("honest", [parts.SCORE, parts.SCORE_FIRST], ids=["plain", "score first"])
def test_honest_program_holds_everything(probes, honest):
    assert probes(parts.EXPORT, honest) == {"causality": True, "normalisation": True, "repeatability": True}


def test_statistic_of_later_tokens(probes):
    assert probes(parts.EXPORT, parts.LOOK_AHEAD)["causality"] is False


def test_logits_that_know_the_target(probes):
    found = probes(parts.EXPORT, parts.READS_TARGET)
    assert found["normalisation"] is False and found["causality"] is None


@pytest.mark.parametrize("kind", parts.FILLED_FIRST)
def test_counts_of_tokens_that_are_not_scored_yet(probes, kind):
    assert probes(parts.EXPORT, parts.FILLED_FIRST[kind])["normalisation"] is False


def test_counts_of_scored_tokens_accuse_nobody(probes):
    found = probes(parts.EXPORT, parts.CACHE)
    assert found["normalisation"] is None and found["causality"] is True


def test_training_on_later_tokens_is_left_to_the_order(probes):
    found = probes(parts.ADAPT, parts.EXPORT, parts.SCORE)
    assert found["causality"] is None


def test_model_that_sees_its_own_target_one_token_ahead(probes):
    """It moves no loss before the altered tokens and learns too little here to beat chance; its gradients tell."""
    found = probes(parts.EXPORT, parts.SCORE, changes=(parts.ROWS, parts.PAIRED))
    assert found["causality"] is None
    assert probes(parts.EXPORT, parts.SCORE, changes=(parts.ROWS,))["causality"] is True


def test_program_that_behaves_better_here_than_elsewhere(probes):
    """It trains on validation tokens where a GPU driver is installed: reading and running contradict each other."""
    from auditor.casefile import Call
    from auditor.findings import Status, Verdict, Witness
    from auditor.review import review_submission
    from auditor.submission import Submission

    text = parts.program(parts.EXPORT, parts.TWO_FACED, parts.SCORE)
    submission = Submission.from_files({"records/track_10min_16mb/2026-04-01_Small/train_gpt.py": text})
    review = review_submission(submission, call=Call(run=True))
    assert review.case.facts["run"].late == 0, "it behaved in the run"
    found = {finding.rule: finding for finding in review.findings}["PG-C3-score-first"]
    assert found.status is Status.WARN and "what machine it runs on" in found.summary
    assert "os.path.exists" in found.explanation
    assert Witness.RUN in review.case.timelines and review.verdict is not Verdict.CLEAN
