"""Flat buffers: parameters or gradients of many tensors as a few contiguous vectors, one for each dtype.

One all-reduce, one norm and one optimiser kernel then serve all tensors (specification section 8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from reference.ranks import Ranks


def _by_dtype(parameters: Iterable[nn.Parameter]) -> dict[torch.dtype, list[nn.Parameter]]:
    groups: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    return groups


class FlatGradients:
    """Gradients of some parameters as views into one buffer for each dtype; `p.grad` stays set for good."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.buffers: list[Tensor] = []
        for dtype, members in _by_dtype(parameters).items():
            buffer = torch.zeros(sum(p.numel() for p in members), dtype=dtype, device=members[0].device)
            offset = 0
            for p in members:
                p.grad = buffer[offset : offset + p.numel()].view(p.shape)
                offset += p.numel()
            self.buffers.append(buffer)

    def zero_(self) -> None:
        """Sets all gradients to zero."""
        for buffer in self.buffers:
            buffer.zero_()

    def sum_(self, ranks: Ranks) -> None:
        """Adds over ranks."""
        for buffer in self.buffers:
            ranks.sum_(buffer)


class FlatParameters:
    """Parameters as views into one buffer for each dtype, with a matching `FlatGradients`."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.buffers: list[Tensor] = []
        for members in _by_dtype(parameters).values():
            buffer = torch.cat([p.detach().reshape(-1) for p in members])
            offset = 0
            for p in members:
                p.data = buffer[offset : offset + p.numel()].view(p.shape)
                offset += p.numel()
            self.buffers.append(buffer)
        self.gradients = FlatGradients(parameters)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(weights, gradients) for each dtype."""
        return list(zip(self.buffers, self.gradients.buffers, strict=True))


def global_norm(buffers: Iterable[Tensor]) -> Tensor:
    """L2 norm over all buffers, fp32 scalar on the device, without waiting for it."""
    norms = [torch.linalg.vector_norm(buffer.float()) for buffer in buffers]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def clip_(buffers: Sequence[Tensor], limit: float) -> Tensor:
    """Scales all buffers so that their common norm is at most `limit` (0: no limit); returns the norm before."""
    norm = global_norm(buffers)
    if limit > 0:
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for buffer in buffers:
            buffer.mul_(factor.to(buffer.dtype))
    return norm
