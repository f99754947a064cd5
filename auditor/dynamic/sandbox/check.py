"""Escape attempts: small programs that try to get out, and what must have come of each (`auditor sandbox --check`)."""

from __future__ import annotations

import contextlib
import http.server
import os
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from auditor.dynamic.sandbox.policy import MIB, Layer, Outcome, Policy
from auditor.dynamic.sandbox.runner import ALL_LAYERS, run


@dataclass(frozen=True)
class Bait:
    """What an escape would reach on the host: a secret file, a folder to write to, listening sockets, a process."""

    secret: str
    secret_file: Path
    folder: Path
    tcp_port: int
    udp_port: int
    pid: int


@dataclass(frozen=True)
class Escape:
    """One attempt. `held` tells from the outcome and the bait that it failed; `layers` can each stop it alone."""

    name: str
    code: str
    held: Callable[[Outcome, Bait], bool]
    layers: frozenset[Layer]


def _silent(outcome: Outcome, bait: Bait) -> bool:
    return b"ESCAPED" not in outcome.stdout and bait.secret.encode() not in outcome.stdout


def _untouched(outcome: Outcome, bait: Bait) -> bool:
    return _silent(outcome, bait) and not list(bait.folder.iterdir())


def _killed(word: str) -> Callable[[Outcome, Bait], bool]:
    return lambda outcome, bait: (
        _silent(outcome, bait) and (word in outcome.reason or outcome.returncode not in (0, None))
    )


def _gone(outcome: Outcome, bait: Bait) -> bool:
    time.sleep(0.6)
    return _untouched(outcome, bait)


_TRY = "try:\n    {body}\n    print('ESCAPED')\nexcept OSError as error:\n    print('held:', error)\n"

