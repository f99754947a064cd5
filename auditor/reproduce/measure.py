"""From the events of one run to its measurements: clocks, bytes on disk, file accesses, printed numbers with stamps.

All times are seconds since the processes were started, taken by the supervisor outside the program. What a program
prints is read with the same log reader as a submitted log.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from auditor.documents.logs.reader import final_candidates, read_log
from auditor.documents.model import EvalResult, LogRun
from auditor.reproduce.contained import FILES, read_events

TRAIN_SHARD = re.compile(r"fineweb_train_\d+\.bin$")
VAL_SHARD = re.compile(r"fineweb_val_\d+\.bin$")
#: Smaller files hold a counter or a flag, no model.
_SMALLEST = 512
#: Names that are no artifact: text, sources, caches.
_TEXT = re.compile(
    r"\.(log|txt|json|jsonl|csv|md|py|pyc|so|c|cpp|cu|h|o|lock|yaml|toml)$|(^|/)(\.|__pycache__|torchinductor)"
)


@dataclass(frozen=True)
class Clocks:
    """Seconds since the processes started, measured from outside; None when it was not seen.

    `first_step` and `training_stop` are the stamps of printed lines, `artifact_written` of the file's last close,
    `result` of the line with the headline, `end` of the last process's exit.
    """

    first_output: float | None = None
    first_step: float | None = None
    training_stop: float | None = None
    last_train_read: float | None = None
    artifact_written: float | None = None
    artifact_read: float | None = None
    result: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file the program wrote and read back: path, bytes on disk, SHA-256; `how` it was told from other files.

    `alone` is False when another file could be meant as well.
    """

    path: str
    bytes: int
    sha256: str = ""
    how: str = ""
    alone: bool = True


