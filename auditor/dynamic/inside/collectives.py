"""torch.distributed for one rank, in plain Python: every collective over one rank copies or leaves alone.

gloo would need a network address and lacks averaging; with a single rank the mathematics is the identity, so this is
exact. Two ranks go through gloo on a loopback of their own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Work:
    """Handle of a finished operation."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def wait(self, *_: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True

    def get_future(self) -> Any:
        future = torch.futures.Future()
        future.set_result(self.value)
        return future


class _Group:
    """Process group of one rank."""

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return 1

    def name(self) -> str:
        return "one rank"


_GROUP = _Group()


class SingleRank:
    """State and operations of a world of one rank; `install` puts them in place of torch.distributed's."""

    def __init__(self) -> None:
        self.initialised = False

    def install(self) -> None:
        names = [name for name in dir(type(self)) if not name.startswith("_") and name != "install"]
        for name in names:
            setattr(dist, name, getattr(self, name))
            if hasattr(dist.distributed_c10d, name):
                setattr(dist.distributed_c10d, name, getattr(self, name))
        dist.group.WORLD = _GROUP
        torch.nn.parallel.DistributedDataParallel = Wrapped

    def init_process_group(self, *_: Any, **__: Any) -> None:
        self.initialised = True

    def destroy_process_group(self, *_: Any) -> None:
        self.initialised = False

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return self.initialised

    def get_rank(self, *_: Any, **__: Any) -> int:
        return 0

    def get_world_size(self, *_: Any, **__: Any) -> int:
        return 1

    def get_backend(self, *_: Any, **__: Any) -> str:
        return "nccl"

    def new_group(self, *_: Any, **__: Any) -> _Group:
        return _GROUP

    def barrier(self, *_: Any, **__: Any) -> Work:
        return Work()

    def all_reduce(self, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        return Work(tensor)

    def all_reduce_coalesced(self, tensors: list, *_: Any, **__: Any) -> Work:
        return Work(tensors)

    def broadcast(self, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        return Work(tensor)

    def reduce(self, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        return Work(tensor)

    def all_gather(self, outputs: list, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        outputs[0].copy_(tensor)
        return Work(outputs)

    def all_gather_into_tensor(self, output: torch.Tensor, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        output.copy_(tensor.reshape(output.shape))
        return Work(output)

    def reduce_scatter(self, output: torch.Tensor, inputs: list, *_: Any, **__: Any) -> Work:
        output.copy_(inputs[0])
        return Work(output)

    def reduce_scatter_tensor(self, output: torch.Tensor, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        output.copy_(tensor.reshape(output.shape))
        return Work(output)

    def gather(self, tensor: torch.Tensor, gather_list: list | None = None, *_: Any, **__: Any) -> Work:
        if gather_list:
            gather_list[0].copy_(tensor)
        return Work(gather_list)

    def scatter(self, tensor: torch.Tensor, scatter_list: list | None = None, *_: Any, **__: Any) -> Work:
        if scatter_list:
            tensor.copy_(scatter_list[0])
        return Work(tensor)

    def all_to_all_single(self, output: torch.Tensor, tensor: torch.Tensor, *_: Any, **__: Any) -> Work:
        output.copy_(tensor)
        return Work(output)

    def all_gather_object(self, objects: list, value: Any, *_: Any, **__: Any) -> None:
        objects[0] = value

    def gather_object(self, value: Any, objects: list | None = None, *_: Any, **__: Any) -> None:
        if objects:
            objects[0] = value

    def broadcast_object_list(self, objects: list, *_: Any, **__: Any) -> None:
        return None


class Wrapped(torch.nn.Module):
    """DistributedDataParallel over one rank: the module itself behind the attribute `module`."""

    def __init__(self, module: torch.nn.Module, *_: Any, **__: Any) -> None:
        super().__init__()
        self.module = module
        self.require_backward_grad_sync = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def no_sync(self) -> Any:
        import contextlib

        return contextlib.nullcontext()
