"""Runs the seeds of a plan one after the other, keeps what finished, goes on where it was cut short."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditor.case import Case
from auditor.dynamic.sandbox import SandboxUnavailable
from auditor.reproduce import state as states
from auditor.reproduce.contained import FILES, MIB, Job, contain, read_events
from auditor.reproduce.environment import environment_record, gpu_sample
from auditor.reproduce.measure import Measured, measure
from auditor.reproduce.plan import SMALL, Place, PlanError, RerunPlan, find_data, given_files, inside

_ROOT = str(Path(__file__).resolve().parents[2])
_RANK = f"import sys; sys.path.insert(0, {_ROOT!r}); from auditor.reproduce.inside.rank import main; main({{script!r}})"
_PORT = 29500
SCORING = ".trusted_scoring.json"
_FOLDER = re.compile(r"datasets/([\w.\-]+)(?=[/\"'])")
_MODEL = re.compile(r"([\w.\-]+\.model)\b")

Tell = Callable[[str], None]


def rerun(
    case: Case,
    plan: RerunPlan,
    out: Path,
    *,
    retry: bool = False,
    limit_minutes: float | None = None,
    cpu_seconds: float = 0.0,
    tell: Tell = lambda _: None,
) -> list[Measured]:
    """Run every seed of a plan that is not done yet; results of all seeds, in the plan's order.

    Args:
        out: folder of the re-run; state, logs, artifacts and results are kept there. A re-run that was interrupted
            goes on when it is called again with the same plan and folder.
        retry: run failed seeds again. limit_minutes: wall time of one seed (default: three times the expected).
        cpu_seconds: CPU time of one process, 0 for no limit.
        tell: called with one line of progress.

    Raises:
        StateError: the folder belongs to another re-run.
        SandboxUnavailable: this machine cannot contain an untrusted program.
        PlanError: the data does not fit.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = states.load(out, plan.key, plan.seeds)
    recover(state, out)
    states.write_atomically(out / "plan.json", json.dumps(plan.as_dict(), indent=1, default=str))
    if not (out / "environment.json").exists():
        states.write_atomically(out / "environment.json", json.dumps(environment_record(case.submission), indent=1))
    limit = 60 * (limit_minutes or max(3 * plan.minutes_a_seed, 10.0))
    with tempfile.TemporaryDirectory(prefix="auditor-rerun-", dir=bindable(out)) as name:
        stage = Path(name)
        stage.chmod(0o755)
        place = place_of(case, plan, stage)
        materialise(case, stage / "submission")
        for seed in plan.seeds:
            item = state.seeds[seed]
            if item.stage in (states.DONE, states.RAN) or (item.stage == states.FAILED and not retry):
                tell(f"seed {seed}: {item.stage} before, kept")
                continue
            _run_seed(plan, place, seed, item, state, (out, stage), (limit, cpu_seconds), tell)
    return [_measured(case, plan, seed, state, out) for seed in plan.seeds]


def bindable(out: Path) -> Path:
    """A folder whose content can be bound into the sandbox: its view is put together over /tmp, which hides /tmp."""
    resolved = out.resolve()
    return resolved if not resolved.is_relative_to("/tmp") else Path("/var/tmp")


def _run_seed(
    plan: RerunPlan,
    place: Place,
    seed: str,
    item: states.SeedState,
    state: states.State,
    folders: tuple[Path, Path],
    limits: tuple[float, float],
    tell: Tell,
) -> None:
    (out, stage), (limit, cpu_seconds) = folders, limits
    item.attempts += 1
    item.stage, item.reason = states.RUNNING, ""
    state.save(out)
    folder = attempt_folder(out, seed, item.attempts)
    tell(f"seed {seed}: started, at most {limit / 60:.0f} minutes")
    begun = time.monotonic()
    try:
        job = replace(job_of(plan, place, seed, stage, limit), cpu_seconds=int(cpu_seconds))
        ran = contain(job, folder, gpu_sample if plan.gpus else None)
    except SandboxUnavailable:
        item.stage = states.PENDING
        state.save(out)
        raise
    except OSError as error:  # a full disk or the like loses this seed, not the others
        item.stage, item.reason = states.FAILED, f"{type(error).__name__}: {error}"
    else:
        good = ran.complete and not any(ran.codes)
        item.stage = states.RAN if good else states.FAILED
        item.reason = ran.reason or (f"exit status {ran.codes}" if any(ran.codes) else "")
    state.save(out)
    tell(f"seed {seed}: {item.stage} after {time.monotonic() - begun:.0f} s{': ' + item.reason if item.reason else ''}")


def recover(state: states.State, out: Path) -> None:
    """Seeds whose last run came to its end although nobody lived to note it: the events say so, it is not run again."""
    for seed, item in state.seeds.items():
        if item.stage != states.PENDING or not item.attempts:
            continue
        events = read_events(attempt_folder(out, seed, item.attempts))
        end = next((event for event in events if event.get("kind") == "end"), None)
        if end is not None:
            item.stage = states.FAILED if any(end["codes"]) else states.RAN
            item.reason = f"exit status {end['codes']}" if any(end["codes"]) else ""


def attempt_folder(out: Path, seed: str, attempt: int) -> Path:
    """Folder of one attempt at a seed; seeds are names that a command line may have made up."""
    return out / f"seed_{re.sub(r'[^A-Za-z0-9_-]', '_', seed)}" / f"attempt_{attempt}"