@dataclass
class Measured:
    """One seed, measured.

    Attributes:
        seed, complete, codes, reason: how the run ended.
        printed: numbers the program printed: val_bpb, val_loss, label, train_seconds, eval_seconds, steps,
            model_bytes, code_bytes, total_bytes.
        results: every printed result as (label, bpb, seconds since start).
        clock_pairs: (printed seconds, seconds outside) of stretches of training without an evaluation in between.
        shard_reads: accesses of training shards after the artifact was written: (seconds, file, what).
        calibration_reads: the same between the end of training and the artifact.
        mapped_after: training shards still mapped into memory during evaluation.
        files: every file left behind, path -> bytes; read_back: binary ones that were read after they were written.
        cpu_seconds: of all processes. peak_bytes, gpu: memory of the process tree; utilisation (percent), memory (MiB) of GPUs, mean and maximum.
        trusted: what the trusted scoring found (see `auditor.reproduce.inside.scoring`), None when it was not made.
        inotify: whether file accesses could be watched.
    """

    seed: str
    complete: bool
    codes: tuple[int, ...] = ()
    reason: str = ""
    clocks: Clocks = field(default_factory=Clocks)
    printed: dict[str, Any] = field(default_factory=dict)
    results: list[tuple[str, float, float | None]] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    clock_pairs: list[tuple[float, float]] = field(default_factory=list)
    artifact: Artifact | None = None
    shard_reads: list[tuple[float, str, str]] = field(default_factory=list)
    calibration_reads: list[tuple[float, str, str]] = field(default_factory=list)
    mapped_after: list[str] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    read_back: dict[str, int] = field(default_factory=dict)
    code_bytes: int = 0
    local_code_bytes: int = 0
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    gpu: dict[str, Any] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    trusted: dict[str, Any] | None = None
    inotify: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the report."""
        return asdict(self)


def measure(folder: Path, seed: str, label: str = "") -> Measured:
    """Measure a run from the events in its folder; also writes `stdout.log` and `stderr.log` beside them.

    Args:
        label: label of the result that carries the claim; the last result counts when there is no such line.
    """
    events = list(read_events(folder))
    lines = [event for event in events if event["kind"] == "line"]
    out = [event for event in lines if event["process"] == 0 and event["stream"] == "out"]
    text = "\n".join(event["text"] for event in out)
    (folder / "stdout.log").write_text(text + "\n", "utf-8")
    errors = [event["text"] for event in lines if event["stream"] == "err"]
    (folder / "stderr.log").write_text("\n".join(errors) + "\n", "utf-8")
    stamps = [event["t"] for event in out]
    log = read_log("stdout.log", (text + "\n").encode())
    run = max(log.runs, key=lambda item: item.last_line - item.first_line, default=None)
    if run is None or not run.results:
        run, stamps = _kept_log(folder) or run, stamps if run is not None and run.results else []
    end = next((event for event in events if event["kind"] == "end"), None)
    made = Measured(seed, end is not None, tuple(end["codes"]) if end else ())
    if any(made.codes) or not made.complete:
        made.reason = _why(errors, made.codes, events)
    _machine(made, events)
    if run is not None:
        _printed(made, run, label, stamps)
    _files(made, events)
    _clocks(made, run, stamps, events)
    return made


def _kept_log(folder: Path) -> LogRun | None:
    """A log the program wrote to a file when it printed no result; its lines carry no stamps."""
    found = []
    for path in sorted((folder / FILES).rglob("*")):
        if path.suffix in (".txt", ".log") and path.is_file():
            found += [run for run in read_log(path.name, path.read_bytes()).runs if run.results]
    return max(found, key=lambda run: len(run.results), default=None)


# `AssertionError: seed two`, behind the name of a rank where a launcher puts it.
_ERROR = re.compile(r"^(?:\[rank\d+\]:? *)?[\w.]*(?:Error|Exception|Interrupt|Exit)\b(?::|$)")
# What stands behind an error in several lines, and the beginning of a traceback that was cut off.
_NO_ERROR = re.compile(r"^Traceback \(most recent call last\):?$|^frame #\d+:|^Exception raised from |^C\+\+ ")
_LOST_PEER = re.compile(r"DistNetworkError|DistBackendError|Connection (?:reset|closed|refused)|ProcessGroup|^\[W")


def _why(errors: list[str], codes: tuple[int, ...], events: list[dict]) -> str:
    told = next((event["reason"] for event in events if event["kind"] == "sandbox" and event["reason"]), "")
    said = [line.strip()[:200] for line in errors if line.strip() and not line.startswith(" ")]
    said = [line for line in said if not _NO_ERROR.match(line)]
    # When one rank fails the others lose it: their complaint about the connection is not why.
    own = [line for line in said if not _LOST_PEER.search(line)]
    last = next(reversed([line for line in own if _ERROR.match(line)] or own or said), "")
    status = f"exit status {', '.join(map(str, codes))}" if any(codes) else "cut short"
    return "; ".join(part for part in (told, status, last) if part)


def _machine(made: Measured, events: list[dict]) -> None:
    made.layers = next((tuple(event["layers"]) for event in events if event["kind"] == "sandbox"), ())
    made.cpu_seconds = max(
        (event.get("cpu_seconds", 0.0) for event in events if event["kind"] == "sandbox"), default=0.0
    )
    made.inotify = any(event.get("inotify") for event in events if event["kind"] == "started")
    made.peak_bytes = max((event["bytes"] for event in events if event["kind"] == "memory"), default=0)
    samples = [event for event in events if event["kind"] == "gpu"]
    for name in ("utilisation", "memory_mib", "power_w"):
        values = [value for event in samples for value in event.get(name, ()) if value is not None]
        if values:
            made.gpu[name] = {"mean": round(sum(values) / len(values), 1), "max": max(values), "samples": len(samples)}


def _printed(made: Measured, run: LogRun, label: str, stamps: list[float]) -> None:
    candidates = final_candidates(run)
    chosen = next((item for item in candidates if label and item.label == label), candidates[0] if candidates else None)
    made.results = [
        (item.label, item.val_bpb, _stamp(stamps, item.line)) for item in run.results if item.val_bpb is not None
    ]
    made.curve = [(step.step, step.train_loss) for step in run.steps if step.train_loss is not None]
    printed = made.printed
    if chosen is not None:
        printed |= {"val_bpb": chosen.val_bpb, "val_loss": chosen.val_loss, "label": chosen.label}
        printed |= {"digits": chosen.digits, "line": chosen.line, "eval_seconds": _pass_seconds(run, chosen)}
    if run.train_seconds is not None:
        printed["train_seconds"] = run.train_seconds.value
    steps = [step.step for step in run.steps] + ([run.stop.step] if run.stop else [])
    printed["steps"] = max(steps, default=None)
    for kind, name in (("model", "model_bytes"), ("code", "code_bytes"), ("total", "total_bytes")):
        found = [size.size for size in run.sizes if size.kind == kind]
        if found:
            printed[name] = found[-1]
    if any(size.kind == "code packed" for size in run.sizes):
        printed["code_packed"] = True
    made.clock_pairs = _clock_pairs(run, stamps)


def _pass_seconds(run: LogRun, chosen: EvalResult) -> float | None:
    if chosen.seconds is not None:
        return chosen.seconds
    base = chosen.label.removesuffix("_exact")
    return next((item.seconds for item in run.results if item.seconds and item.label.startswith(base)), None)


def _stamp(stamps: list[float], line: int | None) -> float | None:
    return stamps[line - 1] if line and 0 < line <= len(stamps) else None


def _clock_pairs(run: LogRun, stamps: list[float]) -> list[tuple[float, float]]:
    """Between two neighbouring step lines with no evaluation: the program's clock and ours."""
    steps = [step for step in [*run.steps, *([run.stop] if run.stop else [])] if step.train_seconds is not None]
    evaluated = [item.line for item in run.results] + [s.line for s in run.steps if s.val_bpb is not None]
    pairs = []
    for before, after in itertools.pairwise(steps):
        outside = (_stamp(stamps, before.line), _stamp(stamps, after.line))
        if None in outside or any(before.line < line <= after.line for line in evaluated):
            continue
        pairs.append((after.train_seconds - before.train_seconds, outside[1] - outside[0]))
    return pairs


