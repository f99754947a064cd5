"""Initial weights (specification 2.7)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reference.config import ModelConfig

if TYPE_CHECKING:
    from reference.model.gpt import GPT

ORTHO_LEAST = 64
"""Linear layers with a side below this keep their ordinary initial weights."""


def initialise(model: GPT, generator: torch.Generator) -> None:
    """Fills all weights; scalars, gates and mixes keep the values of their constructors."""
    config = model.config
    _normal(model.tok_embed, config.embed_init_std, generator)
    if model.head is not None:
        nn.init.zeros_(model.head)
    for block in model.blocks:
        inputs = [block.attn.q, block.attn.k, block.attn.v, block.mlp.up]
        inputs += [block.mlp.gate] if block.mlp.gate is not None else []
        for layer in inputs:
            _linear(layer.weight, config, generator)
        nn.init.zeros_(block.attn.o.weight)
        nn.init.zeros_(block.mlp.down.weight)
    if model.bigram is not None:
        _normal(model.bigram.table, config.bigram.embed_init_std, generator)
        _projection(model.bigram.proj.weight, config, generator)
    if model.value_embed is not None:
        _normal(model.value_embed.table, config.value_embed.embed_init_std, generator)
        _projection(model.value_embed.proj.weight, config, generator)


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
