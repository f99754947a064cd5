"""Norm and linear layer shared by all components."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import QATConfig


def rms(x: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps)` over the last dimension, without gain.

    The output has the dtype of the input whatever the torch version: newer versions put `rms_norm` on the fp32 list of
    autocast, which would silently turn the residual stream into fp32. No autocast is used here for that reason.
    """
    return F.rms_norm(x, (x.size(-1),), eps=eps)


@dataclass(frozen=True)
class FakeQuant:
    """Rounding seen by the forward pass under QAT: integers `lo..hi`, row maximum mapped to `qmax`."""

    lo: int
    hi: int
    qmax: int
    floor: float

    @classmethod
    def of(cls, config: QATConfig) -> FakeQuant:
        """From the [qat] table."""
        floor = 1.0 / config.qmax if config.scale_floor == "absolute" else 1e-10
        return cls(config.lo, config.hi, config.qmax, floor)

    def __call__(self, weight_OI: Tensor) -> Tensor:
        """`w + stopgrad(q(w) - w)` with one step for each output row."""
        with torch.no_grad():
            step = (weight_OI.abs().amax(dim=1, keepdim=True) / self.qmax).clamp_min(self.floor)
            rounded = (weight_OI / step).round().clamp(self.lo, self.hi) * step
            difference = rounded - weight_OI
        return weight_OI + difference


class Linear(nn.Module):
    """Linear layer without bias: fp32 weight `[out, in]`, cast to the dtype of its input when used."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.fake_quant: FakeQuant | None = None

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.training and self.fake_quant is not None:  # in this order: one graph serves all evaluations
            weight = self.fake_quant(weight)
        return F.linear(x, weight.to(x.dtype))


def set_fake_quant(model: nn.Module, fake_quant: FakeQuant | None) -> None:
    """Switches QAT of every linear layer; under torch.compile the next training step is compiled again."""
    for module in model.modules():
        if isinstance(module, Linear):
            module.fake_quant = fake_quant
