"""What runs on a GPU only, as far as it can be exercised without one: dtypes and layouts, graphs, reductions."""

from __future__ import annotations

import contextlib
import copy
from types import SimpleNamespace

import pytest
import torch
from tiny_run import tiny
from torch._dynamo.testing import CompileCounter

from reference import compiling, evaluate
from reference.config import ConfigError, load
from reference.data import TokenStream
from reference.evaluate import Evaluation, sliding, standard
from reference.model import GPT
from reference.model import attention as attentions
from reference.optim import newton_schulz
from reference.ranks import Ranks
from reference.runlog import RunLog
from reference.train import Trainer
from reference.ttt import score_first
from reference.ttt_step import TestTimeStep
from reference.validation import ValidationStream


def test_the_branch_of_flash_attention_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 tensors that call themselves CUDA's take it; layout, types, scale and alignment are what that package wants.

    The function in its place has its interface: `[B, T, heads, h]`, fewer key heads than query heads, causal mask
    aligned to the last column, output alone or with the log-sum-exp.
    """
    calls: list[tuple] = []

    def flash(q, k, v, *, softmax_scale, causal):
        assert causal and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1
        calls.append((*q.shape, *k.shape, q.dtype))
        group, offset = q.size(2) // k.size(2), k.size(1) - q.size(1)
        keys, values = (x.float().repeat_interleave(group, dim=2).transpose(1, 2) for x in (k, v))
        scores = softmax_scale * q.float().transpose(1, 2) @ keys.transpose(2, 3)
        seen = torch.ones(q.size(1), k.size(1), dtype=torch.bool).tril(offset)
        out = (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ values).transpose(1, 2).to(q.dtype)
        return (out, None) if len(calls) % 2 else out

    config = tiny("run.precision=bf16", "model.embed_dtype=bfloat16")
    plain = noisy(GPT(config))
    monkeypatch.setattr(attentions, "flash_attention_3", lambda: flash)
    model = noisy(GPT(config))
    tokens, targets = torch.randint(4, 260, (2, 2, 32), generator=torch.Generator().manual_seed(5))
    expected = plain(tokens, targets)
    columns = plain.eval().token_losses(tokens, targets[:, -8:])
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    loss = model(tokens, targets)
    assert calls == [(2, 32, 4, 8, 2, 32, 2, 8, torch.bfloat16)] * 4
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=2e-3)
    loss.backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.bfloat16, torch.float32}
    calls.clear()
    torch.testing.assert_close(model.eval().token_losses(tokens, targets[:, -8:]), columns, atol=3e-2, rtol=1e-2)
    assert [c[1] for c in calls] == [32, 32, 32, 8]
    assert newton_schulz(torch.randn(3, 8, 4), 5).dtype == torch.bfloat16


def noisy(model: GPT) -> GPT:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p.dtype))
    return model


def test_flash_attention_by_name_needs_it() -> None:
    if attentions.flash_attention_3() is None:
        with pytest.raises(ConfigError, match=r'run.attention: "flash3" needs'):
            GPT(tiny("run.attention=flash3"))
    assert attentions.choose_flash(tiny("run.attention=sdpa").run) is None
    assert attentions.choose_flash(tiny("run.deterministic=true").run) is None


def test_one_process_that_trains_and_evaluates_compiles_whole_graphs(
    stream: ValidationStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training with QAT, validation, all evaluations and test-time training, traced as on a GPU and run eagerly.

    No graph breaks (they would be errors), the same results, and few graphs: each costs half a minute on a GPU.
    """
    small = ["model.layers=2", "model.value_embed.layers=[1]", "model.xsa_last_n=1", "model.mlp_hidden=32"]
    late = ["schedule.iterations=3", "schedule.warmdown=3", "schedule.val_every=0", "qat.threshold=0.5"]
    config = tiny(*small, *late, "eval.tail=legacy_dup", "qat.ttt=effective")

    def everything() -> list[float]:
        trainer = Trainer(config, TokenStream([stream.tokens]), stream, Ranks(), RunLog(None, ""))
        trainer.run()
        found = [float(trainer.model.tok_embed.detach().double().sum())]
        for run in (standard, sliding, score_first):
            found.append(run(Evaluation(config, noisy(GPT(config)), stream, Ranks())).bpb)
        return found

    expected = everything()
    counter, real = CompileCounter(), torch.compile
    for module in (compiling, evaluate):
        monkeypatch.setattr(module, "wanted", lambda config, device: True)
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend=counter, **options))
    torch._dynamo.reset()
    try:
        assert everything() == pytest.approx(expected, abs=1e-4)
    finally:
        torch._dynamo.reset()
    assert (
        6 <= counter.frame_count <= 10
    )  # 2 with and without QAT, 2 of windows, 1 of test-time training, Newton-Schulz


class PretendedGraph:
    """A CUDA graph that repeats the captured work on the captured buffers."""

    def __init__(self) -> None:
        self.work = None
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.work()


