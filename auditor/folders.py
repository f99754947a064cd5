"""Which record folders a pull request is about: its own, other people's that came along, and the headline one."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from auditor import roles
from auditor.errors import AuditorError
from auditor.git import Repository, TreeEntry

MAX_CORRECTED = 3
_TRACK = re.compile(r"^track[_-]", re.I)


def record_folder(path: str, direct: Iterable[str] = ()) -> str | None:
    """Record folder a file belongs to, None for a file outside every `records/` tree.

    `records/<track>/<name>/...` belongs to its first three parts; `records/<x>/file` to `records/<x>`;
    `records/<x>/<y>/...` (no known track) to `records/<x>` when files lie directly there (`direct` holds such
    folders), otherwise to `records/<x>/<y>`. `records/records/...` and prefixes before `records` are kept.
    """
    parts = PurePosixPath(path).parts
    below = parts[:-1]
    if "records" not in below:
        return None
    start = max(i for i, part in enumerate(below) if part == "records")
    for i in range(start + 1, len(below)):
        if _TRACK.match(below[i]):
            return "/".join(below[: i + 2])
    first = "/".join(below[: start + 2])
    return first if first in direct else "/".join(below[: start + 3])


def files_below(tree: Iterable[TreeEntry], folder: str) -> list[TreeEntry]:
    """Entries at or below a record folder; for a folder that holds other record folders, only its own files."""
    prefix = folder + "/"
    inside = [entry for entry in tree if entry.path.startswith(prefix)]
    return [e for e in inside if "/" not in e.path[len(prefix) :]] if _is_container(folder) else inside


def _is_container(folder: str) -> bool:
    """A folder that holds record folders: `records` or a track."""
    name = folder.rsplit("/", 1)[-1]
    return name == "records" or bool(_TRACK.match(name))


@dataclass
class Sorted:
    """Record folders of a pull request: own ones (headline first), stale ones, and what is doubtful about it."""

    own: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def sort_folders(
    git: Repository,
    base: str | None,
    head: str,
    changed: Iterable[tuple[str, str]],
    tree: list[TreeEntry],
    pr: int | None,
) -> Sorted:
    """Decide which of the changed record folders are this pull request's own.

    Stale are folders that (a) existed on the merge base already and are only modified, (b) lie on the main branch with
    the same files and arrived there with another pull request, (c) were last worked on by other authors than the
    head's, when the head's author worked on another one (forks of forks). If that leaves none, the modified ones are
    its own: the pull request corrects a record. There may be none at all.
    """
    present = {entry.path: entry for entry in tree}
    paths = [path for status, path in changed if status != "D" and path in present]
    direct = {str(PurePosixPath(path).parent) for path in present if path.count("/") >= 2 and "records/" in path}
    direct = {f for f in direct if not _TRACK.match(f.split("/")[-1])}
    folders = list(dict.fromkeys(f for f in (record_folder(p, direct) for p in paths) if f))
    result = Sorted()
    if not folders:
        return result
    # Loose files beside real record folders (a README in records/) are changes outside the folder, no folder.
    folders = [f for f in folders if not _is_container(f)] or folders
    touched = {f: [p for p in paths if record_folder(p, direct) == f] for f in folders}
    old = {e.path for f in folders for e in (_tree(git, base, f) if base else [])}
    modified = [f for f in folders if any(p.startswith(f + "/") for p in old)]
    on_main = _on_main(git, {f: touched[f] for f in folders if f not in modified}, present)
    elsewhere = [f for f, numbers in on_main.items() if numbers and None not in numbers and pr and pr not in numbers]
    fresh = [f for f in folders if f not in modified and f not in elsewhere]
    if any(f not in on_main for f in fresh):
        # Batches by organisers name no pull request; beside a folder that main lacks, what main has is older work.
        fresh = [f for f in fresh if f not in on_main or pr in on_main[f]]
    foreign = _foreign(git, base, head, fresh) if len(fresh) > 1 else []
    # A correction touches a record or two; a fork that rewrote them all (line ends) corrects nothing.
    result.own = [f for f in fresh if f not in foreign] or (modified if len(modified) <= MAX_CORRECTED else [])
    if not result.own and not modified and len(elsewhere) <= MAX_CORRECTED:
        result.own = elsewhere  # the same record in two pull requests: each can be reviewed
        result.problems.append(f"{elsewhere[0]}: the same folder is on the main branch from another pull request")
    result.stale = [f for f in folders if f not in result.own]
    if not fresh and modified and result.own:
        result.problems.append(
            f"{modified[0]}: the pull request adds no record folder, it changes one of the main branch"
        )
    elif not result.own:
        result.problems.append(f"{folders[0]}: every record folder of the pull request is on the main branch already")
    order = _order(git, base, head, result.own) if len(result.own) > 1 else {}
    result.own.sort(key=lambda f: headline_key(git, f, files_below(tree, f), order.get(f, 0)), reverse=True)
    return result


def headline_key(git: Repository, folder: str, entries: list[TreeEntry], order: int) -> tuple:
    """Sort key of the headline folder (greatest first).

    Has a script; has metadata; latest date (in the name, else in the metadata); best (lowest) val_bpb in the metadata;
    committed last. A date comes before a score because a later folder supersedes an earlier one of the same author.
    """
    date, bpb = dt.date.min, math.inf
    metadata = sorted((e for e in entries if roles.is_metadata(e.path)), key=lambda e: (e.path.count("/"), len(e.path)))
    if metadata:
        try:
            text = git.read_blob(metadata[0].blob, metadata[0].path, 2**20).decode("utf-8", "replace")
        except AuditorError:
            text = ""
        date = roles.date_in(roles.json_field(text, ("date",)) or "") or date
        value = re.search(r"\d+\.\d+", roles.json_field(text, ("val_bpb", "mean_val_bpb", "val_bpb_mean", "bpb")) or "")
        # A claim of zero or of a silly number is a placeholder, it must not make a folder the headline.
        bpb = float(value[0]) if value and 0.0 < float(value[0]) < 20.0 else bpb
    date = roles.date_in(folder.split("/")[-1]) or date
    scripts = any(roles.is_python(e.path) for e in entries)
    return scripts, bool(metadata), date, -bpb, -order, folder


def _tree(git: Repository, commit: str, folder: str) -> list[TreeEntry]:
    try:
        return git.tree(commit, folder + "/")
    except AuditorError:
        return []


def _on_main(
    git: Repository, folders: dict[str, list[str]], present: dict[str, TreeEntry]
) -> dict[str, set[int | None]]:
    """Folders that lie on the main branch with the same content -> numbers of the pull requests they came with.

    Compared with the folder of the same name, wherever it lies: forks copy `records/` below another folder too.
    """
    main = git.main()
    there: dict[str, dict[str, tuple[str, str]]] = {}
    for entry in _tree(git, main, "records") if main and folders else []:
        home = record_folder(entry.path)
        if home:
            there.setdefault(home.rsplit("/", 1)[-1], {})[entry.path[len(home) :]] = (entry.path, entry.blob)
    found: dict[str, set[int | None]] = {}
    for folder, paths in folders.items():
        twin = there.get(folder.rsplit("/", 1)[-1], {})
        same = [twin[p[len(folder) :]][0] for p in paths if twin.get(p[len(folder) :], ("", ""))[1] == present[p].blob]
        if same and len(same) * 2 >= len(paths):
            found[folder] = {git.arrivals().get(path, (None, ""))[0] for path in same}
    return found


def _foreign(git: Repository, base: str | None, head: str, folders: list[str]) -> list[str]:
    """Folders no commit of the head's author touched, provided that author touched another one."""
    try:
        commits = git.authors_by_path(base, head)
    except AuditorError:
        return []
    if not commits:
        return []
    author = commits[0][0]
    mine = {
        f for f in folders for email, paths in commits if email == author and any(p.startswith(f + "/") for p in paths)
    }
    known = {f for f in folders for _, paths in commits if any(p.startswith(f + "/") for p in paths)}
    return [f for f in folders if f in known and f not in mine] if mine else []


def _order(git: Repository, base: str | None, head: str, folders: list[str]) -> dict[str, int]:
    """Position (0: newest) of the last commit that touched each folder."""
    try:
        commits = git.authors_by_path(base, head)
    except AuditorError:
        return {}
    return {
        f: next((i for i, (_, paths) in enumerate(commits) if any(p.startswith(f + "/") for p in paths)), len(commits))
        for f in folders
    }
