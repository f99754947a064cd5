"""Flat buffers: parameters or gradients of many tensors as a few contiguous vectors, one for each dtype.

One all-reduce, one norm and one optimiser kernel then serve all tensors (specification section 8).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from reference.ranks import Ranks

ALIGN = 64
"""Elements that every tensor of a buffer starts at a multiple of: compiled kernels and cuBLAS want 16-byte addresses."""


def _layout(parameters: Iterable[nn.Parameter]) -> list[tuple[list[nn.Parameter], list[int], int]]:
    """Members, their offsets and the length of one buffer for each dtype; gaps stay zero for good."""
    groups: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.dtype, []).append(parameter)
    laid = []
    for members in groups.values():
        offsets, end = [], 0
        for p in members:
            offsets.append(-(-end // ALIGN) * ALIGN)
            end = offsets[-1] + p.numel()
        laid.append((members, offsets, end))
    return laid


class FlatGradients:
    """Gradients of some parameters as views into one buffer for each dtype; `p.grad` stays set for good."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.buffers: list[Tensor] = []
        for members, offsets, size in _layout(parameters):
            buffer = torch.zeros(size, dtype=members[0].dtype, device=members[0].device)
            for p, offset in zip(members, offsets, strict=True):
                p.grad = buffer[offset : offset + p.numel()].view(p.shape)
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
        for members, offsets, size in _layout(parameters):
            buffer = torch.zeros(size, dtype=members[0].dtype, device=members[0].device)
            for p, offset in zip(members, offsets, strict=True):
                view = buffer[offset : offset + p.numel()].view(p.shape)
                view.copy_(p.detach())
                p.data = view
            self.buffers.append(buffer)
        self.gradients = FlatGradients(parameters)

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """(weights, gradients) for each dtype."""
        return list(zip(self.buffers, self.gradients.buffers, strict=True))


def global_norm(buffers: Iterable[Tensor]) -> Tensor:
    """L2 norm over all buffers, fp32 scalar on the device, without waiting for it."""
    norms = [torch.linalg.vector_norm(buffer, dtype=torch.float32) for buffer in buffers]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def clip_(buffers: Sequence[Tensor], limit: float) -> Tensor:
    """Scales all buffers so that their common norm is at most `limit` (0: no limit); returns the norm before."""
    norm = global_norm(buffers)
    if limit > 0:
        factor = (limit / (norm + 1e-6)).clamp(max=1.0)
        for buffer in buffers:
            buffer.mul_(factor.to(buffer.dtype))
    return norm
