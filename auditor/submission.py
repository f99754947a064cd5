"""A submission: its files at the head commit, its track, its date, its main script.

Read from a folder, from a pull request or ref of a local clone, or from a mapping of paths to bytes (tests, rule
examples). Always the tree at the head, never the diff alone.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from auditor.errors import MissingBlob, SubmissionNotFound

if TYPE_CHECKING:
    from auditor.git import Repository

# Files above this are never read whole (bytes).
MAX_BLOB = 64 * 2**20


class Track(enum.StrEnum):
    """Tracks of the challenge (rule book, section 0). UNLIMITED is non-record without a time limit."""

    RECORD = "record"
    NON_RECORD = "non-record"
    UNLIMITED = "unlimited"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class FileEntry:
    """A file at the head. `path` is repository-relative POSIX; `size` in bytes (None: blob missing in the clone)."""

    path: str
    size: int | None
    blob: str = ""
    kind: str = "file"


@dataclass(frozen=True)
class Change:
    """One entry of the pull request's file list against the merge base: status letter (A, M, D, R, T) and path."""

    status: str
    path: str


@dataclass
class Submission:
    """One record folder under review.

    Attributes:
        label: how the user named it (`861`, a path).
        pr: pull request number, None for a folder.
        head, base: commit hashes, "" for a folder.
        folder: record folder, repository-relative POSIX path ("" when the files lie at the root).
        track, date: from folder and metadata; `head_date` is the commit date (UTC) of the head.
        changes: the pull request's file list (empty for a folder).
        other_folders: further record folders of the same pull request that are its own work.
        stale_folders: record folders in the diff that exist on the main branch too or are other people's.
        files: every file at or below the record folder, by path.
        main_script: path of the script that is run, None when there is none.
        modules: other Python files of the folder; `logs`, `metadata`, `artifacts`, `readme`: paths by role.
        neighbours: Python files of the same commit outside the folder; `read` can read them, nothing counts them.
        problems: what could not be read, naming the file.
    """

    label: str
    folder: str
    files: dict[str, FileEntry]
    read_bytes: Callable[[str], bytes] = field(repr=False)
    pr: int | None = None
    head: str = ""
    base: str = ""
    track: Track = Track.UNKNOWN
    date: dt.date | None = None
    head_date: dt.datetime | None = None
    changes: list[Change] = field(default_factory=list)
    other_folders: list[str] = field(default_factory=list)
    stale_folders: list[str] = field(default_factory=list)
    main_script: str | None = None
    modules: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    artifacts: list[str] = field(default_factory=list)
    readme: str | None = None
    neighbours: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def read(self, path: str, limit: int | None = None) -> bytes:
        """Content of a file at the head, at most `limit` bytes of it (default: `auditor.git.MAX_BLOB`).

        Raises:
            MissingBlob: the clone lists the file but lacks its content.
            KeyError: there is no such file, or it is a symlink or submodule (never followed).
        """
        if limit is None:
            return self.read_bytes(path)
        if isinstance(self.read_bytes, _BoundedReader):
            return self.read_bytes(path, limit)
        return self.read_bytes(path)[:limit]

    def read_text(self, path: str, limit: int | None = None) -> str:
        """Text of a file, decoded as `auditor.unpack` does (UTF-8, UTF-16 by its mark, else Latin-1)."""
        from auditor.text import decode

        return decode(self.read(path, limit))

    @property
    def root_files_changed(self) -> list[Change]:
        """Entries of the file list that lie outside the record folder."""
        return [c for c in self.changes if not (self.folder and c.path.startswith(self.folder + "/"))]

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], label: str = "files", **known: object) -> Submission:
        """A submission from a mapping of repository-relative paths to bytes (used by rule examples and tests).

        The record folder is the one most files lie in; with no `records/` path, the common folder. Files outside it
        are kept out of `files`. `known` presets attributes (`pr`, `changes`, `folder`, `date`, `track`, ...).
        """
        contents = {path: _as_bytes(data) for path, data in files.items()}
        folder = known.pop("folder", None)
        if folder is None:
            folder = _likely_folder(contents)
        inside = {p: d for p, d in contents.items() if not folder or p.startswith(f"{folder}/")}
        entries = {p: FileEntry(p, len(d), _blob_id(d)) for p, d in sorted(inside.items())}
        made = cls(label=label, folder=str(folder), files=entries, read_bytes=_MappingReader(dict(contents)))
        made.neighbours = [p for p in contents if p not in entries and p.lower().endswith(".py")]
        return _complete(made, known)

    @classmethod
    def from_folder(cls, path: str | Path, label: str = "") -> Submission:
        """A submission from a folder on disk; links are listed, never followed.

        `folder` is the part of the path from `records` on, so that the track can be told; outside a `records` tree it
        is the folder's name.

        Raises:
            SubmissionNotFound: the path is no folder or cannot be listed.
        """
        return _from_folder(cls, Path(path), label or str(path))

    @classmethod
    def from_git(
        cls, repo: str | Path | Repository, ref: int | str, remote: str | None = None, fetch: bool = False
    ) -> list[Submission]:
        """Submissions of a pull request (number) or a ref, one per own record folder, the headline one first.

        The tree at the head is read, the file list is against the merge base with the main branch; for a pull request
        already merged, against the first parent of the merge that brought it in. With `fetch`, a pull request that the
        clone lacks is fetched from `remote` (default: its upstream or origin).

        Raises:
            SubmissionNotFound: no repository, pull request or ref of that name; the message says what to do.
        """
        from auditor import gitload

        return gitload.from_git(repo, ref, remote, fetch)

    @classmethod
    def from_range(cls, repo: str | Path | Repository, base: str, head: str) -> list[Submission]:
        """Submissions of the commits `base..head`, one per own record folder, the headline one first.

        Raises:
            SubmissionNotFound: no repository, or one of the two names does not resolve to a commit.
        """
        from auditor import gitload

        return gitload.from_range(repo, base, head)

    @classmethod
    def main_records(cls, repo: str | Path | Repository) -> list[Submission]:
        """Every record folder on the main branch, labelled by the path of its main script (or the folder)."""
        from auditor import gitload

        return gitload.main_records(repo)


