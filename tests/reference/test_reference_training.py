"""Optimisers, schedules, averages, the loop, its log lines, and resuming."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import tiny

from reference import checkpoint, container
from reference.average import ExponentialAverage, PlainAverage, apply_weights
from reference.config import ConfigError, OptimConfig, ScheduleConfig, load
from reference.data import TokenStream
from reference.errors import ArtifactError
from reference.flat import FlatGradients, FlatParameters, clip_, global_norm
from reference.model import GPT
from reference.optim import Muon, newton_schulz
from reference.ranks import Ranks
from reference.runlog import Meter, RunLog, device_report, peak_tflops, progress_text
from reference.schedule import Schedule, momentum
from reference.tokenizer import ByteTokenizer
from reference.train import Trainer
from reference.validation import ValidationStream


def trainer(shards: Path, *overrides: str, log: RunLog | None = None, path: Path | None = None) -> Trainer:
    config = tiny(*overrides)
    validation = ValidationStream.open(shards, config.data.val_glob, ByteTokenizer().tables, 32)
    return Trainer(
        config,
        TokenStream.open(shards, config.data.train_glob),
        validation,
        Ranks(),
        log or RunLog(None, ""),
        checkpoint_path=path,
    )


def weights(run: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in run.model.named_parameters()}


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12))
def test_newton_schulz_orthogonalises(count: int, rows: int, columns: int) -> None:
    x = torch.randn(count, rows, columns, generator=torch.Generator().manual_seed(rows * 13 + columns))
    out = newton_schulz(x, 5)
    for matrix, result in zip(x, out, strict=True):
        a = matrix / (matrix.norm() + 1e-7)
        flip = rows > columns
        a = a.T if flip else a
        for _ in range(5):
            g = a @ a.T
            a = 3.4445 * a + (-4.7750 * g + 2.0315 * g @ g) @ a
        torch.testing.assert_close(result, a.T if flip else a, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("order", ["before", "after"])
def test_muon_equals_one_matrix_at_a_time(order: str) -> None:
    """Three steps against the equations, for several shapes at once."""
    config = OptimConfig(wd_order=order, muon_weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    parameters = [
        (f"p{i}", torch.nn.Parameter(torch.randn(*shape, generator=generator)))
        for i, shape in enumerate([(6, 4), (4, 6), (6, 4), (5, 5)])
    ]
    expected, buffers = [p.detach().clone() for _, p in parameters], [torch.zeros_like(p) for _, p in parameters]
    muon = Muon({0.02: parameters}, config, Ranks())
    for step in range(3):
        muon.momentum, muon.scale = 0.9 + 0.01 * step, 0.5
        for (_, p), w, b in zip(parameters, expected, buffers, strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            b.mul_(muon.momentum).add_(p.grad)
            x = newton_schulz((p.grad + muon.momentum * b)[None], 5)[0] * max(1, p.size(0) / p.size(1)) ** 0.5
            w.copy_(w * (1 - 0.01 * 0.1) - 0.01 * x if order == "before" else (w - 0.01 * x) * (1 - 0.01 * 0.1))
        muon.step()
    for (_, p), w in zip(parameters, expected, strict=True):
        torch.testing.assert_close(p.detach(), w, atol=1e-5, rtol=1e-5)
    state = muon.state_dict()
    muon.reset()
    assert all(float(bank.momentum.abs().sum()) == 0 for bank in muon.banks)
    muon.load_state_dict(state)
    torch.testing.assert_close(muon.state_dict()["p1"], buffers[1])


def test_step_schedules_of_the_seeds() -> None:
    """Linear, full rate from step 0; #598 falls below 0.15 exactly at step 6,476 as its log says."""
    s598 = Schedule(load("pr598").schedule)
    assert [s598.scale(k, 0.0) for k in (0, 3499, 3500, 5250, 7000)] == [1.0, 1.0, 1.0, 0.5, 0.0]
    first = next(k for k in range(7000) if s598.scale(k, 0.0) < 0.15)
    assert (first, round(s598.scale(first, 0.0), 4)) == (6476, 0.1497)
    s612, s644 = Schedule(load("pr612").schedule), Schedule(load("pr644").schedule)
    assert (s612.scale(7000, 0), s612.scale(9500, 0)) == (1.0, 0.5)
    assert (s644.scale(12_000, 0), s644.scale(18_500, 0)) == (1.0, 0.5)
    s861 = Schedule(load("pr861").schedule)
    assert (s861.scale(14_000, 0), s861.scale(17_000, 0)) == (1.0, 0.5)
    cosine = Schedule(dataclasses.replace(load("pr598").schedule, shape="cosine"))
    assert cosine.scale(5250, 0.0) == pytest.approx(0.5) and cosine.scale(6125, 0.0) == pytest.approx(
        0.5 * (1 - math.cos(math.pi / 4))
    )


