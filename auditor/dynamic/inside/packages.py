"""Packages that need a GPU or are absent here, under the names they are imported by: flash-attn 2 and 3, hub kernels,
linear recurrences (`recurrent_packages`), and compressors that would spend the run's time on size.

Attention is reference arithmetic in float32. What has no faithful stand-in ends the run with its name.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import lzma
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from auditor.dynamic.inside import hub, recurrent_packages
from auditor.dynamic.inside.recurrences import Unsupported

_OFF = (None, False, 0, -1, (-1, -1), (None, None))
# Arguments that change nothing in the result where they stand.
_IGNORED = frozenset(
    {"deterministic", "num_splits", "pack_gqa", "enable_gqa", "sm_margin", "return_softmax", "scheduler_metadata"}
)


def install(refuse: Callable[[str], Callable]) -> None:
    """Put the modules in place. `refuse` makes a function that ends the run with the name it was given."""
    functions = {
        "flash_attn_func": flash,
        "flash_attn_qkvpacked_func": lambda qkv, **rest: flash(*qkv.unbind(2), **rest),
        "flash_attn_kvpacked_func": lambda q, kv, **rest: flash(q, *kv.unbind(2), **rest),
        "flash_attn_varlen_func": varlen,
        "flash_attn_with_kvcache": with_cache,
    }
    functions = {name: _named(name, function, refuse) for name, function in functions.items()}
    for name in ("flash_attn_interface", "flash_attn", "flash_attn.flash_attn_interface", "flash_attn_3"):
        _module(name, functions)
    attention = types.SimpleNamespace(**functions, flash_attn_interface=types.SimpleNamespace(**functions))

    def get_kernel(name: str, *_: Any, **__: Any) -> Any:
        return attention if "flash" in name else refuse(f"the hub kernel {name}")()

    if importlib.util.find_spec("kernels") is None:
        _module("kernels", {"get_kernel": get_kernel, "has_kernel": lambda name, **_: "flash" in name})
    recurrent_packages.install(refuse)
    hub.install(refuse)
    _compressors()


def _named(name: str, function: Callable, refuse: Callable[[str], Callable]) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Unsupported as error:
            return refuse(f"{name} with {error}")()

    return call


def _module(name: str, contents: dict[str, Any]) -> None:
    if name in sys.modules:
        return
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(contents, __version__="3.0.0", __path__=[])
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], last, module)


def _arguments(args: tuple, rest: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of an attention call; those by position differ between the versions and are told by their type.

    Raises:
        Unsupported: an argument that would change the result.
    """
    known = {name: rest.pop(name) for name in ("causal", "softmax_scale", "window_size") if name in rest}
    for value in args:
        if isinstance(value, bool):
            known["causal"] = value
        elif isinstance(value, float) and value:
            known["softmax_scale"] = value
    foreign = [name for name, value in rest.items() if name not in _IGNORED and not _is_off(value)]
    if foreign:
        raise Unsupported(", ".join(sorted(foreign)))
    return known


def _is_off(value: Any) -> bool:
    return not isinstance(value, torch.Tensor) and value in _OFF


def flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **rest: Any) -> torch.Tensor:
    """Attention over tensors of layout (batch, tokens, heads, width); fewer key heads than query heads are repeated.

    With fewer queries than keys the last query sees the last key, as in flash-attn from version 2.1 on.
    """
    return _attend(q, k, v, **_arguments(args, rest))


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    causal: bool = False,
    softmax_scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> torch.Tensor:
    q, k, v = (tensor.transpose(1, 2).float() for tensor in (q, k, v))
    left, right = (-1 if bound is None else int(bound) for bound in window_size)
    square = q.shape[2] == k.shape[2]
    mask = None
    if left >= 0 or right >= 0 or (causal and not square):
        rows = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2]
        columns = torch.arange(k.shape[2])[None, :]
        right = 0 if causal else right
        mask = (columns <= rows + right) if right >= 0 else torch.ones(len(rows), columns.shape[1], dtype=torch.bool)
        mask = mask & (columns >= rows - left) if left >= 0 else mask
    out = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=bool(causal) and mask is None,
        scale=softmax_scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2)


def varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int = 0,
    max_seqlen_k: int = 0,
    *args: Any,
    **rest: Any,
) -> torch.Tensor:
    """Attention within documents that are laid end to end, shape (tokens, heads, width)."""
    known = _arguments(args, rest)
    bounds_q, bounds_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    parts = []
    for a, b, c, d in zip(bounds_q, bounds_q[1:], bounds_k, bounds_k[1:], strict=False):
        if b > a:
            parts.append(_attend(q[None, a:b], k[None, c:d], v[None, c:d], **known)[0])
    out = torch.cat(parts) if parts else q[:0]
    return torch.cat([out, q.new_zeros(q.shape[0] - out.shape[0], *out.shape[1:])]) if len(out) < len(q) else out


def with_cache(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    k: torch.Tensor | None = None,
    v: torch.Tensor | None = None,
    *args: Any,
    cache_seqlens: Any = None,
    **rest: Any,
) -> torch.Tensor:
    """Attention over a key-value cache, shape (batch, room, heads, width); new keys and values are written into it."""
    known = _arguments(args, rest)
    batch, new = q.shape[0], 0 if k is None else k.shape[1]
    room = k_cache.shape[1]
    if cache_seqlens is None:
        filled = [room - new] * batch
    else:
        filled = torch.as_tensor(cache_seqlens).reshape(-1).expand(batch).tolist()
    rows = []
    for row, before in enumerate(filled):
        if new:
            k_cache[row, before : before + new] = k[row].to(k_cache.dtype)
            v_cache[row, before : before + new] = v[row].to(v_cache.dtype)
        seen = slice(row, row + 1), slice(0, before + new)
        rows.append(_attend(q[row : row + 1], k_cache[seen], v_cache[seen], **known))
    return torch.cat(rows)


def _compressors() -> None:
    """The best compression takes seconds on files whose size is not judged at this scale; what is unpacked is the same."""
    real = lzma.compress

    def compress(
        data: Any, format: int = lzma.FORMAT_XZ, check: int = -1, preset: Any = None, filters: Any = None
    ) -> bytes:
        return real(data, format, check, None if filters else 1, filters)

    lzma.compress = compress
    if importlib.util.find_spec("brotli") is None:
        return
    import brotli

    packed = brotli.compress

    def fast(data: Any, *args: Any, quality: int = 11, **rest: Any) -> bytes:
        return packed(data, *args, quality=min(quality, 4), **rest)

    class Compressor(brotli.Compressor):
        """As brotli's, quick."""

        def __new__(cls, *args: Any, quality: int = 11, **rest: Any) -> Any:
            return super().__new__(cls, *args, quality=min(quality, 4), **rest)

        def __init__(self, *args: Any, quality: int = 11, **rest: Any) -> None:
            super().__init__(*args, quality=min(quality, 4), **rest)

    brotli.compress, brotli.Compressor = fast, Compressor
