"""Evaluation throughput of the reference against a straightforward implementation, same weights, same process.

    python benchmarks/reference_eval.py --config pr612 --chunks 4                       (one GPU, full size)
    python benchmarks/reference_eval.py --config pr612 --chunks 2 --threads 1 \\
        --set model.layers=6 --set model.dim=256 --set model.mlp_hidden=768 --set model.value_embed.layers=[4,5] \\
        --set data.seq_len=512 --set eval.seq_len=512 --set ttt.chunk_tokens=2048      (a CPU)

The straightforward loops are what most submissions do: zero-padded batches filled window by window, logits of all
columns, one slice, one byte count and one float64 sum for each window, torch's optimiser and clipping over a list of
tensors. With `--repo CLONE --pr N` they are the loops of that submission itself, run in the auditor's sandbox (see
reference_submission.py):

    python benchmarks/reference_eval.py --repo parameter-golf --pr 612                   (one GPU: full size)
    python benchmarks/reference_eval.py --repo parameter-golf --pr 612 --threads 1       (a CPU: 6 layers of 256)

Weights are random, the text is random: throughput does not depend on either. Both give the same bits per byte, which
is checked. Prints a Markdown table; seconds are the best of `--repeat` runs, processor seconds on a CPU.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.config import Config, load
from reference.evaluate import Evaluation, sliding, standard
from reference.model import GPT
from reference.ranks import Ranks, start
from reference.tokenizer import ByteTables
from reference.ttt import chunk_lr, score_first, select
from reference.validation import ValidationStream

WINDOWS_PER_BATCH = 32


class Straightforward:
    """The usual loops, on the same model."""

    def __init__(self, config: Config, model: GPT, stream: ValidationStream, tables: ByteTables, ranks: Ranks) -> None:
        self.config, self.model, self.stream, self.device = config, model, stream, ranks.device
        self.tokens = torch.from_numpy(stream.tokens.astype(np.int64))
        self.base = torch.from_numpy(tables.base.astype(np.int16)).to(self.device)
        self.lead = torch.from_numpy(tables.lead).to(self.device)
        self.bound = torch.from_numpy(tables.bound).to(self.device)
        self.nats = torch.zeros((), dtype=torch.float64, device=self.device)
        self.bytes = torch.zeros((), dtype=torch.float64, device=self.device)
        self.logits: Callable[[Tensor], Tensor] = model.logits
        if config.run.compile and self.device.type == "cuda":
            self.logits = torch.compile(model.logits, dynamic=False)

    def bpb(self) -> float:
        """Result so far."""
        return float(self.nats / math.log(2) / self.bytes)

    def windows(self, spans: list[tuple[int, int, int]]) -> None:
        """Scores (start, end, first scored) windows."""
        length = self.config.eval.seq_len
        self.model.eval()
        with torch.inference_mode():
            for low in range(0, len(spans), WINDOWS_PER_BATCH):
                batch = spans[low : low + WINDOWS_PER_BATCH]
                x = torch.zeros(len(batch), length, dtype=torch.int64, device=self.device)
                y = torch.zeros(len(batch), length, dtype=torch.int64, device=self.device)
                for row, (begin, end, _) in enumerate(batch):
                    piece = self.tokens[begin : end + 1].to(self.device)
                    x[row, : end - begin], y[row, : end - begin] = piece[:-1], piece[1:]
                logits = self.logits(x)
                losses = F.cross_entropy(logits.reshape(-1, logits.size(-1)).float(), y.reshape(-1), reduction="none")
                losses = losses.view(len(batch), length)
                for row, (begin, end, first) in enumerate(batch):
                    part = slice(first - begin, end - begin)
                    self.nats += losses[row, part].double().sum()
                    targets, previous = y[row, part], x[row, part]
                    size = self.base[targets].double() + (self.lead[targets] & ~self.bound[previous]).double()
                    self.bytes += size.sum()

    def spans(self) -> list[tuple[int, int, int]]:
        """All exact sliding windows."""
        n, length, stride = self.stream.positions, self.config.eval.seq_len, self.config.eval.stride
        spans = [(0, min(length, n), 0)]
        for first in range(length, n, stride):
            end = min(first + stride, n)
            spans.append((end - length, end, first))
        return spans

    def standard(self) -> float:
        """Non-overlapping rows."""
        length = self.stream.seq_len
        self.windows([(a, a + length, a) for a in range(0, self.stream.positions, length)])
        return self.bpb()

    def sliding(self) -> float:
        """Sliding windows."""
        self.windows(self.spans())
        return self.bpb()

    def ttt(self) -> float:
        """Score-first chunks with torch's optimisers."""
        config, length = self.config.ttt, self.config.eval.seq_len
        parameters = [p for _, p in select(self.model, config.select)]
        optimiser: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=config.lr, momentum=config.momentum)
        if config.optimizer == "adamw":
            optimiser = torch.optim.AdamW(
                parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
            )
        n, spans = self.stream.positions, self.spans()
        chunks = -(-n // config.chunk_tokens)
        for chunk in range(chunks):
            begin, end = chunk * config.chunk_tokens, min((chunk + 1) * config.chunk_tokens, n)
            self.windows([s for s in spans if begin <= s[2] < end])
            if chunk == chunks - 1:
                break
            self.model.train()
            optimiser.param_groups[0]["lr"] = chunk_lr(config, chunk, chunks)
            rows = (end - begin) // length
            for _ in range(config.epochs):
                for low in range(0, rows, config.batch_rows):
                    high = min(low + config.batch_rows, rows)
                    piece = self.tokens[begin + low * length : begin + high * length + 1].to(self.device)
                    optimiser.zero_grad(set_to_none=True)
                    self.model(piece[:-1].view(-1, length), piece[1:].view(-1, length)).backward()
                    torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
                    optimiser.step()
        return self.bpb()


def random_text(vocabulary: int, targets: int, length: int) -> tuple[ValidationStream, ByteTables]:
    """Random tokens with random byte tables."""
    rng = np.random.default_rng(0)
    base = rng.integers(1, 8, vocabulary).astype(np.int16)
    bound = np.arange(vocabulary) < 4
    base[:4] = 0
    tables = ByteTables(base, rng.random(vocabulary) < 0.4, bound)
    tokens = rng.integers(4, vocabulary, targets + 1).astype(np.uint16)
    return ValidationStream.from_tokens(tokens, tables, length), tables


def timed(action: Callable[[], float], device: torch.device, repeat: int) -> tuple[float, float]:
    """Least seconds of some runs, and the result; processor seconds on a CPU, which other programs do not disturb."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds, result = math.inf, math.nan
    for _ in range(repeat):
        began = clock()
        result = action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = min(seconds, clock() - began)
    return seconds, result


SWITCHES = (
    "model.params=0",
    "ttt.trainable_params=0",
    "eval.scored_tokens=0",
    "eval.scored_bytes=0",
    "ttt.max_chunks=0",
    "ttt.grad_sync=row_weighted",
    "qat.ttt=off",
)
"""A text of another size, one rank; everything else is as configured."""
ON_CPU = ("run.precision=fp32", "run.compile=false", "run.attention=sdpa")
SMALL = (
    "model.layers=6",
    "model.dim=256",
    "model.mlp_hidden=768",
    "model.value_embed.layers=[4,5]",
    "model.value_embed.dim=64",
    "model.xsa_last_n=4",
    "model.rope_train_len=256",
    "data.seq_len=512",
    "data.batch_tokens=4096",
    "eval.seq_len=512",
    "ttt.chunk_tokens=1536",
    "ttt.epochs=3",
)
"""Sizes of a comparison with a submission on a CPU."""


def main() -> None:
    """Parses the command line and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--chunks", type=int, default=4, help="TTT chunks in the text")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--repo", type=Path, help="clone of the public repository, for --pr")
    parser.add_argument("--pr", type=int, help="submission whose own loops are timed")
    parser.add_argument("--modes", nargs="+", default=["standard", "sliding", "ttt"])
    parser.add_argument("--loop", action="append", default=[], metavar="MODE=FUNCTION", help="its function of a mode")
    parser.add_argument("--attribute", action="append", default=[], metavar="CLASS.NAME=JSON", help="set before timing")
    parser.add_argument("--minutes", type=float, default=20.0, help="wall time of the submission's process")
    options = parser.parse_args()
    if (options.pr is None) != (options.repo is None):
        parser.error("--repo and --pr belong together")
    on_cpu = not torch.cuda.is_available()
    small = SMALL if options.pr and on_cpu else ()
    tail = () if options.pr else ("eval.tail=exact",)
    options.config = options.config or f"pr{options.pr or 612}"
    options.overrides = [*SWITCHES, *tail, *(ON_CPU if on_cpu else ()), *small, *options.overrides]
    config = load(options.config, options.overrides)
    if options.pr:
        _against_submission(config, options)
    else:
        _against_straightforward(config, options)


