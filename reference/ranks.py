"""The ranks of a run: one process, or several started by torchrun (nccl on GPUs, gloo on CPUs)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from reference.errors import ConfigError


@dataclass(frozen=True)
class Ranks:
    """This process among all; every method is the identity when there is only one."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and lines."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Adds over ranks in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def max_float(self, value: float) -> float:
        """Largest of the ranks' values, the same on all."""
        if self.world == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return float(tensor.item())

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Equal-shaped tensors of all ranks in order of rank."""
        if self.world == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(parts, tensor.contiguous())
        return parts

    def gather_objects(self, value: Any) -> list[Any]:
        """Small Python values of all ranks in order of rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Rank 0's values in place."""
        if self.world > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def barrier(self) -> None:
        """Waits until every rank is here."""
        if self.world > 1:
            dist.barrier()

    def slice(self, count: int) -> tuple[int, int]:
        """This rank's contiguous part of `count` items: `floor(count r / W)` to `floor(count (r+1) / W)`."""
        return count * self.rank // self.world, count * (self.rank + 1) // self.world


def start(device: str = "") -> Ranks:
    """Joins the ranks named by torchrun's environment, or stands alone.

    Args:
        device: `cpu` or `cuda`; empty takes a GPU when there is one.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here; use --device cpu")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    where = torch.device("cpu")
    if kind == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    if world > 1 and not dist.is_initialized():
        if kind == "cuda":
            dist.init_process_group("nccl", device_id=where)
        else:
            dist.init_process_group("gloo")
    return Ranks(rank, world, where)


def stop() -> None:
    """Leaves the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def leave(code: int = 0) -> None:
    """Ends this process when it is one of several on CPUs; with a single rank, or on GPUs, only leaves the group.

    A worker thread of gloo may still hold finished work whose tensors belong to Python. If it drops them while the
    interpreter is being torn down it cannot get the interpreter's lock any more and the process aborts
    ("terminate called without an active exception"), now and then, after all work is done and written.
    """
    ends = dist.is_initialized() and dist.get_backend() == "gloo"
    stop()
    if ends:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
