"""Runs processes in the sandbox under the supervisor and writes what is observed to disk while it happens.

The stream of events is the record of a run: it survives the death of this process up to its last second, and whether a
run came to its end is decided by its last line.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from auditor.dynamic.sandbox import Layer, Policy
from auditor.dynamic.sandbox.policy import SandboxUnavailable, system_paths
from auditor.dynamic.sandbox.runner import ALL_LAYERS, Watch, launch

MIB = 1 << 20
EVENTS = "events.jsonl"
FILES = "files"
_ROOT = Path(__file__).resolve().parents[2]
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from auditor.reproduce.inside.supervisor import main; main()"
#: Layers that a GPU re-run has to do without: Landlock grants no device files, and NCCL finds its interfaces through a
#: netlink socket, which the seccomp filter refuses. The network stays closed by its namespace.
WITHOUT_ON_GPU = frozenset({Layer.LANDLOCK, Layer.SECCOMP})
#: gloo looks up its interface the same way.
WITHOUT_FOR_RANKS = frozenset({Layer.SECCOMP})


@dataclass(frozen=True)
class Job:
    """Processes of one run.

    Attributes:
        commands: (argv, environment) of each process started.
        environment: variables of all of them.
        binds: (host path, path inside), read-only.
        watch: folders inside whose files are watched.
        links: name in the scratch folder -> target.
        gpu: whether GPU devices are needed.
        wall_seconds, cpu_seconds, memory_bytes, scratch_bytes, output_bytes: limits; CPU time is that of one process
            (0: none beside the wall clock), output counts everything that is sent out.
        file_bytes, total_bytes: largest file kept, and all kept files together.
    """

    commands: tuple[tuple[tuple[str, ...], dict[str, str]], ...]
    environment: dict[str, str] = field(default_factory=dict)
    binds: tuple[tuple[str, str], ...] = ()
    watch: tuple[str, ...] = ()
    links: dict[str, str] = field(default_factory=dict)
    gpu: bool = False
    wall_seconds: float = 3600.0
    cpu_seconds: int = 0
    memory_bytes: int = 6144 * MIB
    scratch_bytes: int = 1024 * MIB
    output_bytes: int = 512 * MIB
    file_bytes: int = 64 * MIB
    total_bytes: int = 160 * MIB


@dataclass
class Ran:
    """How a run ended.

    Attributes:
        complete: every process ended by itself and all was handed out.
        codes: exit status of each process; reason: why the run was cut short, "" when it was not.
        layers: active layers of the sandbox.
        seconds: wall time; peak_bytes: peak resident memory of the tree.
    """

    complete: bool
    codes: tuple[int, ...] = ()
    reason: str = ""
    layers: tuple[str, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0


def contain(job: Job, folder: Path, sample: Callable[[], dict[str, Any] | None] | None = None) -> Ran:
    """Run a job; events go to `folder`/events.jsonl, files that it left to `folder`/files.

    Args:
        sample: called about once a second, its answer is written beside the events (kind "gpu").

    Raises:
        SandboxUnavailable: this machine cannot contain an untrusted program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    policy = _policy(job)
    without = WITHOUT_ON_GPU if job.gpu else WITHOUT_FOR_RANKS if len(job.commands) > 1 else frozenset()
    allowed = ALL_LAYERS - without
    with tempfile.TemporaryDirectory(prefix="auditor-rerun-") as scratch, Record(folder) as record:
        os.chmod(scratch, 0o777)
        watch = _Streamed(policy, scratch, record, sample)
        outcome = watch.run(launch(policy, allowed, insist=False, scratch=scratch))
        layers = tuple(sorted(str(layer) for layer in outcome.layers))
        ended = {"layers": layers, "status": outcome.status, "reason": outcome.reason}
        record.write({"kind": "sandbox", **ended, "cpu_seconds": round(outcome.cpu_seconds, 1)})
    if outcome.status == "refused":
        raise SandboxUnavailable(f"the re-run could not be contained: {outcome.reason}; run `auditor sandbox --check`")
    ended = record.ended
    reason = "" if ended is not None else (outcome.reason or "the supervisor was ended from inside")
    codes = tuple(ended["codes"]) if ended else ()
    return Ran(ended is not None, codes, reason, layers, outcome.seconds, outcome.peak_bytes)


