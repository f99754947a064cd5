"""Score-first test-time training: its invariants, its ledger judged by independent rules, its optimisers, resuming."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import tiny

from auditor import timeline
from auditor.findings import Status
from reference import ledger as ledgers
from reference.config import Config, ConfigError, load
from reference.errors import ArtifactError, ScoringError
from reference.evaluate import Evaluation, sliding, standard
from reference.model import GPT
from reference.ranks import Ranks
from reference.runlog import RunLog
from reference.scoring import Score, Scorer
from reference.ttt import chunk_lr, row_batches, score_first, select
from reference.ttt_step import TestTimeStep
from reference.validation import ValidationStream
from rules.order import counted_once, score_before_update


def run(model: GPT, stream: ValidationStream, config: Config, **fields) -> tuple[Score, Evaluation]:
    """Score-first evaluation on a copy of the model."""
    evaluation = Evaluation(config, copy.deepcopy(model), stream, Ranks(), keep_losses=True, **fields)
    return score_first(evaluation), evaluation


def as_timeline(events: list[dict]) -> timeline.Timeline:
    """Ledger lines as the auditor's own event types."""
    nodes: list[timeline.Event] = []
    for e in events:
        place = timeline.Place(e["path"], e["line"])
        if e["event"] in ("Score", "Update"):
            span = timeline.Span(timeline.Split(e["split"]), positions=tuple(map(tuple, e["positions"])))
        if e["event"] == "Score":
            nodes.append(timeline.Score(place, span, e["counted"], e["scoring_pass"], phase=timeline.Phase.EVALUATION))
        elif e["event"] == "Update":
            nodes.append(timeline.Update(place, span, e["state"], timeline.Via(e["via"])))
    return timeline.Timeline("reference", timeline.Sequence(tuple(nodes)))


def judge(account: timeline.Timeline, positions: int) -> tuple[list[int], list[int]]:
    """Positions not scored exactly once, and positions trained on before they were scored; position by position."""
    times_scored, early = [0] * positions, []
    for event in account.events():
        if isinstance(event, timeline.Score) and event.counted:
            for begin, end in event.span.positions:
                for p in range(begin, end):
                    times_scored[p] += 1
        elif isinstance(event, timeline.Update):
            early += [p for begin, end in event.span.positions for p in range(begin, end) if not times_scored[p]]
    return [p for p, n in enumerate(times_scored) if n != 1], early


def test_ledger_is_clean_by_independent_rules(model: GPT, stream: ValidationStream) -> None:
    """I1 and I3, on the auditor's types: every position once, none trained on before its score."""
    score, evaluation = run(model, stream, tiny())
    account = as_timeline(evaluation.ledger.gather(Ranks()))
    assert judge(account, stream.positions) == ([], [])
    updates = [e for e in account.events() if isinstance(e, timeline.Update)]
    assert [u.span.positions for u in updates] == [((64 * c, 64 * c + 64),) for c in range(4)]  # never the last chunk
    assert all(e.place.path == "reference/ttt.py" and e.place.line > 0 for e in account.events())
    assert score.tokens == stream.positions == 288


def test_the_ledger_check_finds_violations(model: GPT, stream: ValidationStream) -> None:
    events = run(model, stream, tiny())[1].ledger.gather(Ranks())
    ledgers.check(events, 288, "ttt")
    first_update = next(i for i, e in enumerate(events) if e["event"] == "Update")
    train_first = [events[first_update], *events[:first_update], *events[first_update + 1 :]]
    for broken, message in (
        (train_first, "position 0 is trained on before"),
        (events[:-1], "never scored"),
        ([*events, events[-1]], "scored twice"),
    ):
        with pytest.raises(ScoringError, match=message):
            ledgers.check(broken, 288, "ttt")
    assert judge(as_timeline(train_first), 288)[1] == list(range(64))


