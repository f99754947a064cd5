"""Is this machine computing the same thing? What a GPU does differently, against plain arithmetic.

Compiled graphs, CUDA graphs, attention kernels, fused optimisers, pinned copies and collectives are compared with eager
fp32 arithmetic on the same weights. `speed` then times training and evaluation. Text is random.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from reference import ledger
from reference.compiling import compiled
from reference.config import Config, load
from reference.data import TokenStream
from reference.evaluate import Evaluation, sliding
from reference.model import GPT
from reference.model.attention import causal_attention, choose_flash
from reference.optim import newton_schulz
from reference.quantize.gptq import hessian_error, quantize_gptq
from reference.quantize.rowwise import quantize_rows
from reference.ranks import Ranks
from reference.runlog import RunLog, peak_tflops
from reference.tokenizer import ByteTables
from reference.train import Trainer
from reference.ttt import score_first
from reference.validation import ValidationStream

STEPS = 3
NOISE = 0.05
FREE = (
    "model.params=0",
    "ttt.trainable_params=0",
    "eval.scored_tokens=0",
    "eval.scored_bytes=0",
    "eval.tail=exact",
    "ttt.max_chunks=0",
)
"""Expectations that do not hold for a text of another size, and each position once."""


@dataclass(frozen=True)
class Finding:
    """One comparison: what was compared, whether it agrees, and the number behind it."""

    what: str
    holds: bool
    detail: str


@dataclass(frozen=True)
class Bench:
    """What the comparisons share: settings as they will run, the same in plain fp32, and a text."""

    config: Config
    plain: Config
    ranks: Ranks
    tokens: np.ndarray
    stream: ValidationStream

    @property
    def bf16(self) -> bool:
        """Whether activations are bf16, which decides how close is close."""
        return self.config.run.precision == "bf16"

    def model(self, config: Config) -> GPT:
        """A model with the same noisy weights for every configuration, so that no branch is dead."""
        model = GPT(config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(NOISE * torch.randn(p.shape, generator=generator).to(p.dtype))
        return model.to(self.ranks.device)

    def rows(self, count: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of some rows of the text."""
        length = self.config.eval.seq_len
        ids = torch.from_numpy(self.tokens[: count * length + 1].astype(np.int64)).to(self.ranks.device)
        return ids[:-1].view(count, length), ids[1:].view(count, length)


def prepare(name: str, overrides: tuple[str, ...], ranks: Ranks, chunks: int = 3) -> Bench:
    """Settings of a configuration, for a short text.

    Raises:
        ConfigError: a key or value is wrong.
    """
    cpu = ("run.precision=fp32", "run.compile=false") if ranks.device.type == "cpu" else ()
    config = load(name, [*FREE, *cpu, *overrides])
    plain = load(name, [*FREE, *overrides, "run.precision=fp32", "run.compile=false", "run.attention=sdpa"])
    plain.run.cuda_graphs = False
    for settings in (config, plain):
        settings.data.batch_tokens = settings.data.spans_per_step * settings.data.seq_len
        settings.schedule.compile_warmup_steps, settings.schedule.val_every = 1, 0
    rng = np.random.default_rng(0)
    vocabulary = config.data.vocab_size
    tokens = rng.integers(4, vocabulary, chunks * config.ttt.chunk_tokens + 1).astype(np.uint16)
    base = np.ones(vocabulary, dtype=np.int16)
    tables = ByteTables(base, rng.random(vocabulary) < 0.3, base == 0)
    length = max(config.data.seq_len, config.eval.seq_len)
    return Bench(config, plain, ranks, tokens, ValidationStream.from_tokens(tokens, tables, length))


def run(bench: Bench) -> Iterator[Finding]:
    """Every comparison in turn; one that cannot run is a finding that does not hold."""
    for compare in COMPARISONS:
        try:
            yield compare(bench)
        except Exception as error:  # kernels, compilers and extensions raise whatever they like
            what = (compare.__doc__ or compare.__name__).strip().rstrip(".")
            yield Finding(what, False, f"{type(error).__name__}: {str(error).splitlines()[0][:300]}")


def _within(what: str, value: float, limit: float, unit: str = "") -> Finding:
    return Finding(what, value <= limit, f"{value:.2e}{unit}, at most {limit:.0e}")


def _close(a: Tensor, b: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30))


