"""A re-run as a job of a SLURM cluster, through the package `submitit` (extra `slurm`).

One job runs all seeds one after the other on one node. The output folder lies on a file system that the node shares; a
job that is pre-empted is queued again and goes on there, because a re-run goes on where it was cut short.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from auditor.errors import AuditorError
from auditor.reproduce.plan import OVERHEAD_SECONDS, RerunPlan

#: A command: target and its options (a dataclass) to an exit code.
Command = Callable[[str, Any], int]
CORES_A_GPU = 12
#: Share of the expected time that is asked for on top: a job that is cut off costs more than one that ends early.
_RESERVE = 1.5
_MISSING = "a cluster job needs the package submitit: pip install 'parameter-golf-auditor[slurm]'"


class NoCluster(AuditorError):
    """The job could not be handed in; the message says what is missing."""


@dataclass(frozen=True)
class Resources:
    """What one job asks for.

    Attributes:
        name: of the job. partition, account: "" for the cluster's default.
        gpus, cores: of the one node. minutes: wall time of all seeds.
        folder: where submitit keeps its own files.
    """

    name: str
    partition: str
    account: str
    gpus: int
    cores: int
    minutes: int
    folder: str

    def parameters(self, kind: str) -> dict[str, Any]:
        """Parameters as `submitit.AutoExecutor` takes them; only SLURM knows partitions and accounts."""
        found: dict[str, Any] = {"name": self.name, "nodes": 1, "tasks_per_node": 1, "timeout_min": self.minutes}
        found |= {"cpus_per_task": self.cores, "gpus_per_node": self.gpus}
        if kind == "slurm":
            found |= {"slurm_partition": self.partition} if self.partition else {}
            found |= {"slurm_account": self.account} if self.account else {}
        return found


def resources_of(
    plan: RerunPlan, out: Path, *, partition: str = "", account: str = "", limit_minutes: float | None = None
) -> Resources:
    """What the job of a plan asks for.

    Args:
        out: folder of the re-run. limit_minutes: wall time of one seed, as given by the user.
    """
    one = limit_minutes or _RESERVE * plan.minutes_a_seed
    minutes = math.ceil(one * len(plan.seeds) + OVERHEAD_SECONDS / 60)
    cores = CORES_A_GPU * plan.gpus if plan.gpus else 2 * plan.ranks
    return Resources(
        f"reproduce-{plan.digest[:8]}", partition, account, plan.gpus, cores, minutes, str(out / "cluster")
    )


class OnNode:
    """What the job runs; callable and picklable, as submitit wants it."""

    def __init__(self, command: Command) -> None:
        self.command = command

    def __call__(self, target: str, options: Any) -> int:
        return self.command(target, options)

    def checkpoint(self, target: str, options: Any) -> Any:
        """Pre-empted: the same again, which goes on after the last finished seed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, target, options)


def submit(command: Command, target: str, options: Any, resources: Resources, kind: str = "slurm") -> Any:
    """Hand a re-run in; returns submitit's job.

    Args:
        command: what the node runs with `target` and `options`; a function of a module, so that it can be pickled.
        kind: "slurm", or "local" and "debug" of submitit, which need no cluster.

    Raises:
        NoCluster: submitit is not installed, or there is no SLURM here.
    """
    try:
        import submitit
    except ImportError as error:
        raise NoCluster(_MISSING) from error
    absolute = {
        name: value.resolve() for name in ("repo", "data", "out") if (value := getattr(options, name)) is not None
    }
    there = replace(options, cluster=None, **absolute)
    try:
        executor = submitit.AutoExecutor(folder=resources.folder, cluster=kind)
        executor.update_parameters(**resources.parameters(kind))
        return executor.submit(OnNode(command), str(Path(target).resolve()) if Path(target).exists() else target, there)
    except (RuntimeError, FileNotFoundError, AssertionError) as error:
        raise NoCluster(f"the job could not be handed in: {error}; is this a login node of a SLURM cluster?") from error