def test_the_rules_of_the_auditor_judge_the_ledger(model: GPT, stream: ValidationStream) -> None:
    """Conditions 3 and 4 on the evaluator's own account: strict passes both, the legacy tail counts tokens again."""
    events = run(model, stream, tiny())[1].ledger.gather(Ranks())
    account = as_timeline(events)
    assert score_before_update(account).status is Status.PASS and counted_once(account).status is Status.PASS
    update = next(i for i, e in enumerate(events) if e["event"] == "Update")
    trained_first = as_timeline([events[update], *events[:update], *events[update + 1 :]])
    assert score_before_update(trained_first).status is Status.FAIL
    legacy = as_timeline(run(model, stream, tiny("eval.tail=legacy_dup"))[1].ledger.gather(Ranks()))
    assert score_before_update(legacy).status is Status.PASS
    found = counted_once(legacy)
    assert found.status is Status.FAIL and found.summary.startswith("24 tokens count more than once")


def test_ledger_records_what_the_optimiser_saw(model: GPT, stream: ValidationStream, monkeypatch) -> None:
    """The targets that reach the training step are those of the positions in the ledger, each epoch."""
    seen: list[list[int]] = []
    original = TestTimeStep.__call__

    def spy(self, inputs, targets, weight):
        seen.append(targets.flatten().tolist())
        original(self, inputs, targets, weight)

    monkeypatch.setattr(TestTimeStep, "__call__", spy)
    _, evaluation = run(model, stream, tiny("ttt.epochs=3", "ttt.batch_rows=1"))
    expected = []
    for event in evaluation.ledger.events:
        if event["event"] == "Update":
            ((begin, end),) = event["positions"]
            expected += 3 * [stream.tokens[p + 1 : p + 33].tolist() for p in range(begin, end, 32)]
    assert seen == expected


def test_zero_learning_rate_equals_sliding_windows(model: GPT, stream: ValidationStream) -> None:
    """I6, and I2: with nothing learnt the scores are those of plain sliding windows, bit for bit."""
    score, evaluation = run(model, stream, tiny("ttt.lr=0.0"))
    plain = sliding(Evaluation(tiny(), model, stream, Ranks(), keep_losses=True))
    assert torch.allclose(score.losses, plain.losses, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(evaluation.model.parameters(), model.parameters(), strict=True))


def test_first_chunk_is_scored_by_the_stored_weights(model: GPT, stream: ValidationStream) -> None:
    score, _ = run(model, stream, tiny("ttt.lr=0.5"))
    plain = sliding(Evaluation(tiny(), model, stream, Ranks(), keep_losses=True))
    assert torch.allclose(score.losses[:64], plain.losses[:64], atol=1e-6)
    assert not torch.allclose(score.losses[64:], plain.losses[64:], atol=1e-3)


def test_adaptation_helps_on_a_repeating_text(model: GPT, stream: ValidationStream) -> None:
    """Weights are kept between chunks: a text that repeats becomes cheaper."""
    import numpy as np

    from reference.tokenizer import ByteTokenizer

    repeated = ValidationStream.from_tokens(np.tile(stream.tokens[:64], 12)[:600], ByteTokenizer().tables, 32)
    adapted, _ = run(model, repeated, tiny("ttt.epochs=4"))
    plain = sliding(Evaluation(tiny(), model, repeated, Ranks()))
    assert adapted.bpb < plain.bpb - 0.2


def test_max_chunks_limits_training_not_scoring(model: GPT, stream: ValidationStream) -> None:
    score, evaluation = run(model, stream, tiny("ttt.max_chunks=2"))
    assert score.tokens == stream.positions
    assert sum(e["event"] == "Update" for e in evaluation.ledger.events) == 2
    _, untrained = run(model, stream, tiny("ttt.epochs=0"))
    assert not any(e["event"] == "Update" for e in untrained.ledger.events)