def attention(bench: Bench) -> Finding:
    """Attention kernels agree with the softmax written out."""
    config, device = bench.config.model, bench.ranks.device
    dtype = torch.bfloat16 if bench.bf16 else torch.float32
    generator = torch.Generator().manual_seed(2)
    length, queries = bench.config.eval.seq_len, min(bench.config.eval.stride, bench.config.eval.seq_len)
    q, k, v = (
        torch.randn(2, length, heads, config.head_dim, generator=generator).to(device, dtype)
        for heads in (config.heads, config.kv_heads, config.kv_heads)
    )
    scale, group = config.head_dim**-0.5, config.heads // config.kv_heads
    keys, values = (x.float().repeat_interleave(group, dim=2).transpose(1, 2) for x in (k, v))
    scores = scale * q.float().transpose(1, 2) @ keys.transpose(2, 3)
    future = torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
    expected = (scores.masked_fill(future, -torch.inf).softmax(-1) @ values).transpose(1, 2)
    flash = choose_flash(bench.config.run)
    worst = max(_close(causal_attention(q[:, -n:], k, v, scale, flash), expected[:, -n:]) for n in (length, queries))
    kernel = "FlashAttention-3" if flash is not None else "scaled_dot_product_attention"
    return _within(f"attention ({kernel}), whole rows and last columns", worst, 2e-2 if bench.bf16 else 1e-5)


def loss_and_gradients(bench: Bench) -> Finding:
    """Loss and gradients of the training graph agree with eager fp32."""
    inputs, targets = bench.rows(1)
    plain, fast = bench.model(bench.plain), bench.model(bench.config)
    fast.prepare(inputs.size(1))
    step = compiled(fast, bench.config.run, bench.ranks.device)
    losses, gradients = [], []
    for model, call in ((plain, plain), (fast, step)):
        loss = call(inputs, targets)
        found = torch.autograd.grad(loss, list(model.parameters()))
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([g.reshape(-1).float() for g in found]))
    worst = max(abs(losses[0] - losses[1]), _close(gradients[1], gradients[0]) / 10)
    return _within(
        "loss, and a tenth of the gradient's relative error, in training", worst, 2e-2 if bench.bf16 else 1e-5
    )


def batches(bench: Bench) -> Finding:
    """Batches that were read ahead and copied without waiting equal a plain read."""
    stream, data = TokenStream([bench.tokens]), bench.config.data
    trainer = Trainer(bench.plain, stream, None, bench.ranks, RunLog(None, ""))
    wrong = 0
    for step in range(STEPS):
        for micro in range(trainer.loader.micro_steps):
            inputs, targets = trainer.loader.batch(step, micro)
            span = stream.span(
                step, micro * bench.ranks.world + bench.ranks.rank, data.span_tokens, data.spans_per_step
            )
            expected = torch.from_numpy(span.astype(np.int64))
            got = torch.cat((inputs.reshape(-1)[:1], targets.reshape(-1))).cpu()
            wrong += int((got != expected).sum())
    trainer.loader.close()
    return Finding("batches on the device are those of the shards", wrong == 0, f"{wrong} tokens differ")


def orthogonalisation(bench: Bench) -> Finding:
    """Newton-Schulz moves singular values towards 1."""
    update = torch.randn(4, 256, 512, generator=torch.Generator().manual_seed(3)).to(bench.ranks.device)
    call = compiled(newton_schulz, bench.config.run, bench.ranks.device, variable=True)
    values = torch.linalg.svdvals(call(update, 5).float())
    low, high = float(values.min()), float(values.max())
    return Finding("Newton-Schulz", low > 0.5 and high < 1.4, f"singular values {low:.2f} .. {high:.2f}")


def training(bench: Bench) -> Finding:
    """A few optimiser steps: compiled with fused optimisers, against eager fp32."""
    losses = []
    for config in (bench.plain, bench.config):
        trainer = Trainer(config, TokenStream([bench.tokens]), None, bench.ranks, RunLog(None, ""))
        trainer.warm_up()
        trainer.model.train()
        losses.append([float(trainer.train_step().loss) for _ in range(STEPS)])
        trainer.loader.close()
    worst = max(abs(a - b) for a, b in zip(*losses, strict=True))
    return _within(f"loss over {STEPS} optimiser steps", worst, 1e-1 if bench.bf16 else 1e-5, " nats")


def scoring(bench: Bench) -> Finding:
    """Sliding windows as they will run against the loss of every position from whole rows of eager fp32 logits."""
    stride, length = bench.config.eval.stride, bench.config.eval.seq_len
    stream = ValidationStream.from_tokens(
        bench.tokens[: 2 * length + 1], ByteTables(*_tables(bench.config.data.vocab_size)), length
    )
    fast = Evaluation(
        bench.config, bench.model(bench.config), stream, Ranks(0, 1, bench.ranks.device), keep_losses=True
    )
    found = sliding(fast).losses
    assert found is not None
    plain = bench.model(bench.plain).eval()
    ids = torch.from_numpy(stream.tokens.astype(np.int64)).to(bench.ranks.device)
    expected = torch.empty(stream.positions)
    with torch.inference_mode():
        for end in range(length, stream.positions + 1, stride):
            first = 0 if end == length else end - stride
            logits = plain.logits(ids[None, end - length : end])[0].float()
            nats = torch.nn.functional.cross_entropy(logits, ids[end - length + 1 : end + 1], reduction="none")
            expected[first:end] = nats[first - end :].cpu()
    return _within(
        "sliding windows: mean difference of a position's loss",
        float((found - expected).abs().mean()),
        5e-2 if bench.bf16 else 1e-5,
        " nats",
    )


