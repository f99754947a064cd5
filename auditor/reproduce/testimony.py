"""A re-run that was made before, as a witness of a review: found, checked against the submission, and kept short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from auditor.errors import AuditorError
from auditor.reproduce.environment import digest
from auditor.submission import Submission

NAME = "reproduction.json"
#: Folders that `auditor reproduce` makes when none is named.
PATTERN = "reproduction_{digest}_{scale}"
SCALES = ("full", "small")
CURVE_POINTS = 160


class NotThisSubmission(AuditorError):
    """The folder holds no re-run, or one of other files; the message says what to do."""


def default_folder(digest_: str, scale: str) -> Path:
    """Where a re-run is kept when no folder is named, below the working directory."""
    return Path(PATTERN.format(digest=digest_[:10], scale=scale))


def find_reproduction(submission: Submission, folder: Path | None = None) -> dict[str, Any] | None:
    """The section `reproduction` of a report on a re-run of these files; None when none was made here.

    Args:
        folder: named by the user; without one, the default folders of the working directory are looked into, and a re-run
            at full scale is preferred.

    Raises:
        NotThisSubmission: the named folder holds no finished re-run, or that of other files.
    """
    if folder is not None:
        return load_reproduction(folder, submission)
    if not any(Path().glob(PATTERN.format(digest="*", scale="*"))):
        return None
    key = digest(submission)
    for scale in SCALES:
        place = default_folder(key, scale)
        if (place / NAME).is_file():
            return load_reproduction(place, submission)
    return None


def load_reproduction(folder: Path, submission: Submission) -> dict[str, Any]:
    """Read and check `reproduction.json`.

    Raises:
        NotThisSubmission: see `find_reproduction`.
    """
    path = folder / NAME if folder.is_dir() else folder
    try:
        found = json.loads(path.read_text("utf-8"))["reproduction"]
        made_of, verdict = found["plan"]["digest"], found["verdict"]
    except OSError as error:
        raise NotThisSubmission(f"{folder} holds no finished re-run ({NAME}): {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise NotThisSubmission(f"{path} is damaged ({error}); run `auditor reproduce` again on its folder") from error
    if made_of != digest(submission):
        raise NotThisSubmission(
            f"{path} ({verdict}) is a re-run of {found['plan'].get('label', 'another submission')} with other files; this"
            " review does not use it"
        )
    return _short({**found, "folder": path.parent.name})


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """What a report shows: no package list, curves of at most `CURVE_POINTS` points."""
    environment, plan = found.get("environment") or {}, found["plan"]
    return {
        "verdict": found["verdict"],
        "reason": found["reason"],
        "scale": found["scale"],
        "comparable": bool(found["comparable"]),
        "folder": found["folder"],
        "ranks": plan["ranks"],
        "notes": list(plan.get("notes", ())),
        "train_limit": plan.get("train_limit"),
        "eval_limit": plan.get("eval_limit"),
        "machine": _machine(environment),
        "checks": found.get("checks", []),
        "statistics": found.get("statistics") or None,
        "seeds": [_seed(seed) for seed in found.get("seeds", ())],
        "curves": _curves(found),
    }


def _machine(environment: dict[str, Any]) -> str:
    names = [gpu.get("name", "GPU") for gpu in environment.get("gpus") or []]
    gpus = ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names)) or "no GPU"
    packages = environment.get("deciding_packages") or {}
    return f"{gpus}; torch {packages.get('torch', 'unknown')}, Python {environment.get('python', 'unknown')}"


def _seed(seed: dict[str, Any]) -> dict[str, Any]:
    clocks, trusted = seed.get("clocks") or {}, seed.get("trusted") or {}
    return {
        "seed": seed["seed"],
        "complete": seed["complete"] and not any(seed["codes"]),
        "reason": seed.get("reason", ""),
        "val_bpb": (seed.get("printed") or {}).get("val_bpb"),
        "clocks": clocks,
        "artifact": seed.get("artifact"),
        "code_bytes": seed.get("code_bytes", 0),
        "peak_bytes": seed.get("peak_bytes", 0),
        "gpu": seed.get("gpu") or {},
        "layers": list(seed.get("layers", ())),
        "adapter": trusted.get("adapter"),
    }


def _curves(found: dict[str, Any]) -> list[dict[str, Any]]:
    claimed = [(name, True, curve) for name, curve in (found.get("claimed_curves") or {}).items()]
    own = [(f"re-run seed {seed['seed']}", False, seed.get("curve") or []) for seed in found.get("seeds", ())]
    return [
        {"label": name.rsplit("/", 1)[-1], "claimed": old, "train_loss": _thinned(curve)}
        for name, old, curve in [*claimed[:6], *own[:6]]
        if len(curve) > 1
    ]


def _thinned(curve: list[Any]) -> list[list[float]]:
    step = -(-len(curve) // CURVE_POINTS)
    kept = curve[::step] + ([curve[-1]] if (len(curve) - 1) % step else [])
    return [[point[0], point[1]] for point in kept]
