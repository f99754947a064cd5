"""Rehearsals of submissions drawn at random: how often the trusted score is the printed one, and why it is not.

    python benchmarks/reproduce_rehearsal.py --repo DIR --seed 1 --count 60 --out rows.jsonl

A row agrees when a printed result after the artifact was read back equals the trusted score to 1e-4 BPB; which
arrangement of windows, which interface, and whether that result is the headline stand in the row.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from auditor.casefile import Call, build_case
from auditor.errors import AuditorError
from auditor.reproduce.compare import SCORING_TOLERANCE, reproduce
from auditor.reproduce.measure import Measured
from auditor.reproduce.plan import make_rerun_plan
from auditor.reproduce.rerun import rerun
from auditor.submission import Submission
from auditor.targets import all_pull_requests


def main() -> None:
    """Draw, rehearse one seed each, count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=3.0, help="wall time of one rehearsal")
    parser.add_argument("--prs", default="", help="comma-separated numbers instead of a random draw")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    names = options.prs.split(",") if options.prs else sorted(map(str, all_pull_requests(options.repo)))
    if not options.prs:
        random.Random(options.seed).shuffle(names)
    outcomes: collections.Counter[str] = collections.Counter()
    for name in names:
        row = rehearse(options.repo, name, options.minutes)
        if row is None:
            continue
        outcomes[row["outcome"]] += 1
        print(json.dumps(row)[:500], flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
        if sum(outcomes.values()) >= options.count:
            break
    for outcome, count in outcomes.most_common():
        print(f"{count:4d}  {outcome}")


def rehearse(repo: Path, name: str, minutes: float) -> dict[str, Any] | None:
    """One rehearsal of a pull request; None when it holds no PyTorch script."""
    begun = time.monotonic()
    out = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        submission = Submission.from_git(repo, int(name))[0]
        case = build_case(submission, Call())
        if case.program.main is None or "torch" not in case.program.main.text:
            return None
        plan = make_rerun_plan(case, ("1",), ranks=1, scale="small")
        seeds = rerun(case, plan, out, limit_minutes=minutes)
        found = reproduce(case, plan, seeds, {})
        row = {"outcome": outcome(seeds[0]), "verdict": str(found.verdict), "reason": found.reason[:300]}
        row |= {"printed": seeds[0].results[-4:], "trusted": (seeds[0].trusted or {}).get("scores")}
        row |= {"adapter": (seeds[0].trusted or {}).get("adapter"), "differs": _subjects(found.checks)}
    except (AuditorError, IndexError) as error:
        row = {"outcome": "not planned", "reason": str(error)[:200]}
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return {"pr": name, **row, "seconds": round(time.monotonic() - begun, 1)}


def _subjects(checks: list) -> list[str]:
    return [f"{check.subject}: {check.note}"[:160] for check in checks if check.status == "differs"]


def outcome(seed: Measured) -> str:
    """What the rehearsal says about the trusted score, in one phrase."""
    trusted = seed.trusted or {}
    if trusted.get("status") == "scored":
        scores = [item["bpb"] for item in trusted["scores"]]
        near = [bpb for _, bpb, _ in seed.results if min(abs(bpb - score) for score in scores) <= SCORING_TOLERANCE]
        if near and seed.printed.get("val_bpb") in near:
            return "agrees with the headline"
        if near:
            return "agrees with another printed result"
        changed = trusted.get("updates_after_load") or trusted.get("parameters_changed")
        return "scored; adapted during evaluation" if changed else "scored; no printed result is near"
    if not seed.complete or any(seed.codes):
        return "the program failed"
    return f"not scored: {trusted.get('status', 'no report')}"


if __name__ == "__main__":
    main()
