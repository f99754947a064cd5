"""Runs a submission at reduced scale inside the sandbox and returns what was recorded."""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import os
import re
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.dynamic import nowhere
from auditor.dynamic.attribution import SPLIT_BITS, printed_results
from auditor.dynamic.dataset import Dataset, build
from auditor.dynamic.inside.places import Repeats
from auditor.dynamic.merge import merge, split
from auditor.dynamic.plan import Plan, make_plan, options_of_run
from auditor.dynamic.sandbox import Layer, Outcome, Policy, run
from auditor.dynamic.streams import VAL
from auditor.dynamic.tries import SMALL, WHOLE, WHOLE_TRY, Ended, Try, data_root, following
from auditor.submission import Submission
from auditor.unpack import Program

if TYPE_CHECKING:
    from auditor.dynamic.watermark import Watermark
    from auditor.static.settings import Setting

MIB = 1 << 20
REPOSITORY = "/repo"
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[2])
_START = (
    f"import sys; sys.path.insert(0, {_PACKAGE_ROOT!r}); "
    "from auditor.dynamic.inside.bootstrap import main; main({script!r}, '/data/table.npy')"
)
_FOLDER = re.compile(r"datasets/([\w.\-]+)(?=[/\"'])|[\"'](fineweb[\w\-]*)[\"']")
# Shards under another name than the official one: `NAME_train_*.bin`, `NAME_{split}_*.bin`.
_SHARDS = re.compile(r"([A-Za-z][\w\-]*?)_(?:\{\w+\}|train|val)_[\w*{}:]*\.bin")
_VOCABULARY = re.compile(r"\{[^{}\"']*vocab[^{}\"']*\}", re.I)  # in a name that is put together
# Roots under which a program looks for the data wherever it runs; those of the system stay what they are.
_ROOT = re.compile(
    r"[\"'](/(?!data/|usr/|lib|bin/|etc/|proc/|dev/|sys/|tmp/|scratch/|repo/)[\w.\-/]+?)/(?:datasets|tokenizers)/"
)
_MODEL = re.compile(r"([\w.\-]+\.model)\b")
# Wall time allowed for a second of CPU time, more where the machine is busy with other things.
_PATIENCE = 3.0
_KEPT = 4 * MIB  # larger files of the folder (weights, logs) are not needed to run it


@dataclass
class RunResult:
    """One CPU run.

    Attributes:
        status: "finished", "stopped" (crashed or hit a limit) or "not run"; `reason` says why.
        seconds, cpu_seconds: wall and CPU time of this attempt; attempts: how many were made, cpu_total: CPU time of all.
        events: what was recorded, arrays unpacked, in order.
        stdout: what the program printed.
        plan, dataset_bytes, val_tokens: scale-down used; official byte count of the validation stream by position.
        layers: sandbox layers that were active.
        nowhere: why the program runs on no machine as submitted, in words; "" where that is not proven.
    """

    status: str
    reason: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    attempts: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    plan: Plan | None = None
    dataset_bytes: np.ndarray | None = None
    layers: tuple[Layer, ...] = ()
    peak_bytes: int = 0
    cpu_total: float = 0.0
    nowhere: str = ""


def run_submission(
    submission: Submission,
    program: Program,
    effective: dict[str, str],
    *,
    seconds: float = 60.0,
    memory_bytes: int = 4096 * MIB,
    ranks: int = 1,
    options: dict[str, str] | None = None,
) -> RunResult:
    """Run the main script, under other conditions when it comes to no score; never raises for what the submission does.

    Args:
        effective: settings in force by run command and log, name -> value.
        options: flags of the documented command, tried when the program does nothing without them.
        seconds: CPU time of one attempt (of each rank); memory_bytes: of the whole process tree.
        ranks: 1, or 2 for a run in which evaluation is shared out.

    Raises:
        SandboxUnavailable: this machine cannot contain an untrusted program.
    """
    obstacle = _obstacle(submission, program)
    if obstacle:
        return RunResult("not run", obstacle)
    settings = settings_of(program.main.text, submission.main_script)

    def attempt(now: Try, limit: float) -> RunResult:
        given = {**_variables(submission, now.shell), **effective}
        plan = _plan(now, settings, given, options or {}, program.main.text)
        result = _attempt(submission, plan, program.main.text, limit, memory_bytes, ranks=ranks)
        if _writes_beside_itself(result):
            plan.writable = True
            result = _attempt(submission, plan, program.main.text, limit, memory_bytes, ranks=ranks)
        return result

    best, made = _best_of_tries(attempt, submission, options, seconds)
    if not _ended(best).scored or best.status != "finished":
        best.nowhere = _runs_nowhere(best, made, attempt, submission, program, seconds)
    if best.nowhere:
        best.reason = f"{best.reason or 'ended without a score'}; it runs on no machine as submitted: {best.nowhere}"
    return best


