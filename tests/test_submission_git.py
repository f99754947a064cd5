"""Submissions from git: pull requests, merges, stale folders, missing objects."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest

from auditor.errors import GitError, MissingBlob, SubmissionNotFound
from auditor.git import Repository
from auditor.submission import Submission

A = "records/track_10min_16mb/2026-04-01_A"
B = "records/track_10min_16mb/2026-04-02_B"
SCRIPT = "print('val_bpb:1.2')\n"


class Work:
    """A repository under construction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, author: str = "me@example.org") -> str:
        env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": author,
                            "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": author}  # fmt: skip
        done = subprocess.run(["git", "-C", str(self.path), *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, files: dict[str, str | None], message: str = "work", author: str = "me@example.org") -> str:
        for name, data in files.items():
            place = self.path / name
            if data is None:
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(data)
        self.git("add", "-A")
        self.git("commit", "-qm", message, author=author)
        return self.git("rev-parse", "HEAD")

    def pull(self, number: int) -> None:
        self.git("update-ref", f"refs/pull/{number}/head", "HEAD")


@pytest.fixture
def work(tmp_path) -> Work:
    made = Work(tmp_path_factory_dir(tmp_path))
    made.commit({"README.md": "challenge", "train_gpt.py": "root = 1\n"}, author="organiser@example.org")
    return made


def tmp_path_factory_dir(tmp_path: Path) -> Path:
    (tmp_path / "clone").mkdir()
    return tmp_path / "clone"


def entry(folder: str, script: str = SCRIPT, bpb: float = 1.2) -> dict[str, str]:
    return {
        f"{folder}/train_gpt.py": script,
        f"{folder}/submission.json": f'{{"val_bpb": {bpb}}}',
        f"{folder}/train.log": "x",
    }


def test_pull_request_reads_the_tree_at_its_head(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A, "first = 1\n"))
    work.commit({f"{A}/train_gpt.py": "second = 2\n", f"{A}/train.log": None, "train_gpt.py": "root = 2\n"})
    work.pull(7)
    work.git("checkout", "-q", "main")
    work.commit({"README.md": "moved on"}, author="organiser@example.org")
    (s,) = Submission.from_git(work.path, 7)
    assert (s.pr, s.folder, s.label) == (7, A, "7")
    assert s.read(s.main_script) == b"second = 2\n" and s.logs == []
    assert {(c.status, c.path) for c in s.changes} == {
        ("A", f"{A}/train_gpt.py"), ("A", f"{A}/submission.json"), ("M", "train_gpt.py")}  # fmt: skip
    assert [c.path for c in s.root_files_changed] == ["train_gpt.py"]
    assert s.head_date.utcoffset().total_seconds() == 0


def test_reader_survives_a_journey_to_another_process(work):
    work.commit(entry(A))
    work.pull(7)
    (s,) = Submission.from_git(work.path, 7)
    assert pickle.loads(pickle.dumps(s)).read(s.main_script) == SCRIPT.encode()


