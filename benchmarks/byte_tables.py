"""Byte tables of every pull request of a clone: how many are decided, which are wrong, milliseconds.

    python benchmarks/byte_tables.py --repo DIR [--limit N | --sample N --seed S] [--labels labels.csv] [--json FILE]

"Decided" is counted over the programs that parse: correct, wrong, or shown to count no bytes (`byte_absence`: nothing is
scored, nats only are printed, a BPB of another program is repeated). What stays open is listed with its reason. Beside the tables it sums up what the printed
BPBs are made of and where bytes of sidecars are taken. With --labels the rows tagged byte_accounting are named, and LEGAL
rows that are called wrong.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditor.errors import AuditorError
from auditor.git import Repository
from auditor.static.byte_absence import NATS, NO_SCORE, REPEATED
from auditor.static.byte_table import byte_table
from auditor.static.parse import parse_module
from auditor.submission import Submission
from auditor.unpack import read_program


def examine(git: Repository, number: int) -> dict[str, object] | None:
    """One row for a pull request; None when it holds no script that parses."""
    submissions = Submission.from_git(git, number)
    program = read_program(submissions[0]) if submissions else None
    if program is None or program.main is None or parse_module(program.main.text).tree is None:
        return None
    start = time.perf_counter()
    result = byte_table(program)
    return {
        "pr": number,
        "status": result.status,
        "bug": result.bug,
        "reason": result.reason,
        "ratio": result.ratio,
        "absence": result.absence,
        "minor": result.minor,
        "formulas": result.formulas,
        "faults": [[fault.bug, fault.everywhere] for fault in result.faults],
        "takings": [state for state, _ in result.takings],
        "places": [f"{place.path}:{place.line}" for place in result.places],
        "ms": 1000 * (time.perf_counter() - start),
    }


@click.command()
@click.option("--repo", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--limit", type=int, default=0, help="Only the last N pull requests.")
@click.option("--sample", type=int, default=0, help="As many pull requests drawn at random.")
@click.option("--seed", type=int, default=1)
@click.option("--labels", type=click.Path(path_type=Path, exists=True))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(repo: Path, limit: int, sample: int, seed: int, labels: Path | None, json_file: Path | None) -> None:
    """Measure the byte-table verdicts on a clone."""
    rows = []
    with Repository(repo) as git:
        numbers = git.pull_requests()[-limit:]
        if sample:
            numbers = random.Random(seed).sample(numbers, min(sample, len(numbers)))
        for number in numbers:
            try:
                row = examine(git, number)
            except AuditorError as error:
                print(f"{number}: {error}")
                continue
            if row is not None:
                rows.append(row)
    if json_file:
        json_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report(rows)
    if labels is not None:
        compare_labels(rows, labels)


def report(rows: list[dict]) -> None:
    """Print shares, the wrong ones and times."""
    status = Counter(row["status"] for row in rows)
    counting = len(rows) - status["none"]
    decided = status["correct"] + status["wrong"]
    print(f"{len(rows)} programs that parse: " + ", ".join(f"{name} {count}" for name, count in status.most_common()))
    empty = Counter(row["absence"] or "not found" for row in rows if row["status"] == "none")
    closed = sum(count for kind, count in empty.items() if kind in (NO_SCORE, NATS, REPEATED))
    print(f"decided: {decided} of {counting} that count bytes ({decided / max(1, counting):.2%})")
    print("programs that count no bytes: " + ", ".join(f"{kind} {count}" for kind, count in empty.most_common()))
    print(f"decided of all that parse: {decided + closed} ({(decided + closed) / max(1, len(rows)):.2%})")
    right, known, printed = (sum(row["formulas"][i] for row in rows) for i in range(3))
    print(f"printed BPBs: {printed}, followed to their terms {known}, losses / ln 2 / bytes {right}")
    faults = Counter(f"{bug}{' everywhere' if every else ''}" for row in rows for bug, every in row["faults"])
    print("programs with faults of the formula:", dict(faults.most_common()))
    print("places that take bytes of a sidecar:", dict(Counter(state for row in rows for state in row["takings"])))
    times = sorted(row["ms"] for row in rows)
    if times:
        print(f"ms: median {times[len(times) // 2]:.0f}, p99 {times[int(len(times) * 0.99)]:.0f}, max {times[-1]:.0f}")
    for name in ("wrong", "undecided", "none"):
        for row in rows:
            if row["status"] == name:
                print(name, row["pr"], row["bug"], row["reason"][:140], row["ratio"], row["places"][:2])


def compare_labels(rows: list[dict], labels: Path) -> None:
    """Print the labelled byte cases and the legal ones called wrong."""
    found = {str(row["pr"]): row for row in rows}
    with labels.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            said = found.get(row["pr"])
            if said and (
                "byte_accounting" in row["violations"] or (row["verdict"] == "LEGAL" and said["status"] == "wrong")
            ):
                print("label", row["pr"], row["verdict"], "->", said["status"], said["bug"])


if __name__ == "__main__":
    main()
