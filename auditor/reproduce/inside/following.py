"""The program's own evaluation, taken down and then repeated by a loop of ours: who scores and who trains on what, when.

While the program evaluates, only the order of its steps is kept: which rows of the stream its model read without
gradients, which rows it trained on, with which optimiser, learning rate and clipping. Afterwards the loop repeats that
order from the weights as they were loaded: it takes tokens and targets from the stream, every loss from its own softmax,
counts each position when it is scored for the first time, and makes an update only on rows that are scored already. The
hyper-parameters are the submission's, the order and the losses are not left to it.
"""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from auditor.reproduce.inside.adapter import Adapter, device_of, losses, restore, snapshot

_MAX_ROWS = 2_000_000
_BATCH_TOKENS = 8192
_OPTIMISERS = (torch.optim.SGD, torch.optim.AdamW, torch.optim.Adam, torch.optim.RMSprop)


@dataclass
class Scored:
    """Rows read without gradients: first positions, tokens that are the stream's, length as called."""

    starts: np.ndarray
    valid: np.ndarray
    length: int


@dataclass
class Trained:
    """One optimiser step: rows with gradients since the last one, learning rates by group, norm it was clipped to.

    `clipped`: parameters whose gradients make up that norm; more than the optimiser has when only part is trained.
    """

    rows: list[Scored]
    optimiser: int
    rates: list[dict[str, Any]]
    clip: float
    clipped: frozenset[str]
    training: bool
    weights: list[float] = field(default_factory=list)

    def shares(self) -> list[float]:
        """Weight of each group of rows in its rank's loss: means of micro-batches are averaged."""
        return self.weights or [1.0 / max(len(self.rows), 1)] * len(self.rows)


@dataclass
class Pass:
    """One way through the stream by one model: what was done in order, and the weights it began with.

    `weights` is None where these came out of the updates of the pass before.
    """

    steps: list[Scored | Trained] = field(default_factory=list)
    weights: dict[str, torch.Tensor] | None = None

    @property
    def updates(self) -> int:
        """Optimiser steps of the pass."""
        return sum(isinstance(step, Trained) for step in self.steps)


class Locator:
    """Finds rows of ids in the stream; the next row is looked for near the last ones first."""

    def __init__(self, tokens: np.ndarray) -> None:
        self.tokens = np.ascontiguousarray(tokens)
        self.bytes = self.tokens.tobytes()
        self.near: Counter[int] = Counter()
        self.last = 0

    def find(self, row: np.ndarray) -> tuple[int, int]:
        """(position of the first id, ids that agree with the stream from there); (-1, 0) when it is not in the stream."""
        if row.min() < 0 or row.max() > 0xFFFF:
            return -1, 0
        row = row.astype(np.uint16)
        head = row[: min(len(row), 24)]
        for delta, _ in self.near.most_common(4):
            if self._at(self.last + delta, head):
                return self._found(self.last + delta, row)
        for size in (len(head), min(len(head), 4)):
            start = self._search(head[:size])
            if start >= 0:
                return self._found(start, row)
        return -1, 0

    def _at(self, start: int, head: np.ndarray) -> bool:
        return 0 <= start <= len(self.tokens) - len(head) and np.array_equal(
            self.tokens[start : start + len(head)], head
        )

    def _search(self, head: np.ndarray) -> int:
        wanted, at = head.tobytes(), -2
        while True:
            at = self.bytes.find(wanted, at + 2 if at >= 0 and at % 2 == 0 else at + 1 if at >= 0 else 0)
            if at < 0 or at % 2 == 0:
                return at // 2 if at >= 0 else -1

    def _found(self, start: int, row: np.ndarray) -> tuple[int, int]:
        self.near[start - self.last] += 1
        self.last = start
        there = self.tokens[start : start + len(row)]
        differs = np.flatnonzero(there != row[: len(there)])
        return start, int(differs[0]) if differs.size else len(there)