def test_wallclock_schedule_and_momentum() -> None:
    """#610: 1,200 s at 193.49 ms a step and a warmdown of 3,500 steps; the reserve shortens the budget."""
    schedule = Schedule(load("pr610", ["schedule.reserve_seconds=0.0"]).schedule)
    assert schedule.scale(0, 0.0) == 1.0
    step_seconds = 0.19349
    assert schedule.scale(2000, 2000 * step_seconds) == 1.0
    late = schedule.scale(5680, 5680 * step_seconds)
    assert late == pytest.approx((1200 - 5680 * step_seconds) / (3500 * step_seconds))
    assert late < 0.15 < schedule.scale(5670, 5670 * step_seconds)
    assert schedule.scale(6300, 1300.0) == 0.0
    assert Schedule(load("pr610").schedule).budget == 1175.0
    assert Schedule(load("pr612").schedule).budget == math.inf
    optim = load("pr612").optim
    assert [momentum(k, optim) for k in (0, 750, 1500, 9000)] == pytest.approx([0.92, 0.955, 0.99, 0.99])


def test_replay_uses_logged_scales(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text(
        '{"event": "config"}\n{"event": "scale", "step": 0, "scale": 1.0}\n'
        '{"event": "scale", "step": 1, "scale": 0.25}\n'
    )
    config = ScheduleConfig(mode="replay", replay_file=str(path))
    assert [Schedule(config).scale(k, 99.0) for k in (0, 1)] == [1.0, 0.25]
    with pytest.raises(ConfigError, match="no scale for step 2"):
        Schedule(config).scale(2, 0.0)
    path.write_text("not json")
    with pytest.raises(ConfigError, match="replay_file"):
        Schedule(config)


@given(decay=st.floats(0.5, 0.999), steps=st.integers(0, 30))
def test_ema_of_a_constant(decay: float, steps: int) -> None:
    """From weights a to constant weights b: `b + d^n (a - b)`."""
    model = torch.nn.Linear(2, 2)
    start = model.weight.detach().clone()
    ema = ExponentialAverage(model, decay)
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(steps):
        ema.update()
    torch.testing.assert_close(ema.state_dict()["weight"], start + 1 - decay**steps, atol=1e-4, rtol=1e-4)


def test_plain_average() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    swa = PlainAverage(model)
    assert swa.mean() == {}
    for value in (1.0, 2.0, 6.0):
        with torch.no_grad():
            model.weight.fill_(value)
        swa.update()
    apply_weights(model, swa.mean())
    assert model.weight.tolist() == [[3.0, 3.0]]


def test_flat_buffers_share_memory_and_clip_like_torch() -> None:
    parameters = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4).bfloat16())]
    flat = FlatParameters(parameters)
    flat.buffers[0].fill_(2.0)
    assert parameters[0].tolist() == [[2.0, 2.0]] * 3
    (parameters[0].sum() + parameters[1].sum() * 2).backward()
    assert [b.tolist() for b in flat.gradients.buffers] == [[1.0] * 6, [2.0] * 4]
    norm = clip_(flat.gradients.buffers, 1.0)
    assert float(norm) == pytest.approx(math.sqrt(6 + 16))
    assert float(global_norm(flat.gradients.buffers)) == pytest.approx(1.0, abs=1e-2)
    assert parameters[1].grad is not None and float(parameters[1].grad[0]) == pytest.approx(2 / math.sqrt(22), abs=1e-2)
    before = [b.clone() for b in flat.gradients.buffers]
    clip_(flat.gradients.buffers, 5.0)
    assert all(torch.equal(a, b) for a, b in zip(before, flat.gradients.buffers, strict=True))
    assert float(global_norm([])) == 0.0 and FlatGradients([]).buffers == []


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(shards: Path, tmp_path: Path) -> None:
    """Includes Muon and Adam states, EMA, SWA, QAT switched on before the checkpoint, and the schedule."""
    overrides = ["averaging.swa_every=2", "averaging.swa_below_scale=1.0", "qat.threshold=0.9", "schedule.val_every=0"]
    whole = trainer(shards, *overrides)
    whole.run()
    first = trainer(shards, *overrides, "schedule.checkpoint_every=15", path=tmp_path / "c")
    first.warm_up()
    first.model.train()
    while first.step < 15:
        first.train_step()
        first._save_if_due()
    for _ in range(3):
        first.train_step()  # work that is lost
    second = trainer(shards, *overrides)
    torch.manual_seed(99)
    checkpoint.load(tmp_path / "c", second)
    assert second.step == 15 and second.qat_active
    second._warm = True
    second.run()
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name
    assert whole.swa is not None and second.swa is not None and whole.swa.samples == second.swa.samples > 3
    assert torch.equal(whole.swa.mean()["tok_embed"], second.swa.mean()["tok_embed"])


