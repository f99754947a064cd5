"""Partial rotary embedding with NTK base scaling or YaRN.

Half-split convention: `x1, x2 = x[..., :r/2], x[..., r/2:r]` become `(x1 cos + x2 sin, -x1 sin + x2 cos)`, the
remaining dimensions pass through. What the seeds call YaRN is NTK: one larger base, no temperature (specification 2.3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reference.config import ModelConfig

YARN_SLOW, YARN_FAST = 1.0, 32.0
"""Turns within the training length below which a frequency is interpolated, and above which it is kept (YaRN paper)."""


def frequencies(config: ModelConfig, length: int) -> Tensor:
    """Angles for one position, fp64 `[r/2]`, for rows of `length` tokens."""
    r = config.rope_dims
    exponents = torch.arange(0, r, 2, dtype=torch.float64) / max(r, 1)
    stretch = length / config.rope_train_len
    if config.rope_scaling == "none" or stretch <= 1:
        return config.rope_base**-exponents
    if config.rope_scaling == "ntk":
        base = config.rope_base * stretch ** (r / max(r - 2, 1))
        return base**-exponents
    angles = config.rope_base**-exponents
    turns = config.rope_train_len * angles / (2 * math.pi)
    keep = ((turns - YARN_SLOW) / (YARN_FAST - YARN_SLOW)).clamp(0, 1)
    return angles * keep + angles / stretch * (1 - keep)


def attention_temperature(config: ModelConfig, length: int) -> float:
    """Factor on the softmax scale: `(0.1 ln s + 1)^2` under YaRN for rows stretched by s, otherwise 1."""
    stretch = length / config.rope_train_len
    if config.rope_scaling != "yarn" or stretch <= 1:
        return 1.0
    return (0.1 * math.log(stretch) + 1.0) ** 2


def tables(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, fp32 `[T, r/2]`.

    Made outside inference mode even when first asked for inside it: an inference tensor would break the next training
    step with "Inference tensors cannot be saved for backward".
    """
    with torch.inference_mode(False), torch.no_grad():
        angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies(config, length))
        return angles.cos().float().to(device), angles.sin().float().to(device)


def rotate(x_BTHh: Tensor, cos_Tr: Tensor, sin_Tr: Tensor) -> Tensor:
    """Rotates the first 2 * (r/2) dimensions of each head, in place when no gradients are recorded.

    Tables are cast to the dtype of x.
    """
    half = cos_Tr.size(-1)
    if half == 0:
        return x_BTHh
    cos, sin = cos_Tr.to(x_BTHh.dtype)[:, None, :], sin_Tr.to(x_BTHh.dtype)[:, None, :]
    x1, x2, rest = x_BTHh[..., :half], x_BTHh[..., half : 2 * half], x_BTHh[..., 2 * half :]
    turned1, turned2 = torch.addcmul(x1 * cos, x2, sin), torch.addcmul(x2 * cos, x1, sin, value=-1)
    if torch.is_grad_enabled():
        return torch.cat((turned1, turned2, rest), dim=-1)
    x1.copy_(turned1)
    x2.copy_(turned2)
    return x_BTHh
