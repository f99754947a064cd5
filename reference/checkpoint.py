"""Checkpoints of a training run: weights, optimiser states, averages, step, clock and random states, without pickle.

A run continued from a checkpoint gives the same bits as one never interrupted (same number of ranks, same device).
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from reference import container
from reference.artifact import check_weights
from reference.average import ExponentialAverage, PlainAverage
from reference.config import Config
from reference.errors import ArtifactError
from reference.flat import FlatGradients
from reference.optim import Adam, Muon
from reference.ranks import Ranks

FORMAT = "pg-checkpoint-1"


class TrainingState(Protocol):
    """What a run keeps between steps; `reference.train.Trainer` has it."""

    config: Config
    ranks: Ranks
    model: nn.Module
    muon: Muon
    adam: Adam
    ema: ExponentialAverage | None
    swa: PlainAverage | None
    orphan_gradients: FlatGradients
    step: int
    elapsed: float
    qat_active: bool

    def set_qat(self, active: bool) -> None:
        """Switches straight-through quantisation."""
        ...


def save(path: Path, trainer: TrainingState) -> None:
    """Writes a checkpoint; every rank must call it (momentum is gathered), rank 0 writes."""
    tensors: dict[str, Tensor] = {f"model/{n}": p for n, p in trainer.model.named_parameters()}
    tensors |= {f"muon/{n}": t for n, t in trainer.muon.state_dict().items()}
    tensors |= {f"adam/{n}": t for n, t in trainer.adam.state_dict().items()}
    if trainer.ema is not None:
        tensors |= {f"ema/{n}": t for n, t in trainer.ema.state_dict().items()}
    if trainer.swa is not None:
        tensors |= {f"swa/{n}": t for n, t in trainer.swa.state_dict().items()}
    tensors |= {f"orphan/{i}": b for i, b in enumerate(trainer.orphan_gradients.buffers)}
    tensors["random/torch"] = torch.get_rng_state()
    if not trainer.ranks.first:
        return
    meta = {
        "format": FORMAT,
        "step": trainer.step,
        "elapsed": trainer.elapsed,
        "config": trainer.config.name,
        "qat": trainer.qat_active,
        "swa_samples": trainer.swa.samples if trainer.swa is not None else 0,
        "random": _random_state(),
    }
    container.write(path, meta, tensors)


def load(path: Path, trainer: TrainingState) -> None:
    """Puts a trainer into the state of a checkpoint.

    Raises:
        ArtifactError: the file is malformed or belongs to another model.
    """
    meta, tensors = container.read(path)
    if meta.get("format") != FORMAT:
        raise ArtifactError(f"{path}: not a checkpoint of a training run")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = tensor
    own = dict(trainer.model.named_parameters())
    check_weights(parts.get("model", {}), own, str(path))
    try:
        _restore(trainer, meta, parts)
    except KeyError as error:
        raise ArtifactError(f"{path}: has no entry {error}: it was saved with other optimiser settings") from error


def _restore(trainer: TrainingState, meta: dict[str, Any], parts: dict[str, dict[str, Tensor]]) -> None:
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            parameter.copy_(parts["model"][name])
        for index, buffer in enumerate(trainer.orphan_gradients.buffers):
            buffer.copy_(parts["orphan"][str(index)])
    trainer.muon.load_state_dict(parts.get("muon", {}))
    trainer.adam.load_state_dict(parts.get("adam", {}))
    if trainer.ema is not None:
        trainer.ema.load_state_dict(parts["ema"])
    if trainer.swa is not None:
        trainer.swa.load_state_dict(parts["swa"], int(meta["swa_samples"]))
    trainer.step, trainer.elapsed = int(meta["step"]), float(meta["elapsed"])
    trainer.set_qat(bool(meta["qat"]))
    torch.set_rng_state(parts["random"]["torch"])
    _set_random_state(meta["random"])


def _random_state() -> dict[str, Any]:
    """Python's and numpy's generators as plain values."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), [int(k) for k in keys], int(position), int(has_gauss), float(cached)],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def save_weights(path: Path, weights: dict[str, Tensor], name: str) -> int:
    """Writes float weights alone; returns the size in bytes."""
    return container.write(path, {"format": "pg-weights-1", "config": name}, weights)


def load_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float weights written by `save_weights`, checked against a model.

    Raises:
        ArtifactError: the file is missing, malformed, or belongs to another model.
    """
    meta, tensors = container.read(path)
    if meta.get("format") != "pg-weights-1":
        raise ArtifactError(f"{path}: not a file of float weights")
    check_weights(tensors, expected, str(path))
    return tensors
