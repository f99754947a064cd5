"""Run logs: lines in the format of the challenge, and the same facts as JSON lines beside them.

The text file begins with the source of the program and the environment, so that a result can be traced years later; the
`step:` lines keep the published formats byte for byte (specification 6.1).
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

PACKAGE = Path(__file__).parent


def source_files() -> list[Path]:
    """All modules of this package, the code that is logged and counted."""
    return sorted(PACKAGE.rglob("*.py"))


class RunLog:
    """Writer of one run; only rank 0 writes, other ranks get a silent one (`folder=None`)."""

    def __init__(self, folder: Path | None, run_id: str, *, console: bool = True, header: bool = True) -> None:
        self.console = console and folder is not None
        self.path = folder / f"{run_id}.txt" if folder is not None else None
        self.events_path = folder / f"{run_id}.jsonl" if folder is not None else None
        self._bar = False
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if header and self.path is not None:
                self.path.write_text(_preamble(), encoding="utf-8")

    def line(self, text: str) -> None:
        """One line to file and console."""
        if self.path is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        if self.console:
            self._clear_bar()
            print(text, flush=True)

    def event(self, kind: str, **fields: Any) -> None:
        """One JSON line `{"event": kind, ...}`."""
        if self.events_path is None:
            return
        with self.events_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **fields}) + "\n")

    def progress(self, text: str) -> None:
        """Redraws the progress line; only on a terminal."""
        if self.console and sys.stderr.isatty():
            self._bar = True
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def _clear_bar(self) -> None:
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._bar = False


def _preamble() -> str:
    """Source of the program, then python, torch and device."""
    sources = "".join(
        f"# file: {path.relative_to(PACKAGE.parent).as_posix()}\n{path.read_text(encoding='utf-8')}\n"
        for path in source_files()
    )
    rule = "=" * 100
    versions = f"Running Python {sys.version}\nRunning PyTorch {torch.__version__}"
    return f"{sources}{rule}\n{versions}\n{device_report()}\n{rule}\n"


def device_report() -> str:
    """`nvidia-smi` where there is a GPU, otherwise the processor."""
    if not torch.cuda.is_available():
        return f"no GPU; {platform.machine()}, {torch.get_num_threads()} threads"
    try:
        return subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi failed: {error}"


PEAK_TFLOPS = (
    ("H100", 989.0),
    ("H200", 989.0),
    ("H800", 989.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("B200", 2250.0),
    ("L40S", 362.0),
    ("4090", 165.0),
)
"""Dense bf16 peak by a part of the device name."""


def peak_tflops(configured: float) -> float:
    """Peak used for MFU: the configured one, else the table's, else 0 (MFU is then not shown)."""
    if configured or not torch.cuda.is_available():
        return configured
    name = torch.cuda.get_device_name()
    return next((peak for part, peak in PEAK_TFLOPS if part in name), 0.0)


def _bar(done: int, total: int) -> str:
    width = 24
    filled = min(width, width * done // max(total, 1))
    return f"[{'#' * filled}{'.' * (width - filled)}] {done}/{total}"


def progress_text(step: int, steps: int, loss: float, tokens_per_second: float, mfu: float, seconds_left: float) -> str:
    """Bar with loss, tokens/s, MFU (when known) and the time left."""
    parts = [
        _bar(step, steps),
        f"loss {loss:.4f}",
        f"{tokens_per_second:,.0f} tok/s",
    ]
    if mfu > 0:
        parts.append(f"MFU {100 * mfu:.1f} %")
    parts.append("left " + time.strftime("%H:%M:%S", time.gmtime(max(seconds_left, 0))))
    return "  ".join(parts)


class Meter:
    """Progress line of an evaluation, redrawn at most once a second; the rate is that of this rank."""

    def __init__(self, log: RunLog, what: str, total: int) -> None:
        self.log, self.what, self.total, self.done = log, what, total, 0
        self.began = self.drawn = time.perf_counter()

    def add(self, count: int) -> None:
        """Notes that `count` more are done."""
        self.done += count
        now = time.perf_counter()
        if now - self.drawn < 1.0 and self.done < self.total:
            return
        self.drawn = now
        rate = self.done / max(now - self.began, 1e-9)
        left = time.strftime("%H:%M:%S", time.gmtime((self.total - self.done) / max(rate, 1e-9)))
        self.log.progress(f"{self.what} {_bar(self.done, self.total)}  {rate:,.0f}/s  left {left}")
