"""Soft-capped logits and cross entropy in nats."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def softcap_logits(hidden: Tensor, weight_VD: Tensor, cap: float, *, in_float32: bool) -> Tensor:
    """`cap * tanh(z / cap)` as fp32; with `in_float32` False the cap is computed in the dtype of the activations."""
    z = F.linear(hidden, weight_VD.to(hidden.dtype))
    if in_float32:
        z = z.float()
    if torch.is_grad_enabled():
        return (cap * torch.tanh(z / cap)).float()
    return z.div_(cap).tanh_().mul_(cap).float()


def token_losses(hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, *, in_float32: bool) -> Tensor:
    """Negative log-likelihood of every target, fp32 `[N]`."""
    logits_NV = softcap_logits(hidden_ND, weight_VD, cap, in_float32=in_float32)
    return F.cross_entropy(logits_NV, targets_N, reduction="none")


class ChunkedLoss(torch.autograd.Function):
    """Mean cross entropy without holding all logits: loss and gradients are made chunk by chunk in the forward pass.

    Peak memory is `chunk * V` fp32 numbers instead of `N * V`; at V = 8192 and 98,304 tokens 0.1 instead of
    3.2 GB.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, chunk: int) -> Tensor:
        """Mean loss; the cap is always computed in fp32."""
        count = hidden_ND.size(0)
        weight = weight_VD.to(hidden_ND.dtype)
        grad_hidden, grad_weight = torch.empty_like(hidden_ND), torch.zeros_like(weight_VD, dtype=torch.float32)
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        for begin in range(0, count, chunk):
            hidden, targets = hidden_ND[begin : begin + chunk], targets_N[begin : begin + chunk, None]
            squashed = torch.tanh(F.linear(hidden, weight).float() / cap)
            log_p = F.log_softmax(cap * squashed, dim=-1)
            total -= log_p.gather(1, targets).sum()
            grad = log_p.exp()
            grad.scatter_add_(1, targets, -torch.ones_like(targets, dtype=grad.dtype))
            grad = (grad * (1 - squashed.square()) / count).to(hidden.dtype)
            grad_hidden[begin : begin + chunk] = grad @ weight
            grad_weight += (grad.t() @ hidden).float()
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight_VD.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the forward pass times the incoming one."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], grad_weight * grads[0], None, None, None


def mean_loss(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, cap: float, *, in_float32: bool, chunk: int = 0
) -> Tensor:
    """Mean cross entropy in nats; `chunk` tokens at a time when it is above 0 and the cap is in fp32."""
    if chunk and in_float32:
        return ChunkedLoss.apply(hidden_ND, weight_VD, targets_N, cap, chunk)
    return token_losses(hidden_ND, weight_VD, targets_N, cap, in_float32=in_float32).mean()
