"""Submissions out of a git repository: pull requests, refs, ranges, the record folders of the main branch."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from auditor import roles
from auditor.errors import AuditorError, SubmissionNotFound
from auditor.folders import Sorted, files_below, record_folder, sort_folders
from auditor.git import MAX_BLOB, Repository, TreeEntry, repository
from auditor.submission import Change, FileEntry, Submission, _BoundedReader


@dataclass(frozen=True)
class GitReader(_BoundedReader):
    """Reads the files of one commit by path; small, and can be sent to another process (paths to blob ids)."""

    repo: str
    blobs: dict[str, str]

    def __call__(self, path: str, limit: int = MAX_BLOB) -> bytes:
        return repository(self.repo).read_blob(self.blobs[path], path, limit)


@dataclass(frozen=True)
class _Span:
    """Commits under review. `base` is None when no common history with the main branch is in the clone."""

    head: str
    base: str | None
    label: str
    pr: int | None
    problems: tuple[str, ...] = ()


def from_git(repo: str | Path | Repository, ref: int | str, remote: str | None, fetch: bool) -> list[Submission]:
    """See `Submission.from_git`."""
    git = repository(repo)
    number = int(ref) if isinstance(ref, int) or ref.lstrip("#").isdigit() else None
    if number is not None:
        head = git.pull_head(number, remote, fetch)
    else:
        head = git.commit(str(ref)) or ""
        if not head or str(ref).startswith("-"):
            raise SubmissionNotFound(f"'{ref}' names no commit in {git.path}; list the refs with: git for-each-ref")
    base, problems = _base(git, head)
    return _submissions(git, _Span(head, base, str(ref), number, problems))


def from_range(repo: str | Path | Repository, base: str, head: str) -> list[Submission]:
    """See `Submission.from_range`. The file list is against the merge base of the two, as a pull request shows it."""
    git = repository(repo)
    found = {name: git.commit(name) for name in (base, head)}
    for name, commit in found.items():
        if not commit:
            raise SubmissionNotFound(f"'{name}' names no commit in {git.path}; list the refs with: git for-each-ref")
    start = git.merge_base(found[base], found[head]) or found[base]
    return _submissions(git, _Span(found[head], start, f"{base}..{head}", None))


def main_records(repo: str | Path | Repository) -> list[Submission]:
    """See `Submission.main_records`."""
    git = repository(repo)
    head = git.main()
    if not head:
        raise SubmissionNotFound(f"{git.path} has no main branch (looked for upstream/main, origin/main, main, HEAD)")
    tree = git.tree(head)
    folders = dict.fromkeys(f for f in (record_folder(e.path, _direct(tree)) for e in tree) if f)
    span = _Span(head, head, "", None)
    found = []
    for folder in folders:
        submission = _submission(git, span, folder, files_below(tree, folder), [], (), tree)
        submission.label = submission.main_script or folder
        found.append(submission)
    return found


def _base(git: Repository, head: str) -> tuple[str | None, tuple[str, ...]]:
    """Commit the file list is taken against, and what is doubtful about it."""
    main = git.main()
    if not main:
        return None, (f"{git.path} has no main branch: every file of the tree is taken as changed",)
    base = git.merge_base(head, main)
    if base is None:
        return None, (
            f"commit {head[:12]} has no common history with the main branch in {git.path} "
            "(a shallow or partial clone?): every record folder that the main branch lacks is taken as changed",
        )
    if base == head:
        merge = git.merge_of(head, main)
        if merge:
            # Against the first parent's own merge base, or main's later work would look like deletions.
            return git.merge_base(head, merge[1]) or merge[1], ()
        return f"{head}^" if git.commit(f"{head}^") else None, ()
    return base, ()


def _submissions(git: Repository, span: _Span) -> list[Submission]:
    tree = git.tree(span.head)
    problems = list(span.problems)
    changes = _changes(git, span, tree, problems)
    sorted_folders = sort_folders(git, span.base, span.head, changes, tree, span.pr)
    found = []
    for folder in sorted_folders.own:
        submission = _submission(git, span, folder, files_below(tree, folder), changes, problems, tree)
        submission.other_folders = [f for f in sorted_folders.own if f != folder]
        submission.stale_folders = list(sorted_folders.stale)
        submission.problems += sorted_folders.problems
        found.append(submission)
    return found or _outside(git, span, tree, changes, problems, sorted_folders)


def _changes(git: Repository, span: _Span, tree: list[TreeEntry], problems: list[str]) -> list[tuple[str, str]]:
    if span.base:
        try:
            return git.changes(span.base, span.head)
        except AuditorError as error:
            problems.append(
                f"the file list could not be made against {span.base[:12]} ({error}): the trees were compared"
            )
    known = {e.path: e.blob for e in git.tree(git.main())} if git.main() else {}
    return [("A" if e.path not in known else "M", e.path) for e in tree if known.get(e.path) != e.blob]


def _outside(
    git: Repository,
    span: _Span,
    tree: list[TreeEntry],
    changes: list[tuple[str, str]],
    problems: list[str],
    found: Sorted,
) -> list[Submission]:
    """The submission of a pull request without a record folder: its scripts' common folder, else what it changed."""
    touched = {path for status, path in changes if status != "D"}
    touched = {p for p in touched if not any(p.startswith(f"{folder}/") for folder in found.stale)}
    if not changes:
        return []
    scripts = [path for path in touched if roles.is_python(path)]
    parents = Counter(str(PurePosixPath(path).parent) for path in scripts or touched)
    folder = max(parents, key=lambda f: (_has_main(f, touched), parents[f], f)) if parents else "."
    inside = [e for e in tree if e.path.startswith(folder + "/")] if folder != "." else []
    new = [e for e in inside if e.path in touched]
    # A folder most of which was there before is not this pull request's: then only what it changed counts.
    whole = bool(inside) and 2 * len(new) >= len(inside)
    entries = inside if whole else [e for e in tree if e.path in touched]
    submission = _submission(git, span, folder if whole else "", entries, changes, problems, tree)
    submission.problems.insert(0, f"{span.label}: the pull request adds no folder under records/")
    submission.problems += found.problems
    submission.stale_folders = list(found.stale)
    return [submission]


