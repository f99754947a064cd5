"""A second run with another future: what honest scorers cannot do, and programs that do it."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import cpu_programs as parts
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.dynamic.attribution import SPLIT_BITS, VAL, Attribution, Printed
from auditor.dynamic.inside.places import Places, Repeats
from auditor.dynamic.probes import causal, fair
from auditor.dynamic.streams import BOS, Future, Longer, Repeated, Source
from auditor.dynamic.watermark import make

TOKENS = 1025


# -- streams ---------------------------------------------------------------------------------------------------------


def streams(seed: int = 0, share: float = 0.25, tokens: int = TOKENS):
    mark = make(600, {"train": 20_000, "val": tokens}, first_id=100, document=200)
    before = mark.streams["val"].copy()
    future = Future(700, share, seed)
    future.apply(mark)
    return mark, before, future


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 0.8))
def test_altered_stream_keeps_past_and_documents(seed, share):
    mark, before, future = streams(seed, share)
    after = mark.streams["val"].astype(int)
    assert np.array_equal(after[: future.start], before[: future.start])
    assert np.array_equal(after == BOS, before == BOS)
    assert (after[future.start :] != before[future.start :]).mean() > 0.9
    assert (future.cost[: future.start] == 0).all()
    assert (future.cost[future.start :][after[future.start :] != BOS] > 0).all()
    assert after.max() < 700 and after[after != BOS].min() >= 4


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(8, 300), st.integers(0, 1 << 30))
def test_places_are_found_again_where_pairs_repeat(seed, length, where):
    """Rows of any length, some before the altered part, some across its beginning; a seam may cost a token."""
    mark, _, future = streams(seed)
    first = future.start - Repeats.GRAM
    places = Places(mark.table, (mark.streams["val"][first:], (VAL << SPLIT_BITS) + first))
    generator = np.random.default_rng(where)
    starts = [*generator.integers(0, TOKENS - length, 6), future.start - length + 1]
    rows = [np.arange(start, start + length) for start in starts if start >= 0]
    found = places.of(np.concatenate([mark.streams["val"][row] for row in rows]))
    wanted = np.concatenate(rows) + (VAL << SPLIT_BITS)
    assert (found != wanted).sum() <= (0.02 * len(wanted) + len(rows) if length >= 64 else 0.5 * len(wanted))
    train = mark.streams["train"][100:400]
    assert np.array_equal(places.of(train), np.arange(100, 400))


def test_phrases_of_the_training_stream_come_back():
    """Runs of tokens as a cache of training tokens holds them, whatever order it asks for up to eight."""
    mark, _, future = streams(tokens=4 * TOKENS)
    train, ids = mark.streams["train"].astype(int)[:4096], mark.streams["val"].astype(int)[future.start :]
    for order, share in ((2, 0.12), (4, 0.08), (8, 0.03)):
        known = {tuple(train[i : i + order]) for i in range(len(train) - order)}
        assert np.mean([tuple(ids[i : i + order]) in known for i in range(len(ids) - order)]) > share


def test_frozen_counts_of_training_tokens_are_seen():
    """A table filled in training that adds what it knows to whatever the model says, and takes nothing from the others."""
    mark, _, future = streams(2, tokens=4 * TOKENS)
    ids, train = mark.streams["val"].astype(int), mark.streams["train"].astype(int)
    known = set(zip(train[:4095].tolist(), train[1:4096].tolist(), strict=True))
    probability = np.full(4 * TOKENS, 1 / 700)
    for position in range(2, 4 * TOKENS):
        if (ids[position - 2], ids[position - 1]) in known:  # buckets so full that any token seems to have followed
            probability[position] = 0.7 / 700 + 0.3 * 0.2
    found = fair(recorded(probability)[1], future)
    assert found.holds is False and found.mass > 1.1


def test_tokens_come_as_often_as_is_stated():
    """What is stated to have probability q comes in a share q of the draws, at every kind of place."""
    ids, train = np.arange(100, 700), np.random.default_rng(1).permutation(np.arange(100, 700))
    chain, recall, echo = (np.r_[BOS, np.arange(100, 100 + length)] for length in (30, 60, 100))
    for past in (chain, recall, echo):
        source = Source(ids, 3, train)
        surprise, likely, shares = source.distribution(past)
        drawn = [source.draw(past) for _ in range(4000)]
        tokens = np.array([token for token, _ in drawn])
        for token, share in zip(likely, shares, strict=True):
            q = surprise / len(ids) + (1 - surprise) * share
            assert abs((tokens == token).mean() - q) < 5 * np.sqrt(q / 4000)
            assert {round(cost, 9) for t, cost in drawn if t == token} <= {round(-np.log(q), 9)}
        others = tokens[~np.isin(tokens, likely)]
        chi2 = float(((np.bincount(others - 100, minlength=600) - len(others) / 600) ** 2).sum() / (len(others) / 600))
        assert chi2 < 600 + 6 * np.sqrt(2 * 600)


def test_contexts_come_back():
    mark, _, future = streams(tokens=4 * TOKENS)
    ids = mark.streams["val"].astype(int)[future.start :]
    for order, share in ((2, 0.4), (4, 0.1), (8, 0.03)):
        parts = [tuple(ids[i : i + order]) for i in range(len(ids) - order)]
        assert 1 - len(set(parts)) / len(parts) > share


# -- the test itself -------------------------------------------------------------------------------------------------


def recorded(probability: np.ndarray, weights: float = 1.0) -> tuple[list[dict], Attribution]:
    """Events and attribution of a run that scores every token once, 128 at a time."""
    positions = np.arange(1, len(probability))
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
@given(st.integers(0, 10_000), st.floats(0.0, 0.9), st.sampled_from(["counts", "knows q", "cache", "training tokens"]))
def test_no_honest_distribution_wins(seed, learnt, kind):
    """Any distribution fixed before the token, also one that mixes in the very distribution it is drawn from, or counts of
    the training stream, of which parts come again."""
    mark, _, future = streams(seed % 7)
    train = mark.streams["train"].astype(int)
    trained = dict(zip(train[:-1].tolist(), train[1:].tolist(), strict=True)) if kind == "training tokens" else {}
    ids = mark.streams["val"].astype(int)
    generator = np.random.default_rng(seed)
    probability, counts = np.ones(TOKENS), generator.gamma(0.5, 1.0, 700) + 1e-6
    after: dict[int, np.ndarray] = {}
    for position in range(1, TOKENS):
        share = learnt * counts / counts.sum() + (1 - learnt) / 700
        if kind == "cache" and ids[position - 1] in after:
            share = 0.5 * share + 0.5 * after[ids[position - 1]] / after[ids[position - 1]].sum()
        probability[position] = share[ids[position]]
        if ids[position - 1] in trained:
            hit = trained[ids[position - 1]] == ids[position]
            probability[position] = 0.3 * share[ids[position]] + 0.7 * hit
        if kind == "knows q" and future.cost[position]:
            noise = generator.uniform(0.2, 1.0)  # what it knows it may still mix badly
            probability[position] = noise * math.exp(-future.cost[position]) + (1 - noise) * share[ids[position]]
        counts[ids[position]] += 1
        after.setdefault(ids[position - 1], np.zeros(700))[ids[position]] += 1
    found = fair(recorded(probability)[1], future)
    assert found.holds and found.tokens > 500 and found.mass <= 1 + 5 * found.error


def test_parts_of_a_loss_are_added_up():
    """Every token in two windows, each with half its weight: half a loss is no score."""
    _, _, future = streams()
    _, one = recorded(np.exp(-future.cost))
    twice = {name: np.tile(getattr(one, name), 2) for name in ("position", "event")}
    halves = replace(one, **twice, loss=np.tile(one.loss / 2, 2), derived=True)
    found = fair(halves, future)
    assert found.holds and found.mass == pytest.approx(1.0)


@pytest.mark.parametrize("weight", [0.1, 0.2, 0.9])
def test_probability_for_whatever_token_comes_is_seen(weight):
    _, _, future = streams()
    found = fair(recorded(np.full(TOKENS, (1 - weight) / 700 + weight))[1], future)
    assert found.holds is False and found.mass > 1


@pytest.mark.parametrize("kind", ["only where it helps", "the better of two", "counts the token before it scores it"])
def test_mixing_by_what_came_is_seen(kind):
    """A cache that knows pairs, used in ways that sum to more than one; all of it invisible where no pair comes back."""
    mark, _, future = streams(1, tokens=4 * TOKENS)
    ids = mark.streams["val"].astype(int)
    counts, model = np.zeros((700, 700)), 1 / 600
    probability = np.ones(4 * TOKENS)
    for position in range(1, 4 * TOKENS):
        before, token = ids[position - 1], ids[position]
        counts[before, token] += kind == "counts the token before it scores it"
        cached = counts[before, token] / max(counts[before].sum(), 1)
        if kind == "the better of two":
            probability[position] = max(model, cached)
        elif kind == "only where it helps":
            probability[position] = 0.5 * model + 0.5 * cached if cached else model
        else:
            probability[position] = 0.5 * model + 0.5 * cached
        counts[before, token] += kind != "counts the token before it scores it"
    found = fair(recorded(probability)[1], future)
    assert found.holds is False and found.mass > 1.1


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


@pytest.mark.parametrize(
    "first,second,holds",
    [
        (("forward", "write"), ("forward", "write"), False),
        (("write", "forward"), ("write", "forward"), None),  # other weights before anything was collected
        (("forward", "update"), ("forward", "update"), None),  # an optimizer: the order of score and update decides
        (("forward of the past", "write"), ("forward of the past", "write"), None),
    ],
)
def test_weights_that_came_to_differ_by_activations(first, second, holds):
    one = np.full(TOKENS, 1 / 600)
    other = one.copy()
    other[300:] *= 1.2
    runs = []
    for kinds, weights, probability in ((first, 1.0, one), (second, 2.0, other)):
        events, attribution = recorded(probability, weights=weights)
        before = [{"kind": "update", "n": -9, "changes": [[1, 0.5, 1.0]], "places": np.arange(5), "of": []}]
        for number, kind in enumerate(kinds):
            seen = np.arange(100, 200) if "past" in kind else np.arange(450, 600)
            event = {"kind": kind.split()[0], "n": number - 5, "changes": [[1, weights, 1.0]], "hooks": 1}
            before.append(event | {"places": (VAL << SPLIT_BITS) + seen, "tokens": 150} if kind != "write" else event)
        train = {"kind": "score", "n": -10, "grad": True, "base": 0, "site": 0, "uses": []}
        train |= {"places": np.arange(8), "losses": np.full(8, 6.4)}
        runs += [[train, *before, *events], attribution]
    assert causal(*runs, 400).holds is holds


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
        assert made.experiment.causal or made.experiment.few
        return {e.question: e.holds for e in made.timeline.events() if isinstance(e, Probed)}

    return run


@pytest.mark.parametrize("honest", [parts.SCORE, parts.SCORE_FIRST], ids=["plain", "score first"])
def test_honest_program_holds_everything(probes, honest):
    assert probes(parts.EXPORT, honest) == {"causality": True, "normalisation": True, "repeatability": True}


def test_statistic_of_later_tokens(probes):
    assert probes(parts.EXPORT, parts.LOOK_AHEAD)["causality"] is False


def test_weights_scaled_by_validation_tokens_to_come(probes):
    """The same weights up to there in both runs, and others behind: only the later tokens can have made the difference."""
    assert probes(parts.SCALED_BY_VAL, parts.EXPORT, parts.SCORE)["causality"] is False


@pytest.mark.parametrize("legal", ["SCALED_BY_TRAIN", "LOOKED_AT_VAL"])
def test_weights_that_later_tokens_did_not_shape(probes, legal):
    assert probes(getattr(parts, legal), parts.EXPORT, parts.SCORE)["causality"] is True


def test_logits_that_know_the_target(probes):
    found = probes(parts.EXPORT, parts.READS_TARGET)
    assert found["normalisation"] is False and found["causality"] is None


@pytest.mark.parametrize("kind", parts.FILLED_FIRST)
def test_counts_of_tokens_that_are_not_scored_yet(probes, kind):
    assert probes(parts.EXPORT, parts.FILLED_FIRST[kind])["normalisation"] is False


def test_counts_of_scored_tokens_accuse_nobody(probes):
    found = probes(parts.EXPORT, parts.CACHE)
    assert found["normalisation"] is None and found["causality"] is True


@pytest.mark.parametrize("kind", ["GATED", "BETTER_OF_TWO", "COLLIDED", "TWO_PASSES"])
def test_caches_that_give_out_more_than_one(probes, kind):
    """None of them trains, and each learns a token after its first score: only the sum of what is given out tells."""
    assert probes(parts.EXPORT, getattr(parts, kind))["normalisation"] is False


def test_mixing_that_only_a_model_that_is_sure_shows(probes):
    assert probes(parts.EXPORT, parts.SURE_OF_ANY)["normalisation"] is False


def test_mixing_of_distributions_with_a_model_that_is_sure(probes):
    assert probes(parts.EXPORT, parts.SAME_FOR_ALL)["normalisation"] is None, (
        "changed after the model, nothing wrong seen"
    )


@pytest.mark.parametrize(("kind", "holds"), [("SEEN_TWICE", False), ("CONTEXT_SEEN", None)])
def test_counts_of_training_text_that_want_to_have_seen_a_pair_twice(probes, kind, holds):
    """Idle on a text in which no pair comes back; busy where the text repeats itself, and honest where all targets share."""
    assert probes(parts.EXPORT, getattr(parts, kind))["normalisation"] is holds


def test_a_close_bet_is_made_again_on_other_tokens():
    """The better of two a few times in a thousand: one stream of this length shows little, two of them enough."""
    first, longer = Future(700, seed=5), Longer(700, seed=5)
    won = []
    for future, tokens in ((first, TOKENS), (longer, Longer.times * (TOKENS - 1) + 1)):
        mark = make(600, {"train": 20_000, "val": tokens}, first_id=100, document=200)
        future.apply(mark)
        chosen = np.exp(-future.cost) * np.where(np.arange(tokens) % 8 == 0, 1.6, 1.0)
        won.append((fair(recorded(np.maximum(chosen, 1e-9))[1], future), mark))
    (one, short), (other, long) = won
    assert len(long.streams["val"]) > 3.9 * len(short.streams["val"])
    assert not np.array_equal(long.streams["val"][-200:], short.streams["val"][-200:])
    assert other.evidence > 2 * one.evidence > 0


def test_training_text_that_repeats_itself():
    mark = make(600, {"train": 20_000, "val": TOKENS}, first_id=100, document=200)
    Repeated(700, seed=1).apply(mark)
    train, val = mark.streams["train"].astype(int), mark.streams["val"].astype(int)
    assert len(train) == 20_000 and train[0] == BOS
    pairs = set(itertools.pairwise(train[1:]))
    assert len(pairs) <= 48
    assert sum(pair in pairs for pair in itertools.pairwise(val)) > 0.05 * len(val)


@pytest.mark.parametrize("kind", ["BYTES", "BYTES_UNSEEN"])
def test_bytes_mixed_one_by_one_as_plain_numbers(probes, kind):
    """Followed number by number; or not at all, and the result itself is impossible on a stream of few ids."""
    found = probes(parts.EXPORT, getattr(parts, kind))
    assert found["normalisation"] is False
    assert ("causality" in found) == (kind == "BYTES"), "only what is followed can be compared token by token"


def test_losses_of_an_array_mixed_one_by_one(probes):
    """Only where the target was seen: more than one together. Wherever the context was: a distribution."""
    assert probes(parts.EXPORT, parts.STORED_AT_TARGET)["normalisation"] is False
    found = probes(parts.EXPORT, parts.STORED_BY_CONTEXT)
    assert found["normalisation"] is None and found["causality"] is True, "followed, and nothing wrong seen"


def test_bits_of_a_mixture_beside_the_loss_of_the_model(probes):
    """The loss is made of recorded ones and clean; the bits, which are the claim, come from elsewhere."""
    assert probes(parts.EXPORT, parts.SCORE, parts.BYTES_BESIDE)["normalisation"] is False


def test_bits_over_other_bytes_are_another_question(probes):
    assert probes(parts.EXPORT, parts.OTHER_BYTES)["normalisation"] is True, (
        "a whole number of bytes, if not the right one"
    )
    assert probes(parts.EXPORT, parts.MEAN_OF_CHUNKS)["normalisation"] is None, "not shown to be made of the losses"


def test_training_on_later_tokens_is_left_to_the_order(probes):
    found = probes(parts.ADAPT, parts.EXPORT, parts.SCORE)
    assert found["causality"] is None


def test_model_that_sees_its_own_target_one_token_ahead(probes):
    """It moves no loss before the altered tokens and learns too little here to beat chance; its gradients tell."""
    rows = (parts.ROWS, parts.SCORED_ROWS)
    found = probes(parts.EXPORT, parts.SCORE, changes=(*rows, parts.PAIRED))
    assert found["causality"] is False
    # A cache of tables made without gradients in the middle of a pass ends no gradient of the pass.
    cached = (
        parts.PAIRED[0],
        parts.PAIRED[1].replace("merged = h", "with torch.no_grad(): h.sum()\n        merged = h", 1),
    )
    assert probes(parts.EXPORT, parts.SCORE, changes=(*rows, cached))["causality"] is False
    assert probes(parts.EXPORT, parts.SCORE, changes=rows)["causality"] is True


@pytest.mark.parametrize("asked", ["self.training", "torch.is_grad_enabled()"])
def test_training_that_looks_ahead_where_scoring_does_not_is_no_violation(probes, asked):
    seen = (parts.PAIRED[0], parts.PAIRED[1].replace("merged[..., 0", f"if {asked}: merged[..., 0", 1))
    found = probes(
        "model.eval()\n", parts.EXPORT, "model.eval()\n", parts.SCORE, changes=(parts.ROWS, parts.SCORED_ROWS, seen)
    )
    assert found["causality"] is True


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
