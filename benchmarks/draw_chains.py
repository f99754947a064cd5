"""Findings with evidence chains drawn at random, printed beside the source lines, for a person to judge.

    python benchmarks/draw_chains.py --repo CLONE --labels labels.csv [--count 30] [--seed 1]

One FAIL or WARN of static analysis with at least two places for each submission drawn; every place is printed with its
words and its source. Nothing is kept.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz_variants import labelled_case

from auditor.case import Case
from auditor.findings import Finding, Status, Witness
from auditor.judge import judge

WIDTH = 150


def chains(case: Case) -> list[Finding]:
    """Findings of static analysis that accuse and show how they come to it."""
    return [
        finding
        for finding in judge(case).findings
        if finding.status in (Status.FAIL, Status.WARN)
        and finding.witness is Witness.STATIC
        and len([e for e in finding.evidence if e.line]) > 1
    ]


def show(row: dict[str, str], case: Case, finding: Finding) -> None:
    """One finding with its source lines."""
    print(f"\n=== #{row['pr']} {row['verdict']} {row['violations']} | {finding.status.value} {finding.rule}")
    print(f"    {finding.summary}")
    texts = {layer.name: layer.text.split("\n") for layer in case.program.layers}
    for item in finding.evidence:
        lines = texts.get(item.path, [])
        text = lines[item.line - 1].strip() if item.line and item.line <= len(lines) else item.excerpt
        print(f"    {item.path.rsplit('/', 1)[-1]}:{item.line} {item.note} | {text[:WIDTH]}")


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with open(options.labels, encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["pr"].isdigit() and row["verdict"] != "LEGAL"]
    rng.shuffle(rows)
    told = 0
    for row in rows:
        if told == options.count:
            break
        case = labelled_case(options.repo, row)
        found = chains(case) if case is not None else []
        if found:
            show(row, case, rng.choice(found))  # type: ignore[arg-type]
            sys.stdout.flush()
            told += 1


if __name__ == "__main__":
    main()
