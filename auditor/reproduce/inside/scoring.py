"""Trusted scoring in place: the program builds its model from the artifact, the reference evaluator takes the losses.

When the artifact has been read back, the first call of a model is held up; the model is scored by the reference's loop
over the whole stream (`reference.scoring`), then the program goes on as if nothing had happened. What it does then is
taken down and repeated at the end by a loop of ours (`auditor.reproduce.inside.following`). The model only maps tokens to
logits: where its interface wants targets it gets zeros, and the softmax is ours.

The loop shares a process with the program, so a program written against it could forge the answer; the answer is
compared with what was printed, it does not replace a look at the code.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import pickle
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from auditor.reproduce.inside.adapter import Adapter, DoesNotFit, causality, device_of, normalisation, steady
from auditor.reproduce.inside.following import Follower, Replay, clipping

_TEXT = (".log", ".txt", ".json", ".py", ".md", ".csv", ".tsv", ".pyc", ".jsonl")
_ROOTS = 3  # models followed: programs build a second one for another pass
_SHARED = ".trusted_rank_{rank}.pickle"
_REPLAY_SECONDS = 900.0


class Capture:
    """Waits for the artifact to be read back and for the first model call after that.

    Request: `report` (file to write), `shards`, `tokenizer`, `vocab_size`, `byte_vocab`, `strides` (windows to try
    besides whole rows), `artifact` (file to put in the place of the program's own, or ""), `batch_tokens`, `stop`
    (end the program once its model is scored), `follow` (repeat what the program does after that).
    """

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.rank, self.world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.report: dict[str, Any] = {"status": "not scored", "reason": "the artifact was not read back"}
        self.written: set[str] = set()
        self.read_back = ""
        self.reads = 0
        self.done = self.busy = False
        self.updates = 0
        self.root: nn.Module | None = None
        self.prints = 0.0
        self.swapped = False
        self.followers: dict[int, Follower] = {}
        self.entries: dict[int, Follower] = {}

    def install(self) -> None:
        """Put the hooks up."""
        sys.addaudithook(self._opened)
        real = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.read_back and not self.busy:
                follower = self.entries.get(id(module))
                if follower is not None:
                    self._follow(follower, args, kwargs)
                elif not self.done or len(self.followers) < _ROOTS:
                    self._consider(module, args, kwargs)
            return real(module, *args, **kwargs)

        nn.Module.__call__ = call
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        register_optimizer_step_post_hook(self._stepped)
        register_optimizer_step_pre_hook(self._about_to_step)
        clipping(self._clipped)

    def conclude(self, failed: bool) -> None:
        """Repeat what was followed and write the report."""
        self.report["updates_after_load"] = self.updates
        self.report["swapped"] = self.swapped
        if self.root is not None:
            self.report["parameters_changed"] = _fingerprint(self.root) != self.prints
        self.report["artifact"] = self.read_back
        if failed and self.report["status"] == "not scored" and not self.read_back:
            self.report["reason"] = "the program failed before it read an artifact back"
        self.busy = True
        if self.followers and not failed:
            self.report["followed"] = self._repeated()
        if self.rank:
            return
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
        elif os.path.exists(path) and (path in self.written or self.rank):
            # Rank 0 is the one that writes; the others read what it wrote.
            self._swap(path)
            self.read_back = os.path.relpath(path)
            self.reads += 1

    def _swap(self, path: str) -> None:
        if self.request.get("artifact") and not self.done and not self.rank:
            self.busy = True
            with contextlib.suppress(OSError):
                shutil.copyfile(self.request["artifact"], path)
                self.swapped = True
            self.busy = False

    def _stepped(self, *_: Any) -> None:
        self.updates += bool(self.read_back and not self.busy)

    def _about_to_step(self, optimiser: torch.optim.Optimizer, *_: Any) -> None:
        if not self.busy:
            for follower in self.followers.values():
                follower.stepped(optimiser)

    def _clipped(self, norm: Any, parameters: list[torch.Tensor]) -> None:
        if not self.busy:
            for follower in self.followers.values():
                follower.clipped(norm, parameters)

    def _follow(self, follower: Follower, args: tuple, kwargs: dict[str, Any]) -> None:
        ids = next((value for value in (*args, *kwargs.values()) if _is_ids(value)), None)
        if ids is not None:
            self.busy = True
            follower.read(ids, self.reads)
            self.busy = False

    def _consider(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled() and self.updates:
            return
        ids = next((value for value in (*args, *kwargs.values()) if _is_ids(value)), None)
        root = _root(module) if ids is not None else None
        if root is None or id(root) in self.followers:
            return
        self.busy = True
        state, begun = torch.get_rng_state(), time.monotonic()
        try:
            adapter, stream = _adapted(root, int(ids.shape[-1]), self.request)
            if not self.done and not self.rank:
                self.report = score(adapter, stream, int(ids.shape[-1]), self.request)
                self.root, self.prints = root, _fingerprint(root)
            self.done = True
            if self.request.get("follow"):
                self._start(Follower(root, adapter, stream, self.reads), int(ids.shape[-1]), module, ids)
        except DoesNotFit as error:
            if not self.done:
                self.report = {"status": "does not fit", "reason": str(error)}
        except Exception as error:  # whatever the submission's model raises must not stop its own run
            if not self.done:
                self.report = {"status": "failed", "reason": f"{type(error).__name__}: {str(error)[:400]}"}
            self.done = True
        finally:
            torch.set_rng_state(state)
            self.busy = False
        self.report["seconds"] = round(self.report.get("seconds", 0.0) + time.monotonic() - begun, 2)
        if self.done and self.request.get("stop"):
            self.conclude(failed=False)
            os._exit(0)

    def _start(self, follower: Follower, length: int, module: nn.Module, ids: torch.Tensor) -> None:
        """Follow a model from this call on: `module` is being called with `ids`."""
        entry = follower.entry_of(length)
        self.followers[id(follower.root)] = follower
        self.entries[id(entry)] = follower
        if entry is module:
            follower.read(ids, self.reads)

    def _repeated(self) -> dict[str, Any]:
        """What the loop of ours makes of the steps of all ranks, or why they cannot be repeated."""
        followers = list(self.followers.values())
        if self.rank:
            part = _SHARED.format(rank=self.rank)
            with builtins.open(part + ".part", "wb") as file:
                pickle.dump([follower.share() for follower in followers], file)
            os.replace(part + ".part", part)
            return {}
        for rank in range(1, self.world):
            shared = _awaited(_SHARED.format(rank=rank))
            if shared is None or len(shared) != len(followers):
                return {"passes": [], "obstacle": f"what rank {rank} did is not known"}
            for follower, item in zip(followers, shared, strict=True):
                follower.merge(item)
        found, obstacle = [], ""
        for follower in followers:
            obstacle = obstacle or follower.obstacle
            try:
                found += Replay(follower, _REPLAY_SECONDS, self.world).run()
            except Exception as error:
                obstacle = obstacle or f"{type(error).__name__}: {str(error)[:200]}"
        return {"passes": found, "obstacle": obstacle}


def _awaited(path: str) -> Any:
    """What another rank of this sandbox left in a file; None when it does not come."""
    until = time.monotonic() + 30.0
    while time.monotonic() < until:
        if os.path.exists(path):
            with builtins.open(path, "rb") as file:
                return pickle.load(file)
        time.sleep(0.05)
    return None


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


def _adapted(root: nn.Module, length: int, request: dict[str, Any]) -> tuple[Adapter, Any]:
    """A model behind our interface, and the stream cut to whole rows of `length`.

    Raises:
        DoesNotFit: no adapter fits the model's interface.
    """
    from reference.validation import ValidationStream

    stream = ValidationStream.open(Path(request["shards"]), "fineweb_val_*.bin", _tables(request), length)
    return Adapter(root, stream, length), stream


def score(adapter: Adapter, stream: Any, length: int, request: dict[str, Any]) -> dict[str, Any]:
    """Score a model over the whole stream in every arrangement of windows asked for.

    Args:
        length: context length of the program's own first call, tokens.
    """
    from reference.ranks import Ranks
    from reference.scoring import Accumulator, Scorer

    device = device_of(adapter.root)
    scorer = Scorer(adapter, stream, device)
    found = []
    with steady(adapter.root):
        for name, plan in _arrangements(stream.positions, length, request["strides"]).items():
            sums = Accumulator(stream, device, allow_repeats="legacy" in name)
            scorer.score(plan, sums, request["batch_tokens"])
            total = sums.finish(Ranks())
            found.append(
                {"windows": name, "bpb": total.bpb, "loss": total.loss, "tokens": total.tokens, "bytes": total.bytes}
            )
        probes = {
            "causality": causality(adapter, stream, length, device),
            "normalisation": normalisation(adapter, stream, request["vocab_size"]),
        }
    return {
        "status": "scored",
        "adapter": adapter.name,
        "scores": found,
        **probes,
        "parameters": sum(p.numel() for p in adapter.root.parameters()),
        "positions": stream.positions,
    }


def _arrangements(positions: int, length: int, strides: list[int]) -> dict[str, Any]:
    """Layouts of windows that submissions use, by name: whole rows, and sliding windows with three kinds of tail."""
    from reference.windows import Windows, rows, sliding

    plans = {f"rows of {length}": rows(positions, length)}
    for stride in strides:
        if not 0 < stride < length:
            continue
        for tail in ("exact", "legacy_dup"):
            plans[f"windows of {length}, stride {stride}, tail {tail}"] = sliding(positions, length, stride, tail)
        # Starts at every multiple of the stride from which a fresh target is left; the last window is a short one.
        starts = np.arange(0, max(positions - length + stride, 1), stride, dtype=np.int64)
        firsts = np.where(starts == 0, 0, starts + length - stride)
        ends = np.minimum(starts + length, positions)
        plans[f"windows of {length}, stride {stride}, tail short"] = Windows(starts, ends, firsts)
    return plans


def _tables(request: dict[str, Any]) -> Any:
    from reference.tokenizer import ByteTokenizer, SentencePieceTokenizer

    if request["byte_vocab"]:
        return ByteTokenizer().tables
    return SentencePieceTokenizer(Path(request["tokenizer"])).tables