def test_merged_pull_request_is_compared_with_what_it_was_merged_into(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.pull(7)
    work.git("checkout", "-q", "main")
    work.commit({"README.md": "later"}, author="organiser@example.org")
    work.git("merge", "-q", "--no-ff", "-m", "Merge pull request #7 from me/pr", "pr")
    work.commit(entry(B))
    (s,) = Submission.from_git(work.path, 7)
    assert s.folder == A and s.stale_folders == []
    assert {c.path for c in s.changes} == set(entry(A))


def test_headline_folder_is_the_latest_then_the_best(work):
    work.git("checkout", "-qb", "pr")
    undated = "records/track_10min_16mb/final"
    work.commit(entry(B, bpb=1.3) | entry(A, bpb=1.1) | entry(undated, bpb=0.0))
    work.pull(7)
    work.git("checkout", "-q", "main")
    folders = [s.folder for s in Submission.from_git(work.path, 7)]
    assert folders == [B, A, undated]
    assert Submission.from_git(work.path, 7)[0].other_folders == [A, undated]


def test_folder_merged_from_another_pull_request_is_stale(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.commit(entry(B))
    work.pull(8)
    work.git("checkout", "-q", "main")
    work.commit(entry(A), "Record A (#7)", author="organiser@example.org")
    (s,) = Submission.from_git(work.path, 8)
    assert (s.folder, s.stale_folders) == (B, [A])


def test_own_squashed_folder_is_not_stale(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.pull(7)
    work.git("checkout", "-q", "main")
    work.commit(entry(A), "Record A (#7)", author="organiser@example.org")
    (s,) = Submission.from_git(work.path, 7)
    assert (s.folder, s.stale_folders) == (A, [])


def test_folder_of_another_author_in_the_fork_is_stale(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(B), author="other@example.org")
    work.commit(entry(A))
    work.pull(8)
    work.git("checkout", "-q", "main")
    (s,) = Submission.from_git(work.path, 8)
    assert (s.folder, s.stale_folders) == (A, [B])


def test_changing_a_record_of_main_beside_an_own_one(work):
    work.commit(entry(A), "Record A (#7)", author="organiser@example.org")
    work.git("checkout", "-qb", "pr")
    work.commit({f"{A}/train.log": "edited"} | entry(B))
    work.pull(8)
    work.commit({f"{B}/{n}": None for n in ("train_gpt.py", "submission.json", "train.log")})
    work.pull(9)
    work.git("checkout", "-q", "main")
    (own,) = Submission.from_git(work.path, 8)
    assert (own.folder, own.stale_folders) == (B, [A])
    (correction,) = Submission.from_git(work.path, 9)
    assert correction.folder == A and any("adds no record folder" in p for p in correction.problems)


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("records/mine/train_gpt.py", "records/mine"),
        ("records/phase3/run_a/train_gpt.py", "records/phase3/run_a"),
        ("records/records/track_10min_16mb/x/train_gpt.py", "records/records/track_10min_16mb/x"),
        ("fork/records/track_non_record_16mb/x/code/train_gpt.py", "fork/records/track_non_record_16mb/x"),
        ("records/track_10min_16mb/train_gpt.py", "records/track_10min_16mb"),
        ("records/track_10min_16mb/a b _c/train_gpt.py", "records/track_10min_16mb/a b _c"),
        ("our_submission/train_gpt.py", "our_submission"),
    ],
)
def test_odd_places(work, path, folder):
    work.git("checkout", "-qb", "pr")
    work.commit({path: SCRIPT})
    work.pull(7)
    work.git("checkout", "-q", "main")
    (s,) = Submission.from_git(work.path, 7)
    assert (s.folder, s.main_script) == (folder, path)


def test_subfolder_of_a_folder_outside_the_tracks(work):
    work.git("checkout", "-qb", "pr")
    work.commit({"records/mine/train_gpt.py": SCRIPT, "records/mine/logs/a.txt": "x"})
    work.pull(7)
    work.git("checkout", "-q", "main")
    (s,) = Submission.from_git(work.path, 7)
    assert s.folder == "records/mine" and s.logs == ["records/mine/logs/a.txt"]


def test_pull_requests_without_a_record_folder(work):
    work.git("checkout", "-qb", "pr")
    work.commit({"train_gpt.py": "changed = 1\n"})
    work.pull(7)
    work.git("checkout", "-q", "main")
    work.git("checkout", "-qb", "pr2")
    work.commit({"README.md": "a note"})
    work.pull(8)
    work.git("checkout", "-q", "main")
    (script,) = Submission.from_git(work.path, 7)
    assert (script.folder, script.main_script, list(script.files)) == ("", "train_gpt.py", ["train_gpt.py"])
    (readme,) = Submission.from_git(work.path, 8)
    assert (readme.main_script, list(readme.files)) == (None, ["README.md"])
    assert all("adds no folder under records/" in s.problems[0] for s in (script, readme))


def test_symlinks_and_submodules_are_listed_and_not_followed(work):
    work.git("checkout", "-qb", "pr")
    for name, data in entry(A).items():
        (work.path / name).parent.mkdir(parents=True, exist_ok=True)
        (work.path / name).write_text(data)
    os.symlink("/etc/passwd", work.path / A / "seed.log")
    head = work.git("rev-parse", "HEAD")
    work.git("add", "-A")
    work.git("update-index", "--add", "--cacheinfo", f"160000,{head},{A}/vendor")
    work.git("commit", "-qm", "x")
    work.pull(7)
    (s,) = Submission.from_git(work.path, 7)
    assert {s.files[f"{A}/seed.log"].kind, s.files[f"{A}/vendor"].kind} == {"symlink", "submodule"}
    assert f"{A}/seed.log" not in s.logs and len(s.problems) >= 2
    with pytest.raises(KeyError):
        s.read(f"{A}/seed.log")


def test_missing_blob_is_named(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.pull(7)
    blob = work.git("rev-parse", f"HEAD:{A}/train.log")
    (work.path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    (s,) = Submission.from_git(work.path, 7)
    assert s.files[f"{A}/train.log"].size is None and any(f"{A}/train.log" in p for p in s.problems)
    with pytest.raises(MissingBlob, match=f"{A}/train.log.*{blob}"):
        s.read(f"{A}/train.log")
    assert s.read(s.main_script) == SCRIPT.encode()


def test_unrelated_history_is_a_problem_not_an_end(work):
    work.git("checkout", "-q", "--orphan", "island")
    work.commit(entry(A))
    work.pull(7)
    work.git("checkout", "-q", "main")
    (s,) = Submission.from_git(work.path, 7)
    assert s.folder == A and any("no common history" in p for p in s.problems)


def test_wrong_names_say_what_to_do(work, tmp_path):
    with pytest.raises(SubmissionNotFound, match=r"refs/pull/99/head"):
        Submission.from_git(work.path, 99)
    with pytest.raises(SubmissionNotFound, match="no remote"):
        Submission.from_git(work.path, 99, fetch=True)
    for bad in ("no-such-branch", "--upload-pack=x", "a\nb"):
        with pytest.raises(SubmissionNotFound):
            Submission.from_git(work.path, bad)
    with pytest.raises(SubmissionNotFound, match="names no commit"):
        Submission.from_range(work.path, "main", "nothing")
    plain = tmp_path / "plain"
    plain.mkdir()
    with pytest.raises(SubmissionNotFound, match="not a git repository"):
        Submission.from_git(plain, 1)
    with pytest.raises(SubmissionNotFound, match="is not a folder"):
        Submission.from_git(tmp_path / "nowhere", 1)


def test_absent_pull_request_is_fetched_when_asked(work, tmp_path):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.pull(7)
    work.git("checkout", "-q", "main")
    copy = tmp_path / "copy"
    work.git("clone", "-q", f"file://{work.path}", str(copy))
    with pytest.raises(SubmissionNotFound, match="--fetch"):
        Submission.from_git(copy, 7)
    assert Submission.from_git(copy, 7, fetch=True)[0].folder == A
    with pytest.raises(SubmissionNotFound, match="could not be fetched"):
        Submission.from_git(copy, 8, fetch=True)


def test_range_worktree_and_bare_directory_without_config(work, tmp_path):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.pull(7)
    assert Submission.from_range(work.path, "main", "pr")[0].folder == A
    work.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "main")
    work.git("clone", "-q", "--mirror", str(work.path), str(tmp_path / "bare"))
    (tmp_path / "bare" / "config").unlink()
    work.git("checkout", "-q", "main")
    for place in (tmp_path / "tree", tmp_path / "bare"):
        assert Submission.from_git(place, 7)[0].folder == A


def test_main_records_are_labelled_by_their_script(work):
    work.commit(entry(A) | {"records/track_10min_16mb/2026-03-19_log only/train.log": "x"})
    assert sorted(s.label for s in Submission.main_records(work.path)) == [
        "records/track_10min_16mb/2026-03-19_log only", f"{A}/train_gpt.py"]  # fmt: skip


def test_hooks_and_configured_programs_do_not_run(work, tmp_path):
    marker = tmp_path / "ran"
    script = tmp_path / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A) | {".gitattributes": "* diff=x filter=x\n"})
    work.pull(7)
    work.git("checkout", "-q", "main")
    for key in (
        "core.fsmonitor",
        "core.pager",
        "diff.external",
        "diff.x.textconv",
        "diff.x.command",
        "filter.x.smudge",
    ):
        work.git("config", key, str(script))
    (s,) = Submission.from_git(work.path, 7)
    assert s.read(s.main_script) == SCRIPT.encode() and not marker.exists()


