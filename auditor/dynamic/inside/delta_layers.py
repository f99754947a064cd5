"""Layers of fla: parameters of the names and shapes of the package's, so that weights keep their meaning.

Arithmetic is that of `recurrences`. Caches for generation, padding masks and options that change the result and are not
known here raise `Unsupported`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from auditor.dynamic.inside.recurrences import Unsupported, causal_convolution, delta_rule, unit


def is_off(value: Any) -> bool:
    """Whether an argument changes nothing."""
    return not isinstance(value, torch.Tensor) and value in (None, False, 0, (), [])


def refuse_unknown(given: dict[str, Any], *harmless: str) -> None:
    """Refuse what is switched on and not known.

    Raises:
        Unsupported: an option that could change the result.
    """
    on = [name for name, value in given.items() if name not in harmless and not is_off(value)]
    if on:
        raise Unsupported(", ".join(sorted(on)))


def time_steps(count: int, low: float, high: float, floor: float) -> torch.Tensor:
    """Biases b so that softplus(b) is spread evenly over the logarithms from `low` to `high`."""
    steps = torch.exp(torch.rand(count) * (math.log(high) - math.log(low)) + math.log(low)).clamp(min=floor)
    return steps + torch.log(-torch.expm1(-steps))


def undecayed(value: torch.Tensor) -> nn.Parameter:
    """A parameter with the packages' mark for optimizers."""
    parameter = nn.Parameter(value)
    parameter._no_weight_decay = True
    return parameter


def _activated(x: torch.Tensor, name: str | None) -> torch.Tensor:
    if name in ("silu", "swish"):
        return F.silu(x)
    if name in ("sigmoid",):
        return torch.sigmoid(x)
    if name is None:
        return x
    raise Unsupported(f"the activation {name}")


class RMSNorm(nn.Module):
    """fla's: x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""

    def __init__(
        self, hidden_size: int, elementwise_affine: bool = True, bias: bool = False, eps: float = 1e-5, **_: Any
    ) -> None:
        super().__init__()
        self.hidden_size, self.elementwise_affine, self.eps = hidden_size, elementwise_affine, eps
        self.register_parameter("weight", nn.Parameter(torch.ones(hidden_size)) if elementwise_affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(hidden_size)) if bias else None)

    def forward(self, x: torch.Tensor, residual: Any = None, prenorm: bool = False, **rest: Any) -> torch.Tensor:
        """Normalised x, of x's shape."""
        refuse_unknown({"residual": residual, "prenorm": prenorm, **rest}, "residual_in_fp32")
        return self._scaled(x)

    def _scaled(self, x: torch.Tensor) -> torch.Tensor:
        y = x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.eps)
        y = y if self.weight is None else y * self.weight.float()
        return (y if self.bias is None else y + self.bias.float()).to(x.dtype)


class FusedRMSNormGated(RMSNorm):
    """fla's: the norm of x, times an activation of a gate."""

    def __init__(
        self, hidden_size: int, elementwise_affine: bool = True, eps: float = 1e-5, activation: str = "swish", **_: Any
    ) -> None:
        super().__init__(hidden_size, elementwise_affine, eps=eps)
        self.activation = activation

    def forward(
        self, x: torch.Tensor, g: torch.Tensor, residual: Any = None, prenorm: bool = False, **rest: Any
    ) -> torch.Tensor:
        """Normalised x times act(g), of x's shape."""
        refuse_unknown({"residual": residual, "prenorm": prenorm, **rest}, "residual_in_fp32")
        return (self._scaled(x) * _activated(g.float(), self.activation)).to(x.dtype)


class ShortConvolution(nn.Conv1d):
    """fla's: a depthwise causal convolution over (batch, time, channels)."""

    def __init__(
        self, hidden_size: int, kernel_size: int, bias: bool = False, activation: str | None = "silu", **_: Any
    ) -> None:
        super().__init__(hidden_size, hidden_size, kernel_size, groups=hidden_size, bias=bias, padding=kernel_size - 1)
        self.hidden_size, self.activation = hidden_size, activation

    def forward(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        cache: Any = None,
        output_final_state: bool = False,
        cu_seqlens: torch.Tensor | None = None,
        **rest: Any,
    ) -> tuple[torch.Tensor, None]:
        """Convolved and activated x, of x's shape; documents laid end to end (batch of one) do not see each other."""
        refuse_unknown({"cache": cache, "output_final_state": output_final_state, **rest}, "chunk_indices", "head_dim")
        x = x if mask is None else x * mask.to(x.dtype)[..., None]
        parts = [
            causal_convolution(part.transpose(1, 2), self.weight[:, 0], self.bias).transpose(1, 2)
            for part in x.split(lengths(cu_seqlens, x.shape[1]), 1)
        ]
        y = _activated(torch.cat(parts, 1), self.activation)
        return (y if residual is None else y + residual), None


