"""Escapes: each is held by all layers together and by every single layer that claims to hold it, and each would
succeed without them, so that no attempt is "held" merely because it is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from auditor.dynamic.sandbox import Layer, Policy, SandboxUnavailable, available_layers, run
from auditor.dynamic.sandbox.check import ESCAPES, attempt, baited
from auditor.dynamic.sandbox.policy import MIB
from auditor.dynamic.sandbox.runner import ALL_LAYERS, bubblewrap_works

NAMESPACES = frozenset({Layer.MOUNT_NS, Layer.NET_NS, Layer.PID_NS, Layer.IPC_NS})
ALWAYS = frozenset({Layer.INTERPRETER, Layer.RLIMITS, Layer.WATCHDOG, Layer.UNPRIVILEGED})
ACTIVE, LACKING = available_layers()
needs_sandbox = pytest.mark.skipif(bool(LACKING), reason=f"this machine does not protect {', '.join(LACKING)}")
ROOT = os.getuid() == 0
# Without the layers these reach the host, so they show that the attempt itself works. Attempts that would do lasting
# harm (changing the interpreter), need root's identity, or are held by every process's own limits are left out.
CONTROLS = (
    "read a secret outside",
    "list a folder outside",
    "write outside",
    "connect to loopback (TCP)",
    "send to loopback (UDP)",
    "raw netlink socket",
    "survive the end",
    "io_uring",
)


@pytest.fixture(scope="module")
def bait():
    with baited() as things:
        yield things


@pytest.fixture(autouse=True)
def clean_bait(bait):
    yield
    for path in bait.folder.iterdir():
        path.unlink()


def by_name(name):
    return next(escape for escape in ESCAPES if escape.name == name)


@needs_sandbox
@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
@pytest.mark.parametrize("bubblewrap", [False, True], ids=["direct", "bubblewrap"])
def test_all_layers_hold(escape, bait, bubblewrap):
    if bubblewrap and not bubblewrap_works():
        pytest.skip("bubblewrap is not installed or may not make namespaces here")
    allowed = ALL_LAYERS if bubblewrap else ALL_LAYERS - {Layer.BUBBLEWRAP}
    held, outcome = attempt(escape, bait, allowed=allowed)
    assert held, (outcome.stdout, outcome.stderr, outcome.reason)
    assert (Layer.BUBBLEWRAP in outcome.layers) == bubblewrap


SINGLE = [(escape, layer) for escape in ESCAPES for layer in sorted(escape.layers - ALWAYS)]


@pytest.mark.parametrize(("escape", "layer"), SINGLE, ids=lambda value: getattr(value, "name", str(value)))
def test_each_layer_holds_alone(escape, layer, bait):
    if layer not in ACTIVE:
        pytest.skip(f"no {layer} on this machine")
    allowed = frozenset({layer, Layer.USER_NS} if layer in NAMESPACES else {layer})
    held, outcome = attempt(escape, bait, allowed=allowed, insist=True)
    assert layer in outcome.layers
    assert held, (outcome.stdout, outcome.stderr, outcome.reason)


@pytest.mark.parametrize("name", CONTROLS)
def test_attempt_succeeds_without_layers(name, bait):
    held, outcome = attempt(by_name(name), bait, allowed=frozenset(), insist=True)
    if name == "io_uring" and b"held" in outcome.stdout:
        pytest.skip("io_uring is switched off on this machine")
    assert not held, (outcome.stdout, outcome.stderr)


def test_nothing_runs_without_enough_layers():
    with pytest.raises(SandboxUnavailable, match=r"the network.*the file system"):
        run(Policy(argv=(sys.executable, "-c", "pass")), allowed=frozenset())


@needs_sandbox
def test_results_come_by_the_private_channel_and_are_not_printed():
    code = (
        "import os; os.write(int(os.environ['AUDITOR_RESULT_FD']), b'one\\ntwo\\n');"
        "print('three'); import sys; print('four', file=sys.stderr)"
    )
    outcome = run(Policy(argv=(sys.executable, "-I", "-c", code), wall_seconds=20))
    assert (outcome.results, outcome.stdout, outcome.stderr) == ([b"one", b"two"], b"three\n", b"four\n")
    assert (outcome.status, outcome.returncode) == ("exited", 0)


@needs_sandbox
@pytest.mark.parametrize("allowed", [ALL_LAYERS, ALL_LAYERS - {Layer.BUBBLEWRAP}], ids=["any", "direct"])
def test_grants_are_visible_and_readonly(tmp_path, allowed):
    (tmp_path / "script.py").write_text("print('granted')")
    tmp_path.chmod(0o755)
    code = (
        "print(open('/submission/script.py').read()); open('note', 'w').write('scratch works')\n"
        "try: open('/submission/script.py', 'w')\nexcept OSError as error: print('readonly', error.errno)"
    )
    policy = Policy(argv=(sys.executable, "-I", "-c", code), binds=((str(tmp_path), "/submission"),), wall_seconds=20)
    outcome = run(policy, allowed=allowed)
    assert b"granted" in outcome.stdout and b"readonly" in outcome.stdout, outcome.stderr
    assert (tmp_path / "script.py").read_text() == "print('granted')"


@needs_sandbox
@pytest.mark.parametrize("inside", ["/a/../../../home/somebody", "data", "/data/./x", "/data/"])
def test_nothing_is_granted_outside_of_the_view(tmp_path, inside):
    with pytest.raises(ValueError, match="nothing can be granted"):
        Policy(argv=(sys.executable,), binds=((str(tmp_path), inside),))


def test_exit_status_and_crash_are_told_apart():
    assert run(Policy(argv=(sys.executable, "-I", "-c", "raise SystemExit(7)"), wall_seconds=20)).returncode == 7
    crash = run(Policy(argv=(sys.executable, "-I", "-c", "import os; os.abort()"), wall_seconds=20))
    assert (crash.status, crash.reason) == ("signalled", "ended by SIGABRT")


@needs_sandbox
@pytest.mark.skipif(Layer.NET_NS not in ACTIVE, reason="no network namespace")
def test_granted_loopback_is_private(bait):
    code = (
        f"import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()\n"
        f"c = socket.create_connection(s.getsockname(), 2); print('own loopback')\n"
        f"try: socket.create_connection(('127.0.0.1', {bait.tcp_port}), 1); print('ESCAPED')\n"
        f"except OSError: print('host refused')"
    )
    outcome = run(Policy(argv=(sys.executable, "-I", "-c", code), loopback=True, wall_seconds=20))
    assert outcome.stdout.split(b"\n")[:2] == [b"own loopback", b"host refused"], outcome.stderr


@needs_sandbox
def test_caller_killed_takes_the_program_along(tmp_path):
    tmp_path.chmod(0o755)
    marker = "sandbox-orphan-probe"
    program = (
        f"from auditor.dynamic.sandbox import Policy, run\nimport sys\n"
        f"run(Policy(argv=(sys.executable, '-I', '-c', 'import time; time.sleep(60) # {marker}')))"
    )
    caller = subprocess.Popen([sys.executable, "-c", program])
    try:
        assert _wait(lambda: _running(marker, ancestor=False))
    finally:
        caller.kill()
        caller.wait()
    assert _wait(lambda: not _running(marker, ancestor=False))


def _running(marker: str, ancestor: bool) -> bool:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) > 3 and marker.encode() in words[3] and words[1] == b"-I":
            return True
    return False


def _wait(condition, seconds: float = 8.0) -> bool:
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_memory_limit_is_measured_over_the_whole_tree():
    code = (
        "import os, time\nfor i in range(4):\n    if os.fork() == 0:\n        block = bytearray(96 << 20)\n"
        "        time.sleep(20)\ntime.sleep(20)"
    )
    outcome = run(Policy(argv=(sys.executable, "-I", "-c", code), memory_bytes=256 * MIB, wall_seconds=15), insist=True)
    assert (outcome.status, "memory over" in outcome.reason) == ("killed", True)
