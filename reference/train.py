"""The training loop (specification 3.4).

One step reads 8 spans, averages gradients over ranks, clips, updates, and averages weights. The clock counts training
only; evaluations and the compile warm-up are outside it.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reference import checkpoint
from reference.average import ExponentialAverage, PlainAverage, apply_weights
from reference.compiling import compiled
from reference.config import Config
from reference.data import BatchLoader, TokenStream
from reference.evaluate import Evaluation, standard
from reference.flat import FlatGradients, clip_
from reference.model import GPT
from reference.model.layers import FakeQuant, set_fake_quant
from reference.optim import Adam, Muon, newton_schulz, partition
from reference.ranks import Ranks
from reference.runlog import RunLog, peak_tflops, progress_text
from reference.schedule import Schedule, momentum
from reference.scoring import Score
from reference.validation import ValidationStream


def seed_everything(seed: int) -> None:
    """Seeds python, numpy and torch, all devices."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class StepRecord:
    """What one step did; the fields of its JSON line."""

    step: int
    scale: float
    momentum: float
    loss: Tensor
    grad_norm: Tensor


class Trainer:
    """State of a run: weights, optimisers, averages, step and clock."""

    def __init__(
        self,
        config: Config,
        stream: TokenStream,
        validation: ValidationStream | None,
        ranks: Ranks,
        log: RunLog,
        *,
        checkpoint_path: Path | None = None,
    ) -> None:
        seed_everything(config.schedule.seed)
        self.config, self.stream, self.validation, self.ranks, self.log = config, stream, validation, ranks, log
        self.checkpoint_path = checkpoint_path
        self.model = GPT(config).to(ranks.device)
        self.schedule = Schedule(config.schedule)
        self._make_optimisers()
        averaging = config.averaging
        self.ema = ExponentialAverage(self.model, averaging.ema_decay) if averaging.ema_decay > 0 else None
        self.swa = PlainAverage(self.model) if averaging.swa_every > 0 else None
        self.step, self.elapsed, self.qat_active, self._warm = 0, 0.0, False, False
        self._evaluation = Evaluation(config, self.model, validation, ranks) if validation is not None else None
        self.loader = self._new_loader()
        self.model.prepare(config.data.seq_len)
        self.loss: Callable[[Tensor, Tensor], Tensor] = compiled(self.model, config.run, ranks.device)
        self.muon.orthogonalise = compiled(newton_schulz, config.run, ranks.device, variable=True)

    def _make_optimisers(self) -> None:
        config, optim = self.config, self.config.optim
        groups = partition(
            self.model,
            optim,
            bigram_scale_trainable=config.model.bigram.scale_trainable,
            first_decoder=self.model.encoder_blocks,
        )
        self.muon, self.adam = Muon(groups.muon, optim, self.ranks), Adam(groups.adam, optim)
        orphans = [p for _, p in groups.orphans]
        if optim.orphans == "frozen":
            for parameter in orphans:
                parameter.requires_grad_(False)
            orphans = []
        owned = [p for members in [*groups.muon.values(), *groups.adam.values()] for _, p in members]
        self.gradients = FlatGradients(owned)
        # Legacy: gradients of orphans are never set to zero, so they pile up and take part in the clip norm.
        self.orphan_gradients = FlatGradients(orphans)

    def _new_loader(self) -> BatchLoader:
        data = self.config.data
        return BatchLoader(
            self.stream,
            span_tokens=data.span_tokens,
            seq_len=data.seq_len,
            spans=data.spans_per_step,
            rank=self.ranks.rank,
            world=self.ranks.world,
            device=self.ranks.device,
        )

    def run(self) -> None:
        """Trains to the end of the schedule or of the budget and leaves the chosen average in the model."""
        self.warm_up()
        self.model.train()
        log_every, schedule = self.config.schedule.log_every, self.config.schedule
        stopped = False
        while True:
            last = self.step >= schedule.iterations or stopped
            due = schedule.val_every > 0 and self.step % schedule.val_every == 0
            if self.validation is not None and (last or due):
                self._validate()
            if last:
                break
            began = time.perf_counter()
            record = self.train_step()
            stopped = self._advance_clock(began)
            if schedule.mode == "wallclock":
                self.log.event("scale", step=record.step, scale=record.scale)
            if self.step <= 10 or self.step % log_every == 0 or stopped:
                self._log_step(record)
            self._save_if_due()
        if stopped and self.step < schedule.iterations:
            self.log.line(
                f"stopping_early: wallclock_cap train_time:{1000 * self.elapsed:.0f}ms "
                f"step:{self.step}/{schedule.iterations}"
            )
        self._log_memory()
        self.finish()

    def train_step(self) -> StepRecord:
        """One optimiser step; returns tensors that have not been waited for."""
        step, config = self.step, self.config
        scale = self.schedule.scale(step, self.elapsed)
        if config.qat.train == "effective" and scale < config.qat.threshold and not self.qat_active:
            self.set_qat(True)
            self.log.line(f"late_qat:enabled step:{step} scale:{scale:.4f}")
        mu = momentum(step, config.optim)
        loss = self._accumulate(step)
        norm = self._update(scale, mu, config.optim.grad_clip)
        if self.ema is not None:
            self.ema.update()
        self._sample_swa(scale)
        self.step = step + 1
        return StepRecord(step, scale, mu, loss, norm)

    def _accumulate(self, step: int) -> Tensor:
        """Gradients of the mean over 8 spans, averaged over ranks; returns the mean loss of this rank's spans."""
        self.gradients.zero_()
        micro_steps = self.loader.micro_steps
        total = torch.zeros((), device=self.ranks.device)
        for micro in range(micro_steps):
            loss = self.loss(*self.loader.batch(step, micro)) / micro_steps
            loss.backward()
            total += loss.detach()
        for buffers in (self.gradients, self.orphan_gradients):
            buffers.sum_(self.ranks)
            if self.ranks.world > 1:
                for buffer in buffers.buffers:
                    buffer.div_(self.ranks.world)
        return total

    def _update(self, scale: float, mu: float, limit: float) -> Tensor:
        """Clips to `limit` (0: not at all) and updates; returns the norm before."""
        norm = clip_([*self.gradients.buffers, *self.orphan_gradients.buffers], limit)
        self.muon.momentum, self.muon.scale = mu, scale
        self.adam.step(scale)
        self.muon.step()
        return norm

    def _sample_swa(self, scale: float) -> None:
        averaging = self.config.averaging
        if self.swa is not None and scale < averaging.swa_below_scale and (self.step + 1) % averaging.swa_every == 0:
            self.swa.update()

    def set_qat(self, active: bool) -> None:
        """Switches straight-through quantisation of the linear layers."""
        self.qat_active = active
        set_fake_quant(self.model, FakeQuant.of(self.config.qat) if active else None)

    def _advance_clock(self, began: float) -> bool:
        """Adds the step to the training clock; True once the budget is used up. The same on every rank."""
        limited = math.isfinite(self.schedule.budget)
        if limited and self.ranks.device.type == "cuda":
            torch.cuda.synchronize()
        self.elapsed += time.perf_counter() - began
        if limited:
            self.elapsed = self.ranks.max_float(self.elapsed)
        return self.elapsed >= self.schedule.budget

    def warm_up(self) -> None:
        """Runs full steps so that everything is compiled, then restores weights, optimisers and stream (3.6).

        Call it before loading a checkpoint: optimiser states are empty afterwards.
        """
        steps = self.config.schedule.compile_warmup_steps
        if steps <= 0 or self._warm:
            return
        self._warm = True
        saved = [p.detach().clone() for p in self.model.parameters()]
        averages, self.ema, self.swa = (self.ema, self.swa), None, None
        self.model.train()
        for number in range(steps):
            if number == steps - 1 and self.config.qat.train == "effective":
                self.set_qat(True)  # compiles the second graph before the clock starts
            self._accumulate(number)
            self._update(1.0, momentum(0, self.config.optim), 0.0)  # the seeds do not clip here
            if number < 10 or number == steps - 1 or (number + 1) % 10 == 0:
                self.log.line(f"warmup_step:{number + 1}/{steps}")
        self.set_qat(False)
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), saved, strict=True):
                parameter.copy_(value)
        self.muon.reset()
        self.adam.reset()
        self.gradients.zero_()  # those of legacy orphans stay: nothing of the seeds ever clears them
        self.ema, self.swa = averages
        self.loader.close()
        self.loader = self._new_loader()

    def finish(self) -> None:
        """Puts the chosen average into the model and logs what it is worth."""
        self.loader.close()
        self.set_qat(False)
        average = {
            "ema": self.ema.state_dict() if self.ema is not None else {},
            "swa": self.swa.mean() if self.swa is not None else {},
        }.get(self.config.averaging.apply, {})
        if not average:
            return
        self.log.line(f"{self.config.averaging.apply}:applying {self.config.averaging.apply.upper()} weights")
        apply_weights(self.model, average)
        if self.validation is not None:
            began = time.perf_counter()
            score = self.evaluate()
            self.log.line(
                f"DIAGNOSTIC post_{self.config.averaging.apply} val_loss:{score.loss:.4f} "
                f"val_bpb:{score.bpb:.4f} eval_time:{1000 * (time.perf_counter() - began):.0f}ms"
            )

    def evaluate(self) -> Score:
        """Standard evaluation of the current weights."""
        assert self._evaluation is not None, "the trainer was made without a validation stream"
        return standard(self._evaluation)

    def _validate(self) -> None:
        score = self.evaluate()
        average = 1000 * self.elapsed / max(self.step, 1)
        self.log.line(
            f"step:{self.step}/{self.config.schedule.iterations} val_loss:{score.loss:.4f} "
            f"val_bpb:{score.bpb:.4f} train_time:{1000 * self.elapsed:.0f}ms step_avg:{average:.2f}ms"
        )
        self.log.event(
            "val", step=self.step, loss=score.loss, bpb=score.bpb, scored_tokens=score.tokens, scored_bytes=score.bytes
        )
        self.model.train()

    def _log_step(self, record: StepRecord) -> None:
        loss = float(self.ranks.sum_(record.loss.clone())) / self.ranks.world
        iterations, average = self.config.schedule.iterations, self.elapsed / max(self.step, 1)
        self.log.line(
            f"step:{self.step}/{iterations} train_loss:{loss:.4f} train_time:{1000 * self.elapsed:.0f}ms "
            f"step_avg:{1000 * average:.2f}ms"
        )
        rate = self.config.data.batch_tokens / max(average, 1e-9)
        peak = peak_tflops(self.config.run.peak_tflops) * 1e12 * self.ranks.world
        flops = 3 * self.model.flops_per_token(self.config.data.seq_len) * rate
        mfu = flops / peak if peak else 0.0
        optim = self.config.optim
        rates = {"tok": optim.tok_lr, "matrix": optim.matrix_lr, "scalar": optim.scalar_lr}
        # `step` is the number of the update, from 0, as in the `scale` events that a replay reads.
        self.log.event(
            "step",
            step=record.step,
            loss=loss,
            scale=record.scale,
            momentum=record.momentum,
            lr={key: value * record.scale for key, value in rates.items()},
            grad_norm=float(record.grad_norm),
            seconds=self.elapsed,
            tokens_per_second=rate,
            mfu=mfu,
        )
        left = min((iterations - self.step) * average, self.schedule.budget - self.elapsed)
        self.log.progress(progress_text(self.step, iterations, loss, rate, mfu, left))

    def _save_if_due(self) -> None:
        every = self.config.schedule.checkpoint_every
        if self.checkpoint_path is not None and every > 0 and self.step % every == 0:
            checkpoint.save(self.checkpoint_path, self)

    def _log_memory(self) -> None:
        if self.ranks.device.type != "cuda":
            return
        allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        self.log.line(f"peak memory allocated: {allocated >> 20} MiB reserved: {reserved >> 20} MiB")
