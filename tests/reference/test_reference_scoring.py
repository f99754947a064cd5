"""Every evaluation mode against a scorer that predicts one position at a time, and the bookkeeping of positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import tiny

from reference import windows
from reference.config import Config
from reference.errors import ConfigError, ScoringError
from reference.evaluate import Evaluation, sliding, standard
from reference.ledger import check
from reference.model import GPT
from reference.ranks import Ranks
from reference.scoring import Accumulator, Coverage
from reference.ttt import score_first
from reference.validation import ValidationStream


def loss_of_one(model: GPT, tokens: np.ndarray, begin: int, end: int, position: int) -> float:
    """-ln p of the token after `position`, in a row of 32 whose inputs after `position` are erased, in float64.

    Windows of the legacy tail are shorter, but the seeds fill every row up: the rotary base goes by the row.
    """
    window = torch.zeros(1, 32, dtype=torch.int64)
    window[:, : end - begin] = torch.from_numpy(tokens[begin:end].astype(np.int64))
    window[:, position - begin + 1 :] = 0
    with torch.no_grad():
        logits = model.logits(window)[0, position - begin].double()
    return float(-(logits - logits.logsumexp(0))[int(tokens[position + 1])])


Spans = dict[int, list[tuple[int, int]]]


def brute_force(model: GPT, stream: ValidationStream, window_of: Spans) -> tuple[float, int, int]:
    """Nats, tokens and bytes when position p is scored in each of `window_of[p]`."""
    nats, count, size = 0.0, 0, 0
    for position, spans in window_of.items():
        for begin, end in spans:
            nats += loss_of_one(model, stream.tokens, begin, end, position)
            count += 1
            size += 1 if stream.tokens[position + 1] >= 4 else 0  # byte260: every token but the first four is one byte
    return nats, count, size


def sliding_windows_by_hand(n: int, length: int, stride: int, legacy: bool) -> Spans:
    """Window(s) of every position, written out position by position."""
    table: Spans = {p: [] for p in range(n)}
    if legacy:
        for begin in range(0, n, stride):
            end = min(begin + length, n)
            if end - begin >= stride:
                for p in range(0 if begin == 0 else end - stride, end):
                    table[p].append((begin, end))
        return table
    for p in range(n):
        if p < length:
            table[p].append((0, min(length, n)))
        else:
            end = min(length + ((p - length) // stride + 1) * stride, n)
            table[p].append((end - length, end))
    return table


def evaluation(model: GPT, stream: ValidationStream, config: Config | None = None) -> Evaluation:
    return Evaluation(config or tiny(), model, stream, Ranks(), keep_losses=True)


def agrees(score, expected: tuple[float, int, int]) -> None:
    nats, count, size = expected
    assert (score.tokens, score.bytes) == (count, size)
    assert score.bpb == pytest.approx(nats / math.log(2) / size, abs=1e-6)
    assert score.loss == pytest.approx(nats / count, abs=1e-6)


def test_standard_equals_brute_force(model: GPT, stream: ValidationStream) -> None:
    rows = {p: [(p // 32 * 32, p // 32 * 32 + 32)] for p in range(stream.positions)}
    agrees(standard(evaluation(model, stream)), brute_force(model, stream, rows))


@pytest.mark.parametrize("legacy", [False, True])
def test_sliding_equals_brute_force(model: GPT, stream: ValidationStream, legacy: bool) -> None:
    config = tiny(f"eval.tail={'legacy_dup' if legacy else 'exact'}")
    score = sliding(evaluation(model, stream, config))
    agrees(score, brute_force(model, stream, sliding_windows_by_hand(stream.positions, 32, 8, legacy)))
    assert score.repeats == (8 * (32 // 8 - 1) if legacy else 0)


def test_ttt_equals_brute_force(model: GPT, stream: ValidationStream) -> None:
    """Score chunk by chunk one position at a time, then train with torch's own SGD and clipping."""
    config = tiny("ttt.lr_schedule=cos", "ttt.grad_clip=0.5", "ttt.batch_rows=8")
    score = score_first(evaluation(twin_of(model), stream, config))
    table = sliding_windows_by_hand(stream.positions, 32, 8, legacy=False)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, momentum=config.ttt.momentum)
    nats = 0.0
    chunks = 5
    for chunk in range(chunks):
        members = range(chunk * 64, min(chunk * 64 + 64, stream.positions))
        model.eval()
        nats += sum(loss_of_one(model, stream.tokens, *table[p][0], p) for p in members)
        if chunk == chunks - 1:
            break
        model.train()
        optimiser.param_groups[0]["lr"] = config.ttt.lr / 2 * (1 + math.cos(math.pi * chunk / (chunks - 1)))
        for _ in range(config.ttt.epochs):
            block = torch.from_numpy(stream.tokens[chunk * 64 : chunk * 64 + 65].astype(np.int64))
            optimiser.zero_grad()
            model(block[:-1].view(2, 32), block[1:].view(2, 32)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.ttt.grad_clip)
            optimiser.step()
    assert score.loss == pytest.approx(nats / stream.positions, abs=1e-6)


