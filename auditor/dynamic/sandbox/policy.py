"""What a sandboxed program may do, and what came of it. Small data, meant to be reviewed in one sitting."""

from __future__ import annotations

import enum
import os
import sys
import sysconfig
from dataclasses import asdict, dataclass, field
from pathlib import Path

from auditor.errors import AuditorError

MIB = 1 << 20


class SandboxUnavailable(AuditorError):
    """This machine lacks the layers without which an untrusted program is not run."""


class Layer(enum.StrEnum):
    """One independent line of defence."""

    INTERPRETER = "isolated interpreter"
    RLIMITS = "rlimits"
    WATCHDOG = "watchdog"
    BUBBLEWRAP = "bubblewrap"
    USER_NS = "user namespace"
    MOUNT_NS = "mount namespace"
    NET_NS = "network namespace"
    PID_NS = "pid namespace"
    IPC_NS = "ipc namespace"
    UNPRIVILEGED = "no privileges"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


# At least one layer of each line must be active before anything runs.
REQUIRED: tuple[tuple[str, frozenset[Layer]], ...] = (
    ("the network", frozenset({Layer.NET_NS, Layer.SECCOMP})),
    ("the file system", frozenset({Layer.MOUNT_NS, Layer.LANDLOCK})),
    ("privileges", frozenset({Layer.UNPRIVILEGED})),
)


def system_paths() -> tuple[str, ...]:
    """Directories a Python program needs to start: the interpreter, its libraries, the dynamic linker's."""
    wanted = [
        "/usr",
        "/bin",
        "/lib",
        "/lib64",
        "/lib32",
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/etc/localtime",
        "/sys/devices/system/cpu",
    ]
    wanted += [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.realpath(sys.executable)]
    wanted += [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    wanted.append(str(Path(__file__).resolve().parents[3] / "auditor"))
    return tuple(dict.fromkeys(path for path in wanted if os.path.exists(path)))


@dataclass(frozen=True)
class Policy:
    """Limits and grants of one run.

    Attributes:
        argv: program and arguments; the program is an absolute path.
        readonly: host paths visible inside under the same name, besides `system_paths()`.
        binds: (host path, path inside), read-only; needs a mount namespace, otherwise the host path is used.
        scratch: path of the one writable folder inside; a fresh tmpfs where mounts are possible.
        scratch_bytes, memory_bytes, output_bytes, file_bytes: sizes in bytes.
        cpu_seconds, wall_seconds: CPU time of one process and wall time of the whole tree, seconds.
        processes, open_files: counts for the whole tree and for one process.
        environment: the only variables the program sees.
        loopback: bring up 127.0.0.1 inside a private network namespace (two-rank runs); refused without one.
    """

    argv: tuple[str, ...]
    readonly: tuple[str, ...] = ()
    binds: tuple[tuple[str, str], ...] = ()
    scratch: str = "/scratch"
    scratch_bytes: int = 512 * MIB
    memory_bytes: int = 4096 * MIB
    output_bytes: int = 16 * MIB
    file_bytes: int = 512 * MIB
    cpu_seconds: int = 120
    wall_seconds: float = 90.0
    processes: int = 64
    open_files: int = 512
    environment: dict[str, str] = field(default_factory=dict)
    loopback: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError where a grant would lie outside of the view that is built for the program."""
        for _, inside in self.binds:
            if not inside.startswith("/") or os.path.normpath(inside) != inside:
                raise ValueError(f"{inside!r} is no absolute path without '.' and '..'; nothing can be granted there")

    def as_dict(self) -> dict:
        """Plain data for the process inside."""
        return asdict(self)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        status: "exited", "killed" (a limit; see `reason`), "signalled", "refused" (could not be set up).
        returncode: exit status of the program, negative for a signal, None when it never started.
        reason: the limit that ended it, or why it could not start.
        results: messages of the private channel, in order.
        stdout, stderr: what it printed, cut at the limit.
        layers: what was active.
        seconds: wall time; cpu_seconds: CPU time of the tree, as far as its processes were seen alive;
            peak_bytes: peak resident memory of the tree; processes: most at one time.
    """

    status: str
    returncode: int | None = None
    reason: str = ""
    results: list[bytes] = field(default_factory=list)
    stdout: bytes = b""
    stderr: bytes = b""
    layers: tuple[Layer, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    processes: int = 0


def missing(layers: set[Layer]) -> list[str]:
    """Names of the lines of defence for which none of `layers` stands in."""
    return [name for name, any_of in REQUIRED if not layers & any_of]
