"""Which log contents stand where in a clone: blob hash -> pull requests and paths, built fast and kept on disk.

Reusing a log of somebody else's run is the plainest forgery, and the cheapest to see: git already hashes contents.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from auditor.errors import GitError

LOG_NAME = re.compile(r"\.(?:log|txt|out)$", re.I)
NOT_A_LOG = re.compile(r"(?:requirements|readme|license|notes?|spec|vocab|tokenizer)[^/]*\.txt$", re.I)
MIN_BYTES = 400
_VERSION = 4


@dataclass(frozen=True)
class Place:
    """Where a log stands: pull request number (None: main branch) and repository-relative path."""

    pr: int | None
    path: str


@dataclass
class LogIndex:
    """Logs of a clone by content.

    Attributes:
        blobs: blob hash -> places; contents that stand in one folder only are kept too.
        authors: pull request -> name and e-mail of its head commit's author, one a line.
        main_authors: path on the main branch -> name and e-mail of the author of the commit that added it.
        origins: path on the main branch -> lowest pull request that holds it, normally the one that brought it.
    """

    blobs: dict[str, list[Place]] = field(default_factory=dict)
    authors: dict[int, str] = field(default_factory=dict)
    main_authors: dict[str, str] = field(default_factory=dict)
    origins: dict[str, int] = field(default_factory=dict)

    def places(self, blob: str) -> list[Place]:
        """Every place of a content, lowest pull request first, the main branch before all."""
        return sorted(self.blobs.get(blob, []), key=lambda place: (place.pr or 0, place.path))

    def number(self, place: Place) -> int | None:
        """Pull request a place belongs to, for the main branch the one that brought it; None when unknown."""
        return place.pr if place.pr is not None else self.origins.get(place.path)

    def people(self, place: Place) -> frozenset[str]:
        """Names and e-mails of whoever put the log there, lower case; empty when unknown."""
        texts = [self.authors.get(self.number(place) or -1, "")]
        if place.pr is None:
            texts.append(self.main_authors.get(place.path, ""))
        return identities(*texts)


def identities(*texts: str) -> frozenset[str]:
    """Comparable identities of authors: names, e-mails, and the account name in a GitHub no-reply address."""
    found: set[str] = set()
    for text in texts:
        for item in text.lower().splitlines():
            account = re.fullmatch(r"(?:\d+\+)?([\w.\-]+)@users\.noreply\.github\.com", item)
            found.add(account[1] if account else item.strip())
    return frozenset(found - {""})


def log_index(repo: Path, cache: Path | None = None, build: bool = True) -> LogIndex | None:
    """Index every log of every pull request head of a clone.

    Args:
        repo: work tree or bare git directory.
        cache: folder for the index, keyed by a hash of all refs; None keeps nothing.
        build: make the index when the cache lacks it (seconds on a large clone); else the answer is None.

    Raises:
        GitError: `repo` is not a repository, or git fails.
    """
    refs = _refs(repo)
    key = hashlib.sha256("\n".join(f"{name} {commit}" for name, commit, _ in refs).encode()).hexdigest()[:24]
    stored = cache / f"logs-{_VERSION}-{key}.json" if cache is not None else None
    if stored is not None and stored.exists():
        loaded = _load(stored)
        if loaded is not None:
            return loaded
    if not build:
        return None
    index = _build(repo, refs)
    if stored is not None:
        _store(stored, index)
    return index


def _refs(repo: Path) -> list[tuple[str, str, str]]:
    """(ref, commit, author) of the main branch and of every pull request head."""
    output = _git(
        repo,
        "for-each-ref",
        "--format=%(refname)%00%(objectname)%00%(authorname)%00%(authoremail:trim)",
        "refs/pull/*/head",
    )
    head = _git(repo, "rev-parse", "HEAD").decode().strip()
    rows = [line.split("\0") for line in output.decode("utf-8", "replace").splitlines()]
    return [("HEAD", head, ""), *((row[0], row[1], f"{row[2]}\n{row[3]}") for row in rows if len(row) == 4)]


def _build(repo: Path, refs: list[tuple[str, str, str]]) -> LogIndex:
    index = LogIndex()
    index.main_authors = _main_authors(repo, refs[0][1])
    main: set[tuple[str, str]] = set()
    for name, commit, author in refs:
        pr = _number(name)
        if pr is not None:
            index.authors[pr] = author
        for blob, path in _logs(repo, commit):
            if pr is None:
                main.add((blob, path))
            elif (blob, path) in main:
                # References come in the order of their names, so the lowest number has to be kept explicitly.
                index.origins[path] = min(index.origins.get(path, pr), pr)
                continue  # a fork carries the main branch's folders along: not this pull request's log
            index.blobs.setdefault(blob, []).append(Place(pr, path))
    return index


def _main_authors(repo: Path, commit: str) -> dict[str, str]:
    """Author of the commit that added each file below `records/` on the main branch."""
    output = _git(
        repo,
        "log",
        "--format=%x01%an%x02%ae",
        "--name-only",
        "--diff-filter=A",
        "--no-renames",
        commit,
        "--",
        "records/",
        check=False,
    )
    authors: dict[str, str] = {}
    for block in output.decode("utf-8", "replace").split("\x01")[1:]:
        name, *paths = block.splitlines()
        for path in paths:
            if path:
                authors[path.strip('"')] = name.replace(
                    "\x02", "\n"
                )  # log runs backwards: the first commit that added it wins
    return authors


def _logs(repo: Path, commit: str) -> Iterator[tuple[str, str]]:
    output = _git(repo, "ls-tree", "-r", "-z", "--full-tree", commit, "--", "records/", check=False)
    for entry in output.split(b"\0"):
        meta, _, raw = entry.partition(b"\t")
        path = raw.decode("utf-8", "replace")
        if LOG_NAME.search(path) and not NOT_A_LOG.search(path):
            parts = meta.split()
            if len(parts) == 3 and parts[1] == b"blob":
                yield parts[2].decode(), path


def _number(ref: str) -> int | None:
    found = re.fullmatch(r"refs/pull/(\d+)/head", ref)
    return int(found[1]) if found else None


def _git(repo: Path, *arguments: str, check: bool = True) -> bytes:
    directory = repo / ".git" if (repo / ".git").exists() else repo
    # No configuration of user or system, no hooks, no lazy fetching: listing trees must stay read-only and offline.
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }
    command = ["git", f"--git-dir={directory}", "-c", "core.hooksPath=/dev/null", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise GitError(f"git {arguments[0]} in {repo}: {exc}") from exc
    if check and done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise GitError(f"git {arguments[0]} in {repo} failed: {words}")
    return done.stdout


def _load(path: Path) -> LogIndex | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        blobs = {blob: [Place(pr, name) for pr, name in places] for blob, places in data["blobs"].items()}
        authors = {int(pr): author for pr, author in data["authors"].items()}
        return LogIndex(blobs, authors, dict(data["main_authors"]), dict(data["origins"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a damaged cache is rebuilt


def _store(path: Path, index: LogIndex) -> None:
    data = {
        "blobs": {blob: [(p.pr, p.path) for p in places] for blob, places in index.blobs.items()},
        "authors": index.authors,
        "origins": index.origins,
        "main_authors": {path: name for path, name in index.main_authors.items() if LOG_NAME.search(path)},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(data), encoding="utf-8")
    partial.replace(path)