class Follower:
    """Takes down what a program does with one model after it was loaded."""

    def __init__(self, root: nn.Module, adapter: Adapter, stream: Any, reads: int) -> None:
        self.root, self.adapter, self.stream, self.reads = root, adapter, stream, reads
        self.locator = Locator(stream.tokens)
        self.kept = snapshot(root)
        self.mine = {id(value) for value in root.parameters()}
        self.passes: list[Pass] = []
        self.pending: list[Scored] = []
        self.optimisers: list[torch.optim.Optimizer] = []
        self.clip, self.clip_names = 0.0, frozenset[str]()
        self.rows = self.foreign = 0
        self.reached = -1
        self.obstacle = ""

    def entry_of(self, length: int) -> nn.Module:
        """The part of the model that is handed the ids, whichever of its methods is called; itself when no part is."""
        ids = torch.from_numpy(self.stream.tokens[:length].astype(np.int64))[None].to(device_of(self.root))
        met: list[nn.Module] = []
        real = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if any(isinstance(value, torch.Tensor) and value.shape == ids.shape for value in args):
                met.extend([module] if any(_same(value, ids) for value in args) else [])
            return real(module, *args, **kwargs)

        nn.Module.__call__ = call
        try:
            with torch.no_grad():
                self.adapter.logits(ids)
        finally:
            nn.Module.__call__ = real
        return next((module for module in met if not list(module.children())), met[-1] if met else self.root)

    def read(self, ids: torch.Tensor, reads: int) -> None:
        """The model reads rows of ids; `reads`: artifacts read back so far."""
        if self.obstacle:
            return
        rows = ids.detach().cpu().numpy().reshape(-1, ids.shape[-1])
        self.rows += len(rows)
        if self.rows > _MAX_ROWS:
            self.obstacle = f"its evaluation reads more than {_MAX_ROWS:,} rows"
            return
        found = np.array([self.locator.find(row) for row in rows], dtype=np.int64)
        known = found[:, 0] >= 0
        self.foreign += int((~known).sum())
        if not known.any():
            return
        item = Scored(found[known, 0], found[known, 1], rows.shape[1])
        if torch.is_grad_enabled():
            self.pending.append(item)
            return
        first = int(item.starts.min())
        if not self.passes or (first == 0 and self.reached > 0):
            self.passes.append(Pass(weights=self._weights(reads)))
            self.reached = -1
        self.reached = max(self.reached, first)
        self.passes[-1].steps.append(item)

    def clipped(self, norm: Any, parameters: list[torch.Tensor]) -> None:
        """Gradients of some parameters are clipped to a norm."""
        ids = {id(value) for value in parameters if value.grad is not None}
        self.clip = float(norm)
        self.clip_names = frozenset(name for name, value in self.root.named_parameters() if id(value) in ids)

    def stepped(self, optimiser: torch.optim.Optimizer) -> None:
        """An optimiser is about to step."""
        rows, self.pending = self.pending, []
        clip, self.clip = self.clip, 0.0
        if self.obstacle or not (self.passes or rows):
            return
        if not self.passes:
            self.passes.append(Pass(weights=self.kept))
        parameters = [value for group in optimiser.param_groups for value in group["params"]]
        if not all(id(value) in self.mine for value in parameters):
            self.obstacle = "what it trains during evaluation are adapters beside the model"
            return
        if type(optimiser) not in _OPTIMISERS:
            self.obstacle = f"it trains during evaluation with an optimiser of its own ({type(optimiser).__name__})"
            return
        number = next((i for i, known in enumerate(self.optimisers) if known is optimiser), len(self.optimisers))
        if number == len(self.optimisers):
            if optimiser.state:
                self.obstacle = "its optimiser brings a state from training"
                return
            self.optimisers.append(optimiser)
        rates = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
        self.passes[-1].steps.append(Trained(rows, number, rates, clip, self.clip_names, self.root.training))

    def _weights(self, reads: int) -> dict[str, torch.Tensor] | None:
        """Weights that a pass begins with, None where they are what came before made them.

        Others than those first loaded are believed only when a file was read in between: what else changes weights is an
        update, and updates are to be repeated, not taken over.
        """
        fresh, self.reads = reads > self.reads, reads
        last = next((item.weights for item in reversed(self.passes) if item.weights is not None), self.kept)
        with torch.no_grad():
            for weights in (self.kept, last):
                if all(torch.equal(value, weights[name]) for name, value in self.root.named_parameters()):
                    return weights
        return snapshot(self.root) if fresh else None

    def share(self) -> dict[str, Any]:
        """What this rank saw, for the rank that repeats it."""
        steps = [
            [(step, None) if isinstance(step, Scored) else (step.rows, step) for step in p.steps] for p in self.passes
        ]
        return {"passes": steps, "obstacle": self.obstacle}

    def merge(self, other: dict[str, Any]) -> None:
        """Put the rows of another rank beside this rank's: between two updates the order of ranks does not matter."""
        self.obstacle = self.obstacle or other["obstacle"]
        for mine, theirs in zip(self.passes, other["passes"], strict=False):
            mine.steps = _joined(mine.steps, theirs)


