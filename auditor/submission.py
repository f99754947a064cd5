"""A submission: its files at the head commit, its track, its date, its main script.

Read from a folder, from a pull request or ref of a local clone, or from a mapping of paths to bytes (tests, rule
examples). Always the tree at the head, never the diff alone.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


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
    problems: list[str] = field(default_factory=list)

    def read(self, path: str) -> bytes:
        """Content of a file at the head.

        Raises:
            MissingBlob: the clone lists the file but lacks its content.
            KeyError: there is no such file.
        """
        return self.read_bytes(path)

    @classmethod
    def from_files(cls, files: Mapping[str, bytes], label: str = "files", **known: object) -> Submission:
        """A submission from a mapping of repository-relative paths to bytes (used by rule examples and tests)."""
        raise NotImplementedError
