"""GPTQ: rounding one input column after the other and correcting the columns still to come (specification 4.4).

The loss is `sum_rows (w - w_hat) H (w - w_hat)^T` with `H = sum X^T X / tokens` of the layer's inputs. Everything is
fp32 (`GPTQ_DTYPE`); TF32 is switched off while Hessians are collected and factored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from reference.config_eval import GPTQConfig
from reference.quantize.rowwise import Integers, squared_error

GPTQ_DTYPE = torch.float32
ATTEMPTS = 8


@dataclass(frozen=True)
class GPTQResult:
    """Integers and the damping fraction that was needed."""

    integers: Integers
    damp: float


@contextmanager
def full_precision() -> Iterator[None]:
    """fp32 products without TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def make_hessian(inputs: int, device: torch.device) -> Tensor:
    """Empty Hessian `[in, in]`."""
    return torch.zeros(inputs, inputs, dtype=GPTQ_DTYPE, device=device)


def accumulate_hessian(hessian_II: Tensor, x: Tensor) -> None:
    """Adds `X^T X` of a batch of inputs `[..., in]` in place; divide by the number of tokens at the end."""
    flat = x.detach().reshape(-1, x.size(-1)).to(GPTQ_DTYPE)
    hessian_II.addmm_(flat.t(), flat)


def hessian_error(weight_RI: Tensor, quantized_RI: Tensor, hessian_II: Tensor) -> float:
    """`sum_rows e H e^T` with `e = w - w_hat`."""
    error = weight_RI.to(GPTQ_DTYPE) - quantized_RI.to(GPTQ_DTYPE)
    return float(((error @ hessian_II) * error).sum())


def quantize_gptq(weight_RI: Tensor, hessian_II: Tensor, scale_R: Tensor, qmax: int, config: GPTQConfig) -> GPTQResult:
    """Quantises a matrix with fixed row scales to integers `-qmax..qmax`.

    Args:
        scale_R: one step for each output row (from the clip search), fp16.
    """
    weight = weight_RI.detach().to(GPTQ_DTYPE).clone()
    hessian = hessian_II.to(GPTQ_DTYPE).clone()
    if config.variant == "cholesky":
        dead = hessian.diagonal() == 0
        hessian.diagonal()[dead] = 1.0
        weight[:, dead] = 0.0
    with full_precision():
        order, factor, damp = _factor(hessian, config)
        q = torch.empty_like(weight)
        q[:, order] = _round_columns(weight[:, order], factor, scale_R.float(), qmax, config.block)
    scale = refit(weight_RI.detach().float(), q, scale_R) if config.refit_scale else scale_R.half()
    return GPTQResult(Integers(q.to(torch.int8), scale, 1.0), damp)


def _factor(hessian: Tensor, config: GPTQConfig) -> tuple[Tensor, Tensor, float]:
    """Column order, the factor whose rows drive the updates, and the damping used; ten times more after a failure."""
    mean = hessian.diagonal().mean().clamp_min(1e-12)
    damp = config.damp
    for _ in range(ATTEMPTS):
        damped = hessian + damp * mean * torch.eye(hessian.size(0), device=hessian.device, dtype=hessian.dtype)
        descending = damped.diagonal().argsort(descending=True, stable=True)
        order = descending if config.actorder else torch.arange(hessian.size(0), device=hessian.device)
        lower, failed = torch.linalg.cholesky_ex(damped[order][:, order])
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            if config.variant == "raw_inverse":
                return order, inverse, damp
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed:
                return order, upper, damp
        damp *= 10
    return order, torch.linalg.pinv(damped[order][:, order]), damp


def _round_columns(weight: Tensor, factor: Tensor, scale: Tensor, qmax: int, block: int) -> Tensor:
    """The sweep: column j is rounded, its error divided by `factor[j, j]` is spread over later columns by row j."""
    q, columns = torch.empty_like(weight), weight.size(1)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        part, errors = weight[:, first:last], torch.empty(weight.size(0), last - first, device=weight.device)
        local = factor[first:last, first:last]
        for j in range(last - first):
            rounded = torch.round(part[:, j] / scale).clamp(-qmax, qmax)
            q[:, first + j] = rounded
            errors[:, j] = (part[:, j] - rounded * scale) / local[j, j]
            part[:, j + 1 :].addr_(errors[:, j], local[j, j + 1 :], alpha=-1)
        weight[:, last:].addmm_(errors, factor[first:last, last:], alpha=-1)
    return q


def refit(weight_RI: Tensor, q_RI: Tensor, scale_R: Tensor) -> Tensor:
    """Least-squares scale of each row, used where it lowers the plain error (#610); never below 1/31. fp16 `[R]`."""
    products, squares = (weight_RI * q_RI).sum(dim=1), q_RI.square().sum(dim=1)
    fitted = (products / squares.clamp_min(1e-12)).clamp_min(1 / 31)
    old = scale_R.float()
    better = squared_error(weight_RI, q_RI, fitted) < squared_error(weight_RI, q_RI, old)
    return torch.where(better, fitted, old).half()