def _joined(mine: list[Scored | Trained], theirs: list[tuple[Any, Any]]) -> list[Scored | Trained]:
    """Steps of two ranks as one sequence: reads before the n-th update of both, then that update on the rows of both."""
    joined: list[Scored | Trained] = []
    reads: list[Scored] = []
    rest = iter(theirs)
    for step in [*mine, None]:
        if isinstance(step, Scored):
            reads.append(step)
            continue
        for item, update in rest:
            if update is not None:
                if step is not None:
                    step.weights = [*step.shares(), *update.shares()]
                    step.rows = [*step.rows, *item]
                break
            reads.append(item)
        joined += _in_order(reads)
        reads = []
        if step is not None:
            joined.append(step)
    return joined


def _in_order(reads: list[Scored]) -> list[Scored]:
    """Rows in the order of the stream, one step for every length: ranks take turns, which says nothing about order."""
    found = []
    for length in {item.length for item in reads}:
        same = [item for item in reads if item.length == length]
        starts, valid = np.concatenate([r.starts for r in same]), np.concatenate([r.valid for r in same])
        order = np.lexsort((starts, starts + valid))
        found.append(Scored(starts[order], valid[order], length))
    return sorted(found, key=lambda item: int(item.starts[0] + item.valid[0]))


class Replay:
    """Repeats what was taken down, from the weights as loaded. One score for every pass that covers the stream."""

    def __init__(self, follower: Follower, limit_seconds: float, ranks: int = 1) -> None:
        self.follower, self.until, self.ranks = follower, time.monotonic() + limit_seconds, ranks
        self.root, self.stream = follower.root, follower.stream
        self.device = device_of(self.root)
        self.tokens = torch.from_numpy(self.stream.tokens.astype(np.int64)).to(self.device)

    def run(self) -> list[dict[str, Any]]:
        """A report for every pass; the model is left as it was found."""
        now, was = snapshot(self.root), self.root.training
        flags = [(value, value.requires_grad) for value in self.root.parameters()]
        found = []
        try:
            for number, item in enumerate(self.follower.passes, 1):
                if item.weights is not None:
                    restore(self.root, item.weights)
                if time.monotonic() > self.until:
                    break
                made = self._pass(item)
                # Weights that earlier updates on the stream made are no longer those of the artifact.
                found.append({"pass": number, "fresh": item.weights is not None, **made})
        finally:
            restore(self.root, now)
            self.root.train(was)
            for value, flag in flags:
                value.requires_grad_(flag)
                value.grad = None
        return found

    def _pass(self, item: Pass) -> dict[str, Any]:
        sums = Sums(self.stream, _stride(item))
        made: dict[int, torch.optim.Optimizer] = {}
        late = done = 0
        for step in item.steps:
            if isinstance(step, Scored):
                self._score(step, sums)
            elif all(sums.covers(rows) for rows in step.rows):
                self._update(step, made)
                done += 1
            else:
                late += 1
        return {**sums.report(), "updates": done, "refused": late, "optimiser": _described(item, self.follower)}

    def _score(self, step: Scored, sums: Sums) -> None:
        self.root.eval()
        size = max(_BATCH_TOKENS // step.length, 1)
        for low in range(0, len(step.starts), size):
            part = Scored(step.starts[low : low + size], step.valid[low : low + size], step.length)
            inputs, targets = self._rows(part)
            with torch.no_grad():
                sums.add(part, losses(self.follower.adapter.logits(inputs), targets).double().cpu().numpy())

    def _rows(self, step: Scored) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and targets of rows; what a row holds beyond its place in the stream is filled with zeros."""
        index = torch.from_numpy(step.starts)[:, None] + torch.arange(step.length + 1)
        own = torch.arange(step.length + 1) <= torch.from_numpy(step.valid)[:, None]
        inside = own & (index < len(self.tokens))
        rows = self.tokens[index.clamp(max=len(self.tokens) - 1).to(self.device)] * inside.to(self.device)
        return rows[:, :-1], rows[:, 1:]

    def _update(self, step: Trained, made: dict[int, torch.optim.Optimizer]) -> None:
        theirs = self.follower.optimisers[step.optimiser]
        chosen = [value for group in theirs.param_groups for value in group["params"]]
        own = made.get(step.optimiser)
        if own is None:
            groups = [
                {"params": group["params"], **rates}
                for group, rates in zip(theirs.param_groups, step.rates, strict=True)
            ]
            own = made[step.optimiser] = type(theirs)(groups, **_settings(theirs))
        for group, rates in zip(own.param_groups, step.rates, strict=True):
            group.update(rates)
        self.root.train(step.training)
        ids = {id(value) for value in chosen}
        clipped = [value for name, value in self.root.named_parameters() if step.clip and name in step.clipped]
        for value in self.root.parameters():
            value.requires_grad_(id(value) in ids or any(value is other for other in clipped))
            value.grad = None
        for rows, share in zip(step.rows, step.shares(), strict=True):
            inputs, targets = self._rows(rows)
            with torch.enable_grad():
                loss = losses(self.follower.adapter.logits(inputs), targets).mean()
                (loss * share / self.ranks).backward()
        if step.clip:
            torch.nn.utils.clip_grad_norm_(clipped, step.clip)
        own.step()


def _settings(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Defaults of an optimiser as its class takes them; some keep more in their groups than they can be given."""
    taken = inspect.signature(type(optimiser)).parameters
    return {name: value for name, value in optimiser.defaults.items() if name in taken}


class Sums:
    """Losses by position: each when it is scored for the first time, and as sliding windows of old scripts count them.

    Those score the last `stride` positions of every window, so that windows which reach the end count some again.
    """

    def __init__(self, stream: Any, stride: int) -> None:
        self.stream, self.stride = stream, stride
        self.loss = np.full(stream.positions, np.nan)
        self.again = [0.0, 0, 0]

    def add(self, step: Scored, nats: np.ndarray) -> None:
        """Take in losses `[B, T]` of rows."""
        for start, valid, row in zip(step.starts, step.valid, nats, strict=True):
            end = min(int(start + valid), self.stream.positions)
            if end <= start:
                continue
            own = self.loss[start:end]
            fresh = np.isnan(own)
            whole = not self.stride or (start == 0 and fresh.all())
            own[fresh] = row[: end - start][fresh]
            first = int(start) if whole else max(int(start), end - self.stride)
            self.again[0] += float(row[first - start : end - start].sum())
            self.again[1] += end - first
            self.again[2] += int(self.stream.byte_ends[end] - self.stream.byte_ends[first])

    def covers(self, step: Scored) -> bool:
        """Whether every position that rows have targets for is scored."""
        ends = np.minimum(step.starts + step.valid, self.stream.positions)
        return all(not np.isnan(self.loss[a:b]).any() for a, b in zip(step.starts, ends, strict=True))

    def report(self) -> dict[str, Any]:
        """Scores of the positions that were read."""
        known = ~np.isnan(self.loss)
        count, size = int(known.sum()), int(np.diff(self.stream.byte_ends)[known].sum())
        nats = float(self.loss[known].sum())
        found = {"covered": count, "positions": self.stream.positions, "scores": []}
        if count:
            found["scores"].append(_score("each position once", nats, count, size))
        if self.stride and self.again[1] != count:
            found["scores"].append(_score(f"last {self.stride} of every window", *self.again))
        return found


def _score(name: str, nats: float, tokens: int, size: int) -> dict[str, Any]:
    bpb = nats / np.log(2) / size if size else float("nan")
    return {"windows": name, "bpb": float(bpb), "loss": nats / max(tokens, 1), "tokens": tokens, "bytes": size}


def _stride(item: Pass) -> int:
    """Commonest distance of neighbouring windows that overlap, 0 when none do."""
    reads = [step for step in item.steps if isinstance(step, Scored)]
    starts = np.sort(np.concatenate([step.starts for step in reads])) if reads else np.zeros(0, dtype=np.int64)
    gaps = Counter(int(gap) for gap in np.diff(starts) if gap > 0)
    stride = gaps.most_common(1)[0][0] if gaps else 0
    return stride if reads and 0 < stride < reads[0].length else 0


def _described(item: Pass, follower: Follower) -> str:
    steps = [step for step in item.steps if isinstance(step, Trained)]
    if not steps:
        return ""
    rates = [group["lr"] for step in steps for group in step.rates]
    name = type(follower.optimisers[steps[0].optimiser]).__name__
    chosen = sum(v.numel() for group in follower.optimisers[steps[0].optimiser].param_groups for v in group["params"])
    clip = f", clipped to {steps[0].clip:g}" if steps[0].clip else ""
    return f"{name}, {len(steps)} steps, rate {min(rates):.3g} to {max(rates):.3g}{clip}, {chosen:,} parameters"


def clipping(tell: Callable[[Any, list[torch.Tensor]], None]) -> None:
    """Tell of every call that clips gradients to a norm."""
    real = torch.nn.utils.clip_grad_norm_

    def clip(parameters: Any, max_norm: Any, *args: Any, **kwargs: Any) -> Any:
        parameters = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        tell(max_norm, parameters)
        return real(parameters, max_norm, *args, **kwargs)

    torch.nn.utils.clip_grad_norm_ = clip


def _same(value: Any, ids: torch.Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.shape == ids.shape
        and not value.is_floating_point()
        and bool(torch.equal(value.to(ids.dtype), ids))
    )
