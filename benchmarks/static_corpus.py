"""Static analysis over a clone of the public repository: verdicts from the order of events alone, and their cost.

    python benchmarks/static_corpus.py --repo DIR [--labels CSV] [--limit N] [--out results.jsonl]

With --labels the pull requests of that table are read, otherwise every record folder of the main branch. Writes one
JSON object a line: {"pr", "main_file", "verdict", "findings": [{"rule", "status"}], "seconds", "steps", "unknowns"}.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditor.casefile import Call, build_case
from auditor.findings import Status
from auditor.submission import Submission

# Disputed practice goes to a reviewer even when it is proven.
DISPUTED = frozenset({"PG-C3-slot"})


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


def judged(submission: Submission) -> dict:
    """What static analysis alone says of one submission."""
    started = time.perf_counter()
    case = build_case(submission, Call())
    result = case.facts.get("static")
    answers = list(result.answers.values()) if result else []
    gravest = {Status.WARN if a.rule in DISPUTED and a.status is Status.FAIL else a.status for a in answers}
    open_question = not answers or gravest & {Status.WARN, Status.UNKNOWN}
    verdict = "VIOLATION" if Status.FAIL in gravest else "NEEDS REVIEW" if open_question else "CLEAN"
    return {
        "main_file": submission.main_script,
        "verdict": verdict,
        "findings": [{"rule": a.rule, "status": a.status.value} for a in answers],
        "seconds": round(time.perf_counter() - started, 3),
        "steps": result.steps if result else 0,
        "unknowns": [f"{path}:{line} {reason}" for path, line, reason in (result.unknowns if result else [])],
    }


def main() -> None:
    """Read the targets one by one; a crash is a line of its own, never the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--labels")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--out", default="-")
    options = parser.parse_args()
    seconds = []
    with open(1 if options.out == "-" else options.out, "w", encoding="utf-8") as out:
        for number, (pull, submission) in enumerate(targets(options.repo, options.labels)):
            if options.limit is not None and number >= options.limit:
                break
            try:
                line = judged(submission)
            except Exception as error:  # a benchmark reports crashes, it does not stop at them
                line = {"main_file": submission.main_script, "verdict": "ERROR", "findings": [], "error": repr(error)}
            seconds.append(line.get("seconds", 0.0))
            out.write(json.dumps({"pr": pull, **line}) + "\n")
            out.flush()
    seconds.sort()
    if seconds:
        middle, late = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
        print(f"{len(seconds)} submissions, median {middle:.2f} s, 99th percentile {late:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
