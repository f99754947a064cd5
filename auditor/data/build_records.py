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

from auditor.documents.interval import Interval, unit_of
from auditor.documents.ledger.common import Parts, seed_of
from auditor.documents.ledger.headline import Headline, evaluations, find_headline, with_loss
from auditor.documents.metric import diagnose_line
from auditor.git import Repository, repository
from auditor.submission import Submission

PUBLIC = "https://github.com/openai/parameter-golf"
_ROW = re.compile(r"^\|(?P<cells>.+)\|\s*$")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMIT = re.compile(r"/commits?/([0-9a-f]{40})")
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
    """A leaderboard row as the README shows it, with the days it was there. `unit`: of the score's last digit."""

    title: str
    score: float
    date: str
    link: str
    commit: str
    unit: float
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
            commit = _COMMIT.search(get.get("Info", ""))
            yield Row(
                get.get("Run", ""),
                float(get["Score"]),
                get.get("Date", ""),
                link.group(1) if link else "",
                commit.group(1) if commit else "",
                unit_of(get["Score"]),
                track,
                dt.date.max,
                dt.date.min,
            )


def _record(git: Repository, row: Row, arrivals: dict[str, int | None], merged: dict[str, Submission]) -> dict:
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
        "source": f"{PUBLIC}/pull/{pr}" if pr else f"{PUBLIC}/tree/main/{row.folder}",
    }
    notes = [NOTES[pr]] if pr in NOTES else []
    if row.proposed:
        notes.append("listed by an organiser's pull request that was not merged when this was written")
    cases = [_read(submission) for submission in _evidence(git, row, COMPLETED_BY.get(pr or 0, pr), merged)]
    found = (
        any(_fill(item, row, parts) for parts in cases)
        or any(_fill_best(item, row, parts, notes) for parts in cases)
        or any(_fill_single(item, row, parts) for parts in cases)
    )
    if not found:
        notes.append("per-seed values not recoverable from the evidence; the listed score stands for them")
    item["note"] = "; ".join(notes)
    return item


def _evidence(git: Repository, row: Row, pr: int | None, merged: dict[str, Submission]) -> Iterator[Submission]:
    """Submissions that may hold the row's numbers: the commit it names, its folder on main, the pull request's own."""
    if row.commit and git.commit(row.commit):
        yield from Submission.from_git(git, row.commit)
    if row.folder in merged:
        yield merged[row.folder]
    if pr is None:
        return
    for submission in Submission.from_git(git, pr):
        yield merged.get(submission.folder, submission)
        if submission.folder in merged:
            yield submission


def _fill(item: dict, row: Row, parts: Parts) -> bool:
    """Take per-seed values whose mean is the listed score: from the logs, else as submission.json states them."""
    head = find_headline(parts)
    fitting = [found for found in _candidates(head, parts) if found and _is_score(_mean(found), row)]
    values = min(fitting, key=lambda found: (-len(found), abs(_mean(found) - row.score) > row.unit / 2), default=None)
    if values is None:
        return False
    _take(item, head, values)
    return True


def _fill_single(item: dict, row: Row, parts: Parts) -> bool:
    """Take the one run whose result is the listed score."""
    head = find_headline(parts)
    for run in parts.runs:
        for scored in evaluations(run):
            if _is_score(scored.value, row):
                _take(item, head, {_name(seed_of(run) or run.path): scored.value})
                return True
    return False


def _fill_best(item: dict, row: Row, parts: Parts, notes: list[str]) -> bool:
    """Take per-seed values of which one, not their mean, is the listed score (rows of March listed the best seed)."""
    head = find_headline(parts)
    for values in filter(None, _candidates(head, parts)):
        seeds = [seed for seed, value in values.items() if _is_score(value, row)]
        if seeds and len(values) > 1:
            _take(item, head, values)
            notes.append(f"the listed score is that of seed {seeds[0]}; the mean of the seeds is {_mean(values):.5f}")
            return True
    return False


def _take(item: dict, head: Headline, values: dict[str, float]) -> None:
    item["seeds"] = {seed: values[seed] for seed in sorted(values, key=_order)}
    lines = {_name(key): scored for key, scored in head.reported.items() if _name(key) in values}
    item["losses"] = {key: scored.result.val_loss for key, scored in lines.items() if scored.result.val_loss}
    answers = [answer for scored in lines.values() if (answer := diagnose_line(with_loss(scored), scored.run))]
    item["tokenizer"] = next((answer.tokenizer for answer in answers if answer.tokenizer), "")


def _mean(values: dict[str, float]) -> float:
    return sum(values.values()) / len(values)


def _candidates(head: Headline, parts: Parts) -> Iterator[dict[str, float]]:
    """Sets of per-seed values: the reported lines, every label that runs print, the values stated."""
    yield {_name(key): scored.value for key, scored in head.reported.items()}
    labels: dict[str, dict[str, float]] = {}
    for run in parts.runs:
        for scored in evaluations(run):
            labels.setdefault(scored.label, {})[_name(seed_of(run) or run.path)] = scored.value
    yield from labels.values()
    yield {seed: values[0].value for seed, values in head.seed_claims.items()}


def _name(key: str) -> str:
    """A seed, else the number in the log's name, else the name."""
    if key.isdigit():
        return key
    name = key.rsplit("/", 1)[-1]
    numbers = re.findall(r"\d+", name.rsplit(".", 1)[0])
    return numbers[-1] if numbers else name


def _order(seed: str) -> tuple[int, int, str]:
    return (0, int(seed), "") if seed.isdigit() else (1, 0, seed)


def _is_score(value: float, row: Row) -> bool:
    """Whether a value rounds (or is cut) to the listed score."""
    return value in Interval(row.score, row.score).widened(row.unit)


def _read(submission: Submission) -> Parts:
    from auditor.casefile import build_case

    case = build_case(submission)
    return Parts(submission, case.program, case.metadata, case.readme, case.logs)


if __name__ == "__main__":
    main()
