"""Quantising a whole model: which tensor gets which scheme, and how well it went (specification 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from reference.config_eval import QuantConfig, QuantRule
from reference.container import DTYPES
from reference.errors import ArtifactError
from reference.model.roles import role_of
from reference.quantize.gptq import hessian_error, quantize_gptq
from reference.quantize.rowwise import Integers, prune, quantize_rows, quantize_tensor

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
FORMAT = "pg-quantized-1"


@dataclass(frozen=True)
class TensorReport:
    """How one tensor is stored.

    Attributes:
        bytes: stored before compression, scales included.
        relative_error: RMS of (w - w_hat) over RMS of w.
        hessian_error: `sum e H e^T` where a Hessian is known.
        entropy_bits: zero-order entropy of the stored integers, bits for each weight.
    """

    name: str
    scheme: str
    shape: list[int]
    bytes: int
    relative_error: float
    entropy_bits: float
    percentile: float = 1.0
    hessian_error: float | None = None
    damp: float | None = None


@dataclass
class QuantizedModel:
    """Stored tensors of a model.

    Attributes:
        integers: quantised tensors by parameter name.
        kept: tensors stored as floats.
        dtypes: dtype each parameter has in the model.
        reports: one for each tensor, in order.
    """

    integers: dict[str, Integers] = field(default_factory=dict)
    kept: dict[str, Tensor] = field(default_factory=dict)
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    reports: list[TensorReport] = field(default_factory=list)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all stored tensors, scales included, before compression."""
        return sum(report.bytes for report in self.reports)

    def dequantize(self) -> dict[str, Tensor]:
        """Weights by parameter name in the dtypes of the model."""
        return {
            name: self.integers[name].dequantize(dtype) if name in self.integers else self.kept[name].to(dtype)
            for name, dtype in self.dtypes.items()
        }

    def stored(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Meta and tensors for a container: `name.q` and `name.scale`, or `name` for tensors kept as floats."""
        tensors: dict[str, Tensor] = {}
        for name in self.dtypes:
            if name in self.integers:
                tensors[f"{name}.q"], tensors[f"{name}.scale"] = self.integers[name].q, self.integers[name].scale
            else:
                tensors[name] = self.kept[name]
        meta = {"format": FORMAT, "dtypes": {name: _NAMES[dtype] for name, dtype in self.dtypes.items()}}
        return meta, tensors

    @classmethod
    def from_stored(cls, meta: Mapping[str, Any], tensors: Mapping[str, Tensor], source: str) -> QuantizedModel:
        """Inverse of `stored`; refuses surplus, missing and ill-typed tensors.

        Raises:
            ArtifactError: naming the tensor.
        """
        dtypes = meta.get("dtypes")
        if meta.get("format") != FORMAT or not isinstance(dtypes, dict):
            raise ArtifactError(f"{source}: not a quantised model of format {FORMAT}")
        model, left = cls(), dict(tensors)
        for name, dtype in dtypes.items():
            if dtype not in DTYPES:
                raise ArtifactError(f"{source}: {name} has unknown dtype {dtype!r}")
            model.dtypes[name] = DTYPES[dtype]
            if name in left:
                model.kept[name] = _float_tensor(left.pop(name), name, source)
            else:
                q, scale = left.pop(f"{name}.q", None), left.pop(f"{name}.scale", None)
                model.integers[name] = _integers(q, scale, name, source)
        if left:
            raise ArtifactError(f"{source}: surplus tensor {next(iter(left))}")
        return model


def _float_tensor(tensor: Tensor, name: str, source: str) -> Tensor:
    if not tensor.is_floating_point() or not bool(torch.isfinite(tensor.float()).all()):
        raise ArtifactError(f"{source}: {name} must hold finite floats")
    return tensor


def _integers(q: Tensor | None, scale: Tensor | None, name: str, source: str) -> Integers:
    if q is None or scale is None:
        raise ArtifactError(f"{source}: {name} has no values, or no scale")
    fits = scale.ndim == 0 or (scale.ndim == 1 and q.ndim == 2 and scale.size(0) == q.size(0))
    if q.dtype != torch.int8 or scale.dtype != torch.float16 or not fits:
        raise ArtifactError(f"{source}: {name} must be int8 with fp16 scales, one for each row or one in all")
    if not bool(torch.isfinite(scale).all()) or not bool((scale >= 0).all()):
        raise ArtifactError(f"{source}: {name} has scales that are negative or not finite")
    return Integers(q, scale, 1.0)


def quantize_state(
    state: Mapping[str, Tensor], config: QuantConfig, hessians: Mapping[str, Tensor] | None = None
) -> QuantizedModel:
    """Quantises every tensor of a state dict by the rules of the configuration.

    Args:
        hessians: by parameter name, for rules with `gptq = true`; also used to report errors of the others.
    """
    model = QuantizedModel()
    for name, weight in state.items():
        model.dtypes[name] = weight.dtype
        rule = _rule(name, weight, config)
        original = weight.detach().float()
        hessian = None if hessians is None else hessians.get(name)
        damp = None
        if rule is None:
            model.kept[name] = _keep(name, weight, config)
            restored, percentile, scheme = model.kept[name].float(), 1.0, _NAMES[model.kept[name].dtype]
        else:
            integers, damp = _quantize(prune(original, config.prune_pct), rule, config, hessian)
            model.integers[name] = integers
            restored, percentile = integers.dequantize(), integers.percentile
            scheme = _scheme_name(rule, hessian is not None)
        model.reports.append(_report(name, original, restored, model, scheme, percentile, hessian, damp))
    return model


def _rule(name: str, weight: Tensor, config: QuantConfig) -> QuantRule | None:
    """Rule of a tensor, None when it is stored as floats."""
    if weight.numel() <= config.passthrough_max_numel or weight.ndim != 2:
        return None
    rule = next((r for r in config.rules if role_of(name) in r.roles), None)
    return None if rule is None or rule.scheme == "keep" else rule


def _keep(name: str, weight: Tensor, config: QuantConfig) -> Tensor:
    if not weight.is_floating_point():
        return weight.detach().clone()
    dtype = config.control_dtype if role_of(name) in config.control_roles else config.passthrough_dtype
    return weight.detach().to(DTYPES[dtype])


def _quantize(
    weight: Tensor, rule: QuantRule, config: QuantConfig, hessian: Tensor | None
) -> tuple[Integers, float | None]:
    if rule.scheme == "int_tensor":
        return quantize_tensor(weight, lo=rule.lo, hi=rule.hi, qmax=rule.qmax), None
    importance = hessian.diagonal().float() if config.clip_metric == "output" and hessian is not None else None
    integers = quantize_rows(
        weight,
        rule.percentiles,
        lo=rule.lo,
        hi=rule.hi,
        qmax=rule.qmax,
        floor=config.scale_floor,
        search=config.clip_search,
        half_scale=config.error_scale_dtype == "float16",
        importance_C=importance,
    )
    if not rule.gptq or hessian is None or config.gptq is None:
        return integers, None
    result = quantize_gptq(weight, hessian, integers.scale, rule.qmax, config.gptq)
    return Integers(result.integers.q, result.integers.scale, integers.percentile), result.damp


def _scheme_name(rule: QuantRule, has_hessian: bool) -> str:
    unit = "tensor" if rule.scheme == "int_tensor" else "row"
    return f"int{rule.bits} {unit}{' gptq' if rule.gptq and has_hessian else ''}"


def _report(
    name: str,
    original: Tensor,
    restored: Tensor,
    model: QuantizedModel,
    scheme: str,
    percentile: float,
    hessian: Tensor | None,
    damp: float | None,
) -> TensorReport:
    stored = [model.integers[name].q, model.integers[name].scale] if name in model.integers else [model.kept[name]]
    size = sum(t.numel() * t.element_size() for t in stored)
    norm = float(original.square().mean().sqrt())
    error = float((original - restored).square().mean().sqrt()) / norm if norm > 0 else 0.0
    weighted = hessian_error(original, restored, hessian) if hessian is not None else None
    return TensorReport(
        name, scheme, list(original.shape), size, error, entropy_bits(stored[0]), percentile, weighted, damp
    )


def entropy_bits(tensor: Tensor) -> float:
    """Zero-order entropy in bits of the values of an int8 tensor; the storage width for floats."""
    if tensor.dtype != torch.int8:
        return 8.0 * tensor.element_size()
    counts = torch.bincount(tensor.reshape(-1).to(torch.int64) + 128).double()
    p = counts[counts > 0] / counts.sum()
    return float(-(p * p.log2()).sum())


def report_rows(model: QuantizedModel) -> list[dict[str, Any]]:
    """Reports as plain dictionaries, for the event log."""
    return [asdict(report) for report in model.reports]
