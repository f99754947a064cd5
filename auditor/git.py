"""Reading a git repository without trusting it: no shell, no hooks, no user or system configuration, no lazy fetches.

`Repository` keeps one `cat-file --batch` and one `cat-file --batch-check` process alive, so that reading a thousand
blobs costs two processes. It works on bare directories (even without a config file), linked worktrees and clones.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import GitError, MissingBlob, SubmissionNotFound

# Files above this are never read whole (bytes); a caller that needs less passes its own limit.
MAX_BLOB = 64 * 2**20
# Where the main branch may be found, most authoritative first: a fork's own main is often behind.
MAIN_REFS = (
    "refs/remotes/upstream/HEAD", "refs/remotes/upstream/main", "refs/remotes/origin/HEAD",
    "refs/remotes/origin/main", "refs/heads/main", "refs/heads/master", "HEAD",
)  # fmt: skip
PULL_REFS = ("refs/pull/{n}/head", "refs/remotes/upstream/pull/{n}/head", "refs/remotes/origin/pull/{n}/head",
             "refs/remotes/upstream/pr/{n}", "refs/remotes/origin/pr/{n}", "refs/heads/pr/{n}")  # fmt: skip
_OPTIONS = (
    "--no-pager", "--no-optional-locks", "--literal-pathspecs",
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never",
    "-c", "safe.directory=*", "-c", "core.quotePath=false", "-c", "diff.external=",
    "-c", "core.attributesFile=/dev/null",
)  # fmt: skip


@dataclass(frozen=True)
class TreeEntry:
    """One entry of `ls-tree -r`: mode as git writes it, type, object id, size in bytes (None: absent or no blob)."""

    path: str
    mode: str
    type: str
    blob: str
    size: int | None

    @property
    def kind(self) -> str:
        """`file`, `symlink` or `submodule`."""
        return {"120000": "symlink", "160000": "submodule"}.get(self.mode, "file")


def environment(network: bool = False) -> dict[str, str]:
    """Environment for git: nothing of the user's git settings, no prompts, no transport unless `network`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SSH_ASKPASS"))}
    return kept | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        # Older versions of git ignore GIT_NO_LAZY_FETCH; without a permitted transport they cannot fetch either.
        "GIT_ALLOW_PROTOCOL": "https:ssh:git:file" if network else "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C",
    }


