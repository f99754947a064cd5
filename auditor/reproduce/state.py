"""State of a re-run on disk: which seeds are done, which were cut short. Written whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from auditor.errors import AuditorError

NAME = "state.json"
VERSION = 1
#: Stages of a seed, in order. A run that ended is not run again; only what comes after it is done again.
PENDING, RUNNING, RAN, DONE, FAILED = "pending", "running", "ran", "done", "failed"


class StateError(AuditorError):
    """The output folder belongs to another re-run, or its state file is damaged."""


@dataclass
class SeedState:
    """One seed: stage, number of attempts (each keeps its own folder), and why the last one failed."""

    stage: str = PENDING
    attempts: int = 0
    reason: str = ""


@dataclass
class State:
    """A re-run: `key` names submission and plan; a folder with another key is never continued."""

    key: str
    seeds: dict[str, SeedState] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write the state, replacing the old one in one step."""
        write_atomically(folder / NAME, json.dumps({"version": VERSION, **asdict(self)}, indent=1))


def load(folder: Path, key: str, seeds: tuple[str, ...]) -> State:
    """State in a folder, or a new one. A seed that was running when the last process died is pending again.

    Raises:
        StateError: the folder holds another re-run, or a state that cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return State(key, {seed: SeedState() for seed in seeds})
    try:
        data = json.loads(path.read_text("utf-8"))
        state = State(data["key"], {name: SeedState(**value) for name, value in data["seeds"].items()}, data["extra"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StateError(f"{path} cannot be read ({error}); remove it, the runs beside it stay") from error
    if state.key != key:
        raise StateError(f"{folder} holds a re-run of another submission or plan; give another --out")
    for seed in seeds:
        state.seeds.setdefault(seed, SeedState())
    for item in state.seeds.values():
        if item.stage == RUNNING:
            item.stage, item.reason = PENDING, "interrupted; its partial log is kept"
    return state


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new one, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
