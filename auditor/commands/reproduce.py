"""`auditor reproduce`: plan, run, compare; all is kept in the output folder and goes on after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from auditor.case import Case
from auditor.casefile import Call, build_case
from auditor.errors import AuditorError
from auditor.reproduce import state as states
from auditor.reproduce.cluster import Resources, resources_of, submit
from auditor.reproduce.compare import Outcome, Reproduction, reproduce
from auditor.reproduce.environment import environment_record
from auditor.reproduce.plan import FULL, SMALL, RerunPlan, make_rerun_plan
from auditor.reproduce.rehearse import rehearse
from auditor.reproduce.render import markdown
from auditor.reproduce.rerun import rerun
from auditor.reproduce.rescore import rescore as score
from auditor.reproduce.rescore import trust
from auditor.reproduce.state import write_atomically
from auditor.reproduce.testimony import default_folder
from auditor.targets import resolve

EXIT = {Outcome.REPRODUCED: 0, Outcome.NOISE: 0, Outcome.NOT: 1, Outcome.COULD_NOT: 4}


@dataclass(frozen=True)
class Options:
    """Options of the command, as the command line names them."""

    repo: Path | None = None
    gpus: int = 8
    ranks: int | None = None
    seeds: str = ""
    data: Path | None = None
    scale: str = "full"
    out: Path | None = None
    dry_run: bool = False
    retry: bool = False
    limit_minutes: float | None = None
    gpu_hour_price: float | None = None
    variables: tuple[str, ...] = ()
    no_rescore: bool = False
    cluster: str | None = None
    partition: str = ""
    account: str = ""
    follow: bool | None = None


def run(target: str, options: Options) -> int:
    """Re-run one submission; returns the exit code (0 reproduced, 1 not, 4 could not run)."""
    console = Console(soft_wrap=True, highlight=False)
    case = load(target, options.repo)
    plan = make_rerun_plan(
        case,
        tuple(seed.strip() for seed in options.seeds.split(",") if seed.strip()),
        ranks=options.ranks or (options.gpus if options.scale == "full" else 1),
        scale=options.scale,
        data=options.data,
        overrides=dict(_assignment(text) for text in options.variables),
    )
    _show(console, plan, options.gpu_hour_price)
    if options.dry_run:
        if options.cluster:
            asked = _resources(plan, options, options.out or default_folder(plan.digest, plan.scale))
            console.print(f"  job: {json.dumps(asked.parameters(options.cluster))}", markup=False)
        console.print(
            "dry run: nothing was started; environment: "
            + json.dumps({k: v for k, v in environment_record(case.submission).items() if k != "packages"}),
            markup=False,
        )
        return 0
    out = options.out or default_folder(plan.digest, plan.scale)
    if options.cluster:
        return _hand_in(console, target, replace(options, out=out), plan)
    asked: dict[str, Any] = {"retry": options.retry, "limit_minutes": options.limit_minutes}
    asked["tell"] = lambda text: console.print(text, markup=False)
    if options.scale == SMALL:
        overrides = dict(_assignment(text) for text in options.variables)
        plan, seeds = rehearse(case, plan.seeds, out, ranks=plan.ranks, overrides=overrides, **asked)
    else:
        seeds = rerun(case, plan, out, **asked)
    if options.scale == FULL and not options.no_rescore:
        attempts = json.loads((out / states.NAME).read_text("utf-8"))["seeds"]
        for seed in seeds:
            trust(case, plan, seed, out, attempts[seed.seed]["attempts"], bool(options.follow))
    environment = json.loads((out / "environment.json").read_text("utf-8"))
    found = reproduce(case, plan, seeds, environment)
    write(found, out)
    console.print(f"{found.verdict}: {found.reason}", markup=False)
    console.print(f"report: {out / 'reproduction.md'}, data: {out / 'reproduction.json'}", markup=False)
    return EXIT[found.verdict]


def _resources(plan: RerunPlan, options: Options, out: Path) -> Resources:
    limits = {"partition": options.partition, "account": options.account, "limit_minutes": options.limit_minutes}
    return resources_of(plan, out, **limits)


def _hand_in(console: Console, target: str, options: Options, plan: RerunPlan) -> int:
    """Hand the re-run in as a cluster job and say where its results will be."""
    out = options.out or Path()
    job = submit(run, target, options, _resources(plan, options, out), options.cluster or "slurm")
    console.print(f"job {job.job_id} handed in; results will be in {out}", markup=False)
    return int(job.result()) if options.cluster == "debug" else 0


def rescore(target: str, artifact: Path, options: Options, strides: tuple[int, ...]) -> int:
    """Score an artifact with the submission's code and the reference's loop; 0 scored, 4 not."""
    console = Console(soft_wrap=True, highlight=False)
    overrides = dict(_assignment(text) for text in options.variables)
    case = load(target, options.repo)
    wanted = {"scale": options.scale, "data": options.data, "overrides": overrides, "strides": strides}
    found = score(case, artifact, **wanted, follow=options.follow, minutes=options.limit_minutes or 20.0)
    console.print(f"{artifact.name}: {found['parameters']:,} parameters, interface {found['adapter']}", markup=False)
    for item in found["scores"]:
        counts = f"{item['tokens']:,} tokens, {item['bytes']:,} bytes"
        console.print(f"  {item['windows']}: {item['bpb']:.6f} BPB, {item['loss']:.6f} nats, {counts}", markup=False)
    moved = found["causality"]["largest_change"]
    console.print(f"  causality: logits before a changed token move by {moved:.2g} at most", markup=False)
    probe = found["normalisation"]
    if probe["largest_gap"] is not None:
        console.print(f"  normalisation: {probe['how']}, off by {probe['largest_gap']:.2g} at most", markup=False)
    for line in _followed(found.get("followed")):
        console.print(f"  {line}", markup=False)
    return 0


def _followed(followed: dict[str, Any] | None) -> Iterator[str]:
    """What the trusted loop made of the program's own evaluation, a line for every pass."""
    if followed is None:
        yield "evaluation-time adaptation of the submission is not part of these scores (see --follow)"
        return
    for item in followed["passes"]:
        how = f"pass {item['pass']} of its evaluation, repeated" + (
            f" with {item['optimiser']}" if item["updates"] else ""
        )
        for scored in item["scores"]:
            yield f"{how}: {scored['bpb']:.6f} BPB, {scored['windows']}, {item['covered']:,} of {item['positions']:,}"
        if item["refused"]:
            yield f"  {item['refused']} updates were refused: they train on tokens that were not scored by then"
    if followed["obstacle"]:
        yield f"not everything was repeated: {followed['obstacle']}"


