"""Static analysis and CPU run side by side: on how many questions they agree, and whether a difference has its reason.

python benchmarks/witness_agreement.py --repo DIR --prs 598,612 --out agreement.jsonl
python benchmarks/witness_agreement.py --repo DIR --seed 1 --count 40 --out agreement.jsonl
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import sys
from pathlib import Path

from auditor.casefile import Call
from auditor.review import Review, review_target
from auditor.targets import all_pull_requests, resolve
from auditor.timeline import Probed
from rules.agreement import AGREE, agreement


def main() -> None:
    """Review with a run, one line each, then count."""
    options = _options()
    rows = []
    for target in resolve(_names(options), options.repo):
        review = review_target(target, Call(run=True))
        row = _row(target.label, review)
        if row["status"] == "no run":
            continue
        rows.append(row)
        with options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row["pr"], row["status"], row["verdict"], row["differ"], flush=True)
        if len(rows) >= options.count:
            break
    _summary(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--prs", default="", help="comma-separated numbers instead of a random draw")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _names(options: argparse.Namespace) -> list[str]:
    if options.prs:
        return options.prs.split(",")
    names = sorted(str(name) for name in all_pull_requests(options.repo))
    random.Random(options.seed).shuffle(names)
    return names


def _row(label: str, review: Review) -> dict:
    made = review.case.facts.get("run") if review.case else None
    if made is None or made.run.status == "not run":
        return {"pr": label, "status": "no run"}
    points = agreement(review.case)
    events = made.timeline.events() if made.timeline else ()
    return {
        "pr": label,
        "status": made.run.status,
        "reason": made.run.reason[:150],
        "seconds": round(made.run.seconds, 1),
        "verdict": review.verdict.value,
        "late": made.late,
        "probes": {event.question: event.holds for event in events if isinstance(event, Probed)},
        "states": [[point.rule, point.state, point.explained] for point in points],
        "differ": [[point.rule, point.state, point.reason] for point in points if point.state != AGREE],
    }


def _summary(rows: list[dict]) -> None:
    states = collections.Counter()
    whole = 0
    compared = [row for row in rows if row["states"]]
    for row in compared:
        states.update((state, explained) for _, state, explained in row["states"])
        whole += all(state == AGREE or explained for _, state, explained in row["states"])
    print(f"runs {len(rows)}, compared {len(compared)}, agree or explained on every question {whole}", file=sys.stderr)
    for (state, explained), count in states.most_common():
        print(f"{count:5d}  {state}{'' if explained else ', no reason found'}", file=sys.stderr)


if __name__ == "__main__":
    main()
