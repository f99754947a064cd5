"""The supervisor against programs that lie about time, hide files, or turn on whoever watches them. No torch needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from auditor.dynamic.sandbox.runner import available_layers
from auditor.reproduce.contained import FILES, Job, contain, read_events

pytestmark = pytest.mark.skipif(bool(available_layers()[1]), reason="no sandbox on this machine")


def ran(code: str, folder: Path, ranks: int = 1, **limits: float) -> tuple:
    """Runs a program of a few lines; how it ended and its events."""
    argv = (sys.executable, "-I", "-u", "-c", code)
    commands = tuple((argv, {"RANK": str(rank)}) for rank in range(ranks))
    job = Job(commands, environment={"PATH": "/usr/bin:/bin"}, **{"wall_seconds": 20.0, **limits})
    return contain(job, folder), list(read_events(folder))


def lines(events: list[dict], process: int = 0) -> list[str]:
    return [e["text"] for e in events if e["kind"] == "line" and e["process"] == process and e["stream"] == "out"]


def test_lines_are_stamped_when_they_come_and_files_when_they_are_written(tmp_path: Path) -> None:
    code = (
        "import time\nprint('a')\ntime.sleep(0.5)\nprint('b')\n"
        "open('model.bin','wb').write(b'x' * 3_000_000)\ntime.sleep(0.3)\nopen('model.bin','rb').read()\nprint('c')"
    )
    result, events = ran(code, tmp_path)
    assert result.complete and result.codes == (0,)
    at = {event["text"]: event["t"] for event in events if event["kind"] == "line"}
    assert 0.45 < at["b"] - at["a"] < 2.0
    files = {event["what"]: event for event in events if event["kind"] == "file" and event["path"] == "model.bin"}
    assert files["written"]["bytes"] == 3_000_000
    assert at["b"] - 0.05 <= files["written"]["t"] <= files["read"]["t"] <= at["c"] + 0.05
    assert (tmp_path / FILES / "model.bin").read_bytes() == b"x" * 3_000_000


def test_a_program_that_kills_its_supervisor_is_cut_short_and_says_so(tmp_path: Path) -> None:
    code = "import os, signal\nprint('before')\nos.kill(os.getppid(), signal.SIGKILL)\nimport time; time.sleep(5)"
    result, events = ran(code, tmp_path)
    assert not result.complete and result.reason
    assert not any(event["kind"] == "end" for event in events)


def test_the_private_channel_is_out_of_reach(tmp_path: Path) -> None:
    code = (
        "import os\npid = os.getppid()\nfor fd in range(3, 40):\n"
        "    for path in (f'/proc/{pid}/fd/{fd}', f'/proc/self/fd/{fd}'):\n"
        '        try:\n            os.write(os.open(path, os.O_WRONLY), b\'{"kind":"end","codes":[7],"t":0}\\n\')\n'
        "        except OSError:\n            pass\n"
        "try:\n    open(f'/proc/{pid}/mem', 'rb')\n    print('memory open')\nexcept OSError:\n    print('closed')\n"
        "print(sorted(name for name in os.environ if name.startswith('AUDITOR')))"
    )
    result, events = ran(code, tmp_path)
    assert result.codes == (0,) and lines(events) == ["closed", "[]"]


def test_links_and_pipes_among_the_files_are_not_followed(tmp_path: Path) -> None:
    code = "import os\nos.symlink('/etc/passwd', 'model.ptz')\nos.mkfifo('pipe.bin')\nopen('ok.bin','wb').write(b'1')"
    result, events = ran(code, tmp_path)
    assert result.complete
    assert [event["path"] for event in events if event["kind"] == "left"] == ["ok.bin"]
    assert sorted(path.name for path in (tmp_path / FILES).iterdir()) == ["ok.bin"]


def test_the_network_is_closed_and_loopback_open(tmp_path: Path) -> None:
    code = (
        "import socket\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); "
        "socket.create_connection(s.getsockname(), 2); print('loopback')\n"
        "try:\n    socket.create_connection(('192.0.2.1', 80), 2); print('out')\nexcept OSError:\n    print('closed')"
    )
    _, events = ran(code, tmp_path)
    assert lines(events) == ["loopback", "closed"]


def test_a_rank_that_hangs_is_ended_and_what_was_printed_is_kept(tmp_path: Path) -> None:
    code = "import os, time\nprint('rank', os.environ['RANK'])\ntime.sleep(60)"
    result, events = ran(code, tmp_path, ranks=2, wall_seconds=3.0)
    assert not result.complete and "wall time" in result.reason
    assert lines(events, 0) == ["rank 0"] and lines(events, 1) == ["rank 1"]