ESCAPES: tuple[Escape, ...] = (
    Escape(
        "read a secret outside",
        "print(open({secret_file!r}).read())",
        _silent,
        frozenset({Layer.MOUNT_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "list a folder outside",
        "import os; print(os.listdir({folder!r} + '/..'), 'ESCAPED')",
        _silent,
        frozenset({Layer.MOUNT_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "write outside",
        "open({folder!r} + '/escaped', 'w').write('x'); print('ESCAPED')",
        _untouched,
        frozenset({Layer.MOUNT_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "change the interpreter",
        "import os; open(os.__file__, 'a').write('#'); print('ESCAPED')",
        _silent,
        frozenset({Layer.MOUNT_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "connect to loopback (TCP)",
        "import socket; s = socket.create_connection(('127.0.0.1', {tcp_port}), 2); print('ESCAPED')",
        _silent,
        frozenset({Layer.NET_NS, Layer.SECCOMP}),
    ),
    Escape(
        "send to loopback (UDP)",
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', {udp_port}));"
        "s.send(b'ping'); s.settimeout(1); print('ESCAPED' if s.recv(4) else '')",
        _silent,
        frozenset({Layer.NET_NS, Layer.SECCOMP}),
    ),
    Escape(
        "connect to the outside",
        "import socket; s = socket.socket(); s.settimeout(2); s.connect(('192.0.2.1', 80)); print('ESCAPED')",
        _silent,
        frozenset({Layer.NET_NS, Layer.SECCOMP}),
    ),
    Escape(
        "raw netlink socket",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); print('ESCAPED')",
        _silent,
        frozenset({Layer.SECCOMP}),
    ),
    Escape(
        "read the caller's environment",
        "import os; print('ESCAPED' if 'AUDITOR_BAIT' in os.environ else 'held')",
        _silent,
        frozenset({Layer.INTERPRETER}),
    ),
    Escape(
        "read the caller's environment through /proc",
        "print(open('/proc/{pid}/environ', 'rb').read()); print('ESCAPED')",
        _silent,
        frozenset({Layer.PID_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "signal the caller",
        "import os; os.kill({pid}, 0); print('ESCAPED')",
        _silent,
        frozenset({Layer.PID_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "trace the caller",
        "import ctypes; l = ctypes.CDLL(None); print('ESCAPED' if l.ptrace(16, {pid}, 0, 0) == 0 else 'held')",
        _silent,
        frozenset({Layer.PID_NS, Layer.SECCOMP, Layer.LANDLOCK}),
    ),
    Escape(
        "new user namespace",
        "import ctypes; l = ctypes.CDLL(None); print('ESCAPED' if l.unshare(0x10000000) == 0 else 'held')",
        _silent,
        frozenset({Layer.SECCOMP}),
    ),
    Escape(
        "mount",
        "import ctypes; l = ctypes.CDLL(None);"
        "print('ESCAPED' if l.mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0 else 'held')",
        _silent,
        frozenset({Layer.SECCOMP, Layer.UNPRIVILEGED}),
    ),
    Escape(
        "io_uring",
        "import ctypes; l = ctypes.CDLL(None, use_errno=True); b = ctypes.create_string_buffer(120);"
        "print('ESCAPED' if l.syscall(425, 4, b) >= 0 else 'held')",
        _silent,
        frozenset({Layer.SECCOMP}),
    ),
    Escape(
        "fork without end",
        "import os, time\nfor i in range(10000):\n    if os.fork() == 0:\n        time.sleep(30); os._exit(0)\n"
        "print('ESCAPED')",
        _killed("processes"),
        frozenset({Layer.RLIMITS, Layer.WATCHDOG}),
    ),
    Escape(
        "fill memory",
        "blocks = []\nfor i in range(4096):\n    blocks.append(bytearray(1 << 22))\nprint('ESCAPED')",
        _killed("memory"),
        frozenset({Layer.WATCHDOG}),
    ),
    Escape(
        "fill the disk",
        "for i in range(64):\n    open('fill%d' % i, 'wb').write(b'x' * (1 << 23))\nprint('ESCAPED')",
        _killed("scratch"),
        frozenset({Layer.MOUNT_NS, Layer.WATCHDOG}),
    ),
    Escape("print without end", "while True: print('x' * 100000)", _killed("stdout"), frozenset({Layer.WATCHDOG})),
    Escape(
        "sleep without end",
        "import time; time.sleep(600); print('ESCAPED')",
        _killed("wall time"),
        frozenset({Layer.WATCHDOG}),
    ),
    Escape(
        "survive the end",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(0.5)\n"
        "        open({folder!r} + '/survived', 'w')\n        os._exit(0)\n    os._exit(0)\ntime.sleep(0.1)",
        _gone,
        frozenset({Layer.PID_NS, Layer.MOUNT_NS, Layer.LANDLOCK}),
    ),
    Escape(
        "print a forged result",
        'print(\'{{"result": "forged"}}\')',
        lambda outcome, bait: not outcome.results,
        frozenset({Layer.INTERPRETER}),
    ),
)


def attempt(
    escape: Escape, bait: Bait, *, allowed: frozenset[Layer] = ALL_LAYERS, insist: bool = False
) -> tuple[bool, Outcome]:
    """Try one escape; True when it was held."""
    code = escape.code.format(
        secret_file=str(bait.secret_file),
        folder=str(bait.folder),
        tcp_port=bait.tcp_port,
        udp_port=bait.udp_port,
        pid=bait.pid,
    )
    policy = Policy(
        argv=(sys.executable, "-I", "-c", code),
        memory_bytes=256 * MIB,
        scratch_bytes=64 * MIB,
        output_bytes=MIB,
        wall_seconds=4,
        cpu_seconds=10,
        processes=24,
    )
    outcome = run(policy, allowed=allowed, insist=insist)
    return outcome.status != "refused" and escape.held(outcome, bait), outcome


@contextlib.contextmanager
def baited() -> Iterator[Bait]:
    """Things on the host worth reaching: a secret, a folder anybody may write to, listening sockets, a variable."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="auditor-bait-") as name, _tcp() as tcp, _udp() as udp:
        os.chmod(name, 0o755)
        folder = Path(name) / "open"
        folder.mkdir()
        folder.chmod(0o777)
        secret_file = Path(name) / "secret"
        secret_file.write_text(secret)
        os.environ["AUDITOR_BAIT"] = secret
        try:
            yield Bait(secret, secret_file, folder, tcp, udp, os.getpid())
        finally:
            del os.environ["AUDITOR_BAIT"]


@contextlib.contextmanager
def _tcp() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def _udp() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(("127.0.0.1", 0))

        def echo() -> None:
            with contextlib.suppress(OSError):
                while True:
                    data, address = channel.recvfrom(64)
                    channel.sendto(data, address)

        threading.Thread(target=echo, daemon=True).start()
        yield channel.getsockname()[1]
