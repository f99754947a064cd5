"""Writes train logs in the two styles of the field from known values, for tests that read them back."""

from __future__ import annotations

from dataclasses import dataclass, field

PROGRAM = '''"""A small trainer."""
import os
import time

import torch


class Settings:
    seed = int(os.environ.get("SEED", "1337"))


def report(loss: float, bpb: float) -> None:
    print(f"final_int8_zlib_roundtrip_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f}")
    print(f"Total submission size int8+zlib: {123} bytes")


def train(steps: int) -> None:
    model = torch.nn.Linear(2, 2)
    start = time.perf_counter()
    for step in range(steps):
        loss = model(torch.zeros(2)).sum()
        print(f"step:{step}/{steps} train_loss:{loss:.4f}")
    print(f"seed:{Settings.seed} took {time.perf_counter() - start:.1f}s")


if __name__ == "__main__":
    train(10)
'''
RULE = "=" * 100


@dataclass
class Step:
    """A training step: number, loss, clock in milliseconds."""

    number: int
    loss: float
    milliseconds: int


@dataclass
class Result:
    """An evaluation: label, loss, BPB, milliseconds."""

    label: str
    loss: float
    bpb: float
    milliseconds: int


@dataclass
class Run:
    """What a run did; written by `classic` or `packed`."""

    seed: int = 1337
    params: int = 26_993_756
    shards: int = 80
    tokens: int = 62_021_632
    total: int = 20_000
    steps: list[Step] = field(default_factory=lambda: [Step(1, 6.93, 90), Step(200, 2.41, 17_000)])
    stop: tuple[int, int] = (6_900, 599_980)
    model: int = 15_900_000
    code: int = 60_000
    codec: str = "int6+lzma"
    results: list[Result] = field(default_factory=lambda: [Result("final_int6_roundtrip", 1.93, 1.143, 2_100)])
    chunks: list[float] = field(default_factory=list)
    program: bool = False


def classic(run: Run) -> str:
    """`step:200/20000 train_loss:2.1 train_time:1234ms step_avg:...`, the style of the baseline."""
    lines = [*PROGRAM.rstrip("\n").split("\n"), RULE] if run.program else [f"logs/run_{run.seed}.txt"]
    lines += [
        "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./data/tokenizers/fineweb_1024_bpe.model",
        f"train_loader:dataset:fineweb10B_sp1024 train_shards:{run.shards}",
        f"val_loader:shards pattern=./data/datasets/fineweb10B_sp1024/fineweb_val_*.bin tokens:{run.tokens}",
        f"model_params:{run.params}",
        "world_size:8 grad_accum_steps:1",
        f"train_batch_tokens:524288 train_seq_len:1024 iterations:{run.total} warmup_steps:20",
        f"seed:{run.seed}",
        "warmup_step:1/20",
    ]
    for s in run.steps:
        lines.append(
            f"step:{s.number}/{run.total} train_loss:{s.loss:.4f} train_time:{s.milliseconds}ms "
            f"step_avg:{s.milliseconds / max(s.number, 1):.2f}ms"
        )
    step, clock = run.stop
    lines += [
        "late_qat:enabled step:6316 scale:0.1498",
        f"stopping_early: wallclock_cap train_time:{clock}ms step:{step}/{run.total}",
        "peak memory allocated: 20779 MiB reserved: 20916 MiB",
        "ema:applying EMA weights",
        f"Serialized model: {run.model * 5} bytes",
        f"Code size: {run.code} bytes",
        f"Total submission size: {run.model * 5 + run.code} bytes",
        f"Serialized model {run.codec}: {run.model} bytes",
        f"Total submission size {run.codec}: {run.model + run.code} bytes",
    ]
    lines += [
        f"  ttt_chunk [{i}/{len(run.chunks)}] bpb={b:.6f} time={i * 0.3:.1f}s" for i, b in enumerate(run.chunks, 1)
    ]
    for r in run.results:
        lines.append(f"{r.label} val_loss:{r.loss:.4f} val_bpb:{r.bpb:.4f} eval_time:{r.milliseconds}ms")
        lines.append(f"{r.label}_exact val_loss:{r.loss:.8f} val_bpb:{r.bpb:.8f}")
    return "\n".join(lines) + "\n"


def packed(run: Run) -> str:
    """`200/20000 train_loss: 2.1 train_time: 1.2m tok/s: ...` with a dump of hyper-parameters, the later style."""
    lines = [
        "Hyperparameters:",
        "  compressor: brotli",
        f"  iterations: {run.total}",
        "  max_wallclock_seconds: 600.0",
        f"  seed: {run.seed}",
        "  vocab_size: 8192",
        f"train_shards: {run.shards}",
        f"val_tokens: {run.tokens}",
        f"model_params:{run.params}",
        "gptq:reserving 4s, effective=596000ms",
        "warmup_step: 1/20",
    ]
    for s in run.steps:
        minutes = s.milliseconds / 60_000
        lines.append(f"{s.number}/{run.total} train_loss: {s.loss:.4f} train_time: {minutes:.1f}m tok/s: 8312404")
    step, clock = run.stop
    lines += [
        f"stopping_early: wallclock_cap train_time: {clock}ms step: {step}/{run.total}",
        "GPTQ:collected 67 Hessians in 4.1s",
        f"Code size (compressed): {run.code} bytes",
        f"Serialized model quantized+brotli: {run.model} bytes",
        f"Total submission size quantized+brotli: {run.model + run.code} bytes",
    ]
    lines += [
        f"ttp: b{i}/{len(run.chunks)} bl:2.2660 bb:1.0534 rl:2.2660 rb:{b:.4f} dl:68-75 gd:0"
        for i, b in enumerate(run.chunks, 1)
    ]
    for r in run.results:
        lines.append(f"{r.label} val_loss:{r.loss:.8f} val_bpb:{r.bpb:.8f} eval_time:{r.milliseconds}ms")
    return "\n".join(lines) + "\n"