class Repository:
    """A repository opened for reading; a context manager (closing stops the helper processes).

    Raises:
        SubmissionNotFound: the path is no git repository.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise SubmissionNotFound(f"{self.path} is not a folder; name a clone of the repository with --repo DIR")
        command = ["git", *_OPTIONS, "-C", str(self.path), "rev-parse", "--absolute-git-dir"]
        try:
            found = subprocess.run(command, capture_output=True, env=environment(), timeout=60)
        except FileNotFoundError as error:
            raise GitError("git is not installed or not on PATH; install it to review pull requests") from error
        if found.returncode:
            raise SubmissionNotFound(
                f"{self.path} is not a git repository ({_words(found.stderr)}); name a clone with --repo DIR"
            )
        self.git_dir = Path(os.fsdecode(found.stdout.rstrip(b"\n")))
        self._lock = threading.RLock()
        self._pipes: dict[str, subprocess.Popen[bytes]] = {}
        self._owner = os.getpid()
        self._main: str | None = None
        self._arrivals: dict[str, tuple[int | None, str]] | None = None

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the helper processes; the repository can be used again and starts new ones."""
        with self._lock:
            pipes, self._pipes = self._pipes, {}
            if self._owner != os.getpid():
                return  # they belong to the process we were forked from
            for pipe in pipes.values():
                for stream in (pipe.stdin, pipe.stdout):
                    with contextlib.suppress(OSError):
                        stream.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pipe.wait(5)
                    continue
                pipe.kill()

    def run(self, *arguments: str, network: bool = False, check: bool = True, timeout: float = 300) -> bytes:
        """Standard output of one git command.

        Raises:
            GitError: git refused, with its own words.
        """
        command = ["git", *_OPTIONS, f"--git-dir={self.git_dir}", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, stdin=subprocess.DEVNULL, env=environment(network), timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise GitError(f"git {arguments[0]} took longer than {timeout:.0f} s in {self.path}") from error
        if done.returncode and check:
            raise GitError(f"git {arguments[0]} failed in {self.path}: {_words(done.stderr)}")
        return done.stdout

    # ------------------------------------------------------------------ objects

    def object_info(self, name: str) -> tuple[str, str, int] | None:
        """(object id, type, size in bytes) of what `name` resolves to, None when it does not or is absent."""
        if "\n" in name:
            return None
        with self._lock:
            pipe = self._pipe("--batch-check")
            self._send(pipe, name)
            words = self._line(pipe).rsplit(" ", 2)
        if len(words) != 3 or not words[2].isdigit():
            return None
        return words[0], words[1], int(words[2])

    def read_blob(self, blob: str, path: str = "", limit: int = MAX_BLOB) -> bytes:
        """Content of a blob, at most `limit` bytes of it; the rest is skipped without being kept in memory.

        Raises:
            MissingBlob: the clone does not hold the object.
        """
        with self._lock:
            # Git materialises a whole blob for --batch; asking for the size first keeps giants out of memory.
            info = self.object_info(blob)
            if info is None or info[1] != "blob":
                raise MissingBlob(
                    f"{path or 'file'}: the clone lists this file but does not hold its content (blob {blob}); "
                    "fetch it, or use a complete clone (git fetch --refetch --no-filter)"
                )
            pipe = self._pipe("--batch")
            self._send(pipe, blob)
            size = int(self._line(pipe).rsplit(" ", 1)[1])
            data = pipe.stdout.read(min(size, limit))
            left = size - len(data) + 1
            while left > 0:
                skipped = len(pipe.stdout.read(min(left, 2**20)))
                if not skipped:
                    self.close()
                    raise GitError(f"git cat-file ended in the middle of {path or blob} in {self.path}")
                left -= skipped
            return data

    def _pipe(self, mode: str) -> subprocess.Popen[bytes]:
        if self._owner != os.getpid():
            self._pipes, self._owner = {}, os.getpid()
        pipe = self._pipes.get(mode)
        if pipe is None or pipe.poll() is not None:
            command = ["git", *_OPTIONS, f"--git-dir={self.git_dir}", "cat-file", mode]
            pipe = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
            )
            self._pipes[mode] = pipe
        return pipe

    def _send(self, pipe: subprocess.Popen[bytes], name: str) -> None:
        try:
            pipe.stdin.write(os.fsencode(name) + b"\n")
            pipe.stdin.flush()
        except OSError as error:
            self.close()
            raise GitError(f"git cat-file stopped in {self.path}: {error}") from error

    def _line(self, pipe: subprocess.Popen[bytes]) -> str:
        line = pipe.stdout.readline()
        if not line:
            self.close()
            raise GitError(f"git cat-file gave no answer in {self.path}; the repository may be damaged")
        return os.fsdecode(line.rstrip(b"\n"))

    # ------------------------------------------------------------------ commits and trees

    def commit(self, name: str) -> str | None:
        """Commit a name resolves to, or None."""
        info = self.object_info(f"{name}^{{commit}}")
        return info[0] if info else None

    def main(self) -> str:
        """Head commit of the main branch (see `MAIN_REFS`), "" when the clone has none."""
        if self._main is None:
            self._main = next(filter(None, map(self.commit, MAIN_REFS)), "")
        return self._main

    def tree(self, commit: str, path: str = "", recursive: bool = True) -> list[TreeEntry]:
        """Entries of the tree of a commit at or below `path`; a blob that is absent has size None.

        Raises:
            GitError: the commit or a tree is absent.
        """
        arguments = ["ls-tree", "-z", "-l", "--full-tree", *(["-r"] if recursive else []), commit]
        out = self.run(*arguments, *(["--", path] if path else []))
        return [entry for line in out.split(b"\0") if line for entry in [_tree_entry(line)]]

    def changes(self, base: str, head: str) -> list[tuple[str, str]]:
        """(status letter, path) of every file that differs between two commits; renames are a D and an A."""
        out = self.run("diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", "--name-status", base, head)
        words = [os.fsdecode(word) for word in out.split(b"\0")]
        return [(words[i][:1], words[i + 1]) for i in range(0, len(words) - 1, 2)]

    def merge_base(self, one: str, other: str) -> str | None:
        """Best common ancestor, None when there is none or the history is cut off."""
        return self.run("merge-base", one, other, check=False).decode().split("\n")[0] or None

    def merge_of(self, head: str, main: str) -> tuple[str, str] | None:
        """(merge commit, its first parent) of the merge on the first-parent line of `main` that brought `head` in.

        None when `head` is no ancestor of `main` or lies on that line itself.
        """
        out = self.run("rev-list", "--first-parent", "--ancestry-path", "--parents", f"{head}..{main}", check=False)
        lines = out.decode().split("\n")
        # The oldest commit of the first-parent line that contains `head` is the one that merged it.
        for line in reversed([line for line in lines if line]):
            commit, *parents = line.split()
            if len(parents) > 1 and head != parents[0]:
                return commit, parents[0]
            return None
        return None

    def commit_date(self, commit: str) -> str:
        """Committer date of a commit, ISO 8601 with offset."""
        return self.run("rev-list", "-1", "--no-commit-header", "--format=%cI", commit).decode().strip()

    def authors_by_path(self, base: str | None, head: str) -> list[tuple[str, set[str]]]:
        """(author e-mail, paths touched) of the commits `base..head` without merges, newest first."""
        span = [f"^{base}", head] if base else [head]
        out = self.run("log", "-z", "--no-merges", "--name-only", "--no-renames", "--format=%x01%aE", *span)
        commits: list[tuple[str, set[str]]] = []
        for word in os.fsdecode(out).split("\0"):
            for part in word.split("\n"):
                if part.startswith("\x01"):
                    commits.append((part[1:], set()))
                elif part and commits:
                    commits[-1][1].add(part)
        return commits

    def arrivals(self) -> dict[str, tuple[int | None, str]]:
        """For every path below `records/` ever added on main: (pull request number or None, author e-mail).

        Read off the first-parent line: `Merge pull request #N` and squashes `title (#N)`. Cached.
        """
        if self._arrivals is None:
            self._arrivals = {}
            if self.main():
                self._arrivals = self._read_arrivals()
        return self._arrivals

    def _read_arrivals(self) -> dict[str, tuple[int | None, str]]:
        out = self.run("log", "-z", "--first-parent", "-m", "--diff-filter=A", "--name-only", "--no-renames",
                       "--reverse", "--format=%x01%aE%x02%s", self.main(), "--", "records", check=False)  # fmt: skip
        found: dict[str, tuple[int | None, str]] = {}
        origin: tuple[int | None, str] = (None, "")
        for word in os.fsdecode(out).split("\0"):
            for part in word.split("\n"):
                if part.startswith("\x01"):
                    author, _, subject = part[1:].partition("\x02")
                    number = re.match(r"Merge pull request #(\d+)", subject) or re.search(r"\(#(\d+)\)\s*$", subject)
                    origin = (int(number[1]) if number else None, author)
                elif part:
                    found.setdefault(part, origin)
        return found

    def pull_requests(self) -> list[int]:
        """Numbers of the pull requests whose heads the clone holds, ascending."""
        out = self.run("for-each-ref", "--format=%(refname)").decode("utf-8", "replace")
        pattern = r"^refs/(?:remotes/\w+/)?(?:pull/(\d+)/head|pr/(\d+)|heads/pr/(\d+))$"
        return sorted({int(next(filter(None, m.groups()))) for m in re.finditer(pattern, out, re.M)})

    def pull_head(self, number: int, remote: str | None = None, fetch: bool = False) -> str:
        """Head commit of a pull request; with `fetch`, asks the remote for exactly that ref when it is absent.

        Raises:
            SubmissionNotFound: the clone has no such pull request; the message says what to do.
        """
        for pattern in PULL_REFS:
            commit = self.commit(pattern.format(n=number))
            if commit:
                return commit
        remotes = self.run("remote", check=False).decode().split()
        source = remote or next((r for r in ("upstream", "origin") if r in remotes), None)
        if fetch and source:
            return self._fetch(source, number)
        if fetch:
            raise SubmissionNotFound(
                f"pull request {number} is not in {self.path}, and the clone has no remote to fetch it from; "
                "add one with: git remote add upstream URL"
            )
        raise SubmissionNotFound(
            f"pull request {number} is not in {self.path}; fetch it with --fetch, or: "
            f"git -C {self.path} fetch {source or 'URL'} refs/pull/{number}/head:refs/pull/{number}/head"
        )

    def _fetch(self, source: str, number: int) -> str:
        if source.startswith("-"):
            raise SubmissionNotFound(f"'{source}' is not the name or address of a remote")
        ref = f"refs/pull/{number}/head"
        try:
            self.run("fetch", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", source, f"+{ref}:{ref}",
                     network=True)  # fmt: skip
        except GitError as error:
            raise SubmissionNotFound(
                f"pull request {number} could not be fetched from {source}: {error}; "
                "check the number and the network, or fetch it by hand"
            ) from error
        self.close()
        commit = self.commit(ref)
        if not commit:
            raise SubmissionNotFound(f"pull request {number} was fetched from {source} but has no commit")
        return commit


_opened: dict[Path, Repository] = {}


def repository(path: str | Path | Repository) -> Repository:
    """The open repository at a path, one per process; its helper processes end with ours."""
    if isinstance(path, Repository):
        return path
    key = Path(path).absolute()
    if key not in _opened:
        _opened[key] = Repository(key)
    return _opened[key]


@atexit.register
def _close_all() -> None:
    for repo in _opened.values():
        repo.close()


def _tree_entry(line: bytes) -> TreeEntry:
    head, _, path = line.partition(b"\t")
    mode, kind, blob, size = head.decode().split()
    return TreeEntry(os.fsdecode(path), mode, kind, blob, int(size) if size.isdigit() else None)


def _words(stderr: bytes) -> str:
    """git's message as one line."""
    return " ".join(stderr.decode("utf-8", "replace").split())[:400] or "no message"


def iter_blobs(repo: Repository, entries: Sequence[TreeEntry], limit: int = MAX_BLOB) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the files among `entries` whose content the clone holds."""
    for entry in entries:
        if entry.kind == "file" and entry.size is not None:
            yield entry.path, repo.read_blob(entry.blob, entry.path, limit)