class _BoundedReader:
    """Reads a file by its path, whole up to `auditor.git.MAX_BLOB` or up to a limit in bytes."""

    def __call__(self, path: str, limit: int = MAX_BLOB) -> bytes:
        raise NotImplementedError


@dataclass(frozen=True)
class _MappingReader(_BoundedReader):
    contents: dict[str, bytes]

    def __call__(self, path: str, limit: int = MAX_BLOB) -> bytes:
        return self.contents[path][:limit]


@dataclass(frozen=True)
class _DiskReader(_BoundedReader):
    """Reads below `root`; a path whose directory turned into a link since it was listed is refused."""

    root: str
    folder: str
    listed: frozenset[str]

    def __call__(self, path: str, limit: int = MAX_BLOB) -> bytes:
        if path not in self.listed:
            raise KeyError(path)
        place = Path(self.root, path[len(self.folder) + 1 :] if self.folder else path)
        if not place.resolve().is_relative_to(Path(self.root).resolve()):
            raise MissingBlob(f"{path}: leads out of the folder, it is not read")
        try:
            handle = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(handle, "rb") as file:
                return file.read(limit)
        except OSError as error:
            raise MissingBlob(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _as_bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _blob_id(data: bytes) -> str:
    """Object id git would give, so that copies are found whatever the source of a submission."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _likely_folder(files: Mapping[str, bytes]) -> str:
    from auditor.folders import record_folder

    direct = {str(PurePosixPath(p).parent) for p in files if p.startswith("records/") and p.count("/") == 2}
    direct = {f for f in direct if not f.rsplit("/", 1)[-1].startswith("track")}
    folders = Counter(f for f in (record_folder(p, direct) for p in files) if f)
    if folders:
        return max(folders, key=lambda f: (folders[f], f))
    parents = [PurePosixPath(p).parts[:-1] for p in files]
    # component by component: these are tuples, not strings
    return "/".join(os.path.commonprefix(parents)) if parents else ""  # noqa: RUF071


def _from_folder(cls: type[Submission], path: Path, label: str) -> Submission:
    if not path.is_dir():
        raise SubmissionNotFound(f"{path} is not a folder; name the record folder to review")
    root = path.resolve()
    parts = root.parts
    at = max((i for i, part in enumerate(parts) if part == "records"), default=len(parts) - 1)
    folder = "/".join(parts[at:])
    problems: list[str] = []
    entries: dict[str, FileEntry] = {}
    for place, where in _walk(root, folder, problems):
        entry = _disk_entry(place, where, root, problems)
        if entry:
            entries[where] = entry
    listed = frozenset(p for p, e in entries.items() if e.kind == "file")
    made = cls(label=label, folder=folder, files=dict(sorted(entries.items())),
               read_bytes=_DiskReader(str(root), folder, listed), problems=problems)  # fmt: skip
    return _complete(made, {})


# Folders that are by-products of tools, not part of a submission.
_BYPRODUCTS = frozenset({".git", "__pycache__", ".ipynb_checkpoints", ".venv", "node_modules"})
MAX_FILES = 20_000


def _walk(root: Path, folder: str, problems: list[str]) -> Iterator[tuple[Path, str]]:
    def complain(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be listed ({error.strerror}); check its permissions")

    count = 0
    for parent, folders, names in os.walk(root, onerror=complain):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links) - _BYPRODUCTS)
        for name in sorted(names + links):
            place = Path(parent, name)
            count += 1
            if count > MAX_FILES:
                problems.append(f"{folder}: more than {MAX_FILES} files, the rest was not read; name a record folder")
                return
            yield place, f"{folder}/{place.relative_to(root).as_posix()}"


def _disk_entry(place: Path, where: str, root: Path, problems: list[str]) -> FileEntry | None:
    try:
        info = place.lstat()
    except OSError as error:
        problems.append(f"{where}: cannot be read ({error.strerror}); check its permissions")
        return None
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(place)
        out = not place.resolve().is_relative_to(root)
        problems.append(
            f"{where}: a symbolic link {'out of the folder ' if out else ''}to {target}, it is not followed"
        )
        return FileEntry(where, info.st_size, kind="symlink")
    if not stat.S_ISREG(info.st_mode):
        problems.append(f"{where}: neither file nor folder (a device, pipe or socket), it is not read")
        return None
    return FileEntry(where, info.st_size)


def _complete(submission: Submission, known: Mapping[str, object]) -> Submission:
    """Fill in roles, track and date; attributes in `known` win."""
    from auditor.roles import assign

    for name, value in known.items():
        if name not in Submission.__dataclass_fields__:
            raise TypeError(f"a submission has no attribute '{name}'")
        setattr(submission, name, value)
    assign(submission, frozenset(known))
    return submission