def load(target: str, repo: Path | None) -> Case:
    """The case of one target: documents and the program's order of events, nothing is run."""
    first = next(iter(resolve((target,), repo)))
    return build_case(first.load(), Call())


def write(found: Reproduction, out: Path) -> None:
    """The section of the report as data (`reproduction.json`) and as Markdown."""
    write_atomically(out / "reproduction.json", json.dumps({"reproduction": found.as_dict()}, indent=1, default=str))
    write_atomically(out / "reproduction.md", markdown(found))


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise AuditorError(f"--set {text!r} is not NAME=VALUE")
    return name, value


def _show(console: Console, plan: RerunPlan, price: float | None) -> None:
    minutes = plan.minutes_a_seed * len(plan.seeds)
    where = f"{plan.gpus} GPUs" if plan.gpus else f"CPU, {plan.ranks} process(es), scaled down"
    console.print(f"{plan.label}: {len(plan.seeds)} seed(s) {', '.join(plan.seeds)} on {where}", markup=False)
    console.print(f"  script {plan.script}; documented command: {plan.documented or 'none'}", markup=False)
    for name, value in sorted(plan.environment.items()):
        was = plan.changed.get(name.lower()) or plan.changed.get(name)
        console.print(f"  {name}={value}" + (f"   (as submitted: {was[0]})" if was else ""), markup=False)
    cost = f", about {plan.gpu_hours * price:.0f} at {price:g} a GPU hour" if price and plan.gpu_hours else ""
    hours = f", {plan.gpu_hours} GPU hours" if plan.gpu_hours else ""
    console.print(f"  expected: {minutes:.0f} minutes{hours}{cost} ({plan.basis})", markup=False)
    for note in plan.notes:
        console.print(f"  note: {note}", markup=False)
