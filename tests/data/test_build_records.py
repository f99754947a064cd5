"""The record history: reading leaderboard tables, and the shipped data against a clone."""

from __future__ import annotations

import datetime as dt
import subprocess
from pathlib import Path

import pytest

from auditor.data.build_records import leaderboard_history
from auditor.documents.records import records
from auditor.git import repository

TABLE = """# Challenge

## Leaderboard

| Run | Score | Author | Date | Info |
|-----|------:|--------|------|------|
{rows}
#### Unlimited Compute Leaderboard & Non-record Submissions

| Run | Score | Author | Date | Info |
|-----|------:|--------|------|------|
| Four Hours | 1.2074 | x | 2026-03-18 | [info](records/track_non_record_16mb/four/README.md) |
"""
FIRST = "| First | 1.2244 | x | 2026-03-18 | [info](records/track_10min_16mb/first/README.md) |\n"
SECOND = "| Second | 1.2197 | y | 2026-03-19 | [info](records/track_10min_16mb/second/README.md) |\n"
MOVED = "| Second, renamed | 1.2197 | y | 2026-03-19 | [info](records/track_10min_16mb/second/README.md) |\n"
GONE = "| Mistake | 0.9485 | z | 2026-03-20 | [info](https://github.com/example/example/pull/7) |\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository whose README gained, renamed and lost rows."""

    def git(*arguments: str, day: int = 1) -> None:
        stamp = f"2026-03-{day:02d}T12:00:00+00:00"
        environment = {
            "GIT_AUTHOR_DATE": stamp,
            "GIT_COMMITTER_DATE": stamp,
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path),
        }
        names = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *names, *arguments], cwd=tmp_path, env=environment, check=True, capture_output=True)

    git("init", "-b", "main")
    for day, rows in ((18, FIRST), (20, SECOND + FIRST + GONE), (24, MOVED + FIRST)):
        (tmp_path / "README.md").write_text(TABLE.format(rows=rows))
        git("add", "README.md", day=day)
        git("commit", "-m", f"day {day}", day=day)
    return tmp_path


def test_rows_with_the_day_they_were_first_listed(clone: Path) -> None:
    rows = {row.title: row for row in leaderboard_history(repository(clone))}
    assert set(rows) == {"First", "Second, renamed", "Four Hours"}
    assert rows["First"].listed == dt.date(2026, 3, 18)
    assert rows["Second, renamed"].listed == dt.date(2026, 3, 20)
    assert (rows["Four Hours"].track, rows["First"].track) == ("non-record", "record")


@pytest.mark.corpus
def test_shipped_history_is_that_of_the_clone(repo: Path) -> None:
    shipped = {(row.score, row.title) for row in records()}
    for row in leaderboard_history(repository(repo)):
        assert (row.score, row.title) in shipped
