"""Score-first test-time training (specification 5.4).

For every chunk of the validation stream: score all its positions with the weights as they are, then, and only then,
train on the targets just scored. The last chunk is never trained on. Weights are not reset between chunks, the artifact
is not touched, scoring changes nothing. `max_chunks` limits training; everything is scored in any case.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from reference import windows
from reference.compiling import compiled
from reference.config_eval import SelectConfig, TTTConfig
from reference.errors import ConfigError
from reference.evaluate import Evaluation, check_counts, drop_state, load_state, save_state
from reference.model.layers import FakeQuant, set_fake_quant
from reference.model.roles import block_of
from reference.ranks import Ranks
from reference.runlog import Meter, RunLog
from reference.scoring import Score
from reference.ttt_step import TestTimeStep


def select(model: nn.Module, config: SelectConfig) -> list[tuple[str, nn.Parameter]]:
    """Parameters that are trained, in order.

    Raises:
        ConfigError: the selection is empty.
    """
    chosen = []
    for name, parameter in model.named_parameters():
        block = block_of(name)
        if block is not None and block < config.freeze_blocks:
            continue
        if config.only_names and not any(part in name for part in config.only_names):
            continue
        if config.blocks_only and block is None and not any(part in name for part in config.extra_names):
            continue
        chosen.append((name, parameter))
    if not chosen:
        raise ConfigError("ttt.select: no parameter is left to train; relax freeze_blocks or only_names")
    return chosen


def chunk_lr(config: TTTConfig, chunk: int, chunks: int) -> float:
    """Learning rate while training on one chunk (specification 5.4)."""
    if config.lr_schedule == "constant" or chunks <= 1:
        return config.lr
    if config.lr_schedule == "cos":
        return config.lr / 2 * (1 + math.cos(math.pi * chunk / (chunks - 1)))
    warm = max(chunks // 20, 1)
    if chunk < warm:
        return config.lr * (chunk + 1) / warm
    return config.lr / 2 * (1 + math.cos(math.pi * (chunk - warm) / max(chunks - 1 - warm, 1)))


@dataclass
class _Run:
    """One score-first evaluation under way."""

    evaluation: Evaluation
    log: RunLog
    step: TestTimeStep

    def __post_init__(self) -> None:
        config = self.evaluation.config
        self.positions = self.evaluation.stream.positions
        self.plan = windows.sliding(self.positions, config.eval.seq_len, config.eval.stride, config.eval.tail)
        self.chunks = windows.chunk_count(self.positions, config.ttt.chunk_tokens)
        self.chunk = windows.chunk_of(self.plan, self.positions, config.ttt.chunk_tokens)
        self.sums = self.evaluation.accumulator(allow_repeats=config.eval.tail == "legacy_dup")
        self.started = time.perf_counter()

    def score_chunk(self, chunk: int) -> None:
        """Phase 1: scores this rank's slice of the windows of a chunk."""
        settings, ranks = self.evaluation.config.eval, self.evaluation.ranks
        first = int(self.chunk.searchsorted(chunk, side="left"))
        last = int(self.chunk.searchsorted(chunk, side="right"))
        low, high = ranks.slice(last - first)
        own = self.plan.take(slice(first + low, first + high))
        if len(own):
            self.evaluation.scorer.score(own, self.sums, settings.batch_tokens)
        self.evaluation.ledger.score(own, "ttt")

    def train_chunk(self, chunk: int) -> None:
        """Phase 2: trains on the targets of the chunk just scored."""
        config, ranks = self.evaluation.config, self.evaluation.ranks
        length = config.eval.seq_len
        begin = chunk * config.ttt.chunk_tokens
        end = min(begin + config.ttt.chunk_tokens, self.positions)
        rows = (end - begin) // length
        self.step.lr.fill_(chunk_lr(config.ttt, chunk, self.chunks))
        self.evaluation.model.train()
        for _ in range(config.ttt.epochs):
            for low, high, weight in row_batches(rows, config.ttt, ranks):
                starts = begin + length * torch.arange(low, high, device=ranks.device)
                tokens = self.evaluation.scorer.gather(starts, length + 1)
                self.step(tokens[:, :-1], tokens[:, 1:], weight)
        if config.ttt.grad_sync == "none":
            for buffer in self.step.flat.buffers:
                ranks.broadcast_(buffer)
        self.evaluation.model.eval()
        self.evaluation.ledger.update(begin, begin + rows * length)

    def trains_on(self, chunk: int) -> bool:
        """The last chunk, and chunks beyond `max_chunks`, are only scored."""
        config = self.evaluation.config.ttt
        limit = min(config.max_chunks or self.chunks, self.chunks - 1)
        return config.epochs > 0 and chunk < limit

    def report(self, chunk: int) -> None:
        """Running result of all ranks every ten chunks."""
        if chunk % 10 and chunk != self.chunks - 1:
            return
        score = self.sums.running(self.evaluation.ranks)
        seconds = time.perf_counter() - self.started
        self.log.line(f"  ttt_chunk [{chunk + 1}/{self.chunks}] bpb={score.bpb:.6f} time={seconds:.1f}s")
        self.log.event(
            "ttt_chunk",
            chunk=chunk + 1,
            chunks=self.chunks,
            bpb=score.bpb,
            tokens=score.tokens,
            seconds=seconds,
            scope="all",
        )


