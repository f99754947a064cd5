"""Integers with one scale for each row (or one for the tensor), clips found by search (specification 4.2, 4.3).

`q = clamp(round_half_even(w / step), lo, hi)` with `step = max(clip / qmax, floor)`. Ranges are symmetric around zero,
so a value is `q * step` again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TINY_STEP = 2.0**-24
"""Least step that survives the fp16 storage of scales; stands for the floor `tiny`."""


@dataclass(frozen=True)
class Integers:
    """A quantised tensor: `q` int8 in the shape of the weight, `scale` fp16 `[rows]` or `[]`, `percentile` chosen."""

    q: Tensor
    scale: Tensor
    percentile: float

    def dequantize(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """`q * scale` in fp32, then cast."""
        scale = self.scale.float()
        return (self.q.float() * (scale[:, None] if scale.ndim else scale)).to(dtype)


def row_quantiles(magnitudes_RC: Tensor, percentiles: Sequence[float]) -> Tensor:
    """Quantiles of each row by linear interpolation between order statistics, `[P, R]`, from one sort."""
    ordered = magnitudes_RC.sort(dim=1).values
    ranks = torch.tensor(percentiles, dtype=torch.float32, device=ordered.device) * (ordered.size(1) - 1)
    below = ranks.floor().long()
    above = ranks.ceil().long()
    return torch.lerp(ordered[:, below], ordered[:, above], ranks - below).t()


def step_floor(kind: Literal["tiny", "absolute"], qmax: int) -> float:
    """Least step: `absolute` keeps every clip at 1.0 or above, whatever the weights (legacy)."""
    return 1.0 / qmax if kind == "absolute" else TINY_STEP


def quantize_rows(
    weight_RC: Tensor,
    percentiles: Sequence[float],
    *,
    lo: int,
    hi: int,
    qmax: int,
    floor: Literal["tiny", "absolute"] = "tiny",
    search: Literal["per_row", "per_tensor"] = "per_row",
    half_scale: bool = True,
    importance_C: Tensor | None = None,
) -> Integers:
    """Quantises each row with the candidate clip of least squared error; the first of equal candidates wins.

    Args:
        importance_C: factor on the squared errors of each column, such as the mean square of its inputs: then the
            search is for the least error of the layer's output (as far as inputs are uncorrelated), not of its weights.
        percentiles: candidate clips as quantiles of |w| in the row; 1.0 is its maximum.
        search: best candidate for each row, or one percentile for all rows (legacy).
        half_scale: measure and round with the fp16 scale that is stored, not with its fp32 value.
    """
    weight = weight_RC.detach().float()
    steps = (row_quantiles(weight.abs(), percentiles) / qmax).clamp_min(step_floor(floor, qmax))
    if half_scale:
        steps = steps.half().float()
    errors = torch.stack([squared_error(weight, round_to(weight, step, lo, hi), step, importance_C) for step in steps])
    if search == "per_row":
        best = errors.argmin(dim=0)
        step = steps.gather(0, best[None])[0]
        percentile = float(torch.tensor(percentiles)[best.cpu()].mean())
    else:
        chosen = int(errors.mean(dim=1).argmin())
        step, percentile = steps[chosen], percentiles[chosen]
    return Integers(round_to(weight, step, lo, hi).to(torch.int8), step.half(), percentile)


def quantize_tensor(weight: Tensor, *, lo: int, hi: int, qmax: int) -> Integers:
    """One fp16 scale for the whole tensor, `max|w| / qmax` (1 when all weights are zero)."""
    values = weight.detach().float()
    largest = values.abs().max()
    scale = torch.where(largest > 0, (largest / qmax).half().float().clamp_min(TINY_STEP), 1.0)
    return Integers(torch.round(values / scale).clamp(lo, hi).to(torch.int8), scale.half(), 1.0)


def round_to(weight_RC: Tensor, step_R: Tensor, lo: int, hi: int) -> Tensor:
    """Integers as floats `[R, C]`."""
    return torch.round(weight_RC / step_R[:, None]).clamp(lo, hi)


def squared_error(weight_RC: Tensor, q_RC: Tensor, step_R: Tensor, importance_C: Tensor | None = None) -> Tensor:
    """Mean squared error of each row, `[R]`; columns weighted by their importance when it is given."""
    squares = (weight_RC - q_RC * step_R[:, None]).square()
    return squares.mean(dim=1) if importance_C is None else (squares @ importance_C) / squares.size(1)


def prune(weight: Tensor, fraction: float) -> Tensor:
    """Weights with `|w|` below the quantile `fraction` over the whole tensor set to zero."""
    if fraction <= 0:
        return weight
    threshold = row_quantiles(weight.detach().float().abs().reshape(1, -1), [fraction])[0, 0]
    return torch.where(weight.abs() < threshold.to(weight.dtype), torch.zeros_like(weight), weight)
