"""Interfaces of submitted models behind that of the reference's scorer, and probes of the loaded weights.

The submission only maps tokens to logits: where its interface wants targets it gets zeros, and the softmax is ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_PROBES = 4
#: Tokens of a probed row; few, because every id of the vocabulary is tried.
_CONTEXT = 8
_ROWS = 256


class DoesNotFit(RuntimeError):
    """The model's interface is none of those known; the message says what it looks like."""


class Adapter:
    """A submission's model behind the interface of the reference's scorer; targets stay on this side.

    `name` says which interface was found.

    Raises:
        DoesNotFit: none of the known interfaces gives logits of shape (batch, tokens, vocabulary).
    """

    def __init__(self, root: nn.Module, stream: Any, length: int) -> None:
        self.root, self.training = root, False
        ids = torch.from_numpy(stream.tokens[:length].astype(np.int64))[None].to(device_of(root))
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

    def _interfaces(self) -> list[tuple[str, Callable[[torch.Tensor], Any]]]:
        root = self.root
        found: list[tuple[str, Callable[[torch.Tensor], Any]]] = []
        for method in ("forward_logits", "get_logits", "logits", "compute_logits"):
            if callable(getattr(root, method, None)):
                found.append((f"{method}(ids)", _first_logits(getattr(root, method))))
        plain = ("model(ids)", _first_logits(root))
        return [*found, plain, ("model(ids, targets), logits of its loss", lambda ids: logits_of_loss(root, ids))]

    def token_losses(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Nats of the targets, fp32 `[B, C]`: the last C columns of the inputs predict them."""
        return losses(self.logits(inputs)[:, -targets.shape[1] :], targets)

    def prepare(self, length: int) -> None:
        """Nothing to prepare: the model looks after its own tables."""

    def eval(self) -> None:
        """Mode is set once by the caller."""

    def train(self, mode: bool = True) -> None:
        """Mode is restored once by the caller."""


def losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Nats of targets `[B, T]` under logits `[B, T, V]`, fp32 `[B, T]`."""
    flat = F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), targets.reshape(-1), reduction="none")
    return flat.view(targets.shape)


def device_of(root: nn.Module) -> torch.device:
    """Where a model lives; a model without parameters lives on the CPU."""
    return next((value.device for value in (*root.parameters(), *root.buffers())), torch.device("cpu"))


def _first_logits(call: Callable[..., Any]) -> Callable[[torch.Tensor], Any]:
    """The tensor of logits among what a call returns: itself, first of a tuple, or under the name `logits`."""

    def logits(ids: torch.Tensor) -> Any:
        made = call(ids)
        if isinstance(made, dict):
            return made.get("logits")
        if isinstance(made, tuple | list):
            return next((item for item in made if isinstance(item, torch.Tensor) and item.dim() == 3), None)
        return getattr(made, "logits", made)

    return logits