def _best_of_tries(
    attempt: Callable[[Try, float], RunResult], submission: Submission, options: dict[str, str] | None, seconds: float
) -> tuple[RunResult, dict[Try, RunResult]]:
    """The try that came furthest, and all of them by their conditions (without words)."""
    tried, spent, best = [Try()], 0.0, RunResult("not run", "no plan fits")
    made: dict[Try, RunResult] = {}
    while True:
        try:
            result = attempt(tried[-1], seconds)
        except ValueError as error:  # no data set for this vocabulary
            if len(tried) > 1:
                return best, made
            return RunResult("not run", f"no data for this vocabulary: {error}"), made
        made[tried[-1].bare] = result
        result.attempts, spent = len(tried), spent + result.cpu_seconds
        supplied = len(tried) > 1 and tried[-1].supplies(tried[-2])
        best = result if len(tried) == 1 or supplied or _further(result, best) else best
        after = following(tried, _ended(result), submission, options)
        # A program that is slow may be tried once more; one that fails late is not worth its tries' time.
        if after is None or (spent >= seconds and len(tried) > 1):
            best.attempts, best.cpu_total = len(tried), spent
            return best, made
        tried.append(after)


def _runs_nowhere(
    best: RunResult,
    made: dict[Try, RunResult],
    attempt: Callable[[Try, float], RunResult],
    submission: Submission,
    program: Program,
    seconds: float,
) -> str:
    """Why a program that came to no score runs on no machine as submitted, "" where that is not proven."""
    text = program.main.text
    sources = (*submission.files, *(best.plan.extra if best.plan is not None else ()))
    beside = [submission.read(path).decode("utf-8", "replace") for path in sources if path.endswith(".py")]
    crash = _crash_of(best)
    why = nowhere.nothing_scored([text, *beside])
    if crash is None or why:
        return why
    if crash.error == "ModuleNotFoundError":
        name = re.search(r"'([\w.]+)'", crash.message)
        missing = name is not None and nowhere.own_module(name[1], nowhere.documents(submission))
        return f"its module {name[1]} is not in the pull request" if missing else ""
    why = nowhere.own_error(crash, text)
    if why or not nowhere.may_be_own(crash):
        return why
    whole = made.get(WHOLE_TRY.bare)
    if whole is None:
        whole = attempt(WHOLE_TRY, seconds / 2)
        best.cpu_total += whole.cpu_seconds
    return nowhere.same_at_full_size(crash, _crash_of(whole))


def _crash_of(result: RunResult) -> nowhere.Crash | None:
    event = next((event for event in result.events if event["kind"] == "crash" and event["error"]), None)
    return None if event is None else nowhere.Crash(event["error"], event["message"], event.get("line", 0))


def _plan(now: Try, settings: list[Setting], effective: dict[str, str], options: dict[str, str], text: str) -> Plan:
    given = ({**effective, **options} if now.options else effective) if now.documented else {}
    plan = make_plan(settings, given, now.scale, text)
    plan.data, plan.without = now.data, now.without
    # Both are the submission's words: a path that climbs is no place in the sandbox.
    roots = dict.fromkeys((*map(data_root, now.data), *_ROOT.findall(text)))
    plan.roots = tuple(path for path in roots if os.path.normpath(path) == path)[:4]
    plan.conditions, plan.ranked, plan.extra, plan.documented = now.words, now.ranked, now.extra, now.documented
    if now.words:
        plan.notes["conditions of the run"] = ("as documented", now.words)
    if now.options:
        plan.attributes |= options_of_run(options, plan)
    return plan


def _variables(submission: Submission, script: str) -> dict[str, str]:
    """What a shell script of the folder sets, as text."""
    if not script:
        return {}
    from auditor.documents.model import written
    from auditor.documents.shell import read_shell

    return written(read_shell(script, submission.read(script)).environment)


def _ended(result: RunResult) -> Ended:
    return Ended(result.status == "finished", result.reason, bool(printed_results(result.events)))


def _further(result: RunResult, best: RunResult) -> bool:
    """Whether a try came further than those before: to a score, or to an end. The first reason says most otherwise."""
    now, before = _ended(result), _ended(best)
    return (now.finished and now.scored, now.finished) > (before.finished and before.scored, before.finished)


def settings_of(text: str, path: str) -> list[Setting]:
    """Declared settings, and variables that are read anywhere else in the program."""
    from auditor.static.parse import parse_module
    from auditor.static.scopes import index
    from auditor.static.settings import Setting, declared_settings, environment_reads

    found = list(declared_settings(text, path))
    known = {setting.environment for setting in found}
    tree = parse_module(text).tree
    if tree is not None:
        for node, variable, default in environment_reads(index(tree)):
            if variable not in known:
                found.append(Setting(variable.lower(), default, variable, path, node.lineno))
        found += _unpacked_attributes(tree, path)
    return found