def _tables(vocabulary: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    none = np.zeros(vocabulary, dtype=bool)
    return np.ones(vocabulary, dtype=np.int16), none, none


def adaptation(bench: Bench) -> Finding:
    """Score-first test-time training as it will run against eager steps in the same precision, and its ledger."""
    eager = copy.deepcopy(bench.config)
    eager.run.compile = eager.run.cuda_graphs = False
    scores, moved = [], []
    for config in (eager, bench.config):
        model = bench.model(config)
        before = _flat(model)
        evaluation = Evaluation(config, model, bench.stream, bench.ranks)
        scores.append(score_first(evaluation).bpb)
        moved.append(_flat(model) - before)
        ledger.check(evaluation.ledger.gather(bench.ranks), bench.stream.positions, "ttt")
    # A text without meaning hardly changes the score, so what is compared is how far the weights moved, and where to.
    apart = _close(moved[1], moved[0])
    detail = f"weights moved {apart:.1e} apart, at most 1e-01; {abs(scores[0] - scores[1]):.1e} bpb"
    return Finding("test-time training, compiled and graphed", apart <= 1e-1, detail)


def _flat(model: GPT) -> Tensor:
    return torch.cat([p.detach().reshape(-1).float() for p in model.parameters()])


def quantiser(bench: Bench) -> Finding:
    """Clip search and GPTQ give the integers and errors of a CPU."""
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(128, 256, generator=generator) ** 3
    inputs = torch.randn(1024, 256, generator=generator) @ torch.randn(256, 256, generator=generator)
    hessian = inputs.T @ inputs / 1024
    settings = load("smoke").quant.gptq
    assert settings is not None
    results = []
    for device in (torch.device("cpu"), bench.ranks.device):
        w, h = weight.to(device), hessian.to(device)
        rows = quantize_rows(w, [0.99, 0.999, 1.0], lo=-31, hi=31, qmax=31)
        second = quantize_gptq(w, h, rows.scale, 31, settings).integers
        results.append((rows.q.cpu(), hessian_error(w, second.dequantize(), h)))
    unequal = float((results[0][0] != results[1][0]).float().mean())
    return _within("quantiser against the CPU", max(unequal, abs(results[1][1] / results[0][1] - 1)), 1e-2)


def collectives(bench: Bench) -> Finding:
    """Sums, gathers and broadcasts over ranks."""
    ranks = bench.ranks
    mine = torch.full((3,), float(ranks.rank + 1), device=ranks.device)
    total = ranks.sum_(mine.clone())
    parts = ranks.gather(mine)
    first = ranks.broadcast_(mine.clone())
    world = ranks.world
    holds = bool((total == world * (world + 1) / 2).all()) and bool((first == 1).all()) and len(parts) == world
    holds = holds and ranks.max_float(float(ranks.rank)) == world - 1 and len(ranks.gather_objects(ranks.rank)) == world
    return Finding(
        f"collectives over {world} rank(s)", holds, "" if world > 1 else "start under torchrun to try several"
    )


COMPARISONS: tuple[Callable[[Bench], Finding], ...] = (
    collectives,
    attention,
    batches,
    orthogonalisation,
    quantiser,
    loss_and_gradients,
    training,
    scoring,
    adaptation,
)


def speed(bench: Bench) -> Iterator[str]:
    """Rates of training, sliding windows and test-time training; the second run of each, the first one compiles."""
    config, cuda = bench.config, bench.ranks.device.type == "cuda"

    def seconds(action: Callable[[], object]) -> float:
        for _ in range(2):
            if cuda:
                torch.cuda.synchronize()
            began = time.perf_counter()
            action()
            if cuda:
                torch.cuda.synchronize()
        return time.perf_counter() - began

    trainer = Trainer(config, TokenStream([bench.tokens]), None, bench.ranks, RunLog(None, ""))
    trainer.model.train()
    rate = config.data.batch_tokens / seconds(trainer.train_step)
    trainer.loader.close()
    peak = peak_tflops(config.run.peak_tflops) * 1e12 * bench.ranks.world
    flops = 3 * trainer.model.flops_per_token(config.data.seq_len) * rate
    yield f"training, {config.data.batch_tokens} tokens a step: {rate:,.0f} tokens/s" + (
        f", MFU {100 * flops / peak:.1f} %" if peak else ""
    )
    del trainer
    for name, action in (("sliding windows", sliding), ("score-first test-time training", score_first)):
        evaluation = Evaluation(config, bench.model(config), bench.stream, bench.ranks)
        taken = seconds(lambda action=action, evaluation=evaluation: action(evaluation))
        yield f"{name}: {bench.stream.positions / taken:,.0f} targets/s"
    if cuda:
        yield f"peak memory: {torch.cuda.max_memory_allocated() >> 20} MiB"
