"""Muon for matrices, AdamW for the rest, and which parameter belongs to whom (specification 3.1, 3.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reference.config import OptimConfig
from reference.errors import ConfigError
from reference.model.roles import block_of, role_of
from reference.ranks import Ranks

NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NS_EPS = 1e-7


def newton_schulz(update_NRC: Tensor, steps: int) -> Tensor:
    """Approximate orthogonalisation of a bank of matrices: singular values move towards 1.

    bf16 on CUDA; fp32 on a CPU, where bf16 products are slow.
    """
    a, b, c = NS_COEFFICIENTS
    x = update_NRC.to(torch.bfloat16 if update_NRC.is_cuda else torch.float32)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + NS_EPS)
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


@dataclass
class Bank:
    """Parameters of one group and shape, and this rank's slice of their momentum."""

    names: list[str]
    parameters: list[nn.Parameter]
    base_lr: float
    first: int
    last: int
    share: int
    momentum: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape `[R, C]` of every member."""
        return self.parameters[0].shape


class Muon:
    """Momentum orthogonalised by Newton-Schulz; banks of equal shapes are processed together and divided over ranks.

    `b <- mu b + g; U <- g + mu b; X = NS(U) sqrt(max(1, rows/cols)); W <- W (1 - lr wd) - lr X`
    (#861 decays after the update). Gradients must already be averaged over ranks. Each rank keeps the momentum of its
    own slice only; `state_dict` gathers it.
    """

    def __init__(self, groups: dict[float, list[tuple[str, nn.Parameter]]], config: OptimConfig, ranks: Ranks) -> None:
        self.ranks, self.config = ranks, config
        self.momentum, self.scale = config.momentum_start, 1.0
        self.orthogonalise = newton_schulz
        self.banks = [bank for lr, members in groups.items() for bank in self._banks(lr, members)]

    def _banks(self, lr: float, members: list[tuple[str, nn.Parameter]]) -> Iterable[Bank]:
        shapes: dict[torch.Size, list[tuple[str, nn.Parameter]]] = {}
        for name, parameter in members:
            shapes.setdefault(parameter.shape, []).append((name, parameter))
        for shape, same in shapes.items():
            share = -(-len(same) // self.ranks.world)
            first = min(self.ranks.rank * share, len(same))
            last = min(first + share, len(same))
            momentum = torch.zeros((last - first, *shape), device=same[0][1].device)
            yield Bank([n for n, _ in same], [p for _, p in same], lr, first, last, share, momentum)

    @torch.no_grad()
    def step(self) -> None:
        """One update of all banks with the current `scale` (factor on learning rates) and `momentum`."""
        for bank in self.banks:
            directions = self._gathered(bank, self._directions(bank))
            lr = bank.base_lr * self.scale
            decay = 1 - lr * self.config.muon_weight_decay
            weights = [p.data for p in bank.parameters]
            if self.config.wd_order == "before":
                torch._foreach_mul_(weights, decay)
            torch._foreach_add_(weights, [d.to(weights[0].dtype) for d in directions], alpha=-lr)
            if self.config.wd_order == "after":
                torch._foreach_mul_(weights, decay)

    def _directions(self, bank: Bank) -> Tensor:
        """Orthogonal directions of this rank's slice, `[last - first, R, C]`."""
        own = bank.parameters[bank.first : bank.last]
        if not own:
            return bank.momentum.to(torch.bfloat16 if bank.momentum.is_cuda else torch.float32)
        gradients = torch.stack([p.grad for p in own if p.grad is not None])
        bank.momentum.mul_(self.momentum).add_(gradients)
        update = gradients.add_(bank.momentum, alpha=self.momentum)
        rows, columns = bank.shape
        return self.orthogonalise(update, self.config.ns_steps) * max(1.0, rows / columns) ** 0.5

    def _gathered(self, bank: Bank, own: Tensor) -> list[Tensor]:
        if self.ranks.world == 1:
            return list(own)
        padded = own.new_zeros((bank.share, *bank.shape))
        padded[: own.size(0)] = own
        return list(torch.cat(self.ranks.gather(padded))[: len(bank.parameters)])

    def state_dict(self) -> dict[str, Tensor]:
        """Momentum by parameter name, complete on every rank and independent of their number."""
        state = {}
        for bank in self.banks:
            for name, momentum in zip(bank.names, self._gathered(bank, bank.momentum), strict=True):
                state[name] = momentum.clone()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes this rank's slice of a complete state."""
        for bank in self.banks:
            for slot, name in enumerate(bank.names[bank.first : bank.last]):
                bank.momentum[slot].copy_(state[name])

    def reset(self) -> None:
        """Forgets all momentum."""
        for bank in self.banks:
            bank.momentum.zero_()


@dataclass
class Groups:
    """Partition of the parameters: Muon by learning rate, AdamW by learning rate, and those nobody updates."""

    muon: dict[float, list[tuple[str, nn.Parameter]]] = field(default_factory=dict)
    adam: dict[float, list[tuple[str, nn.Parameter]]] = field(default_factory=dict)
    orphans: list[tuple[str, nn.Parameter]] = field(default_factory=list)


def partition(model: nn.Module, config: OptimConfig, *, bigram_scale_trainable: bool, first_decoder: int) -> Groups:
    """Sorts every parameter into exactly one group (specification 3.2).

    Raises:
        ConfigError: Muon would own a tensor that is not a matrix.
    """
    groups = Groups()
    for name, parameter in model.named_parameters():
        kind, lr = _owner(name, config, bigram_scale_trainable, first_decoder)
        if kind == "none":
            groups.orphans.append((name, parameter))
            continue
        if kind == "muon" and parameter.ndim != 2:
            raise ConfigError(f"optimiser groups: {name} has shape {tuple(parameter.shape)}, Muon needs a matrix")
        (groups.muon if kind == "muon" else groups.adam).setdefault(lr, []).append((name, parameter))
    return groups


def _owner(name: str, config: OptimConfig, bigram_scale_trainable: bool, first_decoder: int) -> tuple[str, float]:
    """Optimiser (`muon`, `adam`, `none`) and base learning rate of one parameter."""
    role, block = role_of(name), block_of(name)
    factor = config.decoder_lr_mult if block is not None and block >= first_decoder else 1.0
    if role in ("attn", "mlp"):
        return "muon", config.matrix_lr * factor
    if role in ("embed", "head"):
        return "adam", config.tok_lr if role == "embed" else config.head_lr
    if role in ("bigram", "value"):
        return "adam", config.tok_lr if config.bigram_and_value_embed_group == "adamw_tok" else config.scalar_lr
    if role == "proj":
        owner = config.bigram_proj_group if name.startswith("bigram.") else config.value_proj_group
        return ("muon", config.matrix_lr) if owner == "muon" else ("adam", config.scalar_lr)
    if name == "bigram.scale" and not bigram_scale_trainable:
        return "none", 0.0
    return "adam", config.scalar_lr * factor


class Adam:
    """torch's AdamW over groups with a base learning rate each; fused on CUDA."""

    def __init__(self, groups: dict[float, list[tuple[str, nn.Parameter]]], config: OptimConfig) -> None:
        self.names = [name for members in groups.values() for name, _ in members]
        parameters = [{"params": [p for _, p in members], "lr": lr, "base_lr": lr} for lr, members in groups.items()]
        cuda = any(p.is_cuda for members in groups.values() for _, p in members)
        kernels: dict[str, bool] = {"fused": True} if cuda else {"foreach": True}
        self.adamw = torch.optim.AdamW(
            parameters, betas=config.betas, eps=config.eps, weight_decay=config.adam_weight_decay, **kernels
        )  # type: ignore[arg-type]

    def step(self, scale: float) -> None:
        """One update with every learning rate multiplied by `scale`."""
        for group in self.adamw.param_groups:
            group["lr"] = group["base_lr"] * scale
        self.adamw.step()

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step counts by `name/field`."""
        state: dict[str, Tensor] = {}
        for name, parameter in zip(self.names, self._parameters(), strict=True):
            for key, value in self.adamw.state.get(parameter, {}).items():
                state[f"{name}/{key}"] = value
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        self.adamw.state.clear()
        for name, parameter in zip(self.names, self._parameters(), strict=True):
            entry: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                value = state.get(f"{name}/{key}")
                if value is not None:
                    on_device = key != "step" or parameter.is_cuda
                    entry[key] = value.clone().to(parameter.device if on_device else "cpu")
            if entry:
                self.adamw.state[parameter] = entry

    def reset(self) -> None:
        """Forgets all moments."""
        self.adamw.state.clear()

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.adamw.param_groups for p in group["params"]]
