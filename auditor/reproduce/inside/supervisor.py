"""First process inside the sandbox: starts the ranks, stamps every line they print, watches files, hands files out.

It shares no memory with the program it watches and cannot be traced by it (not dumpable), so times, sizes and file
accesses are measured whatever the program prints. Everything leaves on the private descriptor, one JSON object a line;
`t` is seconds since the ranks were started, on the monotonic clock.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import json
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from typing import Any

from auditor.reproduce.inside.inotify import Inotify

LINE_LIMIT = 8192
CHUNK = 1 << 20
_COALESCE = 0.2  # seconds in which repeated accesses of one file are one event
_GRACE = 20.0  # seconds the other ranks get when one has failed
_CACHES = ("__pycache__", "torchinductor", ".triton", "triton", ".cache", ".nv")
_PR_SET_DUMPABLE = 4


def main() -> None:
    """Run what the variable AUDITOR_RERUN describes; the exit status is that of the first rank that failed.

    Request: `commands` (argv and environment of every process to start), `watch` (folders of shards), `links`
    (name in the scratch folder -> target), `file_bytes` and `total_bytes` (limits for files handed out).
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    request = json.loads(os.environ.pop("AUDITOR_RERUN"))
    supervisor = Supervisor(request, int(os.environ.pop("AUDITOR_RESULT_FD")))
    code = supervisor.run()
    os._exit(code)