def _measured(case: Case, plan: RerunPlan, seed: str, state: states.State, out: Path) -> Measured:
    item = state.seeds[seed]
    if not item.attempts:
        return Measured(seed, False, reason="not run")
    folder = attempt_folder(out, seed, item.attempts)
    claimed = next(iter(case.headline.reported.values()), None) if case.headline is not None else None
    made = measure(folder, seed, getattr(claimed.result, "label", "") if claimed is not None else "")
    made.reason = made.reason or (item.reason if item.stage == states.FAILED else "")
    submission = case.submission
    main = submission.files.get(submission.main_script or "")
    made.code_bytes = main.size if main and main.size else 0
    made.local_code_bytes = made.code_bytes + sum(
        entry.size or 0
        for path, entry in submission.files.items()
        if path in {str(getattr(found, "path", found)) for found in case.facts.get("local_files", ())}
        and path != submission.main_script
    )
    report = folder / FILES / SCORING
    if report.is_file():
        try:
            made.trusted = json.loads(report.read_text("utf-8"))
        except ValueError:
            made.trusted = {"status": "failed", "reason": "the report of the trusted scoring is damaged"}
    states.write_atomically(folder / "measured.json", json.dumps(made.as_dict(), indent=1))
    if item.stage == states.RAN:
        item.stage = states.DONE
        state.save(out)
    return made


def place_of(case: Case, plan: RerunPlan, stage: Path) -> Place:
    """Data of the re-run: the user's, or for a rehearsal a watermarked stream of its own."""
    if plan.data:
        root = Path(plan.data).resolve()
        if root.is_relative_to("/tmp"):
            raise PlanError(f"{root}: data below /tmp cannot be shown to the program; move or mount it elsewhere")
        return find_data(root, plan.vocab_size)
    from auditor.dynamic.dataset import build

    folder = stage / "data"
    text = case.program.main.text
    made = build(
        folder,
        vocab_size=plan.vocab_size,
        train_tokens=plan.train_tokens,
        val_tokens=plan.val_tokens,
        byte_vocab=plan.byte_vocab,
        sidecar=plan.sidecar,
        folders=tuple(dict.fromkeys(_FOLDER.findall(text))),
        models=tuple(dict.fromkeys(_MODEL.findall(text))),
    )
    return Place(str(folder.resolve()), "/data", f"/data/{made.tokenizer.name}")


def materialise(case: Case, folder: Path) -> None:
    """The record folder as the program sees it, made anew each time."""
    submission = case.submission
    for path in given_files(case):
        target = folder / inside(path, submission.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(submission.read(path))


def job_of(
    plan: RerunPlan, place: Place, seed: str, stage: Path, limit: float, score: dict[str, Any] | None = None
) -> Job:
    """Processes, variables and grants of one seed; `score` replaces parts of the request for trusted scoring."""
    environment = {
        "DATA_PATH": place.shards,
        "DATA_DIR": "/data",
        "TOKENIZER_PATH": place.tokenizer,
        "RUN_ID": f"seed{seed}",
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "PATH": os.pathsep.join(
            dict.fromkeys((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"))
        ),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_PORT),
        **plan.environment,
    }
    if plan.seed_variable:
        environment[plan.seed_variable] = seed
    small = plan.scale == SMALL
    commands = _ranks(plan, place, score or {}) if small or score else (_torchrun(plan),)
    memory = (6144 + 2048 * plan.ranks) * MIB if small else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Job(
        commands=commands,
        environment=environment,
        binds=((place.host, "/data"), (str(stage / "submission"), "/submission")),
        watch=("/data",),
        links={"data": "/data"},
        gpu=bool(plan.gpus),
        wall_seconds=limit,
        memory_bytes=memory,
        scratch_bytes=1024 * MIB if small else 32_768 * MIB,
    )


def _torchrun(plan: RerunPlan) -> tuple[tuple[str, ...], dict[str, str]]:
    argv = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=1",
        f"--nproc_per_node={plan.ranks}",
        "--master_addr=127.0.0.1",
        f"--master_port={_PORT}",
        plan.script,
    )
    return argv, {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}


def declared_stride(plan: RerunPlan) -> int:
    """Stride of sliding windows that the program is run with, 0 when no variable says."""
    value = next((v for k, v in plan.environment.items() if k.upper().endswith("STRIDE")), "0")
    return int(value) if value.isdigit() else 0


def _ranks(plan: RerunPlan, place: Place, score: dict[str, Any]) -> tuple[tuple[tuple[str, ...], dict[str, str]], ...]:
    """Plain processes, one a rank, each behind the stand-in GPU."""
    scoring: dict[str, Any] = {
        "report": f"/scratch/{SCORING}",
        "shards": place.shards,
        "tokenizer": place.tokenizer,
        "vocab_size": plan.vocab_size,
        "byte_vocab": plan.byte_vocab,
        "strides": sorted({plan.stride, declared_stride(plan)}),
        "artifact": "",
        "batch_tokens": 4096,
        "follow": plan.scale == SMALL,
        **score,
    }
    common = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "WORLD_SIZE": str(plan.ranks),
        "VOCAB_SIZE": str(plan.vocab_size),
        "AUDITOR_STANDIN": str(int(plan.scale == SMALL)),
        "AUDITOR_SETTINGS": json.dumps(
            {"attributes": plan.attributes} | ({"scale": plan.sizes, "wanted": plan.wanted} if plan.sizes else {})
        ),
        "AUDITOR_SCORING": json.dumps(scoring),
    }
    argv = (sys.executable, "-I", "-u", "-c", _RANK.format(script=plan.script))
    return tuple((argv, {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(plan.ranks))
