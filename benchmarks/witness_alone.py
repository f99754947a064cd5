"""The CPU run as the only witness: which labelled submissions its rules fail or warn about, static analysis left out.

python benchmarks/witness_alone.py --repo DIR --labels labels.csv --verdict ILLEGAL --tags order --seed 7 --count 40 --out illegal.jsonl
python benchmarks/witness_alone.py --repo DIR --labels labels.csv --verdict LEGAL --seed 7 --count 25 --out legal.jsonl
python benchmarks/witness_alone.py --repo DIR --labels labels.csv --keep KEPT --again --out illegal.jsonl   # judges what --keep kept
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import pickle
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from auditor.case import Case
from auditor.casefile import Call, build_case
from auditor.dynamic.experiment import How, experiment_with, obstacle_to, repeat
from auditor.dynamic.run import RunResult
from auditor.dynamic.streams import Future
from auditor.dynamic.witness import Testimony, from_run, testimony_of, with_experiment
from auditor.findings import Status, Witness
from auditor.judge import examine, soften_by_date
from auditor.submission import Submission
from auditor.timeline import Probed
from rules import all_rules

# Tags of the labels about order, passes, normalisation and data use.
ORDER = frozenset(
    {
        "ttt_score_after_update", "two_pass_rescoring", "oracle_selection", "target_in_key", "train_on_val", "calib_on_val",
        "train_data_at_eval", "ngram_unnormalized", "byte_mixture_unnormalized", "slot_scored_region",
        "other:update_before_score", "other:noncausal_model", "other:unnormalized_probability", "other:target_clamp",
    }
)  # fmt: skip


# Further runs by kind of stream and way of repeating.
Kept = dict[tuple[str, How], tuple[RunResult, Future]]


def main() -> None:
    """Draw, run twice, judge, count. What `--out` holds already is not run again."""
    options = _options()
    known = _known(options.out)
    rows = []
    for label in _chosen(options):
        row = known.get(label["pr"]) or _measured(options, label)
        if row is None:
            continue
        rows.append(row)
        if sum(row["status"] == "finished" for row in rows) >= options.count:
            break
    _summary(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repo", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--verdict", default="ILLEGAL", help="what the column verdict begins with")
    parser.add_argument(
        "--tags", default="", help="order: rows with a tag about order, passes or data use; or tags, comma-separated"
    )
    parser.add_argument("--ttt", action="store_true", help="rows first that adapt or cache at evaluation")
    parser.add_argument("--prs", default="", help="comma-separated numbers: these rows only")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--count", type=int, default=30, help="finished runs")
    parser.add_argument("--shard", default="0/1", help="i/n: every n-th row from the i-th on")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=Path, help="folder for what the runs recorded")
    parser.add_argument("--again", action="store_true", help="judge what --keep holds instead of running")
    return parser.parse_args()


def _known(path: Path) -> dict[str, dict]:
    if not path.exists():
        return {}
    return {row["pr"]: row for row in map(json.loads, path.read_text().splitlines())}


def _chosen(options: argparse.Namespace) -> list[dict[str, str]]:
    with options.labels.open() as file:
        rows = [
            row for row in csv.DictReader(file) if row["pr"].isdigit() and row["verdict"].startswith(options.verdict)
        ]
    if options.prs:
        return [row for row in rows if row["pr"] in options.prs.split(",")]
    tags = ORDER if options.tags == "order" else frozenset(filter(None, options.tags.split(",")))
    rows = [row for row in rows if not tags or tags & set(row["violations"].split(";"))]
    random.Random(options.seed).shuffle(rows)
    if options.ttt:
        rows.sort(key=lambda row: row["ttt_kind"] in ("", "none"))
    first, step = map(int, options.shard.split("/"))
    return rows[first::step]


def _measured(options: argparse.Namespace, label: dict[str, str]) -> dict | None:
    """The row of one label; None where there is no PyTorch script."""
    kept = options.keep / f"{label['pr']}.pkl" if options.keep else None
    if options.again and not (kept and kept.exists()):
        return None
    case = _case(options.repo, label)
    if case is None:
        return None
    if options.again:
        made, further = _reread(case, kept)
    else:
        made, further = _run(case, options.seconds)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(pickle.dumps((made.run, further)))
    row = {
        "pr": label["pr"],
        "label": f"{label['verdict']} {label['violations']}",
        **_row(made, further),
        **_judged(case, made),
    }
    print(json.dumps(row)[:600], flush=True)
    with options.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return row


def _case(repo: Path, label: dict[str, str]) -> Case | None:
    try:
        found = Submission.from_git(repo, int(label["pr"]))
        folder = str(Path(label["main_file"]).parent)
        submission = next((item for item in found if item.folder == folder), found[0])
        case = build_case(submission, Call(static=False))
    except Exception as error:  # one pull request must not end the count
        print(label["pr"], str(error)[:100], file=sys.stderr)
        return None
    return case if case.program.main is not None and "torch" in case.program.main.text else None


def _run(case: Case, seconds: float) -> tuple[Testimony, Kept]:
    made, kept = testimony_of(case, seconds=seconds), {}

    def again(future: Future, how: How) -> RunResult:
        run = repeat(case.submission, case.program, made.run, future, seconds, how)
        kept[type(future).__name__, how] = run, future
        return run

    return _with(case, made, again), kept


def _reread(case: Case, path: Path) -> tuple[Testimony, Kept]:
    """Kept runs, explained and compared by the code as it is now."""
    run, kept = pickle.loads(path.read_bytes())
    made = from_run(run, case.submission, case.program, _label(case))

    def again(future: Future, how: How) -> RunResult:
        if (type(future).__name__, how) not in kept:
            return RunResult("not run", "no such run was kept")
        run, then = kept[type(future).__name__, how]
        vars(future).update(vars(then))
        return run

    return _with(case, made, again), kept


def _label(case: Case) -> str:
    claim = next(iter(case.headline.reported.values()), None) if case.headline is not None else None
    return getattr(claim.result, "label", "") if claim is not None else ""


def _with(case: Case, made: Testimony, again: Callable[[Future, How], RunResult]) -> Testimony:
    claim = made.explained.claim
    if made.timeline is None or obstacle_to(made.run, claim):
        return made
    tried = experiment_with(again, made.run, claim, case.program, made.late)
    return with_experiment(made, tried, case.submission, case.program)


def _judged(case: Case, made: Testimony) -> dict:
    """Rules that fail or warn by what this witness says: static analysis was not asked, and the documents are put away."""
    if made.timeline is None:
        return {}
    bare = replace(case, logs=[], readme=None, headline=None, ledger=[], forensics=[])
    bare.timelines = {Witness.RUN: made.timeline}
    findings = [soften_by_date(examine(rule, bare), rule, bare) for rule in all_rules()]
    said = [finding for finding in findings if finding.witness is Witness.RUN]
    return {
        name: {finding.rule: finding.summary[:200] for finding in said if finding.status is status}
        for name, status in (("failed", Status.FAIL), ("warned", Status.WARN))
    }


def _row(made: Testimony, further: Kept) -> dict:
    claim, why, tried = made.headline, made.attribution, made.experiment
    fair = tried.fair if tried else None
    status = made.run.status if claim or made.run.status != "finished" else "printed no score"
    return {
        "status": status,
        "reason": made.run.reason[:200],
        "cpu": [round(made.run.cpu_seconds, 1), *(round(run.cpu_seconds, 1) for run, _ in further.values())],
        "headline": claim.text[:90] if claim else "",
        "explained": why.words if why else "",
        "derived": bool(why and why.derived),
        "late": made.late,
        "absent": tried.absent if tried else "not repeated",
        "bet": {
            "tokens": fair.tokens, "loss": round(fair.loss, 1), "cost": round(fair.chance, 1), "evidence": round(fair.evidence, 1),
            "mass": fair.mass,
        } if fair else None,
        "printed": [round(tried.total, 1), round(tried.chance, 1)] if tried and tried.printed else None,
        "probed": {e.question: [e.holds, e.doubt] for e in made.timeline.events() if isinstance(e, Probed)} if made.timeline else {},
    }  # fmt: skip


def _summary(rows: list[dict]) -> None:
    finished = [row for row in rows if row["status"] == "finished"]
    failed = [row for row in finished if row.get("failed")]
    warned = [row for row in finished if row.get("warned") and not row.get("failed")]
    print(
        f"rows {len(rows)}, finished {len(finished)}, failed {len(failed)}, only warned {len(warned)}", file=sys.stderr
    )
    reasons = collections.Counter(row["reason"][:80] or row["status"] for row in rows if row not in finished)
    for reason, count in reasons.most_common():
        print(f"{count:4d}  {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
