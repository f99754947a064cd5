"""The index of logs is built from a real git repository, and kept until its references change."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from auditor.documents.copies import Place, identities, log_index
from auditor.errors import GitError

TEXT = "step:1/10 train_loss:2.0 train_time:123ms\n" * 20


def git(repo: Path, *arguments: str) -> None:
    names = ["-c", "user.name=Ann", "-c", "user.email=ann@x.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *names, *arguments], cwd=repo, check=True, capture_output=True)


def commit(repo: Path, path: str, text: str, ref: str) -> None:
    place = repo / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    git(repo, "add", "-A")
    git(repo, "commit", "-qm", path)
    git(repo, "update-ref", ref, "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    repo = tmp_path / "clone"
    repo.mkdir()
    git(repo, "init", "-q")
    commit(repo, "records/t/2026-03-01_a/train.log", TEXT, "refs/pull/3/head")
    git(repo, "checkout", "-q", "-b", "second")
    commit(repo, "records/t/2026-03-02_b/copy.log", TEXT, "refs/pull/12/head")
    git(repo, "checkout", "-q", "main")
    commit(repo, "records/t/2026-03-01_a/requirements.txt", TEXT, "refs/heads/main")
    return repo


def test_places_of_a_content(clone: Path) -> None:
    index = log_index(clone)
    (blob,) = index.blobs
    assert index.places(blob) == [
        Place(None, "records/t/2026-03-01_a/train.log"),
        Place(12, "records/t/2026-03-02_b/copy.log"),
    ]
    assert index.number(index.places(blob)[0]) == 3
    assert "ann@x.org" in index.people(index.places(blob)[0])


def test_cache_is_used_until_a_reference_moves(clone: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = log_index(clone, cache)
    assert log_index(clone, cache) == first
    (stored,) = cache.iterdir()
    stored.write_text("damaged")
    assert log_index(clone, cache) == first
    commit(clone, "records/t/2026-03-03_c/train.log", TEXT, "refs/pull/20/head")
    later = log_index(clone, cache)
    assert 20 in later.authors and 20 not in first.authors


def test_not_a_repository(tmp_path: Path) -> None:
    with pytest.raises(GitError, match=r"rev-parse|for-each-ref"):
        log_index(tmp_path)


def test_identities_know_account_names() -> None:
    assert identities("Sam\n123+sam212@users.noreply.github.com") & identities("Sam L\nsam212@users.noreply.github.com")
    assert not identities("") and not identities("A\na@x") & identities("B\nb@x")
