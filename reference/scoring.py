"""The one scoring kernel and the one bookkeeping used by every evaluation.

Losses are nats in fp32 for each token, summed in float64; tokens and bytes are exact integers. Each position counts
once: a repeated, missing or foreign position is an error (the legacy tail may repeat some; these are reported).
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reference.errors import ScoringError
from reference.model import GPT
from reference.ranks import Ranks
from reference.runlog import Meter
from reference.validation import ValidationStream, bits_per_byte
from reference.windows import Windows, merged_ranges


@dataclass(frozen=True)
class Score:
    """Result of one evaluation.

    Attributes:
        nats: summed negative log-likelihood.
        tokens: targets counted, repeats included.
        bytes: bytes of these targets.
        repeats: targets counted more than once (0 unless the legacy tail is used).
        losses: fp32 `[N]` loss of each position on the host, NaN where this rank scored none; only when asked for.
    """

    nats: float
    tokens: int
    bytes: int
    repeats: int = 0
    losses: Tensor | None = None

    @property
    def loss(self) -> float:
        """Mean loss in nats per token."""
        return self.nats / self.tokens if self.tokens else float("nan")

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return bits_per_byte(self.nats, self.bytes)


class Coverage:
    """Set of scored positions as sorted, disjoint, merged half-open ranges."""

    def __init__(self, positions: int, *, allow_repeats: bool = False) -> None:
        self.positions, self.allow_repeats = positions, allow_repeats
        self.ranges: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        """Adds a range.

        Raises:
            ScoringError: it leaves the stream, or overlaps what is there already and repeats are not allowed.
        """
        if not 0 <= begin < end <= self.positions:
            raise ScoringError(f"positions {begin}..{end - 1} are outside the stream of {self.positions}")
        left = bisect.bisect_left(self.ranges, begin, key=lambda r: r[1])
        right = bisect.bisect_right(self.ranges, end, key=lambda r: r[0])
        touching = self.ranges[left:right]
        for a, b in touching:
            if max(a, begin) < min(b, end) and not self.allow_repeats:
                raise ScoringError(f"positions {max(a, begin)}..{min(b, end) - 1} would be scored twice")
        joined = (min([begin, *(a for a, _ in touching)]), max([end, *(b for _, b in touching)]))
        self.ranges[left:right] = [joined]

    def check_complete(self) -> None:
        """Raises `ScoringError` unless every position is covered."""
        if self.ranges != [(0, self.positions)]:
            missing = next((b for _, b in self.ranges if b < self.positions), 0)
            missing = 0 if not self.ranges or self.ranges[0][0] > 0 else missing
            raise ScoringError(f"position {missing} of {self.positions} was never scored")


class Accumulator:
    """Sums of one evaluation on one rank."""

    def __init__(
        self, stream: ValidationStream, device: torch.device, *, allow_repeats: bool = False, keep_losses: bool = False
    ) -> None:
        self.stream = stream
        self.coverage = Coverage(stream.positions, allow_repeats=allow_repeats)
        self.nats = torch.zeros((), dtype=torch.float64, device=device)
        self.tokens = self.bytes = 0
        self.losses = torch.full((stream.positions,), float("nan")) if keep_losses else None

    def add(self, windows: Windows, losses_BC: Tensor) -> None:
        """Takes in the losses of the scored columns of some windows (`losses_BC[i]` are positions `firsts[i]..`)."""
        order = np.argsort(windows.firsts, kind="stable")
        firsts, ends = windows.firsts[order], windows.ends[order]
        if not self.coverage.allow_repeats and bool(np.any(firsts[1:] < ends[:-1])):
            raise ScoringError("two windows of one batch score the same position")
        for begin, end in merged_ranges(firsts, ends):
            self.coverage.add(begin, end)
        self.nats += losses_BC.double().sum()
        self.tokens += losses_BC.numel()
        self.bytes += self.stream.span_bytes(firsts, ends)
        if self.losses is not None:
            for row, first, end in zip(losses_BC.float().cpu(), windows.firsts, windows.ends, strict=True):
                self.losses[first:end] = row

    def running(self, ranks: Ranks) -> Score:
        """Sums of all ranks so far; every rank must call it."""
        nats = ranks.sum_(self.nats.clone())
        counts = ranks.sum_(torch.tensor([self.tokens, self.bytes], device=self.nats.device))
        return Score(float(nats), int(counts[0]), int(counts[1]))

    def finish(self, ranks: Ranks) -> Score:
        """Sums of all ranks, once every position is known to be scored exactly once.

        Raises:
            ScoringError: a position is missing or was scored on two ranks.
        """
        whole = Coverage(self.stream.positions, allow_repeats=self.coverage.allow_repeats)
        for ranges in ranks.gather_objects(self.coverage.ranges):
            for begin, end in ranges:
                whole.add(begin, end)
        whole.check_complete()
        sums = self.running(ranks)
        return Score(sums.nats, sums.tokens, sums.bytes, sums.tokens - self.stream.positions, self.losses)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What a later process needs to go on: plain values and tensors."""
        meta = {"tokens": self.tokens, "bytes": self.bytes, "ranges": [list(r) for r in self.coverage.ranges]}
        tensors = {"nats": self.nats.cpu()}
        if self.losses is not None:
            tensors["losses"] = self.losses
        return meta, tensors

    def restore(self, meta: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        self.tokens, self.bytes = int(meta["tokens"]), int(meta["bytes"])
        self.coverage.ranges = [(int(a), int(b)) for a, b in meta["ranges"]]
        self.nats.copy_(tensors["nats"])
        if self.losses is not None:
            self.losses.copy_(tensors["losses"])


CPU_BATCH_TOKENS = 1024
"""On a CPU the activations of a batch should stay in its caches: 1.3 times as fast as batches of 16,384 tokens."""


class Scorer:
    """Scores windows of a validation stream that lives on the device; no loop over windows, no waiting for results.

    A window shorter than `row_length` (the legacy tail has some) is filled up on the right, as the seeds do: nothing
    looks ahead, but the rotary base of NTK and YaRN depends on the length of the row.
    """

    def __init__(
        self,
        model: GPT,
        stream: ValidationStream,
        device: torch.device,
        *,
        row_length: int = 0,
    ) -> None:
        self.model, self.stream, self.device, self.row_length = model, stream, device, row_length
        # Two bytes a token on the device: the bit pattern of uint16 as int16, which torch can index everywhere.
        self.tokens = torch.from_numpy(stream.tokens.view(np.int16)).to(device)
        self.eager: Callable[[Tensor, Tensor], Tensor] = model.token_losses
        self.compiled: Callable[[Tensor, Tensor], Tensor] | None = None

    def gather(self, starts: np.ndarray | Tensor, length: int) -> Tensor:
        """Tokens `starts[i] .. starts[i]+length-1` as int64 `[len(starts), length]`."""
        begins = torch.as_tensor(starts, device=self.device)
        index = begins[:, None] + torch.arange(length, device=self.device)
        return self.tokens[index].long() & 0xFFFF

    def score(self, windows: Windows, accumulator: Accumulator, batch_tokens: int, meter: Meter | None = None) -> None:
        """Scores windows in batches and adds them up; changes nothing but the accumulator (and the progress shown)."""
        if self.device.type == "cpu":
            batch_tokens = min(batch_tokens, CPU_BATCH_TOKENS)
        was_training = self.model.training
        self.model.eval()
        with torch.inference_mode():
            for batch in windows.batches(batch_tokens):
                accumulator.add(batch, self.losses(batch, batch_tokens))
                if meter is not None:
                    meter.add(len(batch))
        self.model.train(was_training)

    def losses(self, batch: Windows, batch_tokens: int) -> Tensor:
        """Losses of the scored columns of windows of one shape, fp32 `[B, C]`."""
        length = int(batch.ends[0] - batch.starts[0])
        columns = int(batch.ends[0] - batch.firsts[0])
        filling = max(self.row_length - length, 0)
        self.model.prepare(length + filling)
        inputs = F.pad(self.gather(batch.starts, length), (0, filling))
        targets = F.pad(self.gather(batch.firsts + 1, columns), (0, filling))
        if self.compiled is None or len(batch) == 1 or filling:
            return self.eager(inputs, targets)[:, :columns]
        # One compiled shape serves all batches: a short batch is filled up with copies whose losses are dropped.
        missing = max(batch_tokens // length, 1) - len(batch)
        if missing > 0:
            inputs = torch.cat((inputs, inputs[:1].expand(missing, -1)))
            targets = torch.cat((targets, targets[:1].expand(missing, -1)))
        return self.compiled(inputs, targets)[: len(batch)]