def test_selection_freezes_the_rest(model: GPT, stream: ValidationStream) -> None:
    _, evaluation = run(model, stream, tiny("ttt.select.freeze_blocks=2", "ttt.lr=0.1"))
    after = dict(evaluation.model.named_parameters())
    for name, p in model.named_parameters():
        frozen = name.startswith(("blocks.0.", "blocks.1."))
        assert torch.equal(p, after[name]) == frozen or float(p.detach().abs().sum()) == 0, name
        assert after[name].requires_grad and after[name].grad is None
    names = [n for n, _ in select(model, tiny("ttt.select.only_names=['.mlp.up.', 'scale']").ttt.select)]
    assert "value_embed.layer_scales.0" in names and not any("attn.q" in n for n in names)
    with pytest.raises(ConfigError, match=r"ttt.select"):
        select(model, tiny("ttt.select.only_names=['nothing']").ttt.select)


def test_qat_is_active_only_while_training_at_test_time(model: GPT, stream: ValidationStream) -> None:
    plain, _ = run(model, stream, tiny())
    quantised, evaluation = run(model, stream, tiny("qat.ttt=effective", "qat.qmax=3", "qat.lo=-3", "qat.hi=3"))
    assert torch.allclose(plain.losses[:64], quantised.losses[:64], atol=1e-6)
    assert not torch.allclose(plain.losses, quantised.losses, atol=1e-4)
    assert all(m.fake_quant is None for m in evaluation.model.modules() if hasattr(m, "fake_quant"))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_flat_optimisers_equal_torch(optimizer: str) -> None:
    config = tiny(f"ttt.optimizer={optimizer}", "ttt.weight_decay=0.1", "ttt.grad_clip=0.3", "ttt.betas=[0.8, 0.99]")
    model = GPT(config)
    twin = copy.deepcopy(model)
    parameters = list(twin.parameters())
    step = TestTimeStep(model, list(model.parameters()), config.ttt, Ranks())
    theirs: torch.optim.Optimizer
    if optimizer == "sgd":
        theirs = torch.optim.SGD(parameters, lr=0.05, momentum=config.ttt.momentum, weight_decay=0.1)
    else:
        theirs = torch.optim.AdamW(parameters, lr=0.05, betas=config.ttt.betas, weight_decay=0.1)
    tokens = torch.randint(4, 260, (5, 2, 33), generator=torch.Generator().manual_seed(3))
    for rows in tokens:
        step.lr.fill_(0.05)
        step(rows[:, :-1], rows[:, 1:], 1.0)
        theirs.zero_grad()
        twin(rows[:, :-1], rows[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.3)
        theirs.step()
    for (name, a), b in zip(model.named_parameters(), parameters, strict=True):
        torch.testing.assert_close(a.detach(), b.detach(), atol=2e-4, rtol=1e-3, msg=name)


def test_learning_rates_over_chunks() -> None:
    """#612: warm-up over 94 of 1,893 chunks, then a cosine; #598: cosine from the start."""
    warm, cos = load("pr612").ttt, load("pr598").ttt
    assert chunk_lr(warm, 0, 1893) == pytest.approx(0.002 / 94)
    assert chunk_lr(warm, 93, 1893) == pytest.approx(0.002) == pytest.approx(chunk_lr(warm, 94, 1893))
    assert chunk_lr(warm, 1892, 1893) == pytest.approx(0.0, abs=1e-12)
    assert chunk_lr(cos, 0, 1893) == 0.002 and chunk_lr(cos, 946, 1893) == pytest.approx(0.001)
    assert chunk_lr(cos, 0, 1) == 0.002
    assert chunk_lr(tiny("ttt.lr=0.3").ttt, 7, 9) == 0.3
    assert chunk_lr(cos, 473, 1893) == pytest.approx(0.001 * (1 + math.cos(math.pi * 473 / 1892)))


@given(rows=st.integers(0, 40), batch=st.integers(1, 9), world=st.sampled_from([1, 2, 4, 8]))
def test_row_batches_cover_rows_and_weights_add_up(rows: int, batch: int, world: int) -> None:
    config = tiny(f"ttt.batch_rows={batch}").ttt
    shares = [row_batches(rows, config, Ranks(r, world)) for r in range(world)]
    assert len({len(s) for s in shares}) == 1  # every rank takes part in every step
    for together in zip(*shares, strict=True):
        assert sum(weight for _, _, weight in together) == pytest.approx(1.0)
    covered = sorted(i for share in shares for low, high, _ in share for i in range(low, high))
    assert covered == list(range(rows))
    legacy = tiny(f"ttt.batch_rows={batch}", "ttt.grad_sync=rank_mean").ttt
    shares = [row_batches(rows, legacy, Ranks(r, world)) for r in range(world)]
    assert len({len(s) for s in shares}) == 1
    assert sorted(i for share in shares for low, high, _ in share for i in range(low, high)) == list(range(rows))
    alone = row_batches(rows, tiny(f"ttt.batch_rows={batch}", "ttt.grad_sync=none").ttt, Ranks(1, 2))
    assert sum(high - low for low, high, _ in alone) == rows


@pytest.mark.parametrize("mode", ["sliding", "ttt"])
def test_interrupted_evaluation_goes_on_with_the_same_bits(
    model: GPT, stream: ValidationStream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    config = tiny("eval.segment_windows=7", "eval.segment_chunks=1", "ttt.optimizer=adamw", "ttt.lr=0.003")
    evaluate = score_first if mode == "ttt" else sliding

    def attempt(folder: Path | None) -> tuple[Score, Evaluation]:
        evaluation = Evaluation(config, copy.deepcopy(model), stream, Ranks(), keep_losses=True, state_folder=folder)
        return evaluate(evaluation), evaluation

    whole, account = attempt(None)
    original, calls = Scorer.score, 0

    def fails_later(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        original(self, *arguments)

    monkeypatch.setattr(Scorer, "score", fails_later)
    with pytest.raises(KeyboardInterrupt):
        attempt(tmp_path)
    before = calls
    resumed, again = attempt(tmp_path)
    assert calls - before < before + 2 and not list(tmp_path.glob("*.state"))
    assert (resumed.nats, resumed.tokens, resumed.bytes) == (whole.nats, whole.tokens, whole.bytes)
    assert torch.equal(resumed.losses, whole.losses)
    assert [e.get("positions") for e in again.ledger.events] == [e.get("positions") for e in account.ledger.events]


def test_state_of_another_run_is_refused(model: GPT, stream: ValidationStream, tmp_path: Path, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("reference.evaluate.check_counts", stop)
        with pytest.raises(KeyboardInterrupt):
            sliding(Evaluation(tiny(), model, stream, Ranks(), state_folder=tmp_path))
    with pytest.raises(ArtifactError, match="another config"):
        sliding(Evaluation(tiny("eval.stride=16"), model, stream, Ranks(), state_folder=tmp_path))


def test_log_lines(model: GPT, stream: ValidationStream, tmp_path: Path) -> None:
    import re

    log = RunLog(tmp_path, "t", console=False, header=False)
    config = tiny("ttt.select.freeze_blocks=1")
    score = score_first(Evaluation(config, model, stream, Ranks()), log)
    lines = log.path.read_text().splitlines()
    assert lines[0] == (
        "ttt_sliding:start chunks=5 chunk_tokens=64 total_windows=33 stride=8 ttt_lr=0.02 ttt_epochs=2 "
        "ttt_optimizer=sgd freeze_blocks=1"
    )
    assert re.fullmatch(r"ttt_sliding:params unfrozen=\d+ frozen=\d+", lines[1])
    assert re.fullmatch(r"  ttt_chunk \[1/5\] bpb=\d\.\d{6} time=\d+\.\ds", lines[2])
    assert lines[3].startswith(f"  ttt_chunk [5/5] bpb={score.bpb:.6f} ")  # all ranks, so the last line is the result
    assert lines[4].startswith(f"ttt_sliding:done val_loss={score.loss:.6f} val_bpb={score.bpb:.6f} elapsed=")
    assert standard(Evaluation(config, model, stream, Ranks())).tokens == stream.positions
