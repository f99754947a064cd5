"""Writes down what the submission does with tokens: scores, gradients, updates, forward passes, files, prints.

The recorder sees every torch function through the stand-in's mode. Which positions a tensor of targets holds follows
from the watermark (two neighbouring ids tell split and position), so no co-operation of the code is needed.

Events are plain dictionaries, numbered in the order in which they happened; arrays are packed by `channel`.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

_HERE = __file__.rsplit("/", 1)[0]
UNKNOWN = -1


class Places:
    """Places token ids by their neighbours, using the table of the watermark (see `auditor.dynamic.watermark`)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.size = table.shape[0]

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Place (split code * 2^24 + position) of every id of a flat array of concatenated runs; UNKNOWN if foreign.

        An id is placed by its left neighbour or by its right one. Where both speak and differ (the seam of two rows
        that happens to look like a pair), the side whose own neighbour agrees is believed.
        """
        ids = ids.reshape(-1).astype(np.int64)
        if len(ids) < 2:
            return np.full(len(ids), UNKNOWN, dtype=np.int64)
        valid = (ids >= 0) & (ids < self.size)
        safe = np.where(valid, ids, 0)
        pair = np.where(valid[:-1] & valid[1:], self.table[safe[:-1], safe[1:]], UNKNOWN).astype(np.int64)
        left = np.concatenate([[UNKNOWN], pair])
        right = np.concatenate([np.where(pair == UNKNOWN, UNKNOWN, pair - 1), [UNKNOWN]])
        agreed = np.where(left == UNKNOWN, right, left)
        torn = (left != UNKNOWN) & (right != UNKNOWN) & (left != right)
        for index in np.flatnonzero(torn):
            follows = index >= 2 and pair[index - 2] == left[index] - 1
            agreed[index] = left[index] if follows else right[index]
        return agreed


class Recorder:
    """Observes one process. `emit` receives every event."""

    def __init__(self, places: Places, vocab_size: int, emit: Callable[[dict], None]) -> None:
        self.places = places
        self.vocab_size = vocab_size
        self.emit = emit
        self.count = 0
        self.start = time.perf_counter()
        self.pending: list[tuple[int, np.ndarray]] = []
        self.stepped = False
        self.busy = False
        self.probabilities: dict[int, weakref.ref] = {}  # tensors compare elementwise, so no WeakSet
        self.modules: weakref.WeakSet = weakref.WeakSet()
        self.last_norms: dict[int, float] = {}

    # -- hooks -----------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Attach to optimizers, modules and backward passes."""
        register_optimizer_step_post_hook(lambda *args: self._step(args[0]))
        recorder = self
        module_init = torch.nn.Module.__init__

        def init(module: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
            module_init(module, *args, **kwargs)
            recorder.modules.add(module)

        torch.nn.Module.__init__ = init
        backward = torch.autograd.backward

        def noted(*args: Any, **kwargs: Any) -> Any:
            if recorder.stepped:
                recorder.pending, recorder.stepped = [], False
            return backward(*args, **kwargs)

        torch.autograd.backward = noted

    def observe(self, func: Callable, args: tuple, kwargs: dict, result: Any) -> None:
        """Called after every torch function with what went in and what came out."""
        if self.busy:
            return
        handler = _HANDLERS.get(getattr(func, "__name__", ""))
        if handler is None:
            return
        self.busy = True
        try:
            handler(self, args, kwargs, result)
        finally:
            self.busy = False

    def event(self, kind: str, **fields: Any) -> int:
        """Emit an event and return its number."""
        self.count += 1
        self.emit({"n": self.count, "kind": kind, "t": time.perf_counter() - self.start, "line": _line(), **fields})
        return self.count

    # -- scores ----------------------------------------------------------------------------------------------------

    def cross_entropy(self, args: tuple, kwargs: dict, result: Any) -> None:
        logits, target = args[0], kwargs.get("target", args[1] if len(args) > 1 else None)
        if target is None or target.is_floating_point() or logits.shape[-1 if logits.dim() < 3 else 1] < 2:
            return
        reduction = kwargs.get("reduction", "mean")
        flat = target.reshape(-1)
        if reduction == "none":
            losses = result.detach().reshape(-1)
        else:
            with torch.no_grad():
                losses = torch.nn.functional.cross_entropy(
                    logits.detach(), target, reduction="none", ignore_index=kwargs.get("ignore_index", -100)
                ).reshape(-1)
        self._scored(flat, losses, result)

    def nll_loss(self, args: tuple, kwargs: dict, result: Any) -> None:
        logp, target = args[0], args[1] if len(args) > 1 else kwargs["target"]
        if logp.dim() == 2:
            losses = -logp.detach().gather(1, target.clamp_min(0).reshape(-1, 1)).reshape(-1)
            self._scored(target.reshape(-1), losses, result)

    def gather(self, args: tuple, kwargs: dict, result: Any) -> None:
        """log_softmax or softmax gathered at the targets, or logits of which a logsumexp is subtracted later."""
        source = args[0]
        index = kwargs.get("index", args[2] if len(args) > 2 else None)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        if index is None or not source.is_floating_point() or source.shape[dim] != self.vocab_size or index.dim() < 1:
            return
        if index.shape[dim] != 1:
            return
        known = self.probabilities.get(id(source))
        if known is not None and known() is source:
            losses = -result.detach().float().clamp_min(1e-45).log()
        else:
            losses = torch.logsumexp(source.detach().float(), dim, keepdim=True) - result.detach().float()
        self._scored(index.reshape(-1), losses.reshape(-1), result)

    def softmax(self, args: tuple, kwargs: dict, result: Any) -> None:
        if isinstance(result, torch.Tensor) and result.shape[-1:] == (self.vocab_size,):
            self.probabilities[id(result)] = weakref.ref(result)

    def _scored(self, target: torch.Tensor, losses: torch.Tensor, result: torch.Tensor) -> None:
        places = self.places.of(target.detach().cpu().numpy())
        if not (places != UNKNOWN).any():
            return
        self._written()
        number = self.event(
            "score",
            places=places.astype(np.int32),
            losses=losses.detach().float().cpu().numpy(),
            grad=bool(result.requires_grad),
        )
        if result.requires_grad:
            per_token = result.numel() == len(places)

            def used(gradient: torch.Tensor) -> None:
                seen = gradient.detach().reshape(-1).cpu().numpy() != 0 if per_token else np.ones(len(places), bool)
                if seen.any():
                    self.pending.append((number, places[seen]))

            result.register_hook(used)

    # -- state -----------------------------------------------------------------------------------------------------

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        self.stepped = True
        places = np.concatenate([seen for _, seen in self.pending]) if self.pending else np.empty(0, np.int64)
        size = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        self.event(
            "update",
            via=type(optimizer).__name__,
            size=size,
            places=np.unique(places).astype(np.int32),
            of=sorted({number for number, _ in self.pending}),
        )
        self._norms(changed_by_step=True)

    def _written(self) -> None:
        """A parameter that changed without an optimizer's step was written by hand (or loaded)."""
        changed = self._norms(changed_by_step=False)
        if changed:
            self.event("write", parameters=changed)

    def _norms(self, changed_by_step: bool) -> int:
        parameters = [
            p
            for module in list(self.modules)
            for p in module.__dict__.get("_parameters", {}).values()
            if p is not None and p.numel()
        ]
        if not parameters:
            return 0
        with torch.no_grad():
            norms = torch.stack(
                [norm.double() for norm in torch._foreach_norm([p.detach().float() for p in parameters])]
            )
        new = {id(p): value for p, value in zip(parameters, norms.tolist(), strict=True)}
        changed = sum(self.last_norms.get(key, value) != value for key, value in new.items())
        self.last_norms = new
        return 0 if changed_by_step else changed


_HANDLERS: dict[str, Callable[[Recorder, tuple, dict, Any], None]] = {
    "cross_entropy": Recorder.cross_entropy,
    "nll_loss": Recorder.nll_loss,
    "gather": Recorder.gather,
    "take_along_dim": Recorder.gather,
    "softmax": Recorder.softmax,
}


def _line() -> int:
    """Line of the submission that is running: the innermost frame outside torch and this package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_HERE, "<frozen")) and "/torch/" not in name and "/torch_" not in name:
            return frame.f_lineno
        frame = frame.f_back
    return 0