def test_checkpoints_of_other_runs_are_refused(shards: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", trainer(shards))
    with pytest.raises(ArtifactError, match="another model"):
        checkpoint.load(tmp_path / "c", trainer(shards, "model.smear.kind=none"))
    with pytest.raises(ArtifactError, match="other optimiser settings"):
        checkpoint.load(tmp_path / "c", trainer(shards, "averaging.swa_every=3"))
    container.write(tmp_path / "w", {"format": "x"}, {})
    with pytest.raises(ArtifactError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "w", trainer(shards))
    with pytest.raises(ArtifactError, match="float weights"):
        checkpoint.load_weights(tmp_path / "c", {})


def test_warm_up_leaves_no_trace(shards: Path) -> None:
    """Weights, optimiser states, averages and stream are as before: the first step is the same with and without."""
    with_warm_up, without = trainer(shards), trainer(shards)
    before = weights(with_warm_up)
    with_warm_up.warm_up()
    assert all(torch.equal(t, before[n]) for n, t in weights(with_warm_up).items())
    for run in (with_warm_up, without):
        run.model.train()
        run.train_step()
        run.train_step()
    assert all(torch.equal(t, weights(without)[n]) for n, t in weights(with_warm_up).items())


def test_step_equals_plain_torch(shards: Path) -> None:
    """Two steps against a loop with torch's AdamW, one big batch and a Newton-Schulz for each matrix."""
    run = trainer(shards, "qat.train=off", "schedule.warmdown=0", "optim.decoder_lr_mult=2.0")
    config, twin = run.config, GPT(run.config)
    optim = config.optim
    muon = {
        n: p
        for n, p in twin.named_parameters()
        if p.ndim == 2 and (".attn." in n or ".mlp." in n or n == "bigram.proj.weight")
    }
    rest = {n: p for n, p in twin.named_parameters() if n not in muon}

    def factor(name: str) -> float:
        return 2.0 if name.startswith(("blocks.2.", "blocks.3.")) else 1.0

    adam = torch.optim.AdamW(
        [
            {"params": [p], "lr": optim.tok_lr if n == "tok_embed" else optim.scalar_lr * factor(n)}
            for n, p in rest.items()
        ],
        betas=optim.betas,
        weight_decay=optim.adam_weight_decay,
    )
    buffers = {n: torch.zeros_like(p) for n, p in muon.items()}
    run.model.train()
    for step in range(2):
        record = run.train_step()
        batches = [torch.from_numpy(run.stream.span(step, g, 64).astype("int64")) for g in range(8)]
        twin.zero_grad()
        x, y = (torch.cat([b[s].view(2, 32) for b in batches]) for s in (slice(0, 64), slice(1, 65)))
        loss = twin(x, y)
        loss.backward()
        assert float(record.loss) == pytest.approx(float(loss.detach()), abs=1e-5)
        norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), optim.grad_clip)
        assert float(record.grad_norm) == pytest.approx(float(norm), rel=1e-4)
        adam.step()
        mu = momentum(step, optim)
        with torch.no_grad():
            for n, p in muon.items():
                buffers[n].mul_(mu).add_(p.grad)
                x = newton_schulz((p.grad + mu * buffers[n])[None], 5)[0] * max(1, p.size(0) / p.size(1)) ** 0.5
                lr = optim.matrix_lr * factor(n)
                p.mul_(1 - lr * optim.muon_weight_decay).sub_(lr * x)
    for name, p in twin.named_parameters():
        torch.testing.assert_close(weights(run)[name], p.detach(), atol=2e-4, rtol=2e-3)


