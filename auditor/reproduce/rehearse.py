"""A rehearsal that looks for a size the program fits into, as the CPU run does."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from auditor.case import Case
from auditor.reproduce.measure import Measured
from auditor.reproduce.plan import SMALL, RerunPlan, make_rerun_plan
from auditor.reproduce.rerun import rerun

#: Shapes that do not fit may fit at another scale; a missing package or a time limit will not.
_SHAPES = re.compile(r"shape|size|divisib|divide|assert|dimension|index|range|view|must", re.I)


def rehearse(
    case: Case,
    seeds: Sequence[str],
    out: Path,
    *,
    ranks: int = 1,
    overrides: dict[str, str] | None = None,
    retry: bool = False,
    limit_minutes: float | None = None,
    cpu_seconds: float = 0.0,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[RerunPlan, list[Measured]]:
    """Run every seed at small scale; where shapes do not fit, with the next sizes, in a folder of their own.

    Args:
        cpu_seconds: CPU time of one process, 0 for no limit beside the wall clock; the rest as `rerun`.

    Raises:
        As `auditor.reproduce.rerun.rerun`.
    """
    from auditor.dynamic.plan import SCALES

    plan, measured = None, []
    for attempt in range(len(SCALES)):
        plan = make_rerun_plan(case, seeds, ranks=ranks, scale=SMALL, overrides=overrides, attempt=attempt)
        folder = out / f"sizes_{attempt + 1}" if attempt else out
        limits = {"limit_minutes": limit_minutes, "cpu_seconds": cpu_seconds}
        measured = rerun(case, plan, folder, retry=retry, tell=tell, **limits)
        if any(seed.complete and not any(seed.codes) for seed in measured):
            break
        if not any(_SHAPES.search(seed.reason) for seed in measured):
            break
        tell("the sizes did not fit; the next ones are tried")
    return plan, measured
