"""Grouped-query causal attention with q/k norm, per-head gain, partial rotary and exclusive self attention (XSA)."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import ModelConfig, RunConfig
from reference.errors import ConfigError
from reference.model.layers import Linear, rms
from reference.model.rotary import rotate

FlashFunction = Callable[..., Any]


@cache
def flash_attention_3() -> FlashFunction | None:
    """FlashAttention-3's function when it is installed and the device is a Hopper GPU, else None.

    Asked once when a model is built: an import while torch.compile traces would break the graph.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        return None
    try:
        function: FlashFunction = importlib.import_module("flash_attn_interface").flash_attn_func
    except ImportError:
        return None
    return function


def choose_flash(config: RunConfig) -> FlashFunction | None:
    """FlashAttention-3 by `run.attention`; None means torch's scaled_dot_product_attention.

    Raises:
        ConfigError: `flash3` was asked for by name and is not usable here.
    """
    if config.attention == "sdpa" or (config.attention == "auto" and config.deterministic):
        return None
    found = flash_attention_3()
    if found is None and config.attention == "flash3":
        raise ConfigError(
            'run.attention: "flash3" needs a Hopper GPU and the package flash_attn_interface; use "auto" or "sdpa"'
        )
    return found


def causal_attention(
    q_BTHh: Tensor, k_BTKh: Tensor, v_BTKh: Tensor, scale: float, flash: FlashFunction | None = None
) -> Tensor:
    """Causal attention of the last `q.size(1)` positions over all of k and v; query head j reads head j // (H/K).

    Args:
        flash: FlashAttention-3, used for bf16 on a GPU; its causal mask is aligned to the last column as well.

    Returns:
        `[B, Tq, H, h]`. With fewer queries than keys the queries are the last columns of the row.
    """
    if flash is not None and q_BTHh.is_cuda and q_BTHh.dtype == torch.bfloat16:
        out = flash(q_BTHh, k_BTKh, v_BTKh, softmax_scale=scale, causal=True)
        return out[0] if isinstance(out, tuple) else out
    q, k, v = (x.transpose(1, 2) for x in (q_BTHh, k_BTKh, v_BTKh))
    if q.size(2) == k.size(2):
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=q.size(1) != k.size(1))
        return out.transpose(1, 2)
    return _last_columns(q, k, v, scale)


def _last_columns(q_BHQh: Tensor, k_BKTh: Tensor, v_BKTh: Tensor, scale: float) -> Tensor:
    """Attention for the last Q columns. Queries of a group become rows of one head: k and v are not copied."""
    batch, heads, queries, width = q_BHQh.shape
    kv_heads, length = k_BKTh.size(1), k_BKTh.size(2)
    group = heads // kv_heads
    rows = torch.arange(length - queries, length, device=q_BHQh.device)
    mask = torch.arange(length, device=q_BHQh.device)[None, :] <= rows[:, None]
    folded = q_BHQh.reshape(batch, kv_heads, group * queries, width)
    out = F.scaled_dot_product_attention(folded, k_BKTh, v_BKTh, attn_mask=mask.repeat(group, 1), scale=scale)
    return out.reshape(batch, heads, queries, width).transpose(1, 2)


def exclude_self(out_BTHh: Tensor, v_BTKh: Tensor) -> Tensor:
    """XSA: removes from each head's output its component along the value vector of the same position."""
    batch, length, heads, width = out_BTHh.shape
    kv_heads = v_BTKh.size(2)
    unit = F.normalize(v_BTKh, dim=-1, eps=1e-12)[:, :, :, None, :]
    grouped = out_BTHh.reshape(batch, length, kv_heads, heads // kv_heads, width)
    grouped = torch.addcmul(grouped, (grouped * unit).sum(dim=-1, keepdim=True), unit, value=-1)
    return grouped.reshape(batch, length, heads, width)


class Attention(nn.Module):
    """One attention sub-layer; `xsa` marks the layers whose output excludes the own value vector."""

    def __init__(self, config: ModelConfig, *, xsa: bool, flash: FlashFunction | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        self.eps, self.xsa = config.rms_eps, xsa
        self.flash = flash
        kv_dim = self.kv_heads * self.head_dim
        self.q = Linear(config.dim, config.dim)
        self.k = Linear(config.dim, kv_dim)
        self.v = Linear(config.dim, kv_dim)
        self.o = Linear(config.dim, config.dim)
        self.gain = nn.Parameter(torch.full((config.heads,), config.qk_gain_init))

    def forward(
        self, x_BTD: Tensor, cos: Tensor, sin: Tensor, temperature: float, value_BTE: Tensor | None, columns: int
    ) -> Tensor:
        """Output of the last `columns` positions, `[B, columns, D]`; keys and values come from all of them."""
        batch, length, _ = x_BTD.shape
        first = length - columns
        q = self.q(x_BTD[:, first:]).view(batch, columns, self.heads, self.head_dim)
        k = self.k(x_BTD).view(batch, length, self.kv_heads, self.head_dim)
        v = self.v(x_BTD).view(batch, length, self.kv_heads, self.head_dim)
        if value_BTE is not None:
            v = v + value_BTE.view_as(v)
        # The gain is one factor for a head, so it may as well be applied before the rotation.
        q = rotate(rms(q, self.eps) * self.gain.to(q.dtype)[:, None], cos[first:], sin[first:])
        k = rotate(rms(k, self.eps), cos, sin)
        out = causal_attention(q, k, v, temperature * self.head_dim**-0.5, self.flash)
        if self.xsa:
            out = exclude_self(out, v[:, first:])
        return self.o(out.reshape(batch, columns, -1))
