"""What a re-run will do, before anything runs: processes, variables, data, limits, expected minutes and GPU hours."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from auditor.case import Case
from auditor.errors import AuditorError
from auditor.reproduce.environment import digest

FULL, SMALL = "full", "small"
#: Seconds for start, compilation, quantisation and packing that merged logs show beside both budgets (rule book, 1.2).
OVERHEAD_SECONDS = 240.0
LIMIT_SECONDS = 600.0
#: Logs and earlier weights of the folder are not given to the program: it has to make its own.
_NOT_GIVEN = (".log", ".ptz", ".pt", ".bin", ".xz", ".lzma")
_RANK_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES", "SEED")
_HOST_VARIABLES = ("PATH", "HOME", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONSTARTUP", "BASH_ENV")


class PlanError(AuditorError):
    """The re-run cannot be planned; the message says what is missing."""


@dataclass(frozen=True)
class Place:
    """Where the data lies. `host` is bound to /data; `shards` and `tokenizer` are paths inside the sandbox."""

    host: str
    shards: str
    tokenizer: str


@dataclass(frozen=True)
class RerunPlan:
    """One re-run.

    Attributes:
        label: the submission. `digest`: SHA-256 of its folder.
        scale: "full" as submitted, "small" for a rehearsal with the stand-in GPU on a CPU.
        seeds, ranks, gpus: what runs; `gpus` is 0 in a rehearsal.
        script: path of the main script inside the sandbox.
        documented: run command as the documents state it, "" when none does.
        environment: variables the script sees beside its seed and rank; `attributes`: class attributes of a rehearsal
            that no variable reaches. `changed`: name -> (as submitted, in the rehearsal). `sizes`: of a rehearsal
            (fields of `auditor.dynamic.plan.Scale`), with `wanted` (lower-case setting -> value in force) for what the
            program asks for in ways that only running it shows.
        vocab_size, byte_vocab, sidecar, val_tokens, train_tokens: data of a rehearsal.
        seed_variable: variable that carries the seed, "" when the program reads none.
        train_limit, eval_limit: seconds.
        minutes_a_seed, gpu_hours: expected, with `basis` in words.
        notes: what limits the meaning of the result.
    """

    label: str
    digest: str
    scale: str
    seeds: tuple[str, ...]
    ranks: int
    gpus: int
    script: str
    documented: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, str] = field(default_factory=dict)
    vocab_size: int = 1024
    byte_vocab: bool = False
    sidecar: bool = False
    val_tokens: int = 0
    train_tokens: int = 0
    stride: int = 0
    data: str = ""
    seed_variable: str = "SEED"
    train_limit: float = LIMIT_SECONDS
    eval_limit: float = LIMIT_SECONDS
    minutes_a_seed: float = 0.0
    gpu_hours: float = 0.0
    basis: str = ""
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names submission and plan; seeds are left out, so that more seeds can be added to a re-run later."""
        data = {name: value for name, value in asdict(self).items() if name not in ("seeds", "notes", "gpu_hours")}
        return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return asdict(self)


def make_rerun_plan(
    case: Case,
    seeds: Sequence[str],
    *,
    ranks: int = 8,
    scale: str = FULL,
    data: Path | None = None,
    overrides: dict[str, str] | None = None,
    train_limit: float = LIMIT_SECONDS,
    attempt: int = 0,
) -> RerunPlan:
    """Plan from the case's documents and program.

    Args:
        seeds: as the program will see them. ranks: processes; GPUs of a full-scale run.
        overrides: variables set by the user, stronger than every document.
        attempt: which of the sizes of `auditor.dynamic.plan.SCALES` a rehearsal takes; the next where one does not fit.

    Raises:
        PlanError: there is no script to run, no seed, or no data for a full-scale run.
    """
    submission, program = case.submission, case.program
    if submission.main_script is None or program.main is None:
        raise PlanError(f"{submission.label}: there is no script to run; a re-run needs train_gpt.py in the folder")
    if not seeds:
        raise PlanError("no seeds: name them with --seeds 42,314,2025")
    if scale == FULL and data is None:
        raise PlanError("a full-scale re-run needs the data set: --data DIR with datasets/ and tokenizers/")
    from auditor.static.effective import settings_of_case
    from auditor.static.settings import declared_settings

    effective = settings_of_case(case)
    settings = declared_settings(program.main.text, submission.main_script)
    documented = {
        name: value for name, value in effective.environment.items() if name not in _RANK_VARIABLES + _HOST_VARIABLES
    }
    common = {
        "label": submission.label,
        "digest": digest(submission),
        "scale": scale,
        "seeds": tuple(seeds),
        "ranks": ranks,
        "script": "/submission/" + inside(submission.main_script, submission.folder),
        "documented": _run_command(case),
        "data": str(data) if data else "",
        "seed_variable": _seed_variable(settings, program.main.text),
        "train_limit": train_limit,
    }
    if scale == SMALL:
        wanted = {**documented, **effective.logged}
        return _small(common, wanted, program.main.text, overrides or {}, attempt)
    return _full(common, case, documented, overrides or {})


def inside(path: str, folder: str) -> str:
    """Path of a submission's file relative to its record folder."""
    return path[len(folder) :].lstrip("/") if folder and path.startswith(folder + "/") else path