def logits_of_loss(root: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Logits that a model hands to its own cross entropy, `[B, T, V]`; the targets it is given are zeros.

    Raises:
        DoesNotFit: the loss is taken in a way that shows no logits.
    """
    with _caught() as found:
        made = root(ids, torch.zeros_like(ids))
    if isinstance(made, tuple | list):
        found[:0] = [item for item in made if isinstance(item, torch.Tensor) and item.dim() == 3]
    fitting = [item for item in found if item.numel() % ids.numel() == 0 and item.numel() // ids.numel() > 1]
    if not fitting:
        raise DoesNotFit("its loss is not taken by cross_entropy or log_softmax of torch.nn.functional")
    return fitting[0].reshape(*ids.shape, -1)


@contextlib.contextmanager
def _caught() -> Iterator[list[torch.Tensor]]:
    """Every tensor that a softmax loss is taken of meanwhile."""
    found: list[torch.Tensor] = []
    names = [(F, "cross_entropy"), (F, "log_softmax"), (torch, "log_softmax"), (torch.Tensor, "log_softmax")]
    real = [getattr(owner, name) for owner, name in names]

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(logits: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(logits, torch.Tensor) and logits.dim() > 1:
                found.append(logits)
            return call(logits, *args, **kwargs)

        return wrapper

    for (owner, name), call in zip(names, real, strict=True):
        setattr(owner, name, watched(call))
    try:
        yield found
    finally:
        for (owner, name), call in zip(names, real, strict=True):
            setattr(owner, name, call)


@contextlib.contextmanager
def steady(root: nn.Module) -> Iterator[None]:
    """Evaluation mode and unchanged parameters and buffers, whatever the model does when it is called."""
    was = root.training
    kept = snapshot(root)
    root.eval()
    try:
        yield
    finally:
        restore(root, kept)
        root.train(was)


def snapshot(root: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of parameters and buffers, those too that are not saved."""
    named = (*root.named_parameters(), *root.named_buffers())
    return {name: value.detach().clone() for name, value in named}


def restore(root: nn.Module, kept: dict[str, torch.Tensor]) -> None:
    """Inverse of `snapshot`; what has another shape by now is left alone."""
    with torch.no_grad():
        for name, value in (*root.named_parameters(), *root.named_buffers()):
            if name in kept and value.shape == kept[name].shape:
                value.data.copy_(kept[name])


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


def normalisation(adapter: Adapter, stream: Any, vocabulary: int) -> dict[str, Any]:
    """How far the model's own loss is from a distribution over the vocabulary, at sampled positions of the stream.

    A loss for each token is summed up: every id takes the place of the last target of a short row, and the sum of
    exp(-loss) must be one. A mean is compared with the softmax of the logits on targets drawn at random, in nats. A model
    that hands out logits only has its softmax taken by the trusted loop; then `largest_gap` is None.
    """
    root, rng = adapter.root, np.random.default_rng(1)
    worst, how = 0.0, ""
    starts = rng.integers(0, max(stream.positions - _CONTEXT, 1), _PROBES)
    rows = np.stack([stream.tokens[start : start + _CONTEXT + 1] for start in starts]).astype(np.int64)
    try:
        with torch.no_grad():
            for row in torch.from_numpy(rows).to(device_of(root)):
                gap, how = _gap(adapter, row, vocabulary, rng)
                worst = max(worst, gap)
    except Exception as error:
        told = f"no loss of its own that takes targets ({type(error).__name__}: {str(error)[:120]})"
        return {"largest_gap": None, "how": told}
    return {"largest_gap": worst, "how": how, "positions": (starts + _CONTEXT).tolist(), "probes": _PROBES}


def _gap(adapter: Adapter, row: torch.Tensor, vocabulary: int, rng: np.random.Generator) -> tuple[float, str]:
    """|sum of probabilities - 1| or |own mean loss - softmax loss| of one row of ids, and which of the two it is."""
    root, inputs, targets = adapter.root, row[None, :-1], row[None, 1:]
    made = _tensor(root(inputs, targets))
    if made.dim() == 0:
        drawn = torch.from_numpy(rng.integers(0, vocabulary, tuple(targets.shape))).to(row.device)
        own = float(_tensor(root(inputs, drawn)))
        return abs(own - float(losses(adapter.logits(inputs), drawn).mean())), "mean loss against the softmax, nats"
    if made.numel() != targets.numel():
        raise DoesNotFit("its loss is neither a mean nor one number a token")
    mass = 0.0
    for low in range(0, vocabulary, _ROWS):
        ids = torch.arange(low, min(low + _ROWS, vocabulary), device=row.device)
        goals = targets.repeat(len(ids), 1)
        goals[:, -1] = ids
        own = _tensor(root(inputs.repeat(len(ids), 1), goals)).reshape(goals.shape)
        mass += float(torch.exp(-own[:, -1].double()).sum())
    return abs(mass - 1.0), "sum of probabilities over the vocabulary"


def _tensor(made: Any) -> torch.Tensor:
    """The loss among what a model returns for tokens and targets."""
    parts = made if isinstance(made, tuple | list) else [made]
    return min((item for item in parts if isinstance(item, torch.Tensor)), key=lambda item: item.dim())
