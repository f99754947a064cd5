"""Initial weights (specification 2.7), written over the roles of parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from reference.config import ModelConfig
from reference.model.roles import role_of

ORTHO_LEAST = 64
"""Linear layers with a side below this keep their ordinary initial weights."""
ENDS = (".attn.o.weight", ".mlp.down.weight")
"""Last layers of the sub-layers: zero at the start, so that every block begins as the identity."""


def initialise(parameters: Iterable[tuple[str, Tensor]], config: ModelConfig, generator: torch.Generator) -> None:
    """Fills all weights in the order given; scalars, gates and mixes keep the values of their constructors."""
    for name, weight in parameters:
        role = role_of(name)
        if role == "embed":
            _normal(weight, config.embed_init_std, generator)
        elif role == "head" or name.endswith(ENDS):
            nn.init.zeros_(weight)
        elif role in ("attn", "mlp"):
            _linear(weight, config, generator)
        elif role == "bigram":
            _normal(weight, config.bigram.embed_init_std, generator)
        elif role == "value":
            _normal(weight, config.value_embed.embed_init_std, generator)
        elif role == "proj":
            _projection(weight, config, generator)


def _normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        weight.normal_(0.0, std, generator=generator) if std > 0 else weight.zero_()


def _linear(weight_OI: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    if config.ortho_init and min(weight_OI.shape) >= ORTHO_LEAST:
        nn.init.orthogonal_(weight_OI, generator=generator)
        return
    bound = weight_OI.size(1) ** -0.5
    with torch.no_grad():
        weight_OI.uniform_(-bound, bound, generator=generator)


def _projection(weight_OI: Tensor, config: ModelConfig, generator: torch.Generator) -> None:
    """Projections of side branches: zero, or orthogonal and small, so that a zero table still receives gradients."""
    if config.ortho_init and min(weight_OI.shape) >= ORTHO_LEAST:
        nn.init.orthogonal_(weight_OI, gain=1 / math.sqrt(2 * config.layers), generator=generator)
    else:
        nn.init.zeros_(weight_OI)
