"""CPU runs of submissions drawn at random: how many reach their headline, how many are explained, and why not.

python benchmarks/cpu_run.py --repo DIR --seed 1 --count 150 --out runs.jsonl
python benchmarks/cpu_run.py --repo DIR --seed 2 --count 40 --without runs.jsonl --out fresh.jsonl
python benchmarks/cpu_run.py --repo DIR --labels labels.csv --out labels.jsonl
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import pickle
import random
import sys
from pathlib import Path

from auditor.case import Case
from auditor.casefile import Call, build_case
from auditor.dynamic.witness import Testimony, testimony_of
from auditor.findings import Status, Witness
from auditor.judge import examine, soften_by_date
from auditor.submission import Submission
from auditor.targets import all_pull_requests
from rules import all_rules
from rules.order import order_of

LIMIT = 60.0  # CPU seconds
NO_SCRIPT = "no PyTorch script"


def main() -> None:
    """Draw, run, count. What `--out` holds already is not run again."""
    options = _options()
    known = _known(options.out)
    rows = []
    for name, folder, label in _chosen(options):
        row = known.get((name, label))
        if row is None:
            row = {"pr": name, "label": label, **_run(options, name, folder)}
            print(json.dumps(row)[:400], flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        if row["status"] == NO_SCRIPT:
            continue
        rows.append(row)
        if len(rows) >= options.count:
            break
    _summary(rows)


def _known(path: Path | None) -> dict[tuple[str, str], dict]:
    if path is None or not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {(row["pr"], row["label"]): row for row in rows}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--labels", type=Path, help="CSV with columns pr, main_file, verdict, violations")
    parser.add_argument("--pick", default="", help="only label rows with this text in ;verdict;violations;")
    parser.add_argument("--prs", default="", help="comma-separated numbers instead of a random draw")
    parser.add_argument(
        "--without", type=Path, action="append", default=[], help="rows of earlier draws, not drawn again"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for what each run recorded, to look into later")
    return parser.parse_args()


def _chosen(options: argparse.Namespace) -> list[tuple[str, str, str]]:
    if options.prs:
        return [(name, "", "") for name in options.prs.split(",")]
    if options.labels:
        with options.labels.open() as file:
            rows = [row for row in csv.DictReader(file) if row["pr"].isdigit()]
        rows = [row for row in rows if options.pick in f";{row['verdict']};{row['violations']};"]
        random.Random(options.seed).shuffle(rows)
        return [
            (row["pr"], str(Path(row["main_file"]).parent), f"{row['verdict']} {row['violations']}")
            for row in rows[options.skip :]
        ]
    names = sorted(all_pull_requests(options.repo), key=str)
    random.Random(options.seed).shuffle(names)
    seen = {name for path in options.without for name, _ in _known(path)}
    return [(str(name), "", "") for name in names[options.skip :] if str(name) not in seen]


def _run(options: argparse.Namespace, name: str, folder: str) -> dict:
    try:
        found = Submission.from_git(options.repo, int(name))
        submission = next((item for item in found if item.folder == folder), found[0])
        if submission.main_script is None:
            return {"status": NO_SCRIPT}
        case = build_case(submission, Call(static=False))
    except Exception as error:  # one pull request must not end the count
        return {"status": NO_SCRIPT, "reason": str(error)[:100]}
    if case.program.main is None or "torch" not in case.program.main.text:
        return {"status": NO_SCRIPT}
    made = testimony_of(case, seconds=options.seconds)
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / f"{name}.pkl").write_bytes(pickle.dumps(made.run))
    return {**_row(made), **_judged(case, made)}


def _judged(case: Case, made: Testimony) -> dict:
    """Rules that fail by what this witness says alone; static analysis was not asked."""
    if made.timeline is None:
        return {}
    case.timelines[Witness.RUN] = made.timeline
    findings = [soften_by_date(examine(rule, case), rule, case) for rule in all_rules()]
    said = [finding for finding in findings if finding.witness is Witness.RUN]
    return {
        name: sorted(finding.rule for finding in said if finding.status is status)
        for name, status in (("failed", Status.FAIL), ("warned", Status.WARN))
    }


def _row(made: Testimony) -> dict:
    claim, why = made.headline, made.attribution
    order = order_of(made.timeline) if made.timeline else None
    return {
        "status": made.run.status,
        "reason": made.run.reason[:200] or ("" if claim else "ended without printing a score"),
        "seconds": round(made.run.seconds, 1),
        "cpu": round(made.run.cpu_seconds, 1),
        "attempts": made.run.attempts,
        "cpu_total": round(made.run.cpu_total, 1),
        "conditions": made.run.plan.conditions if made.run.plan else "",
        "peak_mib": made.run.peak_bytes >> 20,
        "headline": claim.text[:90] if claim else "",
        "explained": why.words if why else "",
        "error": float(f"{why.error:.1e}") if why else None,
        "derived": bool(why and why.derived),
        "counted": made.counted,
        "available": made.available,
        "late": made.late,
        "late_by_order": order.late if order else 0,
        "repeated": made.repeated,
        "nowhere": made.run.nowhere,
    }


def _summary(rows: list[dict]) -> None:
    finished = [row for row in rows if row["status"] == "finished" and row["headline"] and _total(row) <= LIMIT]
    explained = [row for row in finished if row["explained"] and "apart" not in row["explained"]]
    nowhere = [row for row in rows if row not in finished and row.get("nowhere")]
    print(f"runs {len(rows)}, reached a headline {len(finished)}, explained {len(explained)}", file=sys.stderr)
    able = len(rows) - len(nowhere)
    print(
        f"cannot run anywhere as submitted {len(nowhere)}; of the other {able} reached it {len(finished)}",
        file=sys.stderr,
    )
    for row in nowhere:
        print(f"      #{row['pr']}: {row['nowhere']}", file=sys.stderr)
    if finished:
        cpu, memory = sorted(_total(row) for row in finished), sorted(row["peak_mib"] for row in finished)
        for name, values in (("CPU seconds of all attempts", cpu), ("peak memory, MiB", memory)):
            median, high = values[len(values) // 2], values[min(int(0.9 * len(values)), len(values) - 1)]
            print(f"{name}: median {median}, p90 {high}, max {values[-1]}", file=sys.stderr)
    late = [row["pr"] for row in rows if row["status"] == "finished" and row["headline"] and _total(row) > LIMIT]
    print(f"reached it only in further attempts, over the limit together: {late}", file=sys.stderr)
    reasons = collections.Counter(
        row["reason"][:70] or "no result printed"
        for row in rows
        if row not in finished and row not in nowhere and row["pr"] not in late
    )
    for reason, count in reasons.most_common():
        print(f"{count:4d}  {reason}", file=sys.stderr)


def _total(row: dict) -> float:
    """CPU seconds of all attempts; rows of older runs know the last one only."""
    return row.get("cpu_total") or row["cpu"]


if __name__ == "__main__":
    main()