def test_orphan_gradients_pile_up_only_in_legacy_mode(shards: Path) -> None:
    overrides = ["model.bigram.scale_init=0.05", "model.bigram.embed_init_std=0.5", "optim.grad_clip=0.0"]
    strict = trainer(shards, *overrides)
    legacy = trainer(shards, *overrides, "optim.orphans=accumulate")
    for run in (strict, legacy):
        with torch.no_grad():
            run.model.bigram.proj.weight.normal_(0, 0.5)
        run.model.train()
        run.train_step()
    first = legacy.orphan_gradients.buffers[0].clone()
    legacy.train_step()
    assert float(first) != 0 and not torch.equal(legacy.orphan_gradients.buffers[0], first)
    assert float(legacy.model.bigram.scale.detach()) == pytest.approx(0.05)
    assert strict.orphan_gradients.buffers == [] and strict.model.bigram.scale.grad is None


def test_late_qat_changes_training(shards: Path, tmp_path: Path) -> None:
    log = RunLog(tmp_path, "q", console=False)
    with_qat = trainer(shards, "qat.threshold=0.6", "qat.qmax=3", "qat.lo=-3", "qat.hi=3", log=log)
    without = trainer(shards, "qat.train=off")
    for run in (with_qat, without):
        run.run()
    assert re.search(r"^late_qat:enabled step:17 scale:0\.5833$", log.path.read_text(), re.M)
    assert any(not torch.equal(t, weights(without)[n]) for n, t in weights(with_qat).items())
    assert all(m.fake_quant is None for m in with_qat.model.modules() if hasattr(m, "fake_quant"))


def test_budget_stops_the_run_before_the_reserve(shards: Path, tmp_path: Path) -> None:
    log = RunLog(tmp_path, "b", console=False)
    run = trainer(
        shards,
        "schedule.iterations=100000",
        "schedule.max_wallclock_seconds=3.0",
        "schedule.mode=wallclock",
        "schedule.reserve_seconds=1.5",
        "schedule.val_every=0",
        log=log,
    )
    run.run()
    text = log.path.read_text()
    assert re.search(r"^stopping_early: wallclock_cap train_time:(1[5-9]|[2-9]\d)\d\dms step:\d+/100000$", text, re.M)
    events = [json.loads(line) for line in log.events_path.read_text().splitlines()]
    scales = [e["scale"] for e in events if e["event"] == "scale"]
    assert len(scales) == run.step and scales[0] == 1.0 and scales[-1] < 0.7


