"""Renamed and reshaped programs: does the verdict stay the same?

    python benchmarks/fuzz_variants.py --repo CLONE --labels labels.csv [--variants 500] [--seed 1] [--out rows.jsonl]

Takes the programs of the rules' own examples and real labelled submissions, legal and illegal ones in turn, gives each
program every shape of `tests/fuzz/variants.py` (another name for everything, helpers split off or put in place, classes,
another order, minified, packed, all of it together) and reviews it beside the unchanged documents. Nothing is executed
and nothing of a submission is kept. Prints the share of variants whose verdict is the original's, and every other one.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "fuzz"))

from subjects import Answer, answer, example_cases, settings_names, with_program
from variants import SHAPES, Inapplicable, variant

from auditor.case import Case
from auditor.casefile import build_case
from auditor.submission import Submission


def real_cases(repo: str, labels: str, rng: random.Random) -> Iterator[tuple[str, Case]]:
    """(pull request and label, case) of labelled submissions, a legal and an illegal one in turn."""
    with open(labels, encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["pr"].isdigit()]
    sides = [[r for r in rows if r["verdict"] == side] for side in ("LEGAL", "ILLEGAL")]
    for side in sides:
        rng.shuffle(side)
    for pair in zip(*sides, strict=False):
        for row in pair:
            case = labelled_case(repo, row)
            if case is not None:
                yield f"#{row['pr']} {row['verdict']}", case


def labelled_case(repo: str, row: dict[str, str]) -> Case | None:
    """Case of one row of the table of labels, None when its program cannot be read."""
    found = Submission.from_git(repo, int(row["pr"]))
    exact = [s for s in found if s.main_script == row["main_file"]]
    if not (exact or found):
        return None
    case = build_case((exact or found)[0])
    return case if case.program.main is not None else None


def differences(one: Answer, two: Answer) -> dict[str, list[str]]:
    """Rules whose status is not the same."""
    return {
        rule: [str(status), str(two.statuses.get(rule))]
        for rule, status in one.statuses.items()
        if two.statuses.get(rule) is not status
    }


def rows_of(name: str, case: Case, seed: int, shapes: list[str]) -> Iterator[dict]:
    """One row a variant of this case."""
    text = case.program.main.text if case.program.main else ""
    before = answer(with_program(case, text))
    keep = settings_names(case)
    for shape in shapes:
        started = time.process_time()
        try:
            changed = variant(text, shape, seed, keep)
        except Inapplicable as error:
            yield {"subject": name, "shape": shape, "left_out": str(error)}
            continue
        after = answer(with_program(case, changed))
        yield {
            "subject": name, "shape": shape, "before": before.verdict.value, "after": after.verdict.value,
            "rules": differences(before, after), "seconds": round(time.process_time() - started, 2),
        }  # fmt: skip


def main() -> None:
    """Make variants until there are enough, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--variants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    examples = list(example_cases())
    rng.shuffle(examples)
    rows: list[dict] = []
    out = open(options.out, "w", encoding="utf-8") if options.out else None  # noqa: SIM115 - closed at exit
    done = 0

    def take(name: str, case: Case, shapes: list[str]) -> None:
        nonlocal done
        for row in rows_of(name, case, options.seed, shapes):
            rows.append(row)
            done += "after" in row
            if out is not None:
                print(json.dumps(row), file=out, flush=True)

    for name, case in examples:
        if done >= options.variants // 3:
            break
        take(name, case, rng.sample(sorted(SHAPES), 2))
    for name, case in real_cases(options.repo, options.labels, rng):
        if done >= options.variants:
            break
        take(name, case, list(SHAPES))
    report([row for row in rows if "after" in row])


def report(rows: list[dict]) -> None:
    """Print the shares and whatever changed."""
    same = [row for row in rows if row["before"] == row["after"]]
    print(f"{len(rows)} variants of {len({row['subject'] for row in rows})} programs")
    print(f"same verdict: {len(same)} ({len(same) / max(len(rows), 1):.1%})")
    alike = sum(not row["rules"] for row in rows)
    print(f"same status of every rule: {alike} ({alike / max(len(rows), 1):.1%})")
    print(
        "verdicts: " + ", ".join(f"{name} {count}" for name, count in Counter(r["before"] for r in rows).most_common())
    )
    for shape in SHAPES:
        of_shape = [row for row in rows if row["shape"] == shape]
        kept = sum(row["before"] == row["after"] for row in of_shape)
        exact = sum(not row["rules"] for row in of_shape)
        print(f"  {shape}: {len(of_shape)} variants, {kept} with the same verdict, {exact} with the same statuses")
    for row in rows:
        if row["rules"]:
            mark = "" if row["before"] == row["after"] else f" {row['before']} -> {row['after']}"
            print(f"{row['subject']} [{row['shape']}]{mark}: {row['rules']}")


if __name__ == "__main__":
    main()