def _files(made: Measured, events: Iterable[dict]) -> None:
    events = list(events)
    left = {event["path"]: event for event in events if event["kind"] == "left"}
    made.files = {path: event["bytes"] for path, event in left.items()}
    touched = [event for event in events if event["kind"] == "file" and not event["path"].startswith("/")]
    written = {e["path"]: e["t"] for e in touched if e["what"] == "written" and not _TEXT.search(e["path"])}
    read = {e["path"] for e in touched if e["what"] == "read" and e["t"] >= written.get(e["path"], 1e18)}
    sizes = {path: event["bytes"] for path, event in left.items() if path in written and event["bytes"] >= _SMALLEST}
    made.read_back = {path: size for path, size in sizes.items() if path in read}
    found = _artifact(made.read_back, sizes, written, made.printed.get("model_bytes"))
    if found is not None:
        made.artifact = replace(found, sha256=left[found.path].get("sha256", ""))


def _artifact(
    back: dict[str, int], sizes: dict[str, int], written: dict[str, float], printed: float | None
) -> Artifact | None:
    """The compressed model among the files left behind; counters, notes and caches are written and read back too.

    Args:
        back: files read after they were written, path -> bytes; sizes: all binary files; written: last write, seconds.
        printed: model bytes as printed: a file of exactly that size is meant.
    """
    meant = [path for path, size in back.items() if size == printed]
    if meant:
        return Artifact(meant[-1], sizes[meant[-1]], how="written, then read back")
    large = [path for path, size in back.items() if 10 * size >= max(back.values())]
    if large:
        chosen = max(large, key=lambda path: written[path])
        others = f"; {len(large) - 1} other file(s) of its order were too" if len(large) > 1 else ""
        return Artifact(chosen, sizes[chosen], how=f"written, then read back{others}", alone=len(large) == 1)
    meant = [path for path, size in sizes.items() if size == printed]
    if meant:
        how = "of the printed size; it was not seen to be read back"
        return Artifact(meant[-1], sizes[meant[-1]], how=how, alone=False)
    if sizes:
        chosen = min(sizes, key=lambda path: sizes[path])
        how = "smallest file written; none was seen to be read back"
        return Artifact(chosen, sizes[chosen], how=how, alone=False)
    return None


def _clocks(made: Measured, run: LogRun | None, stamps: list[float], events: list[dict]) -> None:
    files = [event for event in events if event["kind"] == "file"]
    artifact = made.artifact.path if made.artifact else None
    written = max((e["t"] for e in files if e["path"] == artifact and e["what"] == "written"), default=None)
    back = min(
        (e["t"] for e in files if e["path"] == artifact and e["what"] == "read" and e["t"] >= (written or 0)),
        default=None,
    )
    shards = [e for e in files if TRAIN_SHARD.search(e["path"]) and e["what"] in ("open", "read")]
    steps = [s for s in run.steps if s.step and s.train_loss is not None] if run else []
    stop = (run.stop or (steps[-1] if steps else None)) if run else None
    stopped = _stamp(stamps, stop.line) if stop else None
    made.clocks = Clocks(
        first_output=next((event["t"] for event in events if event["kind"] == "line"), None),
        first_step=_stamp(stamps, steps[0].line) if steps else None,
        training_stop=stopped,
        last_train_read=max((e["t"] for e in shards), default=None),
        artifact_written=written,
        artifact_read=back,
        result=_stamp(stamps, made.printed.get("line")),
        end=next((event["t"] for event in events if event["kind"] == "exited"), None),
    )
    if written is None:
        return
    made.shard_reads = [(e["t"], e["path"], e["what"]) for e in shards if e["t"] > written]
    if stopped is not None:
        made.calibration_reads = [(e["t"], e["path"], e["what"]) for e in shards if stopped < e["t"] <= written]
    maps = [e for e in events if e["kind"] == "mapped"]
    maps = [e for e in maps if e["t"] > written] + [e for e in maps if e["t"] <= written][-1:]
    made.mapped_after = sorted({path for e in maps for path in e["paths"] if TRAIN_SHARD.search(path)})