def _has_main(folder: str, paths: set[str]) -> bool:
    return ("train_gpt.py" if folder == "." else f"{folder}/train_gpt.py") in paths


def _submission(
    git: Repository, span: _Span, folder: str, entries: list[TreeEntry], changes: list[tuple[str, str]],
    problems: Sequence[str], tree: list[TreeEntry],
) -> Submission:  # fmt: skip
    files = {e.path: FileEntry(e.path, e.size, e.blob, e.kind) for e in sorted(entries, key=lambda e: e.path)}
    near = [e for e in tree if e.path not in files and e.kind == "file" and roles.is_python(e.path)]
    blobs = {e.path: e.blob for e in (*files.values(), *near) if e.kind == "file"}
    submission = Submission(
        label=span.label,
        folder=folder,
        files=files,
        read_bytes=GitReader(os.fspath(git.path), blobs),
        pr=span.pr,
        head=span.head,
        base=(git.commit(span.base) or "") if span.base else "",
        head_date=_utc(git.commit_date(span.head)),
        changes=[Change(status, path) for status, path in changes],
        neighbours=[e.path for e in near],
        problems=list(problems),
    )
    roles.assign(submission)
    return submission


def _direct(tree: list[TreeEntry]) -> set[str]:
    """Folders `records/<x>` that are no track and hold files themselves."""
    parents = {str(PurePosixPath(e.path).parent) for e in tree if e.path.startswith("records/")}
    return {p for p in parents if p.count("/") == 1 and not p.split("/")[1].startswith("track")}


def _utc(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return None
