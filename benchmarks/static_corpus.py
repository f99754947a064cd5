"""Static analysis over a clone of the public repository: verdicts from the order of events alone, and their cost.

    python benchmarks/static_corpus.py --repo DIR [--labels CSV | --sample N [--seed S] | --all] [--limit N] [--out FILE]

With --labels the pull requests of that table are read, with --sample as many pull requests drawn at random, with --all
every one, otherwise every record folder of the main branch. Writes one JSON object a line: {"pr", "main_file",
"verdict", "findings": [{"rule", "status"}], "order", "seconds", "reading", "steps", "unknowns"}. Seconds are CPU time:
`seconds` of the whole case (documents and all), `reading` of static analysis alone. At the end the shares and the
costs stand on stderr.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditor.casefile import Call, build_case
from auditor.errors import AuditorError
from auditor.findings import Status
from auditor.static.analysis import static_timeline
from auditor.static.byte_absence import ELSEWHERE, NO_SCORE, REPEATED
from auditor.static.byte_table import byte_table
from auditor.static.effective import settings_of_case
from auditor.submission import Submission
from auditor.targets import all_pull_requests

# Disputed practice goes to a reviewer even when it is proven.
DISPUTED = frozenset({"PG-C3-slot"})
# Tools, tests and launchers beside a trainer that was not submitted: there is no order of scores and updates in them.
NO_EVALUATION = frozenset({NO_SCORE, REPEATED, ELSEWHERE})


def targets(repo: str, labels: str | None) -> Iterator[tuple[str, Submission]]:
    """(pull request or "main", submission) to read."""
    main = {s.main_script: s for s in Submission.main_records(repo)}
    if labels is None:
        yield from (("main", submission) for submission in main.values())
        return
    with open(labels, encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            if row["pr"] == "main":
                if row["main_file"] in main:
                    yield "main", main[row["main_file"]]
                continue
            found = Submission.from_git(repo, int(row["pr"]))
            folder = os.path.dirname(row["main_file"])
            exact = [s for s in found if s.main_script == row["main_file"]]
            yield row["pr"], (exact or [s for s in found if s.folder and folder.startswith(s.folder)] or found)[0]


def drawn(repo: str, sample: int | None, seed: int) -> Iterator[tuple[str, Submission]]:
    """(pull request, submission) of pull requests drawn at random, of all for None."""
    numbers = all_pull_requests(Path(repo))
    if sample is not None:
        numbers = random.Random(seed).sample(numbers, min(sample, len(numbers)))
    for number in numbers:
        try:
            found = Submission.from_git(repo, int(number))
        except AuditorError as error:
            print(f"{number}: {error}", file=sys.stderr)
            continue
        if found:
            yield number, found[0]


def judged(submission: Submission) -> dict:
    """What static analysis alone says of one submission."""
    started = time.process_time()
    case = build_case(submission, Call(static=False))
    result = None
    reading = 0.0
    if case.program.main is not None:
        settings = settings_of_case(case)
        before = time.process_time()
        result = static_timeline(case.program, settings)
        reading = time.process_time() - before
    answers = list(result.answers.values()) if result else []
    gravest = {Status.WARN if a.rule in DISPUTED and a.status is Status.FAIL else a.status for a in answers}
    open_question = not answers or gravest & {Status.WARN, Status.UNKNOWN}
    verdict = "VIOLATION" if Status.FAIL in gravest else "NEEDS REVIEW" if open_question else "CLEAN"
    order = result.answers.get("PG-C3-score-first") if result else None
    state = order.status.value if order else "unknown" if result else "no program"
    if state == "unknown" and byte_table(case.program).absence in NO_EVALUATION:
        state = "no evaluation"
    return {
        "main_file": submission.main_script,
        "verdict": verdict,
        "findings": [{"rule": a.rule, "status": a.status.value} for a in answers],
        "order": state,
        "seconds": round(time.process_time() - started, 3),
        "reading": round(reading, 3),
        "steps": result.steps if result else 0,
        "unknowns": [f"{path}:{line} {reason}" for path, line, reason in (result.unknowns if result else [])],
    }


def main() -> None:
    """Read the targets one by one; a crash is a line of its own, never the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", default="-")
    options = parser.parse_args()
    if options.sample is not None or options.all:
        chosen = drawn(options.repo, options.sample, options.seed)
    else:
        chosen = targets(options.repo, options.labels)
    rows = []
    with open(1 if options.out == "-" else options.out, "w", encoding="utf-8") as out:
        for number, (pull, submission) in enumerate(chosen):
            if options.limit is not None and number >= options.limit:
                break
            try:
                line = judged(submission)
            except Exception as error:  # a benchmark reports crashes, it does not stop at them
                line = {"main_file": submission.main_script, "verdict": "ERROR", "findings": [], "error": repr(error)}
            rows.append({"pr": pull, **line})
            out.write(json.dumps(rows[-1]) + "\n")
            out.flush()
    report(rows)


def report(rows: list[dict]) -> None:
    """Shares and costs on stderr."""
    read = [row for row in rows if row.get("order") not in (None, "no program")]
    crashed = [row["pr"] for row in rows if row["verdict"] == "ERROR"]
    blind = [row["pr"] for row in read if row["order"] == "unknown"]
    idle = [row["pr"] for row in read if row["order"] == "no evaluation"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(rows)} submissions, {len(read)} with a readable program, crashes: {crashed}", file=sys.stderr)
    print(f"programs without an evaluation of their own: {len(idle)} {idle}", file=sys.stderr)
    scoring = max(len(read) - len(idle), 1)
    print(
        f"order of updates unknown, of the others: {len(blind)} ({len(blind) / scoring:.1%}) {blind}", file=sys.stderr
    )
    for name in ("reading", "seconds"):
        values = sorted(row[name] for row in read)
        if values:
            late = values[min(int(len(values) * 0.99), len(values) - 1)]
            middle = values[len(values) // 2]
            print(f"{name}: median {middle:.2f} s, p99 {late:.2f} s, most {values[-1]:.2f} s of CPU", file=sys.stderr)
    slow = sorted(read, key=lambda row: -row["reading"])[:8]
    print("slowest: " + ", ".join(f"#{row['pr']} {row['reading']:.1f} s" for row in slow), file=sys.stderr)
    print(f"peak memory {memory:.0f} MiB", file=sys.stderr)


if __name__ == "__main__":
    main()