def _policy(job: Job) -> Policy:
    request = {
        "commands": [{"argv": list(argv), "environment": extra} for argv, extra in job.commands],
        "watch": list(job.watch),
        "links": job.links,
        "file_bytes": job.file_bytes,
        "total_bytes": job.total_bytes,
    }
    devices = tuple((path, path) for path in gpu_paths()) if job.gpu else ()
    extra = tuple(str(_ROOT / name) for name in ("auditor", "reference") if (_ROOT / name).is_dir())
    base = Policy(
        argv=(sys.executable, "-I", "-u", "-c", _START),
        readonly=tuple(dict.fromkeys((*system_paths(), *extra))),
        binds=(*job.binds, *devices),
        environment={**job.environment, "AUDITOR_RERUN": json.dumps(request)},
        wall_seconds=job.wall_seconds,
        cpu_seconds=job.cpu_seconds or int(job.wall_seconds * 256),
        memory_bytes=job.memory_bytes,
        scratch_bytes=job.scratch_bytes,
        file_bytes=job.scratch_bytes,
        output_bytes=job.output_bytes,
        processes=128,
        loopback=True,
    )
    return replace(base, processes=16_384, open_files=65_536) if job.gpu else base


def gpu_paths() -> list[str]:
    """Device files and driver folders of NVIDIA GPUs on this machine."""
    found = [str(path) for path in sorted(Path("/dev").glob("nvidia*"))]
    return found + [
        path for path in ("/dev/nvidia-caps", "/sys") if found and os.path.isdir(path) and path not in found
    ]


class Record:
    """The event file of a run and the files it handed out, written as they come."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: dict[str, Any] | None = None
        self._part = b""
        self._flushed = 0.0

    def __enter__(self) -> Record:
        self._file = open(self.folder / EVENTS, "ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def write(self, event: dict[str, Any]) -> None:
        """Append an event of our own."""
        self._file.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    def feed(self, chunk: bytes) -> None:
        """Take in bytes of the supervisor's stream."""
        *lines, self._part = (self._part + chunk).split(b"\n")
        for line in lines:
            self._take(line)
        if time.monotonic() - self._flushed > 1.0:
            self._flushed = time.monotonic()
            self._file.flush()

    def _take(self, line: bytes) -> None:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            return
        if event.get("kind") == "content":
            self._content(event)
            return
        if event.get("kind") == "end":
            self.ended = event
        self._file.write(line + b"\n")

    def _content(self, event: dict[str, Any]) -> None:
        inside = PurePosixPath(event["path"])
        if inside.is_absolute() or ".." in inside.parts:
            return
        target = self.folder / FILES / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "ab") as file:
            file.write(base64.b64decode(event["data"]))


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Events of a run in order; a last line cut short by the end of the writer is left out."""
    path = folder / EVENTS
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


class _Streamed(Watch):
    """Writes the result stream to disk instead of keeping it, and samples the machine once a second."""

    def __init__(self, policy: Policy, scratch: str, record: Record, sample: Callable | None) -> None:
        super().__init__(policy, scratch)
        self.record, self.sample = record, sample
        self.begun, self.sampled, self.received = time.monotonic(), 0.0, 0

    def read(self, key: Any, selector: Any) -> bool:
        if key.data != "result":
            return super().read(key, selector)
        chunk = os.read(key.fd, 1 << 16)
        if not chunk:
            selector.unregister(key.fd)
            return False
        self.received += len(chunk)
        self.record.feed(chunk)
        return True

    def over(self, pid: int, seconds: float) -> str:
        now = time.monotonic()
        if now - self.sampled > 1.0:
            self.sampled = now
            answer = self.sample() if self.sample else None
            if answer:
                self.record.write({"t": round(now - self.begun, 3), "kind": "gpu", **answer})
            self.record.write({"t": round(now - self.begun, 3), "kind": "memory", "bytes": self.outcome.peak_bytes})
        if self.received > self.policy.output_bytes:
            return f"output over {self.policy.output_bytes:,} bytes"
        return super().over(pid, seconds)
