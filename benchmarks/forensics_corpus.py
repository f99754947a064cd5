"""Runs log forensics and program facts over a clone: counts per kind, time per submission, exceptions.

python benchmarks/forensics_corpus.py --repo ~/parameter-golf [--main] [--pr 861,1493] [--limit 100] [--show]
"""

from __future__ import annotations

import argparse
import collections
import random
import statistics
import time
import traceback
from pathlib import Path

from auditor.documents.copies import log_index
from auditor.documents.forensics import forensics
from auditor.documents.logs import read_log
from auditor.errors import AuditorError
from auditor.static.facts import program_facts
from auditor.submission import Submission
from auditor.unpack import read_program


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", required=True, type=Path, help="clone with refs/pull/*/head")
    parser.add_argument("--main", action="store_true", help="the record folders of the main branch instead of heads")
    parser.add_argument("--pr", default="", help="only these pull requests, separated by commas")
    parser.add_argument("--limit", type=int, default=0, help="a random sample of this many heads")
    parser.add_argument("--cache", type=Path, help="folder that keeps the index of all logs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true", help="print every fact above notable")
    parser.add_argument("--all", action="store_true", help="print notable facts too")
    options = parser.parse_args()
    index = log_index(options.repo, options.cache)
    kinds: collections.Counter[tuple[str, str]] = collections.Counter()
    times: list[float] = []
    parts: collections.Counter[str] = collections.Counter()
    failures = 0
    for submission in _submissions(options, sorted(index.authors)):
        try:
            elapsed, facts = _one(submission, index, parts)
        except Exception:
            failures += 1
            print(f"EXCEPTION {submission.label} {submission.folder}")
            traceback.print_exc()
            continue
        times.append(elapsed)
        kinds.update((fact.kind, fact.strength) for fact in facts)
        if options.show or options.all:
            _print(submission, facts, options.all)
    print(f"{len(times)} submissions, {failures} exceptions")
    for (kind, strength), count in sorted(kinds.items()):
        print(f"{count:6d}  {kind:24s} {strength}")
    if times:
        ordered = sorted(times)
        p90 = ordered[len(ordered) * 9 // 10]
        middle = statistics.median(times)
        print(f"ms per submission: median {1e3 * middle:.0f}, p90 {1e3 * p90:.0f}, max {1e3 * ordered[-1]:.0f}")
        print("mean ms: " + ", ".join(f"{name} {1e3 * spent / len(times):.0f}" for name, spent in parts.items()))


def _submissions(options: argparse.Namespace, numbers: list[int]):
    if options.main:
        yield from Submission.main_records(options.repo)
        return
    if options.pr:
        numbers = [int(number) for number in options.pr.split(",")]
    elif options.limit:
        numbers = random.Random(options.seed).sample(numbers, min(options.limit, len(numbers)))
    for number in numbers:
        try:
            yield from Submission.from_git(options.repo, number)
        except AuditorError as error:
            print(f"#{number}: {error}")


def _one(submission: Submission, index, parts):
    start = time.perf_counter()
    program = read_program(submission)
    unpacked = time.perf_counter()
    logs = []
    for path in submission.logs:
        try:
            logs.append(read_log(path, submission.read(path)))
        except AuditorError as error:
            print(f"{submission.label}: {error}")
    read = time.perf_counter()
    facts = forensics(submission, program, logs, index)
    examined = time.perf_counter()
    program_facts(program, submission)
    done = time.perf_counter()
    parts["unpack"] += unpacked - start
    parts["logs"] += read - unpacked
    parts["forensics"] += examined - read
    parts["facts"] += done - examined
    return done - read, facts


def _print(submission: Submission, facts, everything: bool) -> None:
    shown = [fact for fact in facts if everything or fact.strength != "notable"]
    if not shown:
        return
    print(f"== {submission.label} {submission.folder}")
    for fact in shown:
        print(f"  {fact.strength:13s} {fact.kind}: {fact.summary}")
        for source in fact.sources[:3]:
            print(f"      {source.path.rpartition('/')[2]}:{source.line or ''} {source.excerpt[:120]}")


if __name__ == "__main__":
    main()
