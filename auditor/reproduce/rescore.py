"""Trusted score of an artifact: the submission's own code builds the model from it, the reference's loop scores it.

The script is started with one training step, so that it comes to the point where it reads its artifact back; there the
given file takes the place of its own. Whatever dequantiser, container or module layout it uses runs as it was written.
Adaptation during evaluation is part of the score when the program's evaluation is followed: the trusted loop then repeats
it with the submission's hyper-parameters in an order of its own (`auditor.reproduce.inside.following`).
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditor.case import Case
from auditor.errors import AuditorError
from auditor.reproduce.contained import FILES, contain
from auditor.reproduce.measure import Measured, measure
from auditor.reproduce.plan import FULL, RerunPlan, make_rerun_plan
from auditor.reproduce.rerun import (
    SCORING,
    attempt_folder,
    bindable,
    declared_stride,
    job_of,
    materialise,
    place_of,
)
from auditor.reproduce.state import write_atomically

_STEPS = re.compile(r"^(num_)?(iterations|train_steps|max_steps|total_steps|num_steps)$", re.I)
_NONE = re.compile(r"^(val|eval)_loss_every$|^val_every$|warmup_steps$", re.I)


class NotScored(AuditorError):
    """The artifact could not be scored; the message says what does not fit."""


def rescore(
    case: Case,
    artifact: Path,
    *,
    scale: str = FULL,
    data: Path | None = None,
    overrides: dict[str, str] | None = None,
    strides: tuple[int, ...] = (),
    minutes: float = 20.0,
    follow: bool | None = None,
) -> dict[str, Any]:
    """Score `artifact` with the code of a submission.

    Args:
        scale: "full" on one GPU with the settings as submitted, "small" for an artifact of a rehearsal (CPU).
        data: folder with datasets/ and tokenizers/; a rehearsal makes its own.
        strides: of sliding windows to score with besides whole rows.
        follow: let the program evaluate and repeat what it does, adaptation included; takes about twice as long as its
            evaluation on one process (default: at small scale).

    Returns:
        The report of `auditor.reproduce.inside.scoring`: `scores` (windows, bpb, loss, tokens, bytes), `adapter`,
        `causality`, `normalisation`, `positions`, `parameters`, and `followed` (the passes that were repeated).

    Raises:
        NotScored: the program did not come to the point where it reads its artifact, or its model's interface does not
            fit. SandboxUnavailable: this machine cannot contain an untrusted program.
    """
    if not artifact.is_file():
        raise NotScored(f"{artifact} is no file; give the compressed model that the submission's run wrote")
    plan = make_rerun_plan(case, ("0",), ranks=1, scale=scale, data=data, overrides=overrides)
    environment, attributes = _one_step(case, plan)
    plan = replace(plan, environment=environment, attributes=attributes)
    follow = scale != FULL if follow is None else follow
    score = {"artifact": "/artifact", "stop": not follow, "follow": follow}
    with tempfile.TemporaryDirectory(prefix="auditor-rescore-", dir=bindable(Path())) as name:
        stage = Path(name)
        stage.chmod(0o755)
        place = place_of(case, plan, stage)
        materialise(case, stage / "submission")
        given = stage / "artifact"
        given.write_bytes(artifact.read_bytes())
        given.chmod(0o644)
        job = job_of(plan, place, "0", stage, minutes * 60, score=score)
        if strides:
            job = _with_strides(job, strides)
        contain(replace(job, binds=(*job.binds, (str(given), "/artifact"))), stage / "run")
        made = measure(stage / "run", "0")
        report = stage / "run" / FILES / SCORING
        found = json.loads(report.read_text("utf-8")) if report.is_file() else {}
    return _judged(found, made.reason, artifact)


def trust(case: Case, plan: RerunPlan, measured: Measured, out: Path, attempt: int, follow: bool = False) -> None:
    """Score the artifact that a full-scale seed wrote and put the answer beside its measurements; kept on disk.

    Args:
        attempt: whose files are meant. follow: repeat its evaluation too, on one GPU, which takes as many times longer
            than the submission's own as it uses GPUs, twice.

    An artifact that cannot be scored leaves the reason in the place of the score.
    """
    if measured.artifact is None or not measured.complete:
        return
    folder = attempt_folder(out, measured.seed, attempt)
    kept = folder / "trusted.json"
    if not kept.exists():
        try:
            strides = (plan.stride or declared_stride(plan),)
            artifact = folder / FILES / measured.artifact.path
            data = Path(plan.data) if plan.data else None
            minutes = 20.0 + (2 * plan.ranks * plan.eval_limit / 60 if follow else 0.0)
            asked = {"scale": plan.scale, "data": data, "overrides": plan.environment, "minutes": minutes}
            found = rescore(case, artifact, strides=strides, follow=follow, **asked)
            # Otherwise it was taken before the program's own evaluation began: what that would have done is not known.
            found["evaluation_followed"] = follow
        except AuditorError as error:
            found = {"status": "not scored", "reason": str(error)}
        write_atomically(kept, json.dumps(found, indent=1))
    measured.trusted = json.loads(kept.read_text("utf-8"))


def _one_step(case: Case, plan: RerunPlan) -> tuple[dict[str, str], dict[str, Any]]:
    """Variables, and class attributes that no variable reaches, that make training as short as it goes."""
    from auditor.static.settings import declared_settings

    environment, attributes = dict(plan.environment), dict(plan.attributes)
    for setting in declared_settings(case.program.main.text, case.submission.main_script or ""):
        name = setting.environment or setting.name
        value = 1 if _STEPS.search(name) else 0 if _NONE.search(name) and plan.scale == FULL else None
        if value is not None and setting.environment:
            environment[setting.environment] = str(value)
        elif value is not None:
            attributes[f"{setting.owner}.{setting.name}"] = value
    return environment, attributes


def _with_strides(job: Any, strides: tuple[int, ...]) -> Any:
    commands = []
    for argv, environment in job.commands:
        scoring = json.loads(environment["AUDITOR_SCORING"]) | {"strides": list(strides)}
        commands.append((argv, {**environment, "AUDITOR_SCORING": json.dumps(scoring)}))
    return replace(job, commands=tuple(commands))


def _judged(found: dict[str, Any], reason: str, artifact: Path) -> dict[str, Any]:
    if not found:
        raise NotScored(f"{artifact.name}: the program ended before anything could be scored: {reason or 'no report'}")
    if found["status"] != "scored":
        why = found.get("reason", "")
        more = f"; the program ended with: {reason}" if reason else ""
        raise NotScored(f"{artifact.name}: {found['status']}: {why}{more}")
    if not found.get("swapped"):
        raise NotScored(
            f"{artifact.name}: the program does not read its artifact through a file it opens by path, so the given one"
            " could not take its place"
        )
    return found
