"""Two ranks in one sandbox: torch.distributed between processes that share a socket pair, and nothing else.

Every collective is an exchange of what each rank brought, followed by the same arithmetic on both sides in the same order.
No network, loopback included, is needed, so every layer of the sandbox stays up. What two ranks disagree about (one
sums while the other gathers) ends the run with both names, where a real cluster would hang.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

import torch
import torch.distributed as dist

from auditor.dynamic.inside.collectives import _GROUP, SingleRank, Work, _Group

RANKS = 2


def fork(result_fd: int) -> tuple[int, Connection | None, int]:
    """Become two processes that each run the script; returns (rank, connection to the other, result descriptor).

    The caller's process stays behind, waits for both, hands on what rank 1 recorded after what rank 0 has, and ends with the
    status of the first that failed.
    """
    near, far = Pipe()
    record = os.memfd_create("record")
    children = {}
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            (far if rank == 0 else near).close()
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS), LOCAL_WORLD_SIZE=str(RANKS))
            if rank:
                os.close(result_fd)
            return rank, (near if rank == 0 else far), (record if rank else result_fd)
        children[pid] = rank
    near.close()
    far.close()
    codes = {}
    while children:
        pid, status = os.wait()
        if pid in children:
            codes[children.pop(pid)] = os.waitstatus_to_exitcode(status)
    os.lseek(record, 0, os.SEEK_SET)
    with os.fdopen(result_fd, "wb") as out, os.fdopen(record, "rb") as other:
        out.write(b'\n{"kind":"rank","n":0,"rank":1}\n')
        out.write(other.read())
    os._exit(next((code & 255 for _, code in sorted(codes.items()) if code), 0))


class Pair(SingleRank):
    """A world of two ranks. `tell` receives tell("collective", op=..., size=elements) for every reduction."""

    def __init__(self, rank: int, line: Connection, tell: Callable[..., Any]) -> None:
        super().__init__()
        self._rank, self._line, self._tell = rank, line, tell
        self._lock = threading.Lock()
        self._alone = _Group()

    def install(self) -> None:
        """In place of torch.distributed's operations."""
        super().install()
        pair = self

        class Synchronised(_Averaged):
            """Averages gradients over this pair."""

            world = pair

        torch.nn.parallel.DistributedDataParallel = Synchronised

    # -- the exchange ------------------------------------------------------------------------------------------------

    def _swap(self, name: str, value: Any) -> list:
        """What each rank brought, by rank.

        Raises:
            RuntimeError: the other rank has ended, or is doing something else.
        """
        with self._lock:
            message = pickle.dumps((name, value))
            try:
                if self._rank == 0:
                    self._line.send_bytes(message)
                    other = self._line.recv_bytes()
                else:
                    other = self._line.recv_bytes()
                    self._line.send_bytes(message)
            except (EOFError, OSError) as error:
                raise RuntimeError(f"rank {1 - self._rank} has ended while this one was in {name}") from error
        theirs, given = pickle.loads(other)
        if theirs != name:
            raise RuntimeError(f"rank {self._rank} is in {name} while rank {1 - self._rank} is in {theirs}")
        return [value, given] if self._rank == 0 else [given, value]

    def _parts(self, name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
        return [torch.from_numpy(array) for array in self._swap(name, tensor.detach().contiguous().numpy())]

    def _reduced(self, name: str, tensor: torch.Tensor, op: Any) -> torch.Tensor:
        first, second = self._parts(name, tensor)
        self._tell("collective", op=name, size=tensor.numel())
        if op == dist.ReduceOp.AVG:
            return (first + second) / RANKS
        for kind, function in (
            (dist.ReduceOp.SUM, torch.add),
            (dist.ReduceOp.MAX, torch.maximum),
            (dist.ReduceOp.MIN, torch.minimum),
            (dist.ReduceOp.PRODUCT, torch.mul),
        ):
            if op == kind:
                return function(first, second)
        raise RuntimeError(f"{op} over two ranks has no stand-in")

    # -- operations --------------------------------------------------------------------------------------------------

    def get_rank(self, group: Any = None) -> int:
        return 0 if group is self._alone else self._rank

    def get_world_size(self, group: Any = None) -> int:
        return 1 if group is self._alone else RANKS

    def new_group(self, ranks: Any = None, *_: Any, **__: Any) -> _Group:
        return self._alone if ranks is not None and len(list(ranks)) == 1 else _GROUP

    def barrier(self, *_: Any, **__: Any) -> Work:
        self._swap("barrier", None)
        return Work()

    def all_reduce(
        self, tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None, *_: Any, **__: Any
    ) -> Work:
        if group is not self._alone:
            with torch.no_grad():
                tensor.copy_(self._reduced("all_reduce", tensor, op))
        return Work(tensor)

    def all_reduce_coalesced(self, tensors: list, op: Any = dist.ReduceOp.SUM, *_: Any, **__: Any) -> Work:
        for tensor in tensors:
            self.all_reduce(tensor, op)
        return Work(tensors)

    def reduce(self, tensor: torch.Tensor, dst: int = 0, op: Any = dist.ReduceOp.SUM, *_: Any, **__: Any) -> Work:
        total = self._reduced("reduce", tensor, op)
        if self._rank == dst:
            tensor.copy_(total)
        return Work(tensor)

    def broadcast(self, tensor: torch.Tensor, src: int = 0, group: Any = None, *_: Any, **__: Any) -> Work:
        if group is not self._alone:
            parts = self._parts("broadcast", tensor)
            with torch.no_grad():
                if self._rank != src:
                    tensor.copy_(parts[src])
        return Work(tensor)

    def all_gather(self, outputs: list, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        for output, part in zip(outputs, self._parts("all_gather", tensor), strict=True):
            output.copy_(part)
        return Work(outputs)

    def all_gather_into_tensor(self, output: torch.Tensor, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        output.copy_(torch.cat([part.reshape(-1) for part in self._parts("all_gather", tensor)]).reshape(output.shape))
        return Work(output)

    def reduce_scatter_tensor(
        self, output: torch.Tensor, tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM, *_: Any, **__: Any
    ) -> Work:
        total = self._reduced("reduce_scatter", tensor, op)
        output.copy_(total.reshape(RANKS, -1)[self._rank].reshape(output.shape))
        return Work(output)

    def reduce_scatter(
        self, output: torch.Tensor, inputs: list, op: Any = dist.ReduceOp.SUM, *_: Any, **__: Any
    ) -> Work:
        output.copy_(self._reduced("reduce_scatter", torch.stack(inputs), op)[self._rank])
        return Work(output)

    def gather(self, tensor: torch.Tensor, gather_list: list | None = None, dst: int = 0, *_: Any, **__: Any) -> Work:
        for output, part in zip(gather_list or [], self._parts("gather", tensor), strict=False):
            output.copy_(part)
        return Work(gather_list)

    def scatter(self, tensor: torch.Tensor, scatter_list: list | None = None, src: int = 0, *_: Any, **__: Any) -> Work:
        tensor.copy_(self._swap("scatter", scatter_list)[src][self._rank])
        return Work(tensor)

    def all_to_all_single(self, output: torch.Tensor, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        parts = [part.reshape(RANKS, -1)[self._rank] for part in self._parts("all_to_all", tensor)]
        output.copy_(torch.cat(parts).reshape(output.shape))
        return Work(output)

    def all_gather_object(self, objects: list, value: Any, *_: Any, **__: Any) -> None:
        objects[:] = self._swap("all_gather_object", value)

    def gather_object(self, value: Any, objects: list | None = None, *_: Any, **__: Any) -> None:
        found = self._swap("gather_object", value)
        if objects:
            objects[:] = found

    def broadcast_object_list(self, objects: list, src: int = 0, *_: Any, **__: Any) -> None:
        objects[:] = self._swap("broadcast_object_list", list(objects))[src]


class _Averaged(torch.nn.Module):
    """DistributedDataParallel over a pair: the module behind the attribute `module`, gradients averaged as they are made."""

    world: Pair

    def __init__(self, module: torch.nn.Module, *_: Any, **__: Any) -> None:
        super().__init__()
        self.module = module
        self.require_backward_grad_sync = True
        for parameter in (*module.parameters(), *module.buffers()):
            self.world.broadcast(parameter.data)
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._averaging(name))

    def _averaging(self, name: str) -> Callable[[torch.Tensor], None]:
        def average(parameter: torch.Tensor) -> None:
            if self.require_backward_grad_sync and parameter.grad is not None:
                total = self.world._reduced(f"the gradient of {name}", parameter.grad, dist.ReduceOp.AVG)
                parameter.grad.copy_(total)

        return average

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own."""
        return self.module(*args, **kwargs)

    @contextlib.contextmanager
    def no_sync(self) -> Any:
        """Gradients stay on their rank."""
        self.require_backward_grad_sync = False
        try:
            yield
        finally:
            self.require_backward_grad_sync = True
