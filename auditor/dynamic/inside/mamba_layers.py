"""Layers of mamba_ssm: parameters of the names and shapes of the package's, so that weights keep their meaning.

Arithmetic is that of `recurrences`. Caches for generation and options that change the result and are not known here raise
`Unsupported`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from auditor.dynamic.inside.delta_layers import refuse_unknown, time_steps, undecayed
from auditor.dynamic.inside.recurrences import causal_convolution, selective_scan, state_space_dual


class Mamba(nn.Module):
    """mamba_ssm.Mamba (arXiv 2312.00752)."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
        layer_idx: int | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        self.d_model, self.d_state, self.d_conv, self.expand = d_model, d_state, d_conv, expand
        self.d_inner, self.layer_idx, self.use_fast_path = int(expand * d_model), layer_idx, use_fast_path
        self.dt_rank = math.ceil(d_model / 16) if dt_rank == "auto" else int(dt_rank)
        self.activation, self.act = "silu", nn.SiLU()
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = _depthwise(self.d_inner, d_conv, conv_bias)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        spread = self.dt_rank**-0.5 * dt_scale
        with torch.no_grad():
            self.dt_proj.weight.fill_(spread) if dt_init == "constant" else self.dt_proj.weight.uniform_(
                -spread, spread
            )
            self.dt_proj.bias.copy_(time_steps(self.d_inner, dt_min, dt_max, dt_init_floor))
        self.dt_proj.bias._no_reinit = True
        self.A_log = undecayed(torch.arange(1.0, d_state + 1).repeat(self.d_inner, 1).log())
        self.D = undecayed(torch.ones(self.d_inner))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def forward(self, hidden_states: torch.Tensor, inference_params: Any = None) -> torch.Tensor:
        """(batch, time, d_model) to the same."""
        refuse_unknown({"inference_params": inference_params})
        x, z = self.in_proj(hidden_states).transpose(1, 2).chunk(2, 1)
        x = self.act(causal_convolution(x, self.conv1d.weight[:, 0], self.conv1d.bias))
        dt, b, c = self.x_proj(x.transpose(1, 2)).split([self.dt_rank, self.d_state, self.d_state], -1)
        dt = (dt @ self.dt_proj.weight.t()).transpose(1, 2)
        a, skip, bias = -self.A_log.float().exp(), self.D.float(), self.dt_proj.bias.float()
        y, _ = selective_scan(x, dt, a, b.transpose(1, 2), c.transpose(1, 2), skip, z, bias, True)
        return self.out_proj(y.transpose(1, 2))


def _depthwise(channels: int, taps: int, bias: bool) -> nn.Conv1d:
    return nn.Conv1d(channels, channels, taps, groups=channels, padding=taps - 1, bias=bias)


class GroupedNorm(nn.Module):
    """mamba_ssm's gated RMSNorm: mean squares over groups of channels; gated before the norm or after it."""

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        **_: Any,
    ) -> None:
        super().__init__()
        self.eps, self.group_size, self.norm_before_gate = eps, group_size, norm_before_gate
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.register_parameter("bias", None)

    def forward(self, x: torch.Tensor, z: torch.Tensor | None = None) -> torch.Tensor:
        """Of x's shape."""
        y, gate = x.float(), None if z is None else F.silu(z.float())
        y = y * gate if gate is not None and not self.norm_before_gate else y
        parts = y.unflatten(-1, (-1, self.group_size or y.shape[-1]))
        y = (parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + self.eps)).flatten(-2) * self.weight.float()
        return (y * gate if gate is not None and self.norm_before_gate else y).to(x.dtype)


class Mamba2(nn.Module):
    """mamba_ssm.Mamba2 (arXiv 2405.21060), on one device."""

    def __init__(
        self,
        d_model: int,
        d_state: int = 128,
        d_conv: int = 4,
        conv_init: float | None = None,
        expand: int = 2,
        headdim: int = 64,
        d_ssm: int | None = None,
        ngroups: int = 1,
        A_init_range: tuple[float, float] = (1, 16),
        D_has_hdim: bool = False,
        rmsnorm: bool = True,
        norm_before_gate: bool = False,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] = (0.0, math.inf),
        bias: bool = False,
        conv_bias: bool = True,
        chunk_size: int = 256,
        use_mem_eff_path: bool = True,
        layer_idx: int | None = None,
        process_group: Any = None,
        **_: Any,
    ) -> None:
        super().__init__()
        refuse_unknown({"process_group": process_group})
        self.d_model, self.d_state, self.d_conv, self.expand, self.headdim = d_model, d_state, d_conv, expand, headdim
        self.d_inner, self.ngroups, self.layer_idx = expand * d_model, ngroups, layer_idx
        self.d_ssm = d_ssm or self.d_inner
        if self.d_ssm % headdim:
            raise AssertionError(f"{self.d_ssm} channels are not whole heads of {headdim}")
        self.nheads, self.D_has_hdim, self.rmsnorm = self.d_ssm // headdim, D_has_hdim, rmsnorm
        self.norm_before_gate, self.dt_limit, self.activation = norm_before_gate, dt_limit, "silu"
        self.chunk_size, self.use_mem_eff_path, self.act = chunk_size, use_mem_eff_path, nn.SiLU()
        states = 2 * ngroups * d_state
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner + states + self.nheads, bias=bias)
        self.conv1d = _depthwise(self.d_ssm + states, d_conv, conv_bias)
        if conv_init is not None:
            nn.init.uniform_(self.conv1d.weight, -conv_init, conv_init)
        self.dt_bias = undecayed(time_steps(self.nheads, dt_min, dt_max, dt_init_floor))
        self.A_log = undecayed(torch.empty(self.nheads).uniform_(*A_init_range).log())
        self.D = undecayed(torch.ones(self.d_ssm if D_has_hdim else self.nheads))
        if rmsnorm:
            self.norm = GroupedNorm(self.d_ssm, 1e-5, self.d_ssm // ngroups, norm_before_gate)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def forward(self, u: torch.Tensor, seqlen: int | None = None, **rest: Any) -> torch.Tensor:
        """(batch, time, d_model) to the same; flat over batch and time where `seqlen` is given."""
        refuse_unknown(rest)
        flat = seqlen is not None
        u = u.unflatten(0, (-1, seqlen)) if flat else u
        states, rest_width = 2 * self.ngroups * self.d_state, self.d_inner - self.d_ssm
        sizes = [rest_width, rest_width, self.d_ssm, self.d_ssm + states, self.nheads]
        z0, x0, z, mixed, dt = self.in_proj(u).split(sizes, -1)
        mixed = causal_convolution(mixed.transpose(1, 2), self.conv1d.weight[:, 0], self.conv1d.bias).transpose(1, 2)
        x, b, c = self.act(mixed).split([self.d_ssm, states // 2, states // 2], -1)
        b, c = (item.unflatten(-1, (self.ngroups, self.d_state)) for item in (b, c))
        dt = F.softplus(dt.float() + self.dt_bias.float()).clamp(*self.dt_limit)
        skip = self.D.unflatten(0, (-1, self.headdim)) if self.D_has_hdim else self.D
        y, _ = state_space_dual(x.unflatten(-1, (-1, self.headdim)), dt, -self.A_log.float().exp(), b, c, skip)
        y = self.norm(y.flatten(-2), z) if self.rmsnorm else y.flatten(-2) * F.silu(z)
        y = torch.cat([F.silu(z0) * x0, y], -1) if rest_width else y
        out = self.out_proj(y)
        return out.flatten(0, 1) if flat else out