def _header(config: Config, device: str, threads: int, targets: int, other: str) -> str:
    """Two lines of machine and sizes, and the head of the table."""
    return (
        f"{device}, {threads} threads, torch {torch.__version__}; {config.name}: "
        f"{config.model.layers} layers, width {config.model.dim}, T {config.eval.seq_len}, "
        f"stride {config.eval.stride}, {targets} targets, {config.ttt.epochs} epochs\n\n"
        f"| evaluation | {other}, targets/s | reference, targets/s | ratio | bpb difference |\n|---|---|---|---|---|"
    )


def _row(mode: str, targets: int, plain: float, fast: float, difference: float) -> str:
    return f"| {mode} | {targets / plain:,.0f} | {targets / fast:,.0f} | {plain / fast:.2f} | {abs(difference):.1e} |"


def _against_submission(config: Config, options: argparse.Namespace) -> None:
    from reference_submission import NotTimed, measure

    try:
        found = measure(options.repo, options.pr, config, options)
    except NotTimed as error:
        raise SystemExit(str(error)) from error
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    targets = options.chunks * config.ttt.chunk_tokens
    print(_header(config, device, found["threads"], targets, f"loops of PR {options.pr}"))
    for mode, row in found["rows"].items():
        plain, fast = (min(row["seconds"][side]) for side in ("theirs", "ours"))
        print(_row(mode, targets, plain, fast, row["bpb"]["ours"] - row["bpb"]["theirs"]))


def _against_straightforward(config: Config, options: argparse.Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    ranks = start()
    stream, tables = random_text(config.data.vocab_size, options.chunks * config.ttt.chunk_tokens, config.eval.seq_len)
    model = GPT(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.add_(0.02 * torch.randn(p.shape, generator=generator).to(p.dtype))
    saved = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.to(ranks.device)

    def fresh() -> GPT:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(saved[name])
        return model

    device = torch.cuda.get_device_name() if ranks.device.type == "cuda" else f"{platform.machine()} CPU"
    print(_header(config, device, torch.get_num_threads(), stream.positions, "straightforward"))
    ours = {"standard": standard, "sliding": sliding, "ttt": score_first}
    for mode in options.modes:
        plain, expected = timed(
            lambda mode=mode: getattr(Straightforward(config, fresh(), stream, tables, ranks), mode)(),
            ranks.device,
            options.repeat,
        )
        fast, found = timed(
            lambda mode=mode: ours[mode](Evaluation(config, fresh(), stream, ranks)).bpb, ranks.device, options.repeat
        )
        print(_row(mode, stream.positions, plain, fast, found - expected), flush=True)


if __name__ == "__main__":
    main()
