"""Renamed and reshaped programs: does the verdict stay the same?

    python benchmarks/fuzz_variants.py --repo CLONE --labels labels.csv [--variants 500] [--seed 1] [--out rows.jsonl]
        [--seconds 500] [--only NAME,NAME]

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
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "fuzz"))

from subjects import Answer, answer, example_cases, settings_names, with_program
from variants import SHAPES, Inapplicable, variant

from auditor.case import Case
from auditor.casefile import build_case
from auditor.submission import Submission


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


def real_subjects(repo: str, labels: str, rng: random.Random) -> Iterator[tuple[str, Callable[[], Case | None]]]:
    """(pull request and label, maker of its case) of labelled submissions, a legal and an illegal one in turn."""
    with open(labels, encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["pr"].isdigit()]
    sides = [[r for r in rows if r["verdict"] == side] for side in ("LEGAL", "ILLEGAL")]
    for side in sides:
        rng.shuffle(side)
    for pair in zip(*sides, strict=False):
        for row in pair:
            yield f"#{row['pr']} {row['verdict']}", lambda row=row: labelled_case(repo, row)


def subjects(
    options: argparse.Namespace, rng: random.Random
) -> Iterator[tuple[str, Callable[[], Case | None], list[str]]]:
    """(name, maker of the case, shapes) of every program: a third are the rules' examples, the rest real ones."""
    examples = list(example_cases())
    rng.shuffle(examples)
    for name, case in examples[: options.variants // 6]:
        yield name, lambda case=case: case, rng.sample(sorted(SHAPES), 2)
    for name, make in real_subjects(options.repo, options.labels, rng):
        yield name, make, list(SHAPES)


def main() -> None:
    """Make variants until there are enough, and print what changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--variants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="", help="rows of finished programs; a later call goes on after them")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--only", default="", help="names of programs (parts of them), with commas between")
    options = parser.parse_args()
    rows = earlier_rows(options.out)
    known = {row["subject"] for row in rows}
    out = open(options.out, "a", encoding="utf-8") if options.out else None  # noqa: SIM115 - closed at exit
    started = time.monotonic()
    for name, make, shapes in subjects(options, random.Random(options.seed)):
        if sum("after" in row for row in rows) >= options.variants or time.monotonic() - started > options.seconds:
            break
        if name in known or (options.only and not any(part in name for part in options.only.split(","))):
            continue
        case = make()
        fresh = list(rows_of(name, case, options.seed, shapes)) if case is not None else []
        rows += fresh
        if out is not None:
            # A program at a time: what is in the file is whole.
            print("".join(json.dumps(row) + "\n" for row in fresh), end="", file=out, flush=True)
    report([row for row in rows if "after" in row])


def earlier_rows(path: str) -> list[dict]:
    """Rows that an interrupted call has left."""
    if not path or not Path(path).is_file():
        return []
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


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
