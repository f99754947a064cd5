"""What rules ask about the program and the folder, answered from the facts of the case; None when nobody saw."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from auditor.case import Case
from auditor.findings import Evidence
from rules.support import at_line


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


def network_contacts(case: Case) -> list[Named]:
    """Imports, calls and commands of the reachable code that can talk to a network."""
    return [Named(item.name, _place(item)) for item in case.facts.get("network", ())]


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
    return None if facts is None else [(item.name, _place(item)) for item in facts]


def _place(item: Any) -> Evidence:
    return at_line(item.path, item.line, "", item.name)


def local_code(case: Case) -> list[Named]:
    """Further local files that the program imports, executes or compiles, with their sizes in bytes."""
    found = []
    for item in case.facts.get("local_files", ()):
        entry = case.submission.files.get(item.path)
        if entry is not None and entry.size and item.how in ("import", "run", "compile"):
            note = f"{entry.size:,} bytes, {item.how} in line {item.line} of {base_file(item.source)}"
            found.append(Named(base_file(item.path), at_line(item.path, None, "", note), entry.size))
    known = {file.name for file in found}
    return found + [file for file in _further_scripts(case) if file.name not in known]


# Scripts that prepare data before the clock starts are counted in no record.
_PREPARES = re.compile(r"(?i)prepare|download|tokeni[sz]|cached_|convert|build_data|retoken|export_data|fetch")
_STARTS = re.compile(r"(?:python3?|torchrun|accelerate launch)\b[^|;&]*?(?<![\w/.-])((?:\./)?[\w/-]+\.py)\b")


def _further_scripts(case: Case) -> list[Named]:
    """Scripts of the folder, besides the main one, that the README's run commands start for training or evaluation."""
    found: dict[str, Named] = {}
    for command in case.readme.commands if case.readme else ():
        for script in _STARTS.findall(command.excerpt):
            name = base_file(script)
            path = f"{case.submission.folder}/{name}"
            entry = case.submission.files.get(path)
            if entry and entry.size and path != case.submission.main_script and not _PREPARES.search(name):
                found.setdefault(name, Named(name, at_line(command.path, command.line, command.excerpt, "run command"),
                                             entry.size))  # fmt: skip
    return list(found.values())


def processes(case: Case) -> list[Named] | None:
    """Programs the script starts, by the name of the executable; None when the program was not read.

    A command whose first word is computed is left out: its name is not known.
    """
    facts = case.facts.get("processes")
    if facts is None:
        return None
    words = [(item, item.name.split()) for item in facts]
    return [Named(base_file(parts[0]), _place(item)) for item, parts in words if parts and "{" not in parts[0]]


def syntax_error(case: Case) -> Evidence | None:
    """Where the main script does not parse, None when it does or nobody tried."""
    error = case.facts.get("syntax_error")
    return at_line(error.path, error.line, "", error.message) if error else None


def missing_modules(case: Case) -> dict[str, Evidence]:
    """Local modules that the program imports and the folder lacks."""
    return {item.name: _place(item) for item in case.facts.get("missing_modules", ())}