def _small(common: dict, wanted: dict[str, str], text: str, overrides: dict[str, str], attempt: int) -> RerunPlan:
    from auditor.dynamic.plan import SCALES, make_plan
    from auditor.dynamic.run import settings_of

    scaled = make_plan(settings_of(text, common["script"]), wanted, SCALES[attempt], text)
    scaled.environment.pop(common["seed_variable"], None)
    notes = [
        "a rehearsal: the model is scaled down, so its numbers say nothing about the claim, only whether what the"
        " program prints is what it does"
    ]
    if not common["seed_variable"]:
        notes.append("the program reads no variable for the seed: every seed repeats the same run")
    if common["ranks"] > 1:
        notes.append(
            "several ranks talk through gloo, which needs a netlink socket: the seccomp layer is left out, the"
            " network stays closed by a namespace of its own"
        )
    return RerunPlan(
        **common,
        gpus=0,
        environment={**scaled.environment, **overrides},
        attributes=scaled.attributes,
        changed=scaled.notes,
        sizes=asdict(scaled.scale),
        wanted=scaled.wanted,
        vocab_size=scaled.vocab_size,
        byte_vocab=scaled.byte_vocab,
        sidecar=scaled.sidecar,
        val_tokens=scaled.scale.val_tokens,
        train_tokens=scaled.scale.train_tokens,
        stride=scaled.scale.stride,
        minutes_a_seed=0.7,
        basis="rehearsals of small programs take 10 to 40 s a seed on one slow core",
        notes=tuple(notes),
    )


def _full(common: dict, case: Case, documented: dict[str, str], overrides: dict[str, str]) -> RerunPlan:
    train = _seconds(case, "train") or _cap(documented) or LIMIT_SECONDS
    evaluation = _seconds(case, "eval") or LIMIT_SECONDS
    minutes = (train + evaluation + OVERHEAD_SECONDS) / 60
    ranks = common["ranks"]
    notes = [
        "GPU re-runs do without Landlock and seccomp (device files, NCCL's netlink socket); the network stays closed by"
        " a namespace of its own; use a machine that can be thrown away",
    ]
    if ranks != 8:
        notes.append(
            f"{ranks} GPUs instead of 8: under the same wall-clock cap the run makes fewer steps, so BPB and times are"
            " not comparable with the claim"
        )
    if not common["seed_variable"]:
        notes.append("the program reads no variable for the seed: every seed repeats the same run")
    return RerunPlan(
        **common,
        gpus=ranks,
        environment={**documented, **overrides},
        vocab_size=_vocabulary(documented),
        minutes_a_seed=round(minutes, 1),
        gpu_hours=round(minutes / 60 * ranks * len(common["seeds"]), 2),
        basis=f"training {train:.0f} s, evaluation {evaluation:.0f} s, {OVERHEAD_SECONDS:.0f} s for start and packing",
        notes=tuple(notes),
    )


def _seconds(case: Case, what: str) -> float | None:
    from rules.measures import eval_seconds, reported_runs, train_seconds

    measure = train_seconds if what == "train" else eval_seconds
    values = [found.value for run in reported_runs(case) if (found := measure(case, run))]
    return max(values, default=None)


def _cap(environment: dict[str, str]) -> float | None:
    value = next((v for k, v in environment.items() if k.startswith("MAX_WALLCLOCK")), "")
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) and float(value) > 0 else None


def _vocabulary(environment: dict[str, str]) -> int:
    value = environment.get("VOCAB_SIZE", "1024")
    return int(value) if value.isdigit() else 1024


def _run_command(case: Case) -> str:
    """The command that starts training, as documented; the one with torchrun first."""
    commands = [source.excerpt for source in case.readme.commands] if case.readme else []
    launching = [text for text in commands if "torchrun" in text or "torch.distributed" in text]
    return next(iter(launching or [text for text in commands if ".py" in text]), "")


def _seed_variable(settings: Any, text: str) -> str:
    for setting in settings:
        if setting.environment and setting.environment.upper() in ("SEED", "RANDOM_SEED", "TRAIN_SEED"):
            return setting.environment
    return "SEED" if re.search(r"[\"']SEED[\"']", text) else ""


def given_files(case: Case) -> list[str]:
    """Files of the record folder the program gets; logs and weights of earlier runs are kept from it."""
    submission = case.submission
    return [
        path
        for path, entry in submission.files.items()
        if entry.kind == "file"
        and entry.size is not None
        and path not in submission.logs
        and not path.lower().endswith(_NOT_GIVEN)
    ]


def find_data(root: Path, vocab_size: int) -> Place:
    """Shards and tokenizer below a folder laid out like the public repository's `data/`, or flat.

    Raises:
        PlanError: no validation shards, or no folder that fits the vocabulary among several.
    """
    folders = sorted({path.parent for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}fineweb_val_*.bin")})
    if not folders:
        raise PlanError(f"{root} holds no fineweb_val_*.bin; give the folder that holds datasets/ and tokenizers/")
    fitting = [folder for folder in folders if str(vocab_size) in folder.name] or folders
    if len(fitting) > 1:
        names = ", ".join(folder.name for folder in fitting[:6])
        raise PlanError(f"{root}: {names} all could be the data for {vocab_size} ids; name one of them with --data")
    models = [path for depth in ("", "*/", "../*/") for path in sorted(root.glob(f"{depth}*.model"))]
    chosen = next((path for path in models if str(vocab_size) in path.name), models[0] if models else None)
    shards = "/data/" + fitting[0].relative_to(root).as_posix()
    tokenizer = f"/data/{chosen.relative_to(root).as_posix()}" if chosen and chosen.is_relative_to(root) else ""
    return Place(str(root), shards.rstrip("/.") or "/data", tokenizer)