LINES = [
    r"val_bpb:enabled tokenizer_kind=byte260 tokenizer_path=byte260",
    r"train_loader:dataset:smoke train_shards:\d+",
    r"val_loader:shards pattern=fineweb_val_\*\.bin tokens:\d+",
    r"model_params:\d+",
    r"world_size:1 grad_accum_steps:8",
    r"train_batch_tokens:512 train_seq_len:32 iterations:24 warmup_steps:1 max_wallclock_seconds:0\.000",
    r"seed:42",
    r"warmup_step:1/1",
    r"step:0/24 val_loss:\d\.\d{4} val_bpb:\d\.\d{4} train_time:0ms step_avg:0\.00ms",
    r"step:1/24 train_loss:\d\.\d{4} train_time:\d+ms step_avg:\d+\.\d\dms",
    r"step:24/24 val_loss:\d\.\d{4} val_bpb:\d\.\d{4} train_time:\d+ms step_avg:\d+\.\d\dms",
    r"ema:applying EMA weights",
    r"DIAGNOSTIC post_ema val_loss:\d\.\d{4} val_bpb:\d\.\d{4} eval_time:\d+ms",
    r"gptq:calibrated rows:8 split:train time:\d+ms",
    r"Serialized model: \d+ bytes",
    r"Code size: \d+ bytes",
    r"Serialized model mixed\+brotli11: \d+ bytes \(payload:\d+ raw_torch:\d+ payload_ratio:\d\.\d\dx\)",
    r"Total submission size mixed\+brotli11: \d+ bytes",
]


def test_log_lines_have_the_published_formats(trained: Path) -> None:
    text = (trained / "logs" / "run.txt").read_text()
    assert text.startswith("# file: reference/__init__.py") and "Running PyTorch" in text
    lines = text.splitlines()
    found = [next((i for i, line in enumerate(lines) if re.fullmatch(p, line)), None) for p in LINES]
    assert None not in found, LINES[found.index(None)]
    assert found == sorted(found)
    logged = [int(m[1]) for m in re.finditer(r"^step:(\d+)/24 train_loss", text, re.M)]
    assert logged == [*range(1, 11), 16, 24]
    steps = [json.loads(line) for line in (trained / "logs" / "run.jsonl").read_text().splitlines()]
    record = next(e for e in steps if e["event"] == "step" and e["step"] == 23)
    assert record["scale"] == pytest.approx(1 / 12) and record["lr"]["tok"] == pytest.approx(0.035 / 12)
    losses = [e["loss"] for e in steps if e["event"] == "step"]
    assert losses[-1] < losses[0] - 1.0


def test_progress_line() -> None:
    assert progress_text(6, 24, 2.5, 123_456.0, 0.27, 3723.0) == (
        "[######..................] 6/24  loss 2.5000  123,456 tok/s  MFU 27.0 %  left 01:02:03"
    )
    assert "MFU" not in progress_text(6, 24, 2.5, 1.0, 0.0, 1.0)
    assert peak_tflops(12.0) == 12.0 and (torch.cuda.is_available() or peak_tflops(0.0) == 0.0)
    assert device_report()


def test_progress_is_drawn_on_terminals_only(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    log = RunLog(tmp_path, "x", header=False)
    log.progress("hidden")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log.progress("shown")
    meter = Meter(log, "sliding: windows", 8)
    meter.add(2)  # within the first second nothing is drawn
    meter.add(6)
    log.line("a line")
    captured = capsys.readouterr()
    assert "sliding: windows [########################] 8/8" in captured.err and " 2/8" not in captured.err
    assert "hidden" not in captured.err and "shown" in captured.err and captured.out == "a line\n"
    silent = RunLog(None, "")
    silent.line("nothing")
    silent.event("nothing")
    assert capsys.readouterr().out == ""
