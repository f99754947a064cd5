"""Start a program in the sandbox, watch it from outside, and report what came of it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from auditor.dynamic.sandbox.policy import Layer, Outcome, Policy, SandboxUnavailable, missing, system_paths

ALL_LAYERS = frozenset(Layer)
_DIRECT = frozenset({Layer.USER_NS, Layer.MOUNT_NS, Layer.NET_NS, Layer.PID_NS, Layer.IPC_NS})
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])
_START = (
    "import sys; sys.path.insert(0, {root!r}); from auditor.dynamic.sandbox.inside import main; "
    "main({status}, {result})"
)
POLL_SECONDS = 0.02


def run(policy: Policy, *, allowed: frozenset[Layer] = ALL_LAYERS, insist: bool = False) -> Outcome:
    """Run `policy.argv` inside every layer of `allowed` this machine has.

    Messages the program writes to the descriptor named by AUDITOR_RESULT_FD, one a line, come back in `results`.

    Args:
        policy: limits and grants.
        allowed: layers to use; fewer only for tests of the others.
        insist: start even without the required layers (the outcome still says which were active).

    Raises:
        SandboxUnavailable: too few layers on this machine and `insist` is not set.
    """
    policy = replace(policy, readonly=tuple(dict.fromkeys((*system_paths(), *policy.readonly))))
    with tempfile.TemporaryDirectory(prefix="auditor-sandbox-") as host_scratch:
        os.chmod(host_scratch, 0o777)
        bubblewrap = Layer.BUBBLEWRAP in allowed and not policy.loopback and bubblewrap_works()
        watch = Watch(policy, host_scratch)
        outcome = watch.run(launch(policy, allowed, insist=insist, scratch=host_scratch, bubblewrap=bubblewrap))
    if outcome.status == "refused" and "nothing protects" in outcome.reason:
        raise SandboxUnavailable(f"the sandbox is incomplete: {outcome.reason}; run `auditor sandbox --check`")
    return outcome


@functools.cache
def bubblewrap_works() -> bool:
    """Whether bubblewrap is installed and may make namespaces here (in many containers it may not)."""
    program = shutil.which("bwrap")
    if program is None:
        return False
    probe = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def available_layers(allowed: frozenset[Layer] = ALL_LAYERS) -> tuple[set[Layer], list[str]]:
    """Layers that are active for a trivial program here, and the lines of defence that lack one."""
    program = Policy(argv=(os.path.realpath(sys.executable), "-I", "-S", "-c", "pass"), wall_seconds=20)
    layers = set(run(program, allowed=allowed, insist=True).layers)
    return layers, missing(layers)


class Launched:
    """A started process with its pipes: what it prints, its results, its status messages."""

    def __init__(self, command: list[str], request: dict, pass_fds: tuple[int, int], ends: tuple[int, int]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            env={"PATH": "/usr/bin:/bin"},
            cwd="/",
            start_new_session=True,
            close_fds=True,
        )
        for fd in pass_fds:
            os.close(fd)
        self.status_fd, self.result_fd = ends
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode())
            self.process.stdin.close()


def launch(
    policy: Policy, allowed: frozenset[Layer], *, insist: bool, scratch: str, bubblewrap: bool = False
) -> Launched:
    """Start a program inside the layers; a `Watch` has to look after what comes of it.

    Args:
        allowed: layers to use. insist: start even without the required ones. scratch: writable folder on this machine
            where no namespace gives the program one of its own. bubblewrap: let bubblewrap make the namespaces.
    """
    status_read, status_write = os.pipe()
    result_read, result_write = os.pipe()
    layers = {Layer.INTERPRETER, Layer.RLIMITS, Layer.WATCHDOG}
    mounts = bubblewrap or (Layer.MOUNT_NS in allowed and _direct_works())
    start = _START.format(root=_PACKAGE_ROOT, status=status_write, result=result_write)
    command = [os.path.realpath(sys.executable), "-I", "-S", "-c", start]
    if bubblewrap:
        layers |= {Layer.BUBBLEWRAP, *_DIRECT}
        command = _bubblewrap(policy) + command
    if not _direct_works():
        allowed = allowed - _DIRECT
    request = {
        "policy": policy.as_dict(),
        "layers": sorted(layers),
        "allowed": sorted(allowed),
        "insist": insist,
        "package_root": _PACKAGE_ROOT,
        "scratch": policy.scratch if mounts else scratch,
    }
    return Launched(command, request, (status_write, result_write), (status_read, result_read))


@functools.cache
def _direct_works() -> bool:
    """Whether this user may make user namespaces and mount inside them (some distributions forbid it)."""
    probe = (
        f"import sys; sys.path.insert(0, {_PACKAGE_ROOT!r}); from auditor.dynamic.sandbox import kernel as k; "
        "k.unshare(k.CLONE_NEWUSER | k.CLONE_NEWNS); k.mount('none', '/', flags=k.MS_REC | k.MS_PRIVATE); "
        "k.mount('probe', '/tmp', 'tmpfs')"
    )
    try:
        command = [os.path.realpath(sys.executable), "-I", "-S", "-c", probe]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _bubblewrap(policy: Policy) -> list[str]:
    command = ["bwrap", "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    size = ["--size", str(policy.scratch_bytes), "--perms", "1777"]
    granted = [*policy.readonly, *(inside for _, inside in policy.binds)]
    own_temporary = any(path.startswith("/tmp/") for path in granted)
    if own_temporary:  # before what is bound below it
        command += [*size, "--tmpfs", "/tmp"]
    for path in policy.readonly:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        else:
            command += ["--ro-bind", path, path]
    for source, inside in policy.binds:
        command += ["--ro-bind", source, inside]
    command += ["--proc", "/proc", "--dev", "/dev", *size, "--tmpfs", policy.scratch]
    if not own_temporary:
        command += ["--symlink", policy.scratch, "/tmp"]
    return [*command, "--chdir", policy.scratch, "--"]


class Watch:
    """Reads the pipes, measures the process tree, and ends the run at the first limit it passes."""

    def __init__(self, policy: Policy, scratch: str) -> None:
        self.policy = policy
        self.scratch = scratch
        self.outcome = Outcome(status="exited")
        self.times: dict[int, float] = {}
        self.buffers = {"stdout": bytearray(), "stderr": bytearray(), "result": bytearray(), "status": bytearray()}

    def run(self, launched: Launched) -> Outcome:
        start = time.monotonic()
        streams = {
            "stdout": launched.process.stdout.fileno(),
            "stderr": launched.process.stderr.fileno(),
            "result": launched.result_fd,
            "status": launched.status_fd,
        }
        with selectors.DefaultSelector() as selector:
            for name, fd in streams.items():
                selector.register(fd, selectors.EVENT_READ, name)
            reason = self._watch(launched.process, selector, start)
            self._end(launched.process)
            self._drain(selector)
        for fd in (launched.result_fd, launched.status_fd):
            os.close(fd)
        launched.process.stdout.close()
        launched.process.stderr.close()
        self.outcome.seconds = time.monotonic() - start
        return self._conclude(launched.process.returncode, reason)

    def _watch(self, process: subprocess.Popen, selector: selectors.BaseSelector, start: float) -> str:
        while process.poll() is None:
            for key, _ in selector.select(POLL_SECONDS):
                self.read(key, selector)
            reason = self.over(process.pid, time.monotonic() - start)
            if reason:
                return reason
        return ""

    def read(self, key: selectors.SelectorKey, selector: selectors.BaseSelector) -> bool:
        chunk = os.read(key.fd, 65536)
        if not chunk:
            selector.unregister(key.fd)
            return False
        room = self.policy.output_bytes + 1 - len(self.buffers[key.data])
        self.buffers[key.data] += chunk[: max(room, 0)]
        return True

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """What is still in the pipes after the end; a survivor that holds one open cannot keep us."""
        until = time.monotonic() + 1.0
        while selector.get_map() and time.monotonic() < until:
            for key, _ in selector.select(0.05) or [(None, None)]:
                if key is None:
                    return
                self.read(key, selector)

    def over(self, pid: int, seconds: float) -> str:
        policy = self.policy
        memory, count = _tree_usage(pid, self.times)
        self.outcome.cpu_seconds = sum(self.times.values())
        self.outcome.peak_bytes = max(self.outcome.peak_bytes, memory)
        self.outcome.processes = max(self.outcome.processes, count)
        if seconds > policy.wall_seconds:
            return f"wall time over {policy.wall_seconds:g} s"
        if memory > policy.memory_bytes:
            return f"memory over {policy.memory_bytes:,} bytes"
        if count > policy.processes:
            return f"more than {policy.processes} processes"
        for name in ("stdout", "stderr", "result"):
            if len(self.buffers[name]) > policy.output_bytes:
                return f"{name} over {policy.output_bytes:,} bytes"
        if _folder_bytes(self.scratch) > policy.scratch_bytes:
            return f"scratch folder over {policy.scratch_bytes:,} bytes"
        return ""

    def _end(self, process: subprocess.Popen) -> None:
        """Kill the whole tree: descendants first noted, then the root, then whoever is left of them."""
        tree = _descendants(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def _conclude(self, returncode: int, reason: str) -> Outcome:
        outcome = self.outcome
        outcome.stdout = bytes(self.buffers["stdout"][: self.policy.output_bytes])
        outcome.stderr = bytes(self.buffers["stderr"][: self.policy.output_bytes])
        outcome.results = bytes(self.buffers["result"]).splitlines()
        messages = [json.loads(line) for line in bytes(self.buffers["status"]).splitlines()]
        for message in messages:
            outcome.layers = tuple(Layer(name) for name in message.get("layers", ()))
        refused = [message["refused"] for message in messages if "refused" in message]
        outcome.returncode = returncode
        if refused or not messages:
            outcome.status, outcome.returncode = "refused", None
            words = outcome.stderr[-400:].decode("utf-8", "replace").strip()
            outcome.reason = (refused or [reason or f"could not start: {words}"])[0]
        elif reason:
            outcome.status, outcome.reason = "killed", reason
        elif returncode < 0 or returncode > 128:
            number = -returncode if returncode < 0 else returncode - 128
            outcome.status, outcome.reason = "signalled", f"ended by {_signal_name(number)}"
        return outcome


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _descendants(root: int) -> list[int]:
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    queue += [int(word) for word in file.read().split()]
        except (OSError, ValueError):
            continue
    return found


def _tree_usage(root: int, times: dict[int, float]) -> tuple[int, int]:
    """Resident bytes of a process tree (pages shared by forks counted once per process) and its process count.

    The CPU time of each process, seconds, goes into `times`. (What a parent has waited for says less: bubblewrap leaves
    without waiting for the tree it started.)
    """
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    memory = count = 0
    for pid in _descendants(root):
        try:
            with open(f"/proc/{pid}/statm", encoding="ascii") as file:
                memory += int(file.read().split()[1]) * page
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
                user, system = file.read().rpartition(")")[2].split()[11:13]
            times[pid] = (int(user) + int(system)) / tick
            count += 1
        except (OSError, ValueError, IndexError):
            continue
    return memory, count


def _folder_bytes(path: str) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total
