"""Review every submission of a clone in one process and report verdicts, seconds, memory and defects.

    python benchmarks/review_corpus.py --repo CLONE --out results.jsonl [--labels labels.csv] [--limit N] [--main]

With --labels only the pull requests that the table names are reviewed (for rows "main", the main branch too), in
the row format that a scorer of labels reads. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import statistics
import time
from collections import Counter
from pathlib import Path

from auditor.commands.review import Options, run
from auditor.targets import all_pull_requests


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--main", action="store_true", help="the main branch's record folders too")
    options = parser.parse_args()

    names, with_main = _names(options)
    start = time.perf_counter()
    review = Options(repo=options.repo, jsonl=options.out, resume=True, main_branch=with_main, run=False, quiet=True)
    run(tuple(names[: options.limit]), review)
    _report(options.out, time.perf_counter() - start)


def _names(options: argparse.Namespace) -> tuple[list[str], bool]:
    if options.labels is None:
        return all_pull_requests(options.repo), options.main
    with options.labels.open(encoding="utf-8", newline="") as file:
        found = list(dict.fromkeys(row["pr"] for row in csv.DictReader(file)))
    return [name for name in found if name.isdigit()], options.main or "main" in found


def _report(path: Path, seconds: float) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    times = sorted(row["seconds"] for row in rows)
    verdicts = Counter(row["verdict"] for row in rows)
    defects = [row["label"] for row in rows if "internal error" in row["reason"]]
    print(f"{len(rows)} reviews, this call {seconds:.0f} s")
    print("verdicts: " + ", ".join(f"{name} {count}" for name, count in verdicts.most_common()))
    if times:
        p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
        print(
            f"seconds a review: mean {statistics.mean(times):.2f}, median {statistics.median(times):.2f}, "
            f"p99 {p99:.2f}, max {times[-1]:.2f}"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(f"internal errors: {len(defects)} {defects[:20]}")


if __name__ == "__main__":
    main()
