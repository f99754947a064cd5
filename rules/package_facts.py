"""What rules ask about the program and the folder, answered from the facts of the case; None when nobody saw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from auditor.case import Case
from auditor.findings import Evidence
from rules.support import at_line

# Modules whose import means that the program can talk to a network.
NETWORK = frozenset(
    {
        "requests",
        "urllib",
        "urllib3",
        "http",
        "httpx",
        "aiohttp",
        "socket",
        "ftplib",
        "paramiko",
        "wandb",
        "huggingface_hub",
        "datasets",
        "boto3",
        "gdown",
        "websockets",
        "neptune",
        "mlflow",
        "comet_ml",
    }
)
# Standard modules of that kind that ordinary programs import for other ends.
_HARMLESS = frozenset({"urllib.parse", "http.HTTPStatus"})


@dataclass(frozen=True)
class Named:
    """A thing of the program by name, with its place."""

    name: str
    evidence: Evidence
    size: int = 0


def base_name(package: str) -> str:
    """Package name in one spelling: lower case, `-` and `.` as `_`."""
    return re.sub(r"[-.]+", "_", package.strip().lower())


def base_file(path: str) -> str:
    """Last part of a path."""
    return path.rsplit("/", 1)[-1]


def folder_files(case: Case, pattern: str) -> dict[str, str]:
    """Text of the folder's files whose path matches; unreadable files are left out."""
    found = {}
    for path, entry in case.submission.files.items():
        if re.search(pattern, path) and (entry.size or 0) < 200_000:
            try:
                found[path] = case.submission.read_text(path)
            except Exception:  # a missing blob or a link: the rule then does not know the file
                continue
    return found


def imported_modules(case: Case) -> Mapping[str, Evidence] | None:
    """Third-party modules the program imports, by top-level name; None when the program was not read."""
    return _by_top_level(case, local=False)


def network_modules(case: Case) -> list[Named]:
    """Imports that can talk to a network."""
    found = []
    for name, evidence in _imports(case) or ():
        if name.split(".")[0] in NETWORK and name not in _HARMLESS:
            found.append(Named(name, evidence))
    return found


def _by_top_level(case: Case, local: bool) -> dict[str, Evidence] | None:
    import sys

    imports = _imports(case)
    if imports is None:
        return None
    own = {base_file(path).removesuffix(".py") for path in case.submission.files if path.endswith(".py")}
    own |= {part for path in case.submission.files for part in path.split("/")[:-1]}
    found: dict[str, Evidence] = {}
    for name, evidence in imports:
        top = name.split(".")[0]
        if top and top not in sys.stdlib_module_names and (top in own) == local:
            found.setdefault(top, evidence)
    return found


def _imports(case: Case) -> list[tuple[str, Evidence]] | None:
    facts = case.facts.get("imports")
    if facts is None:
        return None
    found = []
    for item in facts:
        name = getattr(item, "module", None) or getattr(item, "name", None) or str(item)
        found.append((name, _place(item)))
    return found


def _place(item: object) -> Evidence:
    place = getattr(item, "place", None) or getattr(item, "source", None)
    path = getattr(place, "path", None) or getattr(item, "path", "")
    line = getattr(place, "line", None) or getattr(item, "line", None)
    return at_line(path, line, getattr(place, "excerpt", "") or "")


def local_code(case: Case) -> list[Named]:
    """Further local files that the program imports, executes or compiles, with their sizes in bytes."""
    found = []
    main = case.submission.main_script
    for item in case.facts.get("local_files", ()):
        path = getattr(item, "path", None) or str(item)
        entry = case.submission.files.get(path)
        if entry is not None and path != main and entry.size:
            found.append(
                Named(base_file(path), at_line(path, None, "", f"{entry.size:,} bytes, run by the script"), entry.size)
            )
    return found


def processes(case: Case) -> list[Named] | None:
    """Programs the script starts, by the name of the executable; None when the program was not read."""
    facts = case.facts.get("processes")
    if facts is None:
        return None
    return [Named(base_file(_command(item)), _place(item)) for item in facts if _command(item)]


def _command(item: object) -> str:
    text = getattr(item, "command", None) or getattr(item, "name", None) or str(item)
    words = text if isinstance(text, (list, tuple)) else text.split()
    return str(words[0]) if words else ""


def syntax_error(case: Case) -> Evidence | None:
    """Where the main script does not parse, None when it does or nobody tried."""
    error = case.facts.get("syntax_error")
    if not error:
        return None
    place = _place(error)
    text = getattr(error, "message", None) or getattr(error, "text", None) or str(error)
    return at_line(place.path or case.submission.main_script or "", place.line, place.excerpt, text)


def missing_modules(case: Case) -> dict[str, Evidence]:
    """Local modules that the program imports and the folder lacks."""
    return {getattr(item, "name", None) or str(item): _place(item) for item in case.facts.get("missing_modules", ())}