class Supervisor:
    """Ranks, their pipes, and the files they touch."""

    def __init__(self, request: dict[str, Any], fd: int) -> None:
        self.request, self.fd = request, fd
        self.start = time.monotonic()
        self.scratch = os.getcwd()
        self.selector = selectors.DefaultSelector()
        self.parts: dict[int, bytes] = {}
        self.seen: dict[tuple[str, str], float] = {}
        self.mapped: set[str] = set()
        self.watch = self._watch()

    def emit(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        event = {"t": round(time.monotonic() - self.start, 4), "kind": kind, **fields}
        data = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self.fd, data) :]

    def run(self) -> int:
        """Everything from the first process to the last file."""
        for name, target in self.request.get("links", {}).items():
            if not os.path.lexists(name):
                os.symlink(target, name)
        self.start = time.monotonic()
        processes = [self._launch(index, command) for index, command in enumerate(self.request["commands"])]
        self.emit("started", wall=time.time(), inotify=self.watch is not None)
        codes = self._attend(processes)
        self.emit("exited", codes=codes)
        self._hand_out()
        self.emit("end", codes=codes)
        return next((abs(code) % 256 or 1 for code in codes if code), 0)

    def _watch(self) -> Inotify | None:
        try:
            watch = Inotify()
        except OSError:
            return None
        for top in [*self.request.get("watch", ()), self.scratch]:
            for folder, names, _ in os.walk(top):
                watch.add(folder)
                names[:] = names if folder.count("/") - top.count("/") < 4 else []
        return watch

    def _launch(self, index: int, command: dict[str, Any]) -> subprocess.Popen:
        process = subprocess.Popen(
            command["argv"],
            env={**os.environ, **command["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        for stream, pipe in (("out", process.stdout), ("err", process.stderr)):
            self.selector.register(pipe, selectors.EVENT_READ, (index, stream))
        return process

    def _attend(self, processes: list[subprocess.Popen]) -> list[int]:
        """Forward lines and file events until every rank has ended."""
        if self.watch is not None:
            self.selector.register(self.watch.fd, selectors.EVENT_READ, None)
        failed_at, sampled = None, 0.0
        while True:
            for key, _ in self.selector.select(0.05):
                self._files() if key.data is None else self._lines(key)
            now = time.monotonic()
            if now - sampled > 1.0:
                sampled = now
                self._maps(processes)
            codes = [process.poll() for process in processes]
            if None not in codes:
                self._drain()
                return [code or 0 for code in codes]
            if any(codes) and failed_at is None:
                failed_at = now
            if failed_at is not None and now - failed_at > _GRACE:
                for process in processes:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)

    def _drain(self) -> None:
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            ready = self.selector.select(0)
            if not ready:
                break
            for key, _ in ready:
                self._files() if key.data is None else self._lines(key)
        for number, rest in self.parts.items():
            if rest:
                self._line(number, rest)

    def _lines(self, key: selectors.SelectorKey) -> None:
        chunk = os.read(key.fd, 1 << 16)
        index, stream = key.data
        number = index * 2 + (stream == "err")
        if not chunk:
            self.selector.unregister(key.fileobj)
            return
        *lines, rest = (self.parts.get(number, b"") + chunk).split(b"\n")
        for line in lines:
            self._line(number, line)
        if len(rest) > LINE_LIMIT:
            self._line(number, rest)
            rest = b""
        self.parts[number] = rest

    def _line(self, number: int, line: bytes) -> None:
        text = line[:LINE_LIMIT].decode("utf-8", "replace").rstrip("\r")
        self.emit("line", process=number // 2, stream="err" if number % 2 else "out", text=text)

    def _files(self) -> None:
        now = time.monotonic()
        for path, what, folder in self.watch.events():
            if folder:
                if what == "create":
                    self.watch.add(path)
                continue
            if now - self.seen.get((path, what), -1.0) < _COALESCE and what != "written":
                continue
            if what == "written":
                self.seen.clear()  # what happens after a file was written must not pass for what happened before
            self.seen[path, what] = now
            inside = os.path.relpath(path, self.scratch) if path.startswith(self.scratch + "/") else path
            fields = {"bytes": _size(path)} if what == "written" else {}
            self.emit("file", path=inside, what=what, **fields)

    def _maps(self, processes: list[subprocess.Popen]) -> None:
        """Shards that are mapped into memory now: reads of a mapping leave no other trace."""
        tops = tuple(self.request.get("watch", ()))
        found = set()
        for pid in _tree([process.pid for process in processes]):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
                found |= {line.split(None, 5)[5].strip() for line in file if line.count("/") and ".bin" in line}
        found = {path for path in found if path.startswith(tops)} if tops else set()
        if found != self.mapped:
            self.mapped = found
            self.emit("mapped", paths=sorted(found)[:64])

    def _hand_out(self) -> None:
        """List every file left in the scratch folder and send those that fit."""
        left = self.request["total_bytes"]
        for path, info in _regular_files(self.scratch):
            inside = os.path.relpath(path, self.scratch)
            wanted = info.st_size <= self.request["file_bytes"] and info.st_size <= left
            wanted = wanted and not any(part in _CACHES for part in inside.split("/"))
            try:
                digest = self._send(path, inside, wanted)
            except OSError as error:
                self.emit("left", path=inside, bytes=info.st_size, problem=str(error))
                continue
            left -= info.st_size if wanted else 0
            self.emit("left", path=inside, bytes=info.st_size, sha256=digest, sent=wanted)

    def _send(self, path: str, inside: str, wanted: bool) -> str:
        # A link or a device in the place of a file must neither be followed nor make the supervisor wait.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        digest = hashlib.sha256()
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a regular file")
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                if wanted:
                    self.emit("content", path=inside, data=base64.b64encode(chunk).decode())
        return digest.hexdigest()


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except OSError:
        return None


def _regular_files(top: str) -> list[tuple[str, os.stat_result]]:
    found = []
    for folder, _, names in os.walk(top):
        for name in sorted(names):
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(folder, name))
                if stat.S_ISREG(info.st_mode):
                    found.append((os.path.join(folder, name), info))
    return sorted(found, key=lambda item: item[1].st_size)


def _tree(roots: list[int]) -> list[int]:
    found, queue = [], list(roots)
    while queue:
        pid = queue.pop()
        found.append(pid)
        with contextlib.suppress(OSError, ValueError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    queue += [int(word) for word in file.read().split()]
    return found


if __name__ == "__main__":
    sys.exit("started by auditor.reproduce.contained, not by hand")
