"""Legal programs made illegal by one edit: are they caught, and does the evidence show the edited line?

    python benchmarks/mutants.py --repo CLONE --labels labels.csv [--mutants 300] [--seed 1] [--out rows.jsonl]
                                 [--seconds 500]

With `--seconds` it stops after that time; the next call with the same `--out` goes on where it stopped.

Takes the legal examples of the rules and real submissions labelled legal, applies every edit of
`tests/fuzz/spoiling.py` that finds a place, and reviews the result beside the unchanged documents. A mutant is caught
when a rule that names the breach fails or warns although it did not before, and the review is not clean. Nothing is
executed and nothing of a submission is kept.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "fuzz"))

from edits import EDITS, LOG_IS_ANOTHERS, spoilt
from fuzz_variants import labelled_case
from spoiling import Inapplicable, sites_of
from subjects import answer, caught_by, example_cases, with_program

from auditor.case import Case
from auditor.findings import Verdict


def legal_cases(repo: str, labels: str, rng: random.Random) -> Iterator[tuple[str, Callable[[], Case | None]]]:
    """(name, maker of the case): labelled legal submissions and legal examples in turn, then more submissions."""
    with open(labels, encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["pr"].isdigit() and row["verdict"] == "LEGAL"]
    rng.shuffle(rows)
    # Those that learn during evaluation have the most ways to go wrong: every other one is of them.
    learning = [row for row in rows if row["ttt_kind"] not in ("", "none")]
    still = [row for row in rows if row["ttt_kind"] in ("", "none")]
    examples = (each for each in example_cases() if " legal: " in each[0])
    for pair in zip_longest(learning, still):
        for row in pair:
            if row is not None:
                yield f"#{row['pr']}", partial(labelled_case, repo, row)
        for name, case in islice(examples, 1):
            yield name, lambda case=case: case


def rows_of(name: str, case: Case, seed: int) -> Iterator[dict]:
    """One row a mutant of this case."""
    try:
        plain, sites = sites_of(case)
    except Inapplicable as error:
        yield {"subject": name, "left_out": str(error)}
        return
    before = answer(plain)
    unlogged = answer(with_program(case, sites.text, silent=True))
    if before.verdict is Verdict.VIOLATION:
        yield {"subject": name, "left_out": "called a violation as it is"}
        return
    for edit, (_, expected) in EDITS.items():
        try:
            text, lines = spoilt(sites, edit, seed)
        except Inapplicable as error:
            yield {"subject": name, "edit": edit, "left_out": str(error)}
            continue
        silent = edit in LOG_IS_ANOTHERS
        after = answer(with_program(case, text, silent))
        caught, shown = caught_by(unlogged if silent else before, after, expected, lines)
        yield {
            "subject": name, "edit": edit, "before": before.verdict.value, "after": after.verdict.value,
            "caught": sorted(caught), "shown": shown, "lines": sorted(lines)[:12],
        }  # fmt: skip


def main() -> None:
    """Make mutants until there are enough, and print which were missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", required=True)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default="")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows = earlier_rows(options.out)
    known = {row["subject"] for row in rows}
    out = open(options.out, "a", encoding="utf-8") if options.out else None  # noqa: SIM115 - closed at exit
    started = time.monotonic()
    for name, make in legal_cases(options.repo, options.labels, rng):
        if sum("after" in row for row in rows) >= options.mutants or time.monotonic() - started > options.seconds:
            break
        case = make() if name not in known else None
        if case is None:
            continue
        fresh = list(rows_of(name, case, options.seed))
        rows += fresh
        if out is not None:
            # A subject at a time: what is in the file is whole.
            print("".join(json.dumps(row) + "\n" for row in fresh), end="", file=out, flush=True)
    report([row for row in rows if "after" in row])


def earlier_rows(path: str) -> list[dict]:
    """Rows that an interrupted call has left."""
    if not path or not Path(path).is_file():
        return []
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def report(rows: list[dict]) -> None:
    """Print the shares by edit and every mutant that was missed."""
    total = max(len(rows), 1)
    caught = [row for row in rows if row["caught"]]
    shown = [row for row in caught if row["shown"]]
    print(f"{len(rows)} mutants of {len({row['subject'] for row in rows})} programs")
    print(f"caught: {len(caught)} ({len(caught) / total:.1%}), with the edited line in the evidence: {len(shown)} "
          f"({len(shown) / total:.1%})")  # fmt: skip
    for edit in EDITS:
        of_edit = [row for row in rows if row["edit"] == edit]
        hit, seen = sum(bool(r["caught"]) for r in of_edit), sum(bool(r["caught"]) and r["shown"] for r in of_edit)
        print(f"  {edit}: {len(of_edit)} mutants, {hit} caught, {seen} with the line")
    for row in rows:
        if not row["caught"] or not row["shown"]:
            what = "missed" if not row["caught"] else "line not shown"
            print(f"{what}: {row['subject']} [{row['edit']}] {row['before']} -> {row['after']} lines {row['lines']}")


if __name__ == "__main__":
    main()
