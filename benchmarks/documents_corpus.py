"""Documents of a clone: how much of submission.json, READMEs and train logs is understood, and how fast.

    python benchmarks/documents_corpus.py --repo DIR [--limit N] [--json FILE]

Every distinct file is read once. The shares of logs are compared with those that plain text search finds in the same
logs ("by search"), outside programs printed in them.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path

import click

from auditor.documents.logs import read_log
from auditor.documents.metadata import read_metadata
from auditor.documents.model import Metadata, Readme, TrainLog
from auditor.documents.readme import read_readme
from auditor.errors import AuditorError
from auditor.git import Repository
from auditor.submission import Submission

# What a text search finds; a reader that recognises fewer logs has missed lines.
SEARCHES = {
    "steps": re.compile(r"\b(?:step:\s?\d+/\d+|\d+/\d+) (?:train|val)_loss: ?\d"),
    "stop": re.compile(r"stopping_early: wallclock_cap train_time: ?\d"),
    "results": re.compile(r"(?:^|\s)(?!step)\w+ val_loss[:=]\s?\d\S* val_bpb[:=]\s?\d", re.MULTILINE),
    "total": re.compile(r"Total submission size [\w+-]+: \d"),
    "seed": re.compile(r"(?:^|\s)seed: ?\d", re.MULTILINE),
    "params": re.compile(r"model_params: ?\d"),
}


class Tally:
    """Counts what was found in one kind of document, and how long reading took."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.sought: Counter[str] = Counter()
        self.missed: dict[str, list[str]] = defaultdict(list)
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.slow: list[tuple[float, str]] = []

    def add(self, name: str, facts: dict[str, bool], sought: dict[str, bool] | None = None) -> None:
        """Count one document; `sought` says what a text search finds in it."""
        for fact, known in facts.items():
            self.found[fact] += known
        for fact, there in (sought or {}).items():
            self.sought[fact] += there
            if there and not facts[fact]:
                self.missed[fact].append(name)

    def report(self, title: str) -> None:
        """Print the shares."""
        count = len(self.seconds)
        if not count:
            print(f"{title}: none")
            return
        times = sorted(self.seconds)
        print(
            f"\n{title}: {count} distinct files, {len(self.failures)} exceptions, "
            f"{1e3 * statistics.median(times):.2f} ms median, {1e3 * times[int(0.99 * (count - 1))]:.1f} ms p99, "
            f"{1e3 * times[-1]:.1f} ms at most"
        )
        for fact, number in self.found.most_common():
            by_search = f", by search {100 * self.sought[fact] / count:.1f} %" if fact in self.sought else ""
            print(f"  {fact:22} {number:6}  {100 * number / count:5.1f} %{by_search}")
        for seconds, name in sorted(self.slow)[-3:]:
            print(f"  slowest: {name} {1e3 * seconds:.0f} ms")
        for fact, names in self.missed.items():
            print(f"  {fact}: {len(names)} found only by search: {', '.join(names[:5])}")


def metadata_facts(data: Metadata) -> dict[str, bool]:
    """What a submission.json yielded."""
    names = ("val_bpb", "val_loss", "artifact_bytes", "code_bytes", "train_seconds", "eval_seconds", "std_bpb", "track")
    return (
        {"object": data.raw is not None}
        | {n: getattr(data, n) is not None for n in names}
        | {"seeds": bool(data.seeds)}
    )


def readme_facts(data: Readme) -> dict[str, bool]:
    """What a README yielded."""
    return {
        "title": bool(data.title),
        "val_bpb": "val_bpb" in data.values,
        "size": any(kind in data.values for kind in ("bytes", "mb", "mib")),
        "seeds": bool(data.seeds),
        "commands": bool(data.commands),
        "environment": bool(data.environment),
    }


def log_facts(log: TrainLog) -> dict[str, bool]:
    """What a log yielded."""
    runs = log.runs
    return {
        "steps": any(run.steps for run in runs),
        "stop": any(run.stop for run in runs),
        "results": any(run.results for run in runs),
        "total": any(size.kind == "total" for run in runs for size in run.sizes),
        "seed": any(run.seed is not None for run in runs),
        "params": any(run.params for run in runs),
        "train seconds": any(run.train_seconds for run in runs),
        "timed results": any(result.seconds for run in runs for result in run.results),
        "settings": any(run.settings for run in runs),
        "program printed": any(run.source_lines for run in runs),
        "GPU name": any("gpu" in run.environment for run in runs),
        "progress of evaluation": any(run.progress for run in runs),
        "several runs": len(runs) > 1,
        "crashed": any(run.crashed for run in runs),
    }


def searched(log: TrainLog) -> dict[str, bool]:
    """What a text search finds in a log outside the programs printed in it."""
    inside = {n for run in log.runs if run.source_lines for n in range(*run.source_lines)}
    text = "\n".join(line for n, line in enumerate(log.lines, 1) if n not in inside)
    return {name: pattern.search(text) is not None for name, pattern in SEARCHES.items()}


class Survey:
    """Reads every document of a submission once per distinct content."""

    def __init__(self) -> None:
        self.metadata, self.readmes, self.logs = Tally(), Tally(), Tally()
        self._seen: set[str] = set()

    def take(self, submission: Submission) -> None:
        """Read the documents of a submission."""
        readmes = [submission.readme] if submission.readme else []
        for tally, paths, read in (
            (self.metadata, submission.metadata, read_metadata),
            (self.readmes, readmes, read_readme),
            (self.logs, submission.logs, read_log),
        ):
            for path in paths:
                blob = submission.files[path].blob
                if blob not in self._seen:
                    self._seen.add(blob)
                    self._one(submission, path, tally, read)

    def _one(self, submission: Submission, path: str, tally: Tally, read) -> None:
        try:
            content = submission.read(path)
        except (AuditorError, KeyError):
            return
        name = f"{submission.label}:{path.rsplit('/', 1)[-1]}"
        start = time.perf_counter()
        try:
            found = read(path, content)
        except Exception:
            tally.failures.append(name)
            print(f"{name}\n{traceback.format_exc()}", file=sys.stderr)
            return
        tally.seconds.append(time.perf_counter() - start)
        tally.slow.append((tally.seconds[-1], f"{submission.label}:{path}"))
        if isinstance(found, TrainLog):
            tally.add(name, log_facts(found), searched(found))
        else:
            tally.add(name, metadata_facts(found) if isinstance(found, Metadata) else readme_facts(found))


@click.command()
@click.option(
    "--repo", type=click.Path(path_type=Path, exists=True), required=True, help="Clone of the public repository."
)
@click.option("--limit", type=int, default=0, help="Only N pull requests, spread over all of them.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the counts as JSON.")
def main(repo: Path, limit: int, json_file: Path | None) -> None:
    """Measure the document readers on every pull request of a clone."""
    survey = Survey()
    with Repository(repo) as git:
        numbers = git.pull_requests()
        for number in numbers[:: max(1, len(numbers) // limit)] if limit else numbers:
            try:
                for submission in Submission.from_git(git, number):
                    survey.take(submission)
            except AuditorError as error:
                print(f"{number}: {error}", file=sys.stderr)
    tallies = {"submission.json": survey.metadata, "README": survey.readmes, "train logs": survey.logs}
    for title, tally in tallies.items():
        tally.report(title)
    if json_file:
        counts = {
            title: {"files": len(t.seconds), "found": t.found, "missed": t.missed} for title, t in tallies.items()
        }
        json_file.write_text(json.dumps(counts, indent=1), encoding="utf-8")
    sys.exit(1 if any(tally.failures for tally in tallies.values()) else 0)


if __name__ == "__main__":
    main()