def lengths(bounds: torch.Tensor | None, total: int) -> list[int]:
    """Lengths of documents laid end to end, by their bounds; one document without them."""
    return [total] if bounds is None else bounds.diff().tolist()


class _DeltaLayer(nn.Module):
    """What DeltaNet and GatedDeltaNet have in common: short convolutions, and the output's norm and projection."""

    def _finish(self, hidden: int, key: int, value: int, head_v: int, conv: dict[str, Any], eps: float) -> None:
        if self.use_short_conv:
            kind = conv.pop("qk")
            self.q_conv1d = ShortConvolution(key, activation=kind, **conv)
            self.k_conv1d = ShortConvolution(key, activation=kind, **conv)
            self.v_conv1d = ShortConvolution(value, activation="silu", **conv)
        if self.use_gate:
            self.g_proj = nn.Linear(hidden, value, bias=False)
            self.o_norm: RMSNorm = FusedRMSNormGated(head_v, eps=eps)
        else:
            self.o_norm = RMSNorm(head_v, eps=eps)
        self.o_proj = nn.Linear(value, hidden, bias=False)

    def _heads(self, x: torch.Tensor, bounds: Any, act: str | None) -> tuple[torch.Tensor, ...]:
        made = []
        for name, width in (("q", self.head_k_dim), ("k", self.head_k_dim), ("v", self.head_v_dim)):
            y = getattr(self, f"{name}_proj")(x)
            if self.use_short_conv:
                y, _ = getattr(self, f"{name}_conv1d")(y, cu_seqlens=bounds)
            else:
                y = _activated(y, "silu" if name == "v" else act)
            made.append(y.unflatten(-1, (-1, width)))
        return tuple(made)

    def _out(self, x: torch.Tensor, o: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        gate = (self.g_proj(x).unflatten(-1, (-1, self.head_v_dim)),) if self.use_gate else ()
        return self.o_proj(self.o_norm(o, *gate).flatten(-2)), None, None


def _plain_call(mask: Any, cache: Any, use_cache: Any, attentions: Any) -> None:
    if mask is not None and not bool(torch.as_tensor(mask).all()):
        raise Unsupported("a padding mask")
    refuse_unknown({"past_key_values": cache, "use_cache": use_cache, "output_attentions": attentions})


class GatedDeltaNet(_DeltaLayer):
    """fla.layers.GatedDeltaNet (arXiv 2412.06464)."""

    def __init__(
        self,
        hidden_size: int = 2048,
        expand_v: float = 2,
        head_dim: int = 256,
        num_heads: int = 6,
        num_v_heads: int | None = None,
        mode: str = "chunk",
        use_gate: bool = True,
        use_short_conv: bool = True,
        allow_neg_eigval: bool = False,
        conv_size: int = 4,
        conv_bias: bool = False,
        layer_idx: int | None = None,
        norm_eps: float = 1e-5,
        **_: Any,
    ) -> None:
        super().__init__()
        self.mode, self.hidden_size, self.expand_v, self.layer_idx = mode, hidden_size, expand_v, layer_idx
        self.use_gate, self.use_short_conv, self.allow_neg_eigval = use_gate, use_short_conv, allow_neg_eigval
        self.conv_size, self.conv_bias = conv_size, conv_bias
        self.head_dim, self.num_heads, self.num_v_heads = head_dim, num_heads, num_v_heads or num_heads
        self.head_k_dim, self.head_v_dim = head_dim, int(head_dim * expand_v)
        self.key_dim, self.value_dim = num_heads * head_dim, self.num_v_heads * self.head_v_dim
        if not math.isclose(head_dim * expand_v, self.head_v_dim, rel_tol=1e-5) or self.num_v_heads % num_heads:
            raise ValueError(f"{self.num_v_heads} value heads of {head_dim * expand_v} do not fit {num_heads} heads")
        self.q_proj = nn.Linear(hidden_size, self.key_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, self.key_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, self.value_dim, bias=False)
        self.a_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.b_proj = nn.Linear(hidden_size, self.num_v_heads, bias=False)
        self.A_log = undecayed(torch.log(torch.empty(self.num_v_heads).uniform_(0, 16)))
        self.dt_bias = undecayed(time_steps(self.num_v_heads, 0.001, 0.1, 1e-4))
        conv = {"kernel_size": conv_size, "bias": conv_bias, "qk": "silu"}
        self._finish(hidden_size, self.key_dim, self.value_dim, self.head_v_dim, conv, norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        output_attentions: bool | None = False,
        **rest: Any,
    ) -> tuple[torch.Tensor, None, None]:
        """(batch, time, hidden) to the same; the second and third are what callers unpack and this does not have."""
        _plain_call(attention_mask, past_key_values, use_cache, output_attentions)
        bounds = rest.get("cu_seqlens")
        q, k, v = self._heads(hidden_states, bounds, "silu")
        beta = self.b_proj(hidden_states).float().sigmoid() * (2.0 if self.allow_neg_eigval else 1.0)
        steps = F.softplus(self.a_proj(hidden_states).float() + self.dt_bias.float())
        o, _ = documents(delta_rule, (unit(q), unit(k), v, beta, -self.A_log.float().exp() * steps), bounds)
        return self._out(hidden_states, o)


class DeltaNet(_DeltaLayer):
    """fla.layers.DeltaNet (arXiv 2406.06484)."""

    def __init__(
        self,
        mode: str = "chunk",
        d_model: int | None = None,
        hidden_size: int = 1024,
        expand_k: float = 1.0,
        expand_v: float = 1.0,
        num_heads: int = 4,
        use_beta: bool = True,
        use_gate: bool = False,
        use_short_conv: bool = True,
        conv_size: int = 4,
        conv_bias: bool = False,
        allow_neg_eigval: bool = False,
        layer_idx: int | None = None,
        qk_activation: str = "silu",
        qk_norm: str = "l2",
        norm_eps: float = 1e-5,
        **_: Any,
    ) -> None:
        super().__init__()
        if qk_activation != "silu" or qk_norm != "l2":
            raise Unsupported(f"DeltaNet with {qk_activation} and {qk_norm} norm")
        hidden_size = d_model or hidden_size
        self.mode, self.hidden_size, self.num_heads, self.layer_idx = mode, hidden_size, num_heads, layer_idx
        self.expand_k, self.expand_v, self.qk_activation, self.qk_norm = expand_k, expand_v, qk_activation, qk_norm
        self.use_beta, self.use_gate, self.use_short_conv = use_beta, use_gate, use_short_conv
        self.conv_size, self.conv_bias, self.allow_neg_eigval = conv_size, conv_bias, allow_neg_eigval
        self.key_dim, self.value_dim = int(hidden_size * expand_k), int(hidden_size * expand_v)
        self.head_k_dim, self.head_v_dim = self.key_dim // num_heads, self.value_dim // num_heads
        self.q_proj = nn.Linear(hidden_size, self.key_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, self.key_dim, bias=False)
        self.v_proj = nn.Linear(hidden_size, self.value_dim, bias=False)
        if use_beta:
            self.b_proj = nn.Linear(hidden_size, num_heads, bias=False)
        conv = {"kernel_size": conv_size, "bias": conv_bias, "qk": "silu"}
        self._finish(hidden_size, self.key_dim, self.value_dim, self.head_v_dim, conv, norm_eps)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = False,
        output_attentions: bool | None = False,
        **rest: Any,
    ) -> tuple[torch.Tensor, None, None]:
        """As `GatedDeltaNet.forward`."""
        _plain_call(attention_mask, past_key_values, use_cache, output_attentions)
        bounds = rest.get("cu_seqlens")
        q, k, v = self._heads(hidden_states, bounds, "silu")
        beta = self.b_proj(hidden_states).float().sigmoid() if self.use_beta else torch.ones_like(q[..., 0])
        beta = beta * 2.0 if self.allow_neg_eigval else beta
        o, _ = documents(delta_rule, (unit(q), unit(k), v, beta), bounds)
        return self._out(hidden_states, o)


def documents(
    rule: Any, tensors: tuple[torch.Tensor, ...], bounds: torch.Tensor | None, **rest: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """A recurrence over (batch, time, ...) tensors; with bounds it starts afresh at each, and states are stacked."""
    if bounds is None:
        return rule(*tensors, **rest)
    state = rest.pop("state", None)
    split = zip(*(tensor.split(lengths(bounds, tensor.shape[1]), 1) for tensor in tensors), strict=True)
    made = [rule(*part, state=None if state is None else state[i : i + 1], **rest) for i, part in enumerate(split)]
    return torch.cat([o for o, _ in made], 1), torch.cat([last for _, last in made])