def _unpacked_attributes(tree: ast.Module, path: str) -> Iterator[Setting]:
    """Attributes that a class sets several of at once: `model_dim, num_heads = 512, 8`."""
    from auditor.static.settings import Setting

    for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for item in (node for node in owner.body if isinstance(node, ast.Assign)):
            target, value = item.targets[0], item.value
            if (
                not isinstance(target, ast.Tuple)
                or not isinstance(value, ast.Tuple)
                or len(target.elts) != len(value.elts)
            ):
                continue
            for name, default in zip(target.elts, value.elts, strict=True):
                if isinstance(name, ast.Name) and isinstance(default, ast.Constant):
                    yield Setting(name.id, default.value, "", path, item.lineno, owner.name)


def _obstacle(submission: Submission, program: Program) -> str:
    if submission.main_script is None or program.main is None:
        return "there is no script to run"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed here: pip install 'parameter-golf-auditor[torch]'"
    if re.search(r"^\s*import mlx|^\s*from mlx", program.main.text, re.M):
        return "an MLX script runs on Apple hardware only"
    return ""


def _writes_beside_itself(result: RunResult) -> bool:
    """The submission is read-only where it stands; a program that insists gets a copy it may write to.

    A compiler it starts on files of its folder fails there with no more than its exit status.
    """
    denied = ("PermissionError", "Read-only file system", "Permission denied", "CalledProcessError")
    # A path without a root is below the folder that the program changed to.
    inside = REPOSITORY in result.reason or re.search(r": '[^/']", result.reason)
    return result.status == "stopped" and bool(inside) and any(w in result.reason for w in denied)


def run_again(
    submission: Submission,
    program: Program,
    plan: Plan,
    change: Callable[[Watermark], None] | None = None,
    *,
    seconds: float = 60.0,
    memory_bytes: int = 4096 * MIB,
) -> RunResult:
    """Another run under a plan that worked, on streams altered by `change`; as `run_submission` otherwise."""
    return _attempt(submission, plan, program.main.text, seconds, memory_bytes, change)


def _attempt(
    submission: Submission,
    plan: Plan,
    text: str,
    seconds: float,
    memory_bytes: int,
    change: Callable[[Watermark], None] | None = None,
    ranks: int = 1,
) -> RunResult:
    with tempfile.TemporaryDirectory(prefix="auditor-run-") as name:
        root = Path(name)
        os.chmod(root, 0o755)
        folders, models, shards = names_in("\n".join((text, *(f"'{path}'" for path in plan.data))), plan.vocab_size)
        dataset = build(
            root / "data",
            vocab_size=plan.vocab_size,
            train_tokens=plan.scale.train_tokens,
            val_tokens=plan.scale.val_tokens,
            byte_vocab=plan.byte_vocab,
            sidecar=plan.sidecar,
            folders=folders,
            models=models,
            shards=shards,
            change=change,
        )
        _save(root / "data", dataset.watermark)
        script = _materialise(submission, root / "submission")
        for path in plan.extra:
            (root / "extra" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "extra" / path).write_bytes(submission.read(path))
        policy = _policy(root, script, _inside(submission), plan, dataset, seconds, memory_bytes, ranks)
        if ranks > 1:
            policy.environment["WORLD_SIZE"] = str(ranks)
        outcome = run(policy)
    return _result(outcome, plan, dataset, seconds)


def names_in(text: str, vocabulary: int) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names under which a program looks for its data: folders, tokenizer models, beginnings of the shards' names."""
    text = _VOCABULARY.sub(str(vocabulary), text)
    folders = (one or other for one, other in _FOLDER.findall(text))
    return tuple(tuple(dict.fromkeys(found)) for found in (folders, _MODEL.findall(text), _SHARDS.findall(text)))


def _save(folder: Path, mark: Watermark) -> None:
    """What tells the recorder which tokens stand where."""
    np.save(folder / "table.npy", mark.table)
    if mark.redrawn is not None:
        first = max(mark.redrawn - Repeats.GRAM, 0)
        place = (mark.splits.index(VAL) << SPLIT_BITS) + first
        np.savez(folder / "repeats.npz", tokens=mark.streams[VAL][first:], place=place)


def _materialise(submission: Submission, folder: Path) -> str:
    """Copy the record folder's files; returns the path of the main script inside the sandbox.

    The data set is found beside the script too, for programs that take its folder for the repository's.
    """
    base = submission.folder
    for path, entry in submission.files.items():
        if entry.kind != "file" or entry.size is None or entry.size > _KEPT or path in submission.logs:
            continue
        inside = path[len(base) :].lstrip("/") if base and path.startswith(base) else path
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(submission.read(path))
    if not (folder / "data").exists():
        (folder / "data").symlink_to("/data")
    main = submission.main_script
    return f"{_inside(submission)}/" + (main[len(base) :].lstrip("/") if base and main.startswith(base) else main)


