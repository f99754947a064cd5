"""Trusted score against the program's own number, on rehearsals of submissions drawn at random.

    python benchmarks/rescore_agreement.py --repo DIR --seed 1 --count 100 --out rows.jsonl

Every row is one submission run at small scale on the CPU: whether a number that it printed after it had read its artifact
back equals the trusted score to 1e-4 BPB, by which arrangement of windows and which interface, and if not, why. What
`--out` holds already is not run again; `--again TEXT` runs rows again whose outcome contains the text.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from auditor.case import Case
from auditor.casefile import Call, build_case
from auditor.errors import AuditorError
from auditor.reproduce.agreement import Agreement, agreement
from auditor.reproduce.measure import Measured
from auditor.reproduce.rehearse import rehearse
from auditor.submission import Submission
from auditor.targets import all_pull_requests

FINISHED = "the run finished"


def main() -> None:
    """Draw, rehearse one seed each, count."""
    options = _options()
    os.nice(5)
    known = _known(options)
    rows = []
    for name in _names(options):
        row = known.get(name)
        if row is None:
            row = {"pr": name, **_row(options, name)}
            print(json.dumps(row)[:400], flush=True)
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        if row["outcome"] == "no PyTorch script":
            continue
        rows.append(row)
        if sum(bool(row["finished"]) for row in rows) >= options.count:
            break
    _summary(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="submissions whose run finishes")
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU time of one rehearsal")
    parser.add_argument("--prs", default="", help="comma-separated numbers instead of a random draw")
    parser.add_argument("--again", default="", help="run rows again whose outcome contains this text")
    parser.add_argument("--keep", type=Path, help="folder for what each rehearsal printed")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _known(options: argparse.Namespace) -> dict[str, dict]:
    """Newest row of each submission, without those that are to be run again."""
    if options.out is None or not options.out.exists():
        return {}
    rows = {row["pr"]: row for row in map(json.loads, options.out.read_text().splitlines())}
    return {name: row for name, row in rows.items() if not options.again or options.again not in row["outcome"]}


def _names(options: argparse.Namespace) -> list[str]:
    if options.prs:
        return options.prs.split(",")
    names = sorted(map(str, all_pull_requests(options.repo)))
    random.Random(options.seed).shuffle(names)
    return names


def _row(options: argparse.Namespace, name: str) -> dict[str, Any]:
    begun, cpu = time.monotonic(), sum(os.times()[:4])
    try:
        submission = Submission.from_git(options.repo, int(name))[0]
        case = build_case(submission, Call(static=False))
    except (AuditorError, IndexError) as error:
        return {"outcome": "no PyTorch script", "finished": False, "why": str(error)[:200]}
    if case.program.main is None or "torch" not in case.program.main.text:
        return {"outcome": "no PyTorch script", "finished": False}
    try:
        row = _rehearsed(case, options, name)
    except AuditorError as error:
        row = {"outcome": "not planned", "finished": False, "why": str(error)[:200]}
    spent = {"seconds": round(time.monotonic() - begun, 1), "cpu": round(sum(os.times()[:4]) - cpu, 1)}
    return {**row, **spent}


def _rehearsed(case: Case, options: argparse.Namespace, name: str) -> dict[str, Any]:
    # The view inside the sandbox is put together over /tmp, so what is bound into it must lie elsewhere.
    out = Path(tempfile.mkdtemp(prefix="agreement-"))
    try:
        _, [seed] = rehearse(case, ("1",), out, cpu_seconds=options.seconds)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for kind in ("stdout", "stderr"):
                found = sorted(out.rglob(f"{kind}.log"))
                if found:
                    shutil.copyfile(found[-1], options.keep / f"{name}.{kind}.log")
        return _judged(seed)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _judged(seed: Measured) -> dict[str, Any]:
    found: Agreement = agreement(seed)
    trusted = seed.trusted or {}
    return {
        "outcome": found.outcome,
        "finished": found.finished,
        "why": found.why[:300],
        "printed": seed.results[-5:],
        "headline": seed.printed.get("val_bpb"),
        "trusted": [(item["windows"], round(item["bpb"], 6)) for item in trusted.get("scores", ())],
        "adapter": trusted.get("adapter"),
        "causality": (trusted.get("causality") or {}).get("largest_change"),
        "normalisation": (trusted.get("normalisation") or {}).get("largest_gap"),
    }


def _summary(rows: list[dict[str, Any]]) -> None:
    finished = [row for row in rows if row["finished"]]
    print(f"\n{len(rows)} submissions, {len(finished)} finished")
    for outcome, count in collections.Counter(row["outcome"] for row in finished).most_common():
        print(f"{count:4d}  {outcome}")
    for outcome, count in collections.Counter(row["outcome"] for row in rows if not row["finished"]).most_common():
        print(f"{count:4d}  not finished: {outcome}")


if __name__ == "__main__":
    main()