def row_batches(rows: int, config: TTTConfig, ranks: Ranks) -> list[tuple[int, int, float]]:
    """This rank's batches of one epoch: first row, row after the last, and weight of its mean loss.

    `row_weighted` cuts the rows of all ranks into batches and gives each rank its share, so that steps and gradients do
    not depend on the number of ranks. `rank_mean` gives each rank a slice first and then averages means (the seeds);
    ranks that run out of rows take empty steps. With `none` every rank trains on all rows.
    """
    if config.grad_sync == "none":
        return [(low, min(low + config.batch_rows, rows), 1.0) for low in range(0, rows, config.batch_rows)]
    if config.grad_sync == "rank_mean":
        first, last = ranks.slice(rows)
        most = max(rows * (r + 1) // ranks.world - rows * r // ranks.world for r in range(ranks.world))
        starts = [min(first + offset, last) for offset in range(0, most, config.batch_rows)]
        return [(low, min(low + config.batch_rows, last), 1.0 / ranks.world) for low in starts]
    batches = []
    for low in range(0, rows, config.batch_rows):
        size = min(config.batch_rows, rows - low)
        first, last = ranks.slice(size)
        batches.append((low + first, low + last, (last - first) / size))
    return batches


def score_first(evaluation: Evaluation, log: RunLog | None = None) -> Score:
    """Runs the whole evaluation; the model's weights are adapted afterwards.

    Raises:
        ConfigError: the number of trained parameters differs from `ttt.trainable_params`.
        ScoringError: a position is missing, repeated, or counts differ from the configured ones.
    """
    log = log or RunLog(None, "")
    config, model = evaluation.config, evaluation.model
    chosen = select(model, config.ttt.select)
    count, total = sum(p.numel() for _, p in chosen), sum(p.numel() for p in model.parameters())
    if config.ttt.trainable_params and count != config.ttt.trainable_params:
        raise ConfigError(
            f"ttt.trainable_params: the selection has {count} parameters, the configuration expects "
            f"{config.ttt.trainable_params}; set it to 0 when it is meant to be another selection"
        )
    required = {name: p.requires_grad for name, p in model.named_parameters()}
    names = {name for name, _ in chosen}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    if config.qat.ttt == "effective":
        set_fake_quant(model, FakeQuant.of(config.qat))
    step = TestTimeStep(
        model,
        [p for _, p in chosen],
        config.ttt,
        evaluation.ranks,
        loss=compiled(model, config.run, evaluation.ranks.device),
        graphs=config.run.cuda_graphs,
    )
    try:
        return _run_chunks(_Run(evaluation, log, step), count, total - count)
    finally:
        set_fake_quant(model, None)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])
            parameter.grad = None


def _run_chunks(run: _Run, unfrozen: int, frozen: int) -> Score:
    evaluation, config, log = run.evaluation, run.evaluation.config, run.log
    log.line(
        f"ttt_sliding:start chunks={run.chunks} chunk_tokens={config.ttt.chunk_tokens} "
        f"total_windows={len(run.plan)} stride={config.eval.stride} ttt_lr={config.ttt.lr} "
        f"ttt_epochs={config.ttt.epochs} ttt_optimizer={config.ttt.optimizer} "
        f"freeze_blocks={config.ttt.select.freeze_blocks}"
    )
    log.line(f"ttt_sliding:params unfrozen={unfrozen} frozen={frozen}")
    path = evaluation.state_path("ttt")
    first = 0
    state = load_state(path, "ttt", evaluation)
    if state is not None:
        meta, tensors = state
        run.sums.restore(meta, tensors)
        run.step.restore(tensors)
        evaluation.ledger.events[:] = meta["events"]
        first = int(meta["next"])
    meter = Meter(log, "ttt: chunks", run.chunks - first)
    for chunk in range(first, run.chunks):
        run.score_chunk(chunk)
        if run.trains_on(chunk):
            run.train_chunk(chunk)
        run.report(chunk)
        meter.add(1)
        if (chunk + 1) % config.eval.segment_chunks == 0:
            save_state(path, "ttt", chunk + 1, evaluation, run.sums, run.step.state())
    score = run.sums.finish(evaluation.ranks)
    check_counts(score, config)
    drop_state(path)
    log.line(
        f"ttt_sliding:done val_loss={score.loss:.6f} val_bpb={score.bpb:.6f} "
        f"elapsed={time.perf_counter() - run.started:.1f}s"
    )
    return score
