"""Linear recurrences of the GPU-only packages fla, mamba_ssm and causal_conv1d, by their definition, in float32.

The kernels process chunks; the sums they compute are those of the recurrences written in the docstrings, and a chunk's
triangular system solves the same recurrence without a step for every token. Decays enter as logarithms and only as
differences that are not positive, so nothing overflows. Sources: Yang et al. 2024 (arXiv 2406.06484, delta rule; 2412.06464,
gated delta rule; 2312.06635, gated linear attention), Gu and Dao 2023 (2312.00752, selective scan), Dao and Gu 2024
(2405.21060, state space duality).

Everything runs below the stand-in's mode: no parameter is read here and no loss made, and a step for every token would
otherwise be a step of the recorder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

CHUNK = 128  # tokens that one triangular system holds


class Unsupported(Exception):
    """An argument the reference arithmetic does not know."""


def _below(function: Callable) -> Callable:
    """Runs a function of tensors outside of any torch function mode; gradients flow as usual."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows of length one, with fla's floor of 1e-6 under the square of the length."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)


def _pieces(length: int) -> Iterator[slice]:
    return (slice(start, min(start + CHUNK, length)) for start in range(0, length, CHUNK))


def _decays(total: torch.Tensor) -> torch.Tensor:
    """exp(total_t - total_s) for s <= t and nothing above; total: cumulative log decay, shape (..., time)."""
    size = total.shape[-1]
    later = torch.ones(size, size, dtype=torch.bool).triu(1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(later, -torch.inf).exp()


@_below
def delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Gated) delta rule: S = exp(g_t) S; u_t = beta_t (v_t - S^T k_t); S = S + k_t u_t^T; o_t = scale S^T q_t.

    Args:
        q, k: (batch, time, heads, key width). v: (batch, time, value heads, value width); value heads are a multiple of heads.
        beta, g: (batch, time, value heads); g is a log decay, none without it. scale: key width ** -0.5 by default.
        state: (batch, value heads, key width, value width), zeros without it.

    Returns:
        o of v's shape, and the last state.
    """
    kind = v.dtype
    groups = v.shape[2] // q.shape[2]
    q, k = (x.float().transpose(1, 2).repeat_interleave(groups, 1) for x in (q, k))
    v, beta = v.float().transpose(1, 2), beta.float().transpose(1, 2)
    g = torch.zeros_like(beta) if g is None else g.float().transpose(1, 2)
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    state = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]) if state is None else state.float()
    out = []
    for now in _pieces(v.shape[2]):
        part, state = _delta_chunk(q[:, :, now], k[:, :, now], v[:, :, now], beta[:, :, now], g[:, :, now], state)
        out.append(part)
    return torch.cat(out, 2).transpose(1, 2).to(kind), state


def _delta_chunk(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, beta: torch.Tensor, g: torch.Tensor, state: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One chunk, heads before time: the u_t solve a unit lower triangular system, from which all else follows."""
    total = g.cumsum(-1)
    decay, reach = _decays(total), total.exp()[..., None]
    overlap = (k @ k.transpose(-1, -2)) * decay * beta[..., None]
    right = beta[..., None] * (v - reach * (k @ state))
    u = torch.linalg.solve_triangular(overlap.tril(-1), right, upper=False, unitriangular=True)
    out = reach * (q @ state) + ((q @ k.transpose(-1, -2)) * decay) @ u
    left = (total[..., -1:] - total).exp()[..., None]
    return out, total[..., -1].exp()[..., None, None] * state + (k * left).transpose(-1, -2) @ u


