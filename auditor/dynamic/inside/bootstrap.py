"""First code inside the sandbox: stand-ins and recorder go up, then the submission's script runs as `__main__`.

Events leave on the private descriptor as one JSON object a line; arrays are base64 of their raw bytes, zlib-packed.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import runpy
import shutil
import signal
import sys
import time
import traceback
import zlib
from pathlib import Path
from typing import Any

import numpy as np

LINE_LIMIT = 400
HOPEFUL_STEPS = 2  # training steps after a third of the time, of the six or seven there are
ENDLESS_STEPS = 60  # without a score in between, where a handful was asked for: only a clock ends them


class Channel:
    """Writes events to the private descriptor. Closed over here and nowhere stored under a guessable name."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "wb", buffering=1 << 16)
        self._updates: dict[tuple, int] = {}
        self._then: dict[tuple, int] = {}

    def emit(self, event: dict[str, Any]) -> None:
        """Send one event."""
        self._file.write(json.dumps(event, default=_pack, separators=(",", ":")).encode() + b"\n")
        if event["kind"] in ("print", "update"):
            self._file.flush()  # what is known so far must survive a run that is killed
        if event["kind"] == "update":
            which = event["via"], event["size"]
            self._updates[which] = self._updates.get(which, 0) + 1
        if event["kind"] == "score" and not event["grad"]:
            self._then = dict(self._updates)

    @property
    def steps(self) -> int:
        """Training steps so far: those of the optimizer that made most."""
        return max(self._updates.values(), default=0)

    @property
    def unscored(self) -> int:
        """Training steps since something was scored."""
        return max((count - self._then.get(which, 0) for which, count in self._updates.items()), default=0)

    def flush(self) -> None:
        """Push out what is buffered."""
        self._file.flush()


def _pack(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        data = zlib.compress(np.ascontiguousarray(value).tobytes(), 1)
        return {"dtype": str(value.dtype), "data": base64.b85encode(data).decode()}
    return str(value)


class Tee:
    """A text stream whose finished lines also become events, so that what was printed has its place in the order."""

    def __init__(self, stream: Any, recorder: Any) -> None:
        self._stream, self._recorder, self._part = stream, recorder, ""

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        *lines, self._part = (self._part + text).split("\n")
        if lines:
            self._stream.flush()
        for line in lines:
            if line.strip() and not self._recorder.busy:
                self._recorder.event("print", text=line[:LINE_LIMIT])
        self._part = self._part[-LINE_LIMIT:]
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main(script: str, table: str) -> None:
    """Run `script` under observation. `table` is the watermark's table as a .npy file."""
    _links()
    from auditor.dynamic.inside import grammar, placeholders, ranks, settings, standin
    from auditor.dynamic.inside.recorder import Places, Recorder

    start, line, rank, fd = time.perf_counter(), None, 0, int(os.environ.pop("AUDITOR_RESULT_FD"))
    if os.environ.get("WORLD_SIZE") == str(ranks.RANKS):
        rank, line, fd = ranks.fork(fd)
    channel = Channel(fd)

    places = Places(np.load(table), _repeats(table))
    recorder = Recorder(places, int(os.environ.pop("AUDITOR_VOCABULARY")), channel.emit)
    recorder.install()
    sys.stdout, sys.stderr = Tee(sys.stdout, recorder), Tee(sys.stderr, recorder)
    _watch_files(recorder)
    recorder.start = start  # one clock for all ranks
    standin.install(recorder.observe, None if line is None else ranks.Pair(rank, line, recorder.event))
    given = json.loads(os.environ.pop("AUDITOR_SETTINGS", "{}"))
    if given.get("writable"):
        script = _writable(script)
    placeholders.install(given.get("without", ()), standin.refuse)
    shrinker = settings.install(given, recorder.event)
    grammar.Compiler(shrinker, str(Path(script).parent)).install()
    _alarm(recorder, channel, given.get("patient", True))
    sys.argv = [script]
    sys.path[0] = str(Path(script).parent)
    sys.path[1:1] = given.get("beside", [])
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exc()
        recorder.event("crash", error=type(error).__name__, message=str(error)[:2000], line=_line(error, script))
        code = 1
    recorder.event("end", code=code)
    channel.flush()
    sys.stdout.flush()
    os._exit(code)


def _line(error: BaseException, script: str) -> int:
    """Innermost line of the script that an error came through, 0 where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename in (script, "<string>")), 0)


def _repeats(table: str) -> tuple[np.ndarray, int] | None:
    """The part of the stream in which pairs repeat, where this run has one."""
    path = Path(table).with_name("repeats.npz")
    if not path.exists():
        return None
    with np.load(path) as held:
        return held["tokens"], int(held["place"])


def _alarm(recorder: Any, channel: Channel, patient: bool) -> None:
    """Shortly before the limit on CPU time, say where the program is and end: a kill from outside could not tell.

    Without patience a program that has hardly begun to train after a third of the time ends then: it could not come to
    its score any more, and what is left of the time is enough for a smaller run. The same holds for one that goes on
    training far beyond the steps it was given.
    """
    limit = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if limit == resource.RLIM_INFINITY or limit < 4:
        return

    def end(words: str) -> None:
        frames = recorder.sites.frames()
        where = "; called from ".join(f"{function}, line {line}" for _, line, function in frames[:6])
        recorder.event("crash", error="", message=f"CPU time over {words}, in {where or 'a library'}")
        channel.flush()
        os._exit(1)

    def look(*_: Any) -> None:
        if channel.steps < HOPEFUL_STEPS:
            end(f"{limit // 3} s after {channel.steps} training steps")
        elif channel.unscored > ENDLESS_STEPS:
            end(f"{limit // 3} s in training that has no end but by the clock")

    signal.signal(signal.SIGXCPU, lambda *_: end(f"{limit} s"))
    resource.setrlimit(resource.RLIMIT_CPU, (limit - 1, limit))
    if not patient:
        signal.signal(signal.SIGPROF, look)
        signal.setitimer(signal.ITIMER_PROF, limit / 3)


def _writable(script: str) -> str:
    """A copy of the submission's folder in the scratch folder, for programs that write beside themselves."""
    folder = Path(script).parent
    copy = Path.cwd() / str(folder).lstrip("/")
    shutil.copytree(folder, copy, symlinks=True)
    root = Path.cwd() / Path(str(folder).lstrip("/")).parts[0]
    if root.is_dir() and not (root / "data").exists():
        (root / "data").symlink_to("/data")
    return str(copy / Path(script).name)


def _links() -> None:
    """The data set also under the relative path programs expect it at."""
    if not os.path.lexists("data"):
        os.symlink("/data", "data")


def _watch_files(recorder: Any) -> None:
    """File opens, processes and sockets, from the interpreter's own audit events."""
    scratch = os.getcwd()

    def hook(name: str, arguments: tuple) -> None:
        if name == "open" and isinstance(arguments[0], str | bytes) and not recorder.busy:
            path, mode, flags = os.fsdecode(arguments[0]), arguments[1], arguments[2]
            writing = bool(flags & (os.O_WRONLY | os.O_RDWR)) if isinstance(flags, int) else "w" in (mode or "")
            if path.startswith((scratch, "/data", "./")) or not path.startswith("/"):
                recorder.event("open", path=path, write=writing)
        elif name in ("subprocess.Popen", "os.system"):
            recorder.event("process", command=str(arguments[0])[:200])
        elif name in ("socket.connect", "socket.getaddrinfo"):
            recorder.event("network", detail=str(arguments[-1])[:200])

    sys.addaudithook(hook)
