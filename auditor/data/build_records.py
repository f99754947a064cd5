"""Make `records.json` from a clone of the public repository:

    python -m auditor.data.build_records --repo ~/parameter-golf [--proposed 2146] [--out auditor/data/records.json]

Rows come from the README's history (first and last appearance of every leaderboard row); `--proposed` adds the rows of
a pull request that organisers opened to update the leaderboard. Per-seed values come from the logs and the
submission.json of the row's evidence, and are kept only when their mean is the listed score. Facts only: numbers,
dates, pull request numbers, titles of rows.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from auditor.documents.interval import Interval
from auditor.documents.ledger import Headline, find_headline
from auditor.documents.ledger.common import Parts
from auditor.documents.metric import diagnose_line
from auditor.git import Repository, repository
from auditor.submission import Submission

PUBLIC = "https://github.com/openai/parameter-golf"
_ROW = re.compile(r"^\|(?P<cells>.+)\|\s*$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PULL = re.compile(r"/pull/(\d+)")
#: Notes that a number's reader needs and no file states: how a row's published p-value was made.
NOTES = {
    1855: "the row's p-value pools reproductions by others; its own three seeds give p = 0.32-0.36",
    1851: "a single-seed pull request completed by the three seeds of pull request 1868",
}
#: Row -> pull request whose runs carry its per-seed values.
COMPLETED_BY = {1851: 1868}


@dataclass
class Row:
    """A leaderboard row as the README shows it, with the days it was there."""

    title: str
    score: float
    date: str
    link: str
    track: str
    listed: dt.date
    last: dt.date
    proposed: bool = False
    titles: set[str] = field(default_factory=set)

    @property
    def folder(self) -> str:
        """Record folder the row links to, "" when it links to a pull request."""
        match = re.search(r"records/[^/]+/[^/)]+", self.link)
        return match.group() if match else ""


@click.command()
@click.option("--repo", required=True, help="Clone or bare repository with refs/pull/*/head.")
@click.option("--proposed", type=int, multiple=True, help="Pull request with a README that adds rows.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(__file__).with_name("records.json"))
def main(repo: str, proposed: tuple[int, ...], out: Path) -> None:
    """Write the history of the leaderboards as JSON."""
    git = repository(repo)
    rows = leaderboard_history(git)
    for number in proposed:
        add_proposed(git, rows, number)
    arrivals: dict[str, int | None] = {}
    for path, (number, _) in git.arrivals().items():
        arrivals.setdefault("/".join(path.split("/")[:3]), number)
    merged = {submission.folder: submission for submission in Submission.main_records(git)}
    records = [_record(git, row, arrivals, merged) for row in rows]
    records.sort(key=lambda item: (item["track"], item["date"], item["pr"] or 0))
    about = (
        "Leaderboard rows of openai/parameter-golf: date = Date column (evidence), listed = first day on the README, "
        "seeds = val_bpb per seed of the evidence. Made by auditor/data/build_records.py."
    )
    text = json.dumps({"about": about, "records": records}, indent=1, ensure_ascii=False)
    out.write_text(text + "\n", encoding="utf-8")
    known = sum(1 for item in records if item["seeds"])
    click.echo(f"{len(records)} rows, {known} with per-seed values, written to {out}")


def leaderboard_history(git: Repository) -> list[Row]:
    """Every row of the README's last version, with the first day it was listed; rows that were taken off are left out,
    because no score of theirs stands."""
    commits = git.run("log", "--reverse", "--format=%H %cI", "HEAD", "--", "README.md").decode().split("\n")
    versions = []
    for line in filter(None, commits):
        commit, date = line.split(" ", 1)
        versions.append((dt.date.fromisoformat(date[:10]), list(parse_readme(git, commit))))
    rows = []
    for row in versions[-1][1]:
        seen = [day for day, listed in versions if any(_same(row, other) for other in listed)]
        row.listed, row.last = min(seen), max(seen)
        rows.append(row)
    return rows


def add_proposed(git: Repository, rows: list[Row], number: int) -> None:
    """Rows that a pull request adds to the README, marked as proposed."""
    commit = git.pull_head(number)
    day = dt.date.fromisoformat(git.commit_date(commit)[:10])
    for row in parse_readme(git, commit):
        if not any(_same(row, other) for other in rows):
            row.listed = row.last = day
            row.proposed = True
            rows.append(row)


def _same(row: Row, other: Row) -> bool:
    """One row in two versions: its link, or title and score (links moved from folders to pull requests)."""
    pull, other_pull = _PULL.search(row.link), _PULL.search(other.link)
    if row.score != other.score:
        return False
    if row.folder and row.folder == other.folder:
        return True
    return bool(pull and other_pull and pull.group(1) == other_pull.group(1)) or row.title == other.title


def parse_readme(git: Repository, commit: str) -> Iterator[Row]:
    """Leaderboard rows of one version of the README."""
    text = git.run("show", f"{commit}:README.md").decode("utf-8", "replace")
    header: list[str] = []
    track = "record"
    for line in text.split("\n"):
        if re.match(r"#+ .*(unlimited|non-record)", line, re.IGNORECASE):
            track = "non-record"
        elif re.match(r"#+ ", line):
            track = "record"
        found = _ROW.match(line)
        if not found:
            continue
        cells = [cell.strip() for cell in found["cells"].split("|")]
        if "Score" in cells:
            header = cells
        elif header and len(cells) == len(header) and re.fullmatch(r"1\.\d+|0\.\d+", cells[header.index("Score")]):
            get = dict(zip(header, cells, strict=True))
            link = _LINK.search(get.get("Info", ""))
            yield Row(
                get.get("Run", ""),
                float(get["Score"]),
                get.get("Date", ""),
                link.group(1) if link else "",
                track,
                dt.date.max,
                dt.date.min,
            )


def _record(
    git: Repository, row: Row, arrivals: dict[str, int | None], merged: dict[str, Submission]
) -> dict:
    pull = _PULL.search(row.link)
    pr = int(pull.group(1)) if pull else arrivals.get(row.folder)
    item: dict = {
        "pr": pr,
        "title": row.title,
        "score": row.score,
        "track": row.track,
        "date": row.date,
        "listed": row.listed.isoformat(),
        "tokenizer": "",
        "seeds": {},
        "losses": {},
        "pooled": {},
        "source": f"{PUBLIC}/pull/{pr}" if pr else f"{PUBLIC}/tree/main/{row.folder}",
    }
    notes = [NOTES[pr]] if pr in NOTES else []
    if row.proposed:
        notes.append("listed by an organiser's pull request that was not merged when this was written")
    for submission in _evidence(git, row, COMPLETED_BY.get(pr or 0, pr), merged):
        if _fill(item, row, submission):
            break
    if not item["seeds"]:
        notes.append("per-seed values not recoverable from the evidence; the listed score stands for them")
    item["note"] = "; ".join(notes)
    return item


def _evidence(
    git: Repository, row: Row, pr: int | None, merged: dict[str, Submission]
) -> Iterator[Submission]:
    """Submissions that may hold the row's numbers: its folder on main, then the pull request's folders."""
    if row.folder in merged:
        yield merged[row.folder]
    if pr is None:
        return
    for submission in Submission.from_git(git, pr):
        yield merged.get(submission.folder, submission)
        if submission.folder in merged:
            yield submission


def _fill(item: dict, row: Row, submission: Submission) -> bool:
    """Take per-seed values whose mean is the listed score: from the logs, else as submission.json states them."""
    parts = _read(submission)
    head = find_headline(parts)
    stated = {seed: values[0].value for seed, values in head.seed_claims.items()}
    for values in (*_logged(head, parts, row.score), stated):
        if values and _is_score(values, row.score):
            item["seeds"] = {seed: values[seed] for seed in sorted(values, key=_order)}
            break
    else:
        return False
    lines = {key: scored for key, scored in head.reported.items() if key in item["seeds"]}
    item["losses"] = {key: scored.result.val_loss for key, scored in lines.items() if scored.result.val_loss}
    answers = [answer for scored in lines.values() if (answer := diagnose_line(scored.result, scored.run))]
    item["tokenizer"] = next((answer.tokenizer for answer in answers if answer.tokenizer), "")
    return True


def _logged(head: Headline, parts: Parts, score: float) -> Iterator[dict[str, float]]:
    """Values of the reported lines, then of any label that every run prints."""
    from auditor.documents.ledger import evaluations
    from auditor.documents.ledger.common import seed_of

    yield {_name(key): scored.value for key, scored in head.reported.items()}
    labels: dict[str, dict[str, float]] = {}
    for run in parts.runs:
        for scored in evaluations(run):
            labels.setdefault(scored.label, {})[_name(seed_of(run) or run.path)] = scored.value
    yield from labels.values()


def _name(key: str) -> str:
    return key if key.isdigit() else key.rsplit("/", 1)[-1]


def _order(seed: str) -> tuple[int, int, str]:
    return (0, int(seed), "") if seed.isdigit() else (1, 0, seed)


def _is_score(values: dict[str, float], score: float) -> bool:
    """Whether the mean rounds (or is cut) to the listed score of four decimals."""
    mean = sum(values.values()) / len(values)
    unit = 1e-3 if score == round(score, 3) and len(f"{score:g}") < 6 else 1e-4
    return mean in Interval(score - unit, score + unit)


def _read(submission: Submission) -> Parts:
    from auditor.documents.logs import read_logs
    from auditor.documents.metadata import read_metadata
    from auditor.documents.readme import read_readme
    from auditor.unpack import Program

    return Parts(submission, Program(), read_metadata(submission), read_readme(submission), read_logs(submission))


if __name__ == "__main__":
    main()