def test_reading_part_of_a_blob_leaves_the_pipe_usable(work):
    work.commit({f"{A}/train_gpt.py": SCRIPT, f"{A}/train.log": "x" * 100_000})
    with Repository(work.path) as git:
        entries = {e.path: e for e in git.tree("HEAD")}
        assert git.read_blob(entries[f"{A}/train.log"].blob, limit=10) == b"x" * 10
        assert git.read_blob(entries[f"{A}/train_gpt.py"].blob) == SCRIPT.encode()
        with pytest.raises(GitError):
            git.tree("0" * 40)
        assert git.object_info("HEAD")[1] == "commit"


@pytest.mark.corpus
def test_corpus_pull_requests(repo):
    found = Submission.from_git(repo, 65)
    assert len(found) == 3 and len(found[0].changes) == 9
    assert Submission.from_git(repo, 861)[0].main_script.endswith("train_gpt.py")
    assert len(Submission.main_records(repo)) >= 60


def test_same_record_in_two_pull_requests_can_be_reviewed_twice(work):
    work.git("checkout", "-qb", "pr")
    work.commit(entry(A))
    work.pull(8)
    work.git("checkout", "-q", "main")
    work.commit(entry(A), "Record A (#7)", author="organiser@example.org")
    (s,) = Submission.from_git(work.path, 8)
    assert s.folder == A and any("from another pull request" in p for p in s.problems)


def test_fork_that_carries_all_records_of_main_owns_none(work):
    folders = [f"records/track_10min_16mb/2026-03-2{i}_R" for i in range(5)]
    work.git("checkout", "-qb", "fork")
    files = {name: data for folder in folders for name, data in entry(folder).items()}
    work.commit(files | {"train_gpt.py": "mine = 1\n"})
    work.pull(9)
    work.git("checkout", "-q", "main")
    for number, folder in enumerate(folders):
        work.commit(entry(folder), f"Record (#{number + 1})", author="organiser@example.org")
    (s,) = Submission.from_git(work.path, 9)
    assert (s.folder, s.main_script, sorted(s.stale_folders)) == ("", "train_gpt.py", folders)