def twin_of(model: GPT) -> GPT:
    """A second model with the same weights."""
    twin = GPT(tiny())
    twin.load_state_dict(model.state_dict())
    return twin


@given(n=st.integers(1, 400), length=st.integers(1, 64), stride=st.integers(1, 64))
def test_exact_windows_cover_every_position_once(n: int, length: int, stride: int) -> None:
    stride = min(stride, length)
    plan = windows.sliding(n, length, stride, "exact")
    scored = [p for first, end in zip(plan.firsts, plan.ends, strict=True) for p in range(first, end)]
    assert scored == list(range(n))
    assert np.all(plan.ends - plan.starts == min(length, n)) and np.all(plan.starts >= 0)


def test_window_counts_of_the_real_validation_set() -> None:
    for length in (1024, 2048):
        plan = windows.sliding(62_021_632, length, 64, "legacy_dup")
        assert len(plan) == 969_088
        assert int((plan.ends - plan.firsts).sum()) - 62_021_632 == 64 * (length // 64 - 1)
    chunk = windows.chunk_of(plan, 62_021_632, 32_768)
    counts = np.bincount(chunk)
    assert (counts.size, counts[0], counts[1], counts[-1]) == (1893, 481, 512, 415)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=12))
def test_coverage_accepts_exactly_disjoint_ranges(ranges: list[tuple[int, int]]) -> None:
    coverage, seen = Coverage(80), set()
    for begin, length in ranges:
        positions = set(range(begin, begin + length))
        if positions & seen or begin + length > 80:
            with pytest.raises(ScoringError):
                coverage.add(begin, begin + length)
        else:
            coverage.add(begin, begin + length)
            seen |= positions
    assert {p for a, b in coverage.ranges for p in range(a, b)} == seen
    assert coverage.ranges == sorted(coverage.ranges)
    if len(seen) < 80:
        with pytest.raises(ScoringError, match=f"position {min(set(range(80)) - seen)} of 80"):
            coverage.check_complete()


def test_accumulator_refuses_repeats_and_gaps(stream: ValidationStream) -> None:
    accumulator = Accumulator(stream, torch.device("cpu"))
    rows = windows.rows(stream.positions, 32)
    accumulator.add(rows.take(slice(0, 2)), torch.ones(2, 32))
    with pytest.raises(ScoringError, match="scored twice"):
        accumulator.add(rows.take(slice(1, 3)), torch.ones(2, 32))
    with pytest.raises(ScoringError, match="never scored"):
        accumulator.finish(Ranks())
    both = windows.Windows(np.array([0, 0]), np.array([32, 32]), np.array([64, 70]))
    with pytest.raises(ScoringError, match=r"outside|same position|twice"):
        accumulator.add(both, torch.ones(2, 32))


def test_scores_depend_only_on_the_past(model: GPT, stream: ValidationStream) -> None:
    """I4: changing tokens after a position leaves its score bit-identical, also through test-time training."""
    other = ValidationStream(stream.tokens.copy(), stream.target_bytes, stream.byte_ends, 32, 2)
    other.tokens[201:] = 50
    for run in (standard, sliding, score_first):
        a = run(evaluation(twin_of(model), stream)).losses
        b = run(evaluation(twin_of(model), other)).losses
        assert torch.equal(a[:200], b[:200])
        assert not torch.equal(a[200:], b[200:])


def test_expected_counts_are_enforced(model: GPT, stream: ValidationStream) -> None:
    with pytest.raises(ScoringError, match=r"eval.scored_tokens is 5"):
        sliding(evaluation(model, stream, tiny("eval.scored_tokens=5")))


def test_padding_a_batch_does_not_change_losses(model: GPT, stream: ValidationStream) -> None:
    """The compiled path fills up short batches; losses must be those of the eager path."""
    plain = sliding(evaluation(model, stream))
    padded = evaluation(model, stream)
    padded.scorer.compiled = padded.scorer.eager
    assert torch.allclose(sliding(padded).losses, plain.losses, atol=1e-6)


def test_ttt_selection_must_match_the_expected_count(model: GPT, stream: ValidationStream) -> None:
    with pytest.raises(ConfigError, match="trainable_params"):
        score_first(evaluation(model, stream, tiny("ttt.trainable_params=17")))


@settings(deadline=None, max_examples=5)
@given(batch_tokens=st.integers(1, 2000))
def test_batch_size_does_not_matter(model_session: GPT, stream: ValidationStream, batch_tokens: int) -> None:
    config = tiny(f"eval.batch_tokens={batch_tokens}")
    score = sliding(evaluation(model_session, stream, config))
    reference = sliding(evaluation(model_session, stream))
    assert score.nats == pytest.approx(reference.nats, rel=1e-6)


@pytest.fixture(scope="module")
def model_session() -> GPT:
    return GPT(tiny())


def test_ledger_of_every_mode_obeys_the_law(model: GPT, stream: ValidationStream) -> None:
    for run, name in ((standard, "standard"), (sliding, "sliding"), (score_first, "ttt")):
        work = evaluation(twin_of(model), stream)
        run(work)
        check(work.ledger.gather(Ranks()), stream.positions, name)