def _above(path: str) -> str:
    """Folder from which a module is imported: the one above the outermost package a file is in."""
    folder = PurePosixPath(path).parent
    return str(folder.parent if PurePosixPath(path).name == "__init__.py" else folder).removeprefix(".").lstrip("/")


def _inside(submission: Submission) -> str:
    """Path of the record folder in the sandbox: as deep below a repository as in a clone."""
    return (
        f"{REPOSITORY}/{submission.folder}"
        if submission.folder.startswith("records/")
        else f"{REPOSITORY}/records/track/run"
    )


def _policy(
    root: Path,
    script: str,
    inside: str,
    plan: Plan,
    dataset: Dataset,
    seconds: float,
    memory_bytes: int,
    ranks: int,
) -> Policy:
    ranked = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    environment = {
        **(ranked if plan.ranked else {}),
        "DATA_PATH": "/data",
        "DATA_DIR": "/data",
        "TOKENIZER_PATH": f"/data/{dataset.tokenizer.name}",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "PATH": "/usr/bin:/bin",
        "VOCAB_SIZE": str(plan.vocab_size),
        "RUN_ID": "cpu",
        "PYTHONDONTWRITEBYTECODE": "1",
        # Programs written for a torch whose `load` unpickled anything; the sandbox is what contains that here.
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "AUDITOR_VOCABULARY": str(plan.vocab_size),
        "AUDITOR_SETTINGS": json.dumps(
            {
                "attributes": plan.attributes,
                "wanted": plan.wanted,
                "scale": asdict(plan.scale),
                "writable": plan.writable,
                "patient": plan.scale in (SMALL, WHOLE) or ranks > 1,
                "without": plan.without,
                "beside": sorted({f"{REPOSITORY}/{_above(path)}" for path in plan.extra}),
            }
        ),
        **plan.environment,
    }
    return Policy(
        argv=(sys.executable, "-I", "-c", _START.format(script=script)),
        binds=(
            (str(root / "data"), "/data"),
            (str(root / "data"), f"{REPOSITORY}/data"),
            (str(root / "submission"), inside),
            *((str(root / "data"), place) for place in plan.roots),
            *((str(root / "extra" / path), f"{REPOSITORY}/{path}") for path in plan.extra),
        ),
        environment=environment,
        wall_seconds=seconds * _PATIENCE * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)),
        cpu_seconds=int(seconds),
        memory_bytes=memory_bytes,
        output_bytes=64 * MIB,
    )


def _result(outcome: Outcome, plan: Plan, dataset: Dataset, limits: float) -> RunResult:
    by_rank = split(list(_events(outcome.results)))
    events = merge(by_rank)
    result = RunResult(
        "finished",
        seconds=outcome.seconds,
        cpu_seconds=outcome.cpu_seconds,
        events=events,
        stdout=outcome.stdout.decode("utf-8", "replace"),
        stderr=outcome.stderr.decode("utf-8", "replace"),
        plan=plan,
        dataset_bytes=dataset.token_bytes,
        layers=outcome.layers,
        peak_bytes=outcome.peak_bytes,
    )
    for event in events:
        if event["kind"] == "setting":
            plan.notes[event["name"]] = (event["full"], event["value"])
    crashes = [event for event in events if event["kind"] == "crash"]
    # What a rank says of the other's end is no reason.
    crash = next((event for event in crashes if "has ended while" not in event["message"]), next(iter(crashes), None))
    if outcome.status != "exited":
        limit = f"CPU time over {int(limits)} s" if "SIGKILL" in outcome.reason or "SIGXCPU" in outcome.reason else ""
        result.status, result.reason = "stopped", limit or outcome.reason
    elif crash:
        result.status, result.reason = "stopped", _crash(crash["error"], crash["message"])
    elif outcome.returncode:
        result.status, result.reason = "stopped", f"exit status {outcome.returncode}"
    return result


def _crash(error: str, message: str) -> str:
    """A crash in words. Packages that are absent are told apart from what the program does wrong."""
    absent = re.fullmatch(r"No module named '([\w.]+)'", message)
    if error == "ModuleNotFoundError" and absent:
        return f"needs the package {absent[1]}, which is neither in the submission nor here, and has no stand-in"
    words = ": ".join(filter(None, (error, message)))
    # Libraries for downloads wrap it in errors of their own; all of them repeat what the resolver said.
    return f"needs the network, which the sandbox does not give ({words})" if "name resolution" in words else words


def _events(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # a frame cut short when the run was killed
        yield {key: _unpacked(value) for key, value in event.items()}


def _unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "dtype" in value:
        return np.frombuffer(zlib.decompress(base64.b85decode(value["data"])), dtype=value["dtype"])
    return value