@pytest.fixture
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torch.cuda's streams and graphs without a device; returns the modes of capture asked for."""
    modes: list[str] = []

    @contextlib.contextmanager
    def graph(_: PretendedGraph, capture_error_mode: str = "global"):
        modes.append(capture_error_mode)
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda *_: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendedGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    capture = TestTimeStep._capture

    def remembered(self, inputs, targets, weight):
        made, inputs, targets = capture(self, inputs, targets, weight)
        made.work = lambda: self._differentiate(inputs, targets, weight)
        return made, inputs, targets

    monkeypatch.setattr(TestTimeStep, "_capture", remembered)
    return modes


def rows(count: int, steps: int) -> torch.Tensor:
    return torch.randint(4, 260, (steps, count, 33), generator=torch.Generator().manual_seed(3))


def test_graphed_step_equals_eager_step(pretended_cuda: list[str]) -> None:
    """Warm-up and capture leave no trace, a graph is made once for each shape and weight, results are the same."""
    config = tiny("ttt.optimizer=adamw").ttt
    model = GPT(tiny())
    twin = copy.deepcopy(model)
    eager = TestTimeStep(model, list(model.parameters()), config, Ranks())
    graphed = TestTimeStep(twin, list(twin.parameters()), config, Ranks())
    graphed.graphs = True
    for step in (eager, graphed):
        step.lr.fill_(0.01)
    for tokens in [*rows(3, 3), *rows(2, 2)]:
        for step in (eager, graphed):
            step(tokens[:, :-1], tokens[:, 1:], 1.0)
    assert all(torch.equal(a, b) for a, b in zip(eager.flat.buffers, graphed.flat.buffers, strict=True))
    assert pretended_cuda == ["thread_local"] * 2 and len(graphed._captured) == 2
    assert sum(graph.replays for graph, _, _ in graphed._captured.values()) == 5


def test_every_rank_takes_part_in_as_many_reductions(pretended_cuda: list[str], monkeypatch) -> None:
    """A rank that captures a graph and one without rows reduce equally often; else collectives would not match."""
    counts = []
    for count in (2, 0):
        model, reductions = GPT(tiny()), []
        monkeypatch.setattr(Ranks, "sum_", lambda self, tensor, seen=reductions: seen.append(tensor.shape) or tensor)
        step = TestTimeStep(model, list(model.parameters()), tiny().ttt, Ranks())
        step.graphs = True
        for tokens in rows(2, 3):
            step(tokens[:count, :-1], tokens[:count, 1:], 1.0)
        counts.append(reductions)
    assert counts[0] == counts[1] and len(counts[0]) == 3


def test_updates_of_bf16_weights_round_once() -> None:
    """The new weight is the bf16 number next to `w - rate * momentum`; a rate in bf16 would be off by up to 0.4 %."""
    config = tiny("ttt.grad_clip=0.0", "ttt.momentum=0.9").ttt
    generator = torch.Generator().manual_seed(0)
    holder = torch.nn.Module()
    holder.weight = torch.nn.Parameter(torch.randn(4000, generator=generator).bfloat16())
    step = TestTimeStep(holder, [holder.weight], config, Ranks())
    step.lr.fill_(0.00213)
    for _ in range(4):
        before = holder.weight.detach().double()
        step.flat.gradients.buffers[0].copy_(50 * torch.randn(4000, generator=generator))
        with torch.no_grad():
            step._update(0, step.flat.buffers[0], step.flat.gradients.buffers[0])
        exact = before - float(step.lr) * step.first[0].double()
        assert float((holder.weight.detach() != exact.bfloat16()).float().mean()) < 1e-3


def test_tensors_of_flat_buffers_start_at_aligned_addresses() -> None:
    model = GPT(tiny())
    step = TestTimeStep(model, list(model.parameters()), tiny().ttt, Ranks())
    buffer = step.flat.buffers[0]
    for p in model.parameters():
        assert (p.data_ptr() - buffer.data_ptr()) % 128 == 0 and p.grad is not None
        assert (p.grad.data_ptr() - step.flat.gradients.buffers[0].data_ptr()) % 128 == 0


def test_published_sizes_have_the_published_arithmetic() -> None:
    """76 MFLOP for one token forward, 180 TFLOP for one step of 786,432 tokens (specification 6.2 and 8)."""
    config = load("pr612", ["model.ortho_init=false"])
    flops = GPT(config).flops_per_token(2048)
    assert flops == pytest.approx(76e6, rel=0.02)
    assert 3 * flops * config.data.batch_tokens == pytest.approx(180e12, rel=0.02)


def test_counts_of_one_block() -> None:
    """Specification 2.9: matrices, affine, scales, mix and gain of a block; the two frozen blocks of the G family."""
    model = GPT(load("pr612", ["model.ortho_init=false"]))
    sizes = {n.removeprefix("blocks.0."): p.numel() for n, p in model.named_parameters() if n.startswith("blocks.0.")}
    assert sizes == {
        "attn.q.weight": 262_144,
        "attn.k.weight": 131_072,
        "attn.v.weight": 131_072,
        "attn.o.weight": 262_144,
        "attn.gain": 8,
        "mlp.up.weight": 786_432,
        "mlp.down.weight": 786_432,
        "mlp.hidden_scale": 1536,
        "mlp.hidden_bias": 1536,
        "attn_scale": 512,
        "mlp_scale": 512,
        "resid_mix": 1024,
    }
    assert 2 * sum(sizes.values()) == 4_728_848
