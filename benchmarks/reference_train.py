"""Training throughput, MFU and peak memory, and the optimiser and quantiser against straightforward implementations.

    python benchmarks/reference_train.py --config pr612 --steps 20                      (GPUs: under torchrun)
    python benchmarks/reference_train.py --config pr612 --steps 3 --threads 1 \\
        --set data.batch_tokens=16384 --set data.seq_len=512 --set eval.seq_len=512     (a CPU)

The peak for MFU is the published dense bf16 peak of the GPU; on a CPU it is the rate of a large matrix product measured
here. Straightforward Muon orthogonalises one matrix after the other; the straightforward clip search asks
torch.quantile for every candidate. Results are checked to be equal. Text and weights are random. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from reference.config import load
from reference.data import TokenStream
from reference.optim import newton_schulz
from reference.quantize import quantize_state
from reference.quantize.calibrate import collect_hessians
from reference.quantize.rowwise import quantize_rows
from reference.ranks import Ranks, start, stop
from reference.runlog import RunLog, peak_tflops
from reference.train import Trainer


def measured_peak(device: torch.device) -> float:
    """FLOP/s of a square fp32 product on this machine."""
    a = torch.randn(1536, 1536, device=device)
    return 2 * 1536**3 / seconds_of(lambda: a @ a, device, 5)


def seconds_of(action: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Least seconds of some runs after one for warming up; processor seconds on a CPU."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    best = math.inf
    for number in range(repeat + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = clock()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:
            best = min(best, clock() - began)
    return best


def plain_muon(trainer: Trainer) -> None:
    """One matrix after the other, with fresh momentum each time; only the time matters."""
    for bank in trainer.muon.banks:
        for p in bank.parameters:
            assert p.grad is not None
            momentum = torch.zeros_like(p)
            momentum.mul_(0.95).add_(p.grad)
            x = newton_schulz((p.grad + 0.95 * momentum)[None], 5)[0]
            p.data.mul_(1 - 1e-9).add_(x.to(p.dtype), alpha=-1e-9)


def plain_clip_search(weight: torch.Tensor, percentiles: list[float], lo: int, hi: int, qmax: int) -> torch.Tensor:
    """torch.quantile for every candidate, best one for the tensor."""
    best, least = torch.empty(0), math.inf
    for p in percentiles:
        step = (torch.quantile(weight.abs(), p, dim=1) / qmax).clamp_min(2.0**-24)[:, None]
        q = torch.round(weight / step).clamp(lo, hi)
        error = float((weight - q * step).square().mean())
        if error < least:
            best, least = q, error
    return best


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="pr612")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    ranks = start()
    cpu = ["run.precision=fp32", "run.compile=false", "schedule.compile_warmup_steps=1"]
    cpu = cpu if ranks.device.type == "cpu" else []
    config = load(options.config, ["model.params=0", "schedule.val_every=0", *cpu, *options.overrides])
    tokens = np.random.default_rng(0).integers(4, config.data.vocab_size, 4_000_000).astype(np.uint16)
    stream = TokenStream([tokens])
    trainer = Trainer(config, stream, None, ranks, RunLog(None, ""))
    trainer.warm_up()
    trainer.model.train()
    seconds = seconds_of(trainer.train_step, ranks.device, options.steps)
    if ranks.first:
        _print(trainer, seconds, stream, ranks)
    trainer.loader.close()
    stop()


def _print(trainer: Trainer, seconds: float, stream: TokenStream, ranks: Ranks) -> None:
    config, model, device = trainer.config, trainer.model, ranks.device
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    print(
        f"{name} x {ranks.world}, {torch.get_num_threads()} threads, torch {torch.__version__}; {config.name}: "
        f"{config.model.layers} layers, width {config.model.dim}, T {config.data.seq_len}, "
        f"{config.data.batch_tokens} tokens a step\n"
    )
    rate = config.data.batch_tokens / seconds
    peak = peak_tflops(config.run.peak_tflops) * 1e12 * ranks.world or measured_peak(device)
    mfu = 3 * model.flops_per_token(config.data.seq_len) * rate / peak
    print("| quantity | value |\n|---|---|")
    print(f"| step | {1000 * seconds:.0f} ms |\n| throughput | {rate:,.0f} tokens/s |")
    print(f"| MFU | {100 * mfu:.1f} % of {peak / 1e12:.3f} TFLOP/s |")
    if device.type == "cuda":
        print(f"| peak memory | {torch.cuda.max_memory_allocated() >> 20} MiB |")
    if ranks.world > 1:
        return
    ours, plain = seconds_of(trainer.muon.step, device, 3), seconds_of(lambda: plain_muon(trainer), device, 3)
    print(f"| Muon, batched / one by one | {1000 * ours:.0f} / {1000 * plain:.0f} ms ({plain / ours:.2f} x) |")
    _quantisers(trainer, stream, ranks)


def _quantisers(trainer: Trainer, stream: TokenStream, ranks: Ranks) -> None:
    config, device = load("pr612").quant, ranks.device
    rule = config.rules[0]
    banks = [p.detach() for n, p in trainer.model.named_parameters() if n.endswith(".weight") and p.numel() > 65_536]
    keywords = {"lo": rule.lo, "hi": rule.hi, "qmax": rule.qmax}
    ours = seconds_of(
        lambda: [quantize_rows(w, rule.percentiles, search="per_tensor", half_scale=False, **keywords) for w in banks],
        device,
        1,
    )
    plain = seconds_of(lambda: [plain_clip_search(w, rule.percentiles, **keywords) for w in banks], device, 1)
    same = float(
        np.mean(
            [
                float(
                    (
                        quantize_rows(w, rule.percentiles, search="per_tensor", half_scale=False, **keywords).q
                        == plain_clip_search(w, rule.percentiles, **keywords)
                    )
                    .float()
                    .mean()
                )
                for w in banks[:2]
            ]
        )
    )
    print(
        f"| clip search, 15 candidates, one sort / torch.quantile each | {ours:.2f} / {plain:.2f} s "
        f"({plain / ours:.2f} x, {100 * same:.2f} % equal) |"
    )
    gptq = load("smoke").quant
    gptq.passthrough_max_numel, assert_gptq = 65_536, gptq.gptq
    assert assert_gptq is not None
    assert_gptq.block, assert_gptq.nsamples = 128, 8
    trainer.config.quant = gptq
    began = time.perf_counter()
    hessians = collect_hessians(trainer.model, stream, trainer.config, ranks)
    collected = time.perf_counter() - began
    state = {n: p.detach() for n, p in trainer.model.named_parameters()}
    seconds = seconds_of(lambda: quantize_state(state, gptq, hessians), device, 1)
    print(f"| Hessians of 8 rows, full GPTQ of all matrices | {collected:.2f} s, {seconds:.2f} s |")


if __name__ == "__main__":
    main()
