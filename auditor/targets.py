"""What the user asked to be reviewed: folders, pull requests, refs, diff ranges, lists, all of a clone.

A target is a label and a way to load it; loading is late so that a thousand targets can be listed at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditor.errors import AuditorError, SubmissionNotFound
from auditor.submission import Submission


@dataclass(frozen=True)
class Target:
    """Something to review: `load` reads it and raises an `AuditorError` when it cannot."""

    label: str
    load: Callable[[], Submission]


def resolve(names: Sequence[str], repo: Path | None, fetch: bool = False) -> Iterator[Target]:
    """Targets for what was typed: a folder, a PR number (`861`, `#861`), a ref, or a range `base..head`.

    Raises:
        SubmissionNotFound: the name is no folder and there is no clone to look it up in.
    """
    for name in names:
        folder = Path(name)
        if folder.is_dir():
            yield Target(name, _folder_loader(folder))
        elif repo is None:
            raise SubmissionNotFound(
                f"'{name}' is not a folder; to review a pull request or a ref, name a clone with --repo DIR"
            )
        elif ".." in name and not folder.exists():
            base, _, head = name.partition("..")
            yield Target(name, _range_loader(repo, base, head.lstrip(".") or "HEAD"))
        else:
            number = re.fullmatch(r"#?(\d+)", name)
            yield Target(name, _git_loader(repo, int(number[1]) if number else name, fetch))


def read_list(path: Path) -> list[str]:
    """Names from a file: one a line (PR numbers, refs, folders); blank lines and `#` comments are skipped.

    Raises:
        AuditorError: the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise AuditorError(f"cannot read the list {path}: {error}") from error
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not re.match(r"#(?!\d)", line)]


def all_pull_requests(repo: Path) -> list[str]:
    """Numbers of every pull request head the clone holds, ascending."""
    from auditor.git import Repository

    with Repository(repo) as git:
        return [str(number) for number in git.pull_requests()]


def main_records(repo: Path) -> Iterator[Target]:
    """Every record folder on the main branch, as targets labelled `main:<path of the main script or folder>`."""
    for submission in Submission.main_records(repo):
        submission.label = f"main:{submission.main_script or submission.folder}"
        yield Target(submission.label, lambda submission=submission: submission)


def _folder_loader(folder: Path) -> Callable[[], Submission]:
    return lambda: Submission.from_folder(folder)


def _git_loader(repo: Path, ref: int | str, fetch: bool) -> Callable[[], Submission]:
    def load() -> Submission:
        found = Submission.from_git(repo, ref, fetch=fetch)
        if not found:
            raise SubmissionNotFound(f"'{ref}' in {repo} changes no file of a submission")
        return found[0]

    return load


def _range_loader(repo: Path, base: str, head: str) -> Callable[[], Submission]:
    def load() -> Submission:
        found = Submission.from_range(repo, base, head)
        if not found:
            raise SubmissionNotFound(f"'{base}..{head}' in {repo} changes no file of a submission")
        return found[0]

    return load
