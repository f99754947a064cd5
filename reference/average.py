"""Averages of the weights: exponential (EMA) and plain over late steps (SWA). Sums are kept in fp32."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """`m <- d m + (1-d) w` after every step, started at the initial weights, no bias correction."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.means = [p.detach().float().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the current weights."""
        weights = [p.detach().float() for p in self.parameters]
        torch._foreach_mul_(self.means, self.decay)
        torch._foreach_add_(self.means, weights, alpha=1 - self.decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Averages by parameter name, fp32."""
        return dict(zip(self.names, self.means, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        for name, mean in zip(self.names, self.means, strict=True):
            mean.copy_(state[name])


class PlainAverage:
    """Mean of samples of the weights; summed on the host so that it costs no GPU memory."""

    def __init__(self, model: nn.Module) -> None:
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.sums = [torch.zeros(p.shape) for p in self.parameters]
        self.samples = 0

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the current weights."""
        for total, parameter in zip(self.sums, self.parameters, strict=True):
            total.add_(parameter.detach().float().cpu())
        self.samples += 1

    def mean(self) -> dict[str, Tensor]:
        """Means by parameter name, fp32; empty before the first sample."""
        if not self.samples:
            return {}
        return {name: total / self.samples for name, total in zip(self.names, self.sums, strict=True)}

    def state_dict(self) -> dict[str, Tensor]:
        """Sums by parameter name; the number of samples is kept apart."""
        return dict(zip(self.names, self.sums, strict=True))

    def load_state_dict(self, state: dict[str, Tensor], samples: int) -> None:
        """Inverse of `state_dict`."""
        for name, total in zip(self.names, self.sums, strict=True):
            total.copy_(state[name])
        self.samples = samples


@torch.no_grad()
def apply_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copies averaged weights into the model, cast to the dtypes of its parameters."""
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name].to(parameter.device))
