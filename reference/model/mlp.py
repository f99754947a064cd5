"""Feed-forward sub-layer: squared ReLUs or SwiGLU, with an optional affine on every hidden channel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import ModelConfig
from reference.model.layers import Linear


class MLP(nn.Module):
    """`W_down(rho * act(W_up x) + tau)`; rho and tau only with `mlp_hidden_affine` (then relu2 is Star-ReLU)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.slope = config.activation, config.lrelu_slope
        self.up = Linear(config.dim, config.mlp_hidden)
        self.gate = Linear(config.dim, config.mlp_hidden) if config.activation == "swiglu" else None
        self.down = Linear(config.mlp_hidden, config.dim)
        self.affine = config.mlp_hidden_affine
        if self.affine:
            self.hidden_scale = nn.Parameter(torch.ones(config.mlp_hidden))
            self.hidden_bias = nn.Parameter(torch.zeros(config.mlp_hidden))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self._activated(x)
        if self.affine:
            scale, bias = self.hidden_scale.to(x.dtype), self.hidden_bias.to(x.dtype)
            # Without gradients nothing of the widest tensor needs to be kept: it is changed in place.
            hidden = hidden * scale + bias if torch.is_grad_enabled() else hidden.mul_(scale).add_(bias)
        return self.down(hidden)

    def _activated(self, x: Tensor) -> Tensor:
        hidden = self.up(x)
        if self.gate is not None:
            return F.silu(self.gate(x)) * hidden
        in_place = not torch.is_grad_enabled()
        if self.activation == "relu2":
            hidden = F.relu(hidden, inplace=in_place)
        else:
            hidden = F.leaky_relu(hidden, self.slope, inplace=in_place)
        return hidden.mul_(hidden) if in_place else hidden.square()
