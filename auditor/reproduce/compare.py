"""Measured against stated: checks, statistics, and one verdict.

Two comparisons are made. What a program printed is compared with what was measured outside it, at every scale. What the
submission claims is compared with the re-run only where the re-run is what the claim is about: full scale, eight H100.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from auditor.case import Case
from auditor.reproduce.checks import DIFFERS, NOISE, UNSEEN, Check, other_means, seed_checks
from auditor.reproduce.claims import claim_checks, statistics_of
from auditor.reproduce.measure import Measured
from auditor.reproduce.plan import FULL, RerunPlan


class Outcome(enum.StrEnum):
    """Verdict of a re-run."""

    REPRODUCED = "REPRODUCED"
    NOISE = "WITHIN NOISE"
    NOT = "NOT REPRODUCED"
    COULD_NOT = "COULD NOT RUN"


@dataclass
class Reproduction:
    """The re-run as data: the section `reproduction` of a report."""

    verdict: Outcome
    reason: str
    scale: str
    comparable: bool
    checks: list[Check] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    seeds: list[dict[str, Any]] = field(default_factory=list)
    claimed_curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def reproduce(case: Case, plan: RerunPlan, seeds: Sequence[Measured], environment: dict[str, Any]) -> Reproduction:
    """Compare a re-run with what was printed and claimed."""
    means = other_means(case)
    checks = [check for seed in seeds for check in seed_checks(seed, plan, means)]
    comparable, why = _comparable(plan, environment)
    if comparable:
        checks += list(claim_checks(case, seeds))
    statistics = statistics_of(case, seeds, comparable)
    verdict, reason = decide(checks, seeds, comparable, why)
    deciding = {key: value for key, value in environment.items() if key != "packages"}
    curves = {run.path + (f" seed {run.seed}" if run.seed is not None else ""): _curve(run) for run in _claimed(case)}
    return Reproduction(
        verdict,
        reason,
        plan.scale,
        comparable,
        checks,
        statistics,
        plan.as_dict(),
        deciding,
        [seed.as_dict() for seed in seeds],
        curves,
    )


def _comparable(plan: RerunPlan, environment: dict[str, Any]) -> tuple[bool, str]:
    """Whether the re-run is the experiment the claim is about."""
    if plan.scale != FULL:
        return False, "a rehearsal at small scale"
    names = [gpu.get("name", "") for gpu in environment.get("gpus") or []]
    if plan.ranks != 8:
        return False, f"{plan.ranks} processes instead of 8"
    other = [name for name in names[:8] if "H100" not in name or "PCIe" in name or "NVL" in name]
    if len(names) < 8 or other:
        return False, "not eight H100 SXM: " + (", ".join(sorted(set(names))) or "no GPU seen")
    return True, ""


def decide(checks: Sequence[Check], seeds: Sequence[Measured], comparable: bool, why: str) -> tuple[Outcome, str]:
    """Verdict and its reason. What outside measurement contradicts outweighs everything else."""
    contradicted = [check for check in checks if check.status == DIFFERS]
    if contradicted:
        first = contradicted[0]
        more = f" (and {len(contradicted) - 1} more)" if len(contradicted) > 1 else ""
        return Outcome.NOT, f"{first.scope}, {first.subject}: {first.note}{more}"
    finished = [seed for seed in seeds if seed.complete and not any(seed.codes)]
    if not any("val_bpb" in seed.printed for seed in finished):
        reasons = "; ".join(f"seed {seed.seed}: {seed.reason or 'no result was printed'}" for seed in seeds)
        return Outcome.COULD_NOT, reasons or "no seed was run"
    if comparable:
        final = [check for check in checks if check.claim and check.subject == "mean val_bpb"]
        if not final:
            return Outcome.COULD_NOT, "the submission claims no val_bpb to compare with"
        within = final[0].status == NOISE
        return (Outcome.NOISE if within else Outcome.REPRODUCED), final[0].note
    scored = [check for check in checks if check.subject == "val_bpb"]
    open_ones = [check for check in scored if check.status == UNSEEN]
    if open_ones or len(scored) < len(seeds):
        told = open_ones[0].note if open_ones else "not every seed finished"
        return Outcome.COULD_NOT, f"{why}: {told}"
    return Outcome.REPRODUCED, f"{why}: what {len(scored)} seed(s) printed is what was measured"


def _claimed(case: Case) -> list:
    from rules.measures import reported_runs

    return reported_runs(case)


def _curve(run: Any) -> list[tuple[int, float]]:
    return [(step.step, step.train_loss) for step in run.steps if step.train_loss is not None]
