"""fla, mamba_ssm and causal_conv1d under the names they are imported by; arithmetic in `recurrences`.

Names lie flat: a name of a package is found in each of its modules. What is not here is absent (an ImportError, so that
programs with another path take it); layers that programs import along with others and may never build end the run only
where they are built.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from auditor.dynamic.inside import delta_layers, mamba_layers, recurrences
from auditor.dynamic.inside.delta_layers import documents, refuse_unknown
from auditor.dynamic.inside.recurrences import Unsupported

# Arguments that say how a kernel works, not what it computes.
_HOW = ("chunk_size", "mode", "checkpoint_level", "head_first", "chunk_indices", "cu_seqlens_cpu", "safe_gate")
_UNBUILT = (
    "GatedDeltaProduct", "Mamba2", "Mamba", "RWKV7Attention", "RWKV6Attention", "GatedLinearAttention", "KimiDeltaAttention",
    "LinearAttention", "MultiScaleRetention", "HGRNAttention", "HGRN2Attention", "BasedLinearAttention", "Comba",
)  # fmt: skip
_MAMBA_MODULES = frozenset(
    {
        "mamba_ssm", "mamba_ssm.modules", "mamba_ssm.modules.mamba_simple", "mamba_ssm.modules.mamba2", "mamba_ssm.ops",
        "mamba_ssm.ops.selective_scan_interface", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.ssd_combined",
        "mamba_ssm.ops.triton.layernorm_gated", "causal_conv1d", "causal_conv1d.causal_conv1d_interface",
        "selective_scan_cuda", "causal_conv1d_cuda",
    }
)  # fmt: skip


def _rows_last(q: torch.Tensor, rest: dict[str, Any]) -> None:
    if rest.pop("head_first", False):
        raise Unsupported("heads before time")
    refuse_unknown(rest, *_HOW)


def delta(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    *,
    g: torch.Tensor | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """fla.ops.delta_rule: chunk_delta_rule and fused_recurrent_delta_rule; layout (batch, time, heads, width)."""
    _rows_last(q, rest)
    q, k = (recurrences.unit(q), recurrences.unit(k)) if use_qk_l2norm_in_kernel else (q, k)
    beta = torch.ones_like(v[..., 0]) if beta is None else beta
    tensors = (q, k, v, beta) if g is None else (q, k, v, beta, g)
    o, last = documents(recurrences.delta_rule, tensors, cu_seqlens, scale=scale, state=initial_state)
    return o, last if output_final_state else None


def gated_delta(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    beta: Any = None,
    *args: Any,
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """fla.ops.gated_delta_rule: the same with a log decay before beta."""
    return delta(q, k, v, beta, *args, g=g, **rest)


def gated_linear(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """fla.ops.gla and simple_gla; `gk` is another name of the decay of every key channel."""
    g = rest.pop("gk", None) if g is None else g
    _rows_last(q, rest)
    tensors = (q, k, v) if g is None else (q, k, v, g)
    o, last = documents(recurrences.linear_attention, tensors, cu_seqlens, scale=scale, state=initial_state)
    return o, last if output_final_state else None


def selective(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    delta_bias: torch.Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Any:
    """mamba_ssm's selective_scan_fn; layout (batch, channels, time)."""
    y, last = recurrences.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return (y, last) if return_last_state else y


def chunk_scan(
    x: torch.Tensor,
    dt: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    chunk_size: int = 256,
    D: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    initial_states: torch.Tensor | None = None,
    *,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    **rest: Any,
) -> Any:
    """mamba_ssm's mamba_chunk_scan_combined; layout (batch, time, heads, width)."""
    refuse_unknown(rest)
    dt = dt.float() if dt_bias is None else dt.float() + dt_bias.float()
    dt = (F.softplus(dt) if dt_softplus else dt).clamp(*dt_limit)
    y, last = recurrences.state_space_dual(x, dt, A, B, C, D, initial_states)
    y = y if z is None else y * F.silu(z.float()).to(y.dtype)
    return (y, last) if return_final_states else y


def convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    seq_idx: Any = None,
    initial_states: torch.Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Any = None,
    activation: str | None = None,
) -> torch.Tensor:
    """causal_conv1d's causal_conv1d_fn; layout (batch, channels, time)."""
    refuse_unknown(
        {"seq_idx": seq_idx, "return_final_states": return_final_states, "final_states_out": final_states_out}
    )
    if activation not in (None, "silu", "swish"):
        raise Unsupported(f"the activation {activation}")
    y = recurrences.causal_convolution(x, weight, bias, initial_states)
    return y if activation is None else F.silu(y)


class _Packages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the packages and fills each with all names of its package."""

    def __init__(self, names: dict[str, dict[str, Any]]) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        """Every module below fla; of the others those that are known."""
        root = fullname.partition(".")[0]
        if root in self.names and (root == "fla" or fullname in _MAMBA_MODULES):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """All names of the package."""
        for name, value in self.names[module.__name__.partition(".")[0]].items():
            module.__dict__.setdefault(name, value)


def _unbuilt(name: str, refuse: Callable[[str], Callable]) -> type:
    def new(*_: Any, **__: Any) -> Any:
        return refuse(name)()

    return type(name.rpartition(".")[2], (torch.nn.Module,), {"__new__": new})


def install(refuse: Callable[[str], Callable]) -> None:
    """Put the packages in place, unless they are installed. `refuse` makes a function that ends the run with a name."""

    def named(package: str, contents: dict[str, Any]) -> dict[str, Any]:
        return {name: _guarded(f"{package} {name}", value, refuse) for name, value in contents.items()}

    rules = {f"{how}_delta_rule": delta for how in ("chunk", "fused_recurrent", "fused_chunk")}
    rules |= {f"{how}_gated_delta_rule": gated_delta for how in ("chunk", "fused_recurrent", "naive_recurrent")}
    rules |= {f"{how}_{rule}": gated_linear for how in ("chunk", "fused_recurrent") for rule in ("gla", "simple_gla")}
    layers = {name: getattr(delta_layers, name) for name in
              ("GatedDeltaNet", "DeltaNet", "RMSNorm", "FusedRMSNormGated", "ShortConvolution")}  # fmt: skip
    fla = {**rules, **layers, "FusedRMSNormSwishGate": delta_layers.FusedRMSNormGated, "l2norm": recurrences.unit}
    fla = named("fla", fla) | {name: _unbuilt(f"fla's {name}", refuse) for name in _UNBUILT}
    scans = {"selective_scan_fn": selective, "selective_scan_ref": selective, "mamba_chunk_scan_combined": chunk_scan}
    modules = {"Mamba": mamba_layers.Mamba, "Mamba2": mamba_layers.Mamba2, "RMSNorm": mamba_layers.GroupedNorm}
    names = {
        "fla": fla,
        "mamba_ssm": named("mamba_ssm", {**scans, **modules}),
        "causal_conv1d": named("causal_conv1d", {"causal_conv1d_fn": convolve}),
        "selective_scan_cuda": {},
        "causal_conv1d_cuda": {},
    }
    absent = {name: own for name, own in names.items() if importlib.util.find_spec(name) is None}
    sys.meta_path.append(_Packages({name: {**own, "__version__": "2.0.0"} for name, own in absent.items()}))


def _guarded(name: str, value: Any, refuse: Callable[[str], Callable]) -> Any:
    """What raises `Unsupported` ends the run with its name."""
    if isinstance(value, type):
        return type(value.__name__, (value,), {
            "__init__": _guarded(name, value.__init__, refuse), "forward": _guarded(name, value.forward, refuse),
        })  # fmt: skip

    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return value(*args, **kwargs)
        except Unsupported as error:
            return refuse(f"{name} with {error}")()

    return call
