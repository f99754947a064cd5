"""Whole rehearsals of pull requests: plan, seeds, ranks, trusted scoring, statistics, report; how long each takes.

    python benchmarks/reproduce_rehearsal.py --repo DIR --prs 598,612 --seeds 42,314,2025 --ranks 2 --out rows.jsonl

Wall time depends on what else the machine does; CPU time of all processes stands beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from auditor.casefile import Call, build_case
from auditor.errors import AuditorError
from auditor.reproduce.compare import reproduce
from auditor.reproduce.rehearse import rehearse
from auditor.reproduce.render import markdown
from auditor.submission import Submission


def main() -> None:
    """Rehearse every pull request named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--prs", required=True, help="numbers, separated by commas")
    parser.add_argument("--seeds", default="42,314,2025")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=10.0, help="wall time of one seed")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    for name in options.prs.split(","):
        row = {"pr": name, **_rehearsed(options, name)}
        print(json.dumps(row), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _rehearsed(options: argparse.Namespace, name: str) -> dict[str, Any]:
    begun = time.monotonic()
    out = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        case = build_case(Submission.from_git(options.repo, int(name))[0], Call())
        seeds = tuple(options.seeds.split(","))
        plan, measured = rehearse(case, seeds, out, ranks=options.ranks, limit_minutes=options.minutes)
        found = reproduce(case, plan, measured, {})
        report = markdown(found)
    except (AuditorError, IndexError) as error:
        return {"verdict": "not planned", "reason": str(error)[:300]}
    finally:
        shutil.rmtree(out, ignore_errors=True)
    checks = [(check.scope, check.subject, check.status) for check in found.checks]
    return {
        "verdict": str(found.verdict),
        "reason": found.reason[:300],
        "seeds": [(seed.seed, seed.printed.get("val_bpb"), seed.cpu_seconds, seed.clocks.end) for seed in measured],
        "checks": len(checks),
        "not_agreeing": [check for check in checks if check[2] != "agrees"],
        "report_lines": report.count("\n"),
        "cpu_seconds": round(sum(seed.cpu_seconds for seed in measured), 1),
        "seconds": round(time.monotonic() - begun, 1),
    }


if __name__ == "__main__":
    main()
