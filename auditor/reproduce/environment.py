"""What a re-run ran on: machine, GPUs, driver, packages, code state. Kept with the result, because numbers need it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from typing import Any

from auditor.submission import Submission

#: Packages whose versions change results or speed.
_TELLING = ("torch", "triton", "numpy", "sentencepiece", "flash-attn", "flash_attn_3", "brotli", "zstandard", "nvidia-")
_QUERY = "index,name,driver_version,memory.total,clocks.max.sm,power.limit,pci.bus_id"


def environment_record(submission: Submission) -> dict[str, Any]:
    """Environment as plain data; what this machine lacks is None, never an error."""
    packages = {item.metadata["Name"]: item.version for item in metadata.distributions() if item.metadata["Name"]}
    telling = {name: version for name, version in packages.items() if name.lower().startswith(_TELLING)}
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor_count": os.cpu_count(),
        "memory_bytes": _memory(),
        "gpus": gpus(),
        "topology": _nvidia("topo", "-m"),
        "packages": dict(sorted(packages.items())),
        "deciding_packages": dict(sorted(telling.items())),
        "submission": {
            "label": submission.label,
            "head": submission.head or None,
            "folder": submission.folder,
            "digest": digest(submission),
        },
    }


def digest(submission: Submission) -> str:
    """SHA-256 over paths below the record folder and git object ids; names the code state of a re-run.

    The same files have the same digest whether they come from a folder or from a clone.
    """
    made = hashlib.sha256()
    for path, entry in sorted(submission.files.items()):
        blob = entry.blob
        if not blob and entry.kind == "file":
            data = submission.read(path)
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        made.update(f"{path.removeprefix(submission.folder).lstrip('/')}\0{blob}\n".encode())
    return made.hexdigest()


def gpus() -> list[dict[str, str]] | None:
    """One entry a GPU (name, driver, memory, clocks), None without NVIDIA GPUs."""
    text = _nvidia(f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits")
    if not text:
        return None
    names = _QUERY.split(",")
    rows = [[part.strip() for part in line.split(",")] for line in text.splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)] or None


def gpu_sample() -> dict[str, Any] | None:
    """Utilisation (percent), memory (MiB) and power (W) of every GPU now; None without."""
    text = _nvidia("--query-gpu=utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits")
    if not text:
        return None
    rows = [[_number(part) for part in line.split(",")] for line in text.splitlines()]
    rows = [row for row in rows if len(row) == 3]
    if not rows:
        return None
    return {"utilisation": [r[0] for r in rows], "memory_mib": [r[1] for r in rows], "power_w": [r[2] for r in rows]}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _nvidia(*arguments: str) -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