@_below
def linear_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    *,
    scale: float | None = None,
    state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gated linear attention: S = exp(g_t) S + k_t v_t^T; o_t = scale S^T q_t.

    Shapes as for `delta_rule`, with as many value heads as heads; g: (batch, time, heads) or, one decay for every key
    channel, (batch, time, heads, key width).
    """
    kind, width = v.dtype, q.shape[-1]
    q, k, v = (x.float().transpose(1, 2) for x in (q, k, v))
    q = q * (width**-0.5 if scale is None else scale)
    state = v.new_zeros(*v.shape[:2], width, v.shape[-1]) if state is None else state.float()
    g = torch.zeros(q.shape[:3]) if g is None else g.float().transpose(1, 2)
    if g.dim() == 4:
        out = []
        for t in range(v.shape[2]):
            state = g[:, :, t, :, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None, :]
            out.append((q[:, :, t, None, :] @ state)[:, :, 0])
        return torch.stack(out, 2).transpose(1, 2).to(kind), state
    parts = []
    for now in _pieces(v.shape[2]):
        total = g[:, :, now].cumsum(-1)
        a, b, c = q[:, :, now], k[:, :, now], v[:, :, now]
        parts.append(total.exp()[..., None] * (a @ state) + ((a @ b.transpose(-1, -2)) * _decays(total)) @ c)
        left = (total[..., -1:] - total).exp()[..., None]
        state = total[..., -1].exp()[..., None, None] * state + (b * left).transpose(-1, -2) @ c
    return torch.cat(parts, 2).transpose(1, 2).to(kind), state


@_below
def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    skip: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    softplus: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mamba: h_t = exp(delta_t A) h + delta_t B_t u_t; y_t = C_t h_t + D u_t, times silu(gate).

    Args:
        u, delta, gate: (batch, channels, time). a: (channels, states). skip, delta_bias: (channels,).
        b, c: (channels, states), or (batch, states, time), or (batch, groups, states, time).

    Returns:
        y of u's shape, and the last h, (batch, channels, states).

    Raises:
        Unsupported: complex states.
    """
    if a.is_complex():
        raise Unsupported("complex states")
    kind, u, delta = u.dtype, u.float(), delta.float()
    if delta_bias is not None:
        delta = delta + delta_bias.float()[:, None]
    delta = F.softplus(delta) if softplus else delta
    b, c = (_by_channel(x.float(), u.shape) for x in (b, c))
    kept = torch.exp(delta[..., None] * a.float()[:, None, :])
    added = (delta * u)[..., None] * b
    h, states = u.new_zeros(*u.shape[:2], a.shape[1]), []
    for t in range(u.shape[2]):
        h = kept[:, :, t] * h + added[:, :, t]
        states.append(h)
    y = (torch.stack(states, 2) * c).sum(-1)
    y = y if skip is None else y + skip.float()[:, None] * u
    y = y if gate is None else y * F.silu(gate.float())
    return y.to(kind), h


def _by_channel(x: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """B or C for every channel and time: broadcastable to (batch, channels, time, states)."""
    if x.dim() == 2:
        return x[None, :, None, :]
    x = x[:, None] if x.dim() == 3 else x
    return x.transpose(-1, -2).repeat_interleave(shape[1] // x.shape[1], 1)


@_below
def state_space_dual(
    x: torch.Tensor,
    dt: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    skip: torch.Tensor | None = None,
    state: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mamba-2: h_t = exp(dt_t A) h + dt_t x_t B_t^T; y_t = h_t C_t + D x_t, one decay for a head.

    Args:
        x: (batch, time, heads, width). dt: (batch, time, heads), after bias and softplus. a: (heads,).
        b, c: (batch, time, groups, states). skip: (heads,) or (heads, width). state: (batch, heads, width, states).

    Returns:
        y of x's shape, and the last h.
    """
    each = x.shape[2] // b.shape[2]
    b, c = (item.float().repeat_interleave(each, 2) for item in (b, c))
    start = None if state is None else state.float().transpose(-1, -2)
    weighted = x.float() * dt.float()[..., None]
    y, last = linear_attention(c, b, weighted, dt.float() * a.float(), scale=1.0, state=start)
    if skip is not None:
        y = y + (skip.float()[:, None] if skip.dim() == 1 else skip.float()) * x.float()
    return y.to(x.dtype), last.transpose(-1, -2)


def causal_convolution(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None, before: torch.Tensor | None = None
) -> torch.Tensor:
    """Depthwise convolution that looks back only. x: (batch, channels, time); weight: (channels, taps), the last on the
    present; before: (batch, channels, taps - 1), what came earlier, zeros without it."""
    taps = weight.shape[1]
    x = F.pad(x, (taps - 1, 0)) if before is None else torch.cat([before.to(x.dtype), x], -1)
    return F.conv1d(x, weight[:, None].to(x.dtype), None if bias is None else bias.to(x.dtype), groups=x.shape[1])
