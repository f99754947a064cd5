"""What is added to the token embedding: hashed bigrams, SmearGate, value embeddings."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import BigramConfig, ModelConfig
from reference.data import BOS
from reference.model.layers import Linear

XOR_FACTORS = (36_313, 27_191)
POLY_FACTOR = 1009


def bigram_index(tokens_BT: Tensor, config: BigramConfig) -> Tensor:
    """Row of the bigram table for every position; position 0 never sees the token before the row.

    `xor`: `((36313 u_t) XOR (27191 u_{t-1})) mod (buckets-1)`, row start in the last bucket.
    `poly`: `(1009 u_{t-1} + u_t) mod buckets` with `u_{-1} = 0`.
    """
    previous = F.pad(tokens_BT[:, :-1], (1, 0))
    if config.hash == "poly":
        return (POLY_FACTOR * previous + tokens_BT) % config.buckets
    mixed = torch.bitwise_xor(XOR_FACTORS[0] * tokens_BT, XOR_FACTORS[1] * previous) % (config.buckets - 1)
    start = torch.zeros_like(mixed, dtype=torch.bool)
    start[:, 0] = True
    return mixed.masked_fill(start, config.buckets - 1)


class BigramEmbedding(nn.Module):
    """`kappa * P G[hash(u_{t-1}, u_t)]`; kappa only when `scale_init` is given."""

    def __init__(self, config: BigramConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Parameter(torch.empty(config.buckets, config.dim))
        self.proj = Linear(config.dim, dim)
        self.scale = nn.Parameter(torch.tensor(config.scale_init)) if config.scale_init is not None else None

    def forward(self, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
        out = self.proj(F.embedding(bigram_index(tokens_BT, self.config), self.table).to(dtype))
        return out if self.scale is None else out * self.scale.to(dtype)


class SmearGate(nn.Module):
    """`x_t <- (1-g) x_t + g x_{t-1}` with `g = sigmoid(gate)` for each channel; looks only backwards.

    With `mask_bos` a BOS token keeps its own embedding, so that nothing crosses a document boundary.
    """

    def __init__(self, dim: int, init: float, *, mask_bos: bool) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((dim,), init))
        self.mask_bos = mask_bos

    def forward(self, x_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate).to(x_BTD.dtype)
        previous = F.pad(x_BTD[:, :-1], (0, 0, 1, 0))
        if self.mask_bos:
            previous = torch.where((tokens_BT == BOS)[..., None], x_BTD, previous)
        return torch.lerp(x_BTD, previous, gate)


class ValueEmbedding(nn.Module):
    """One shared token embedding for the values of the listed layers: `lambda_l * kappa * P Q[u]`."""

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        value = config.value_embed
        self.slot = {layer: i for i, layer in enumerate(value.layers)}
        self.table = nn.Parameter(torch.empty(vocab_size, value.dim))
        self.proj = Linear(value.dim, config.kv_heads * config.head_dim)
        self.scale = nn.Parameter(torch.tensor(value.scale_init))
        self.layer_scales = nn.ParameterList([nn.Parameter(torch.ones(1)) for _ in value.layers])

    def forward(self, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """Shared part `[B, T, K*h]`."""
        return self.proj(F.embedding(tokens_BT, self.table).to(dtype)) * self.scale.to(dtype)

    def at(self, layer: int, shared_BTE: Tensor) -> Tensor | None:
        """Value embedding of one layer, None for layers without."""
        slot = self.slot.get(layer)
        return None if slot is None else shared_BTE * self.layer_scales[slot].to(shared_BTE.dtype)
