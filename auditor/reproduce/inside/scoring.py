"""Trusted scoring in place: the program builds its model from the artifact, the reference evaluator takes the losses.

When the artifact has been read back, the first call of a model is held up; the model is scored by the reference's loop
over the whole stream (`reference.scoring`), then the program goes on as if nothing had happened. The model only maps
tokens to logits: where its interface wants targets it gets zeros, and the softmax is ours.

The loop shares a process with the program, so a program written against it could forge the answer; the answer is
compared with what was printed, it does not replace a look at the code.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_TEXT = (".log", ".txt", ".json", ".py", ".md", ".csv", ".tsv", ".pyc", ".jsonl")
_PROBES = 4


class DoesNotFit(RuntimeError):
    """The model's interface is none of those known; the message says what it looks like."""


class Capture:
    """Waits for the artifact to be read back and for the first model call after that.

    Request: `report` (file to write), `shards`, `tokenizer`, `vocab_size`, `byte_vocab`, `strides` (windows to try
    besides whole rows), `artifact` (file to put in the place of the program's own, or ""), `batch_tokens`, `stop`
    (end the program once its model is scored).
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.report: dict[str, Any] = {"status": "not scored", "reason": "the artifact was not read back"}
        self.written: set[str] = set()
        self.read_back = ""
        self.done = self.busy = False
        self.updates = 0
        self.root: nn.Module | None = None
        self.prints = 0.0
        self.swapped = False

    def install(self) -> None:
        """Put the hooks up."""
        sys.addaudithook(self._opened)
        real = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.read_back and not self.done and not self.busy:
                self._consider(module, args, kwargs)
            return real(module, *args, **kwargs)

        nn.Module.__call__ = call
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(self._stepped)

    def conclude(self, failed: bool) -> None:
        """Write the report."""
        self.report["updates_after_load"] = self.updates
        self.report["swapped"] = self.swapped
        if self.root is not None:
            self.report["parameters_changed"] = _fingerprint(self.root) != self.prints
        self.report["artifact"] = self.read_back
        if failed and self.report["status"] == "not scored" and not self.read_back:
            self.report["reason"] = "the program failed before it read an artifact back"
        with builtins.open(self.request["report"], "w", encoding="utf-8") as file:
            json.dump(self.report, file)

    def _opened(self, name: str, arguments: tuple) -> None:
        if name != "open" or self.busy or not isinstance(arguments[0], str | bytes):
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(("/scratch/", os.getcwd() + "/")) or path.endswith(_TEXT):
            return
        mode, flags = arguments[1], arguments[2]
        writing = bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else "w" in (mode or "")
        if writing:
            self.written.add(path)
        elif os.path.exists(path) and (path in self.written or not self._mine()):
            self._swap(path)
            self.read_back = os.path.relpath(path)

    def _mine(self) -> bool:
        """Whether this rank is the one that writes; the others read what it wrote."""
        return os.environ.get("RANK", "0") == "0"

    def _swap(self, path: str) -> None:
        if self.request.get("artifact") and not self.done and self._mine():
            self.busy = True
            with contextlib.suppress(OSError):
                shutil.copyfile(self.request["artifact"], path)
                self.swapped = True
            self.busy = False

    def _stepped(self, *_: Any) -> None:
        self.updates += bool(self.read_back and not self.busy)

    def _consider(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and self.updates:
            return
        root = _root(module)
        ids = next((value for value in (*args, *kwargs.values()) if _is_ids(value)), None)
        if ids is None:
            return
        self.busy = True
        state, begun = torch.get_rng_state(), time.monotonic()
        try:
            self.report = score(root, tuple(ids.shape), args if module is root else None, self.request)
            self.done, self.root, self.prints = True, root, _fingerprint(root)
        except DoesNotFit as error:
            self.report = {"status": "does not fit", "reason": str(error)}
        except Exception as error:  # whatever the submission's model raises must not stop its own run
            self.report = {"status": "failed", "reason": f"{type(error).__name__}: {str(error)[:400]}"}
            self.done = True
        finally:
            torch.set_rng_state(state)
            self.busy = False
        self.report["seconds"] = round(time.monotonic() - begun, 2)
        if self.done and self.request.get("stop"):
            self.conclude(failed=False)
            os._exit(0)


def _fingerprint(root: nn.Module) -> float:
    """Changes with any parameter; a sum in a fixed order, so that the same values give the same number."""
    with torch.no_grad():
        return sum(float((p.double() * (i + 1)).abs().sum()) for i, p in enumerate(root.parameters()))


def _is_ids(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() in (1, 2) and value.dtype in (torch.int64, torch.int32)


def _root(module: nn.Module) -> nn.Module:
    """Outermost module on the stack: a method like `forward_logits` calls the parts of its model, not the model."""
    root, frame = module, sys._getframe(2)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            root = owner
        frame = frame.f_back
    return root


def score(root: nn.Module, shape: tuple[int, ...], args: tuple | None, request: dict[str, Any]) -> dict[str, Any]:
    """Score a model over the whole stream in every arrangement of windows asked for.

    Args:
        shape: of the ids of the program's own first call; its last entry is the context length.
        args: positional arguments of that call, None when another method was called.

    Raises:
        DoesNotFit: no adapter fits the model's interface.
    """
    from reference.ranks import Ranks
    from reference.scoring import Accumulator, Scorer
    from reference.validation import ValidationStream
    from reference.windows import rows, sliding

    length = int(shape[-1])
    device = next(root.parameters()).device
    stream = ValidationStream.open(Path(request["shards"]), "fineweb_val_*.bin", _tables(request), length)
    adapter = Adapter(root, stream, length, args)
    scorer = Scorer(adapter, stream, device)
    plans = {f"rows of {length}": rows(stream.positions, length)}
    for stride in request["strides"]:
        if 0 < stride < length:
            for tail in ("exact", "legacy_dup"):
                plans[f"windows of {length}, stride {stride}, tail {tail}"] = sliding(
                    stream.positions, length, stride, tail
                )
    found = []
    with _steady(root):
        for name, plan in plans.items():
            sums = Accumulator(stream, device, allow_repeats="legacy" in name)
            scorer.score(plan, sums, request["batch_tokens"])
            total = sums.finish(Ranks())
            found.append(
                {"windows": name, "bpb": total.bpb, "loss": total.loss, "tokens": total.tokens, "bytes": total.bytes}
            )
        probe = causality(adapter, stream, length, device)
    return {
        "status": "scored",
        "adapter": adapter.name,
        "scores": found,
        "causality": probe,
        "parameters": sum(p.numel() for p in root.parameters()),
        "positions": stream.positions,
    }


def _tables(request: dict[str, Any]) -> Any:
    from reference.tokenizer import ByteTokenizer, SentencePieceTokenizer

    if request["byte_vocab"]:
        return ByteTokenizer().tables
    return SentencePieceTokenizer(Path(request["tokenizer"])).tables


@contextlib.contextmanager
def _steady(root: nn.Module) -> Iterator[None]:
    """Evaluation mode and unchanged parameters and buffers, whatever the model does when it is called."""
    was = root.training
    kept = {name: value.detach().clone() for name, value in root.state_dict().items()}
    root.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in root.state_dict().items():
                if name in kept and value.shape == kept[name].shape:
                    value.copy_(kept[name])
        root.train(was)


class Adapter:
    """A submission's model behind the interface of the reference's scorer; targets stay on this side.

    `name` says which interface was found.

    Raises:
        DoesNotFit: none of the known interfaces gives logits of shape (batch, tokens, vocabulary).
    """

    def __init__(self, root: nn.Module, stream: Any, length: int, args: tuple | None) -> None:
        self.root, self.training = root, False
        ids = torch.from_numpy(stream.tokens[:length].astype(np.int64))[None].to(next(root.parameters()).device)
        tried = []
        for name, logits in self._interfaces():
            try:
                with torch.no_grad():
                    made = logits(ids)
            except Exception as error:
                tried.append(f"{name}: {type(error).__name__}: {str(error)[:120]}")
                continue
            if isinstance(made, torch.Tensor) and made.dim() == 3 and made.shape[:2] == ids.shape:
                self.name, self.logits = name, logits
                return
            shape = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
            tried.append(f"{name}: gives {shape}")
        raise DoesNotFit(f"{type(root).__name__} gives no logits; tried " + "; ".join(tried))

    def _interfaces(self) -> list[tuple[str, Any]]:
        root = self.root
        found = []
        for method in ("forward_logits", "get_logits", "logits"):
            if callable(getattr(root, method, None)):
                found.append((f"{method}(ids)", getattr(root, method)))
        return [*found, ("model(ids)", self._plain), ("model(ids, targets), logits of its loss", self._of_loss)]

    def _plain(self, ids: torch.Tensor) -> Any:
        made = self.root(ids)
        return made[0] if isinstance(made, tuple | list) and made else made

    def _of_loss(self, ids: torch.Tensor) -> Any:
        """Logits that the model hands to its own cross entropy; the targets it is given are zeros."""
        caught: list[torch.Tensor] = []
        real = F.cross_entropy

        def cross_entropy(logits: torch.Tensor, target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            caught.append(logits.detach())
            return real(logits, target, *args, **kwargs)

        F.cross_entropy = cross_entropy
        try:
            self.root(ids, torch.zeros_like(ids))
        finally:
            F.cross_entropy = real
        fitting = [item for item in caught if item.numel() % ids.numel() == 0 and item.shape[-1] > 1]
        if not fitting:
            raise DoesNotFit("its loss is not taken by torch.nn.functional.cross_entropy")
        return fitting[0].reshape(*ids.shape, -1)

    def token_losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Nats of the targets, fp32 `[B, C]`: the last C columns of the inputs predict them."""
        logits = self.logits(inputs)[:, -targets.shape[1] :].float()
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none").view(
            targets.shape
        )

    def prepare(self, length: int) -> None:
        """Nothing to prepare: the model looks after its own tables."""

    def eval(self) -> None:
        """Mode is set once by the caller."""

    def train(self, mode: bool = True) -> None:
        """Mode is restored once by the caller."""


def causality(adapter: Adapter, stream: Any, length: int, device: torch.device) -> dict[str, Any]:
    """Largest change of a logit before a position when the tokens from there on are others."""
    worst, where = 0.0, -1
    rng = np.random.default_rng(0)
    vocabulary = int(stream.tokens.max()) + 1
    with torch.no_grad():
        for start in rng.integers(0, max(stream.positions - length, 1), _PROBES):
            ids = torch.from_numpy(stream.tokens[start : start + length].astype(np.int64))[None].to(device)
            cut = int(rng.integers(1, length))
            changed = ids.clone()
            changed[:, cut:] = (changed[:, cut:] + 1 + int(rng.integers(0, vocabulary - 1))) % vocabulary
            moved = (adapter.logits(ids)[:, :cut] - adapter.logits(changed)[:, :cut]).abs().max().item()
            if moved > worst:
                worst, where = moved, int(start) + cut
    return {"largest_change": worst, "position": where, "probes": _PROBES}
