"""Start of one rank of a rehearsal: stand-in GPU up, several ranks by gloo on loopback, then the script as `__main__`.

At full scale on GPUs nothing of this is used: torchrun starts the submission's script as it is.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any


def main(script: str) -> None:
    """Run `script` as one rank of a rehearsal; the exit status is the script's."""
    given = json.loads(os.environ.pop("AUDITOR_SETTINGS", "{}"))
    scoring = json.loads(os.environ.pop("AUDITOR_SCORING", "null"))
    from auditor.dynamic.inside import grammar, settings, standin

    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and os.environ.get("AUDITOR_STANDIN", "1") == "1":
        _gloo_on_loopback()
    if os.environ.pop("AUDITOR_STANDIN", "1") == "1":
        standin.install()
    shrinker = settings.install(given, lambda *_, **__: None)
    grammar.Compiler(shrinker, str(Path(script).parent)).install()
    sys.argv = [script]
    # Our own packages come last, so that a module of the submission keeps its name.
    sys.path[:] = [str(Path(script).parent), *sys.path[1:], sys.path[0]]
    watcher = None
    if scoring is not None and (scoring.get("follow") or os.environ.get("RANK", "0") == "0"):
        from auditor.reproduce.inside.scoring import Capture

        watcher = Capture(scoring)
        watcher.install()
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    if watcher is not None:
        watcher.conclude(failed=bool(code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _gloo_on_loopback() -> None:
    """gloo by address: it finds none by itself where the host's name has no address and netlink is closed.

    What gloo lacks is put together from what it has, with the same result: averages from sums, a scattered reduction from
    a whole one. Wrappers that name a GPU are told of none.
    """
    import torch.distributed as dist
    from torch.distributed import distributed_c10d as c10d
    from torch.nn.parallel import DistributedDataParallel

    from auditor.dynamic.inside.collectives import Work

    real_group, real_reduce = c10d.ProcessGroupGloo, dist.all_reduce

    class Loopback(real_group):  # type: ignore[misc, valid-type]
        def __init__(self, store: Any, rank: int, size: int, timeout: Any = None, **_: Any) -> None:
            options = real_group._Options()
            options._devices = [real_group.create_device(hostname="127.0.0.1")]
            if timeout is not None:
                options._timeout = timeout
            super().__init__(store, rank, size, options)

    c10d.ProcessGroupGloo = Loopback
    dist.ProcessGroupGloo = Loopback
    # The group ends with the process: taking gloo's threads down before that can hang or abort a rank that has finished.
    dist.destroy_process_group = lambda *_, **__: None

    def all_reduce(tensor: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False) -> Any:
        if op != dist.ReduceOp.AVG:
            return real_reduce(tensor, op, group, async_op)
        real_reduce(tensor, dist.ReduceOp.SUM, group)
        tensor.div_(dist.get_world_size(group))
        return Work() if async_op else None

    def reduce_scatter_tensor(
        output: Any, given: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, async_op: bool = False
    ) -> Any:
        whole = given.clone()
        all_reduce(whole, op, group)
        output.copy_(whole.view(dist.get_world_size(group), -1)[dist.get_rank(group)].view_as(output))
        return Work() if async_op else None

    dist.all_reduce = all_reduce
    dist.reduce_scatter_tensor = reduce_scatter_tensor
    new_group = dist.new_group
    dist.new_group = lambda ranks=None, *_, **__: new_group(ranks, backend="gloo")
    wrap = DistributedDataParallel.__init__

    def on_cpu(
        self: Any, module: Any, device_ids: Any = None, output_device: Any = None, *args: Any, **more: Any
    ) -> None:
        wrap(self, module, None, None, *args, **more)

    DistributedDataParallel.__init__ = on_cpu  # type: ignore[method-assign]
