"""torch.compile in one place: when it is used, and how many graphs one function may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from reference.config import RunConfig

GRAPHS = 64
"""Graphs of one function before torch gives up: shapes of batches, training or not, QAT or not, several models in one
process. With torch's own limit of 8 a whole-graph compilation would end the run."""

Function = TypeVar("Function", bound=Callable[..., object])


def wanted(config: RunConfig, device: torch.device) -> bool:
    """Whether functions are compiled: on GPUs, unless `run.compile` is false."""
    return config.compile and device.type == "cuda"


def compiled(function: Function, config: RunConfig, device: torch.device, *, variable: bool = False) -> Function:
    """The function compiled where that is wanted, else itself.

    Args:
        variable: lets torch make sizes variable and split the graph; else there is one whole graph for each shape, so
            that nothing runs uncompiled unnoticed.
    """
    if not wanted(config, device):
        return function
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    made: Function = torch.compile(function, dynamic=None if variable else False, fullgraph=not variable)
    return made
