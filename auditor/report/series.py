"""Series for the plots, from the typed lines of the logs: what was logged, thinned for the page, nothing smoothed.

Units: steps, bits per byte, nats per token, bytes, seconds. Every point keeps the line it was read from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from auditor.case import Case
from auditor.documents.model import Claim, EvalResult, LogRun, Quantity
from auditor.report.text import number
from auditor.submission import Track

CAP_BYTES = 16_000_000  # rule PG-S-cap
BUDGET_SECONDS = 600.0  # rules PG-T-train and PG-T-eval
MAX_POINTS = 160  # points of one curve on the page; the log keeps the rest
SAME_PASS_LINES = 12  # result lines this close with the same time tell of one pass
MAX_RUNS = 12  # runs drawn; more than that no reader can tell apart

_AFTER_TRAINING = re.compile(r"hess|calib|gptq|quant|pack|compress|serial|lrzip|export|ema|swa", re.IGNORECASE)

Item = TypeVar("Item")


def series(case: Case) -> dict[str, Any]:
    """`training`, `running`, `bytes` and `time` series of a case; empty lists where nothing was logged."""
    runs = [run for run in case.runs if isinstance(run, LogRun)]
    labels = _labels(runs)
    pairs = list(zip(labels, runs, strict=True))
    return {
        "cap_bytes": CAP_BYTES,
        "budget_seconds": BUDGET_SECONDS,
        # The time budgets are the record track's (rule book, section 0); elsewhere they are only a scale.
        "budget_binds": case.submission.track in (Track.RECORD, Track.UNKNOWN),
        "claimed_bpb": _claimed(case, "val_bpb"),
        "claimed_bytes": _claimed(case, "artifact_bytes"),
        "training": [curve for label, run in pairs[:MAX_RUNS] if (curve := _training(label, run))],
        "running": [curve for label, run in pairs[:MAX_RUNS] for curve in _running(label, run)],
        "bytes": [bar for label, run in pairs if (bar := _bytes(label, run))] + _claimed_bytes(case, bool(runs)),
        "time": [bar for label, run in pairs if (bar := _time(label, run))] + _claimed_time(case),
        "runs_left_out": max(len(runs) - MAX_RUNS, 0),
    }


def thin(items: Sequence[Item], limit: int = MAX_POINTS) -> list[Item]:
    """At most `limit` items spread evenly over `items`, the first and the last always among them."""
    if len(items) <= limit:
        return list(items)
    return [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _labels(runs: list[LogRun]) -> list[str]:
    """Seed where it tells the runs apart, else the log's name and the run's place in it."""
    names = [f"seed {run.seed}" if run.seed is not None else run.path.rsplit("/", 1)[-1] for run in runs]
    labels = []
    for i, name in enumerate(names):
        same = names[: i + 1].count(name)
        labels.append(f"{name} ({same})" if names.count(name) > 1 else name)
    return labels


def _claimed(case: Case, what: str) -> dict[str, Any] | None:
    for metadata in case.metadata:
        quantity: Quantity | None = getattr(metadata, what)
        if quantity is not None and math.isfinite(quantity.value):
            return {
                "value": quantity.value,
                "text": quantity.text or number(quantity.value),
                "path": quantity.source.path,
            }
    return None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _training(label: str, run: LogRun) -> dict[str, Any] | None:
    rows = [step for step in run.steps if step.train_loss is not None or step.val_bpb is not None]
    train = [[s.step, value, s.line] for s in rows if (value := _finite(s.train_loss)) is not None]
    val = [[s.step, value, s.line] for s in rows if (value := _finite(s.val_bpb)) is not None]
    results = [
        {"label": r.label, "val_bpb": r.val_bpb, "line": r.line} for r in run.results if _finite(r.val_bpb) is not None
    ]
    if not (train or val):
        return None
    return {
        "label": label,
        "path": run.path,
        "train_loss": thin(train),
        "val_bpb": thin(val),
        "results": results[:12],
    }


def _running(label: str, run: LogRun) -> list[dict[str, Any]]:
    passes: dict[str, list[list[Any]]] = {}
    for line in run.progress:
        if _finite(line.bpb) is None:
            continue
        lines = passes.setdefault(line.label, [[]])
        if lines[-1] and line.index < lines[-1][-1].index:
            lines.append([])  # the count starts again: another pass over the stream, another curve
        lines[-1].append(line)
    named = [
        (f"{name}, pass {i}" if len(of) > 1 else name, lines)
        for name, of in passes.items()
        for i, lines in enumerate(of, 1)
        if len(lines) > 1
    ]
    found = []
    for name, lines in named[:MAX_RUNS]:
        final = [r.val_bpb for r in run.results if _finite(r.val_bpb) is not None and r.line >= lines[-1].line]
        found.append(
            {
                "label": label,
                "path": run.path,
                "name": name,
                "total": lines[-1].total,
                "bpb": thin([[line.index, line.bpb, line.line] for line in lines]),
                "final": final[0] if final else None,
            }
        )
    return found


def _bytes(label: str, run: LogRun) -> dict[str, Any] | None:
    sizes = {line.kind: line for line in run.sizes}
    model = sizes.get("model")
    code = sizes.get("code packed") or sizes.get("code")
    total = sizes.get("total")
    if not (model or total):
        return None
    parts = (model.size if model else 0) + (code.size if code else 0)
    return {
        "label": label,
        "path": run.path,
        "model": model.size if model else None,
        "code": code.size if code else None,
        "total": total.size if total else parts,
        "line": (total or model).line,
        "claimed": False,
    }


def _claimed_bytes(case: Case, runs: bool) -> list[dict[str, Any]]:
    for metadata in case.metadata:
        total = metadata.artifact_bytes
        if total is None or not math.isfinite(total.value):
            continue
        model, code = metadata.model_bytes, metadata.code_bytes
        return [
            {
                "label": "claimed",
                "path": metadata.path,
                "model": model.value if model else None,
                "code": code.value if code else None,
                "total": total.value,
                "line": total.source.line,
                "claimed": True,
            }
        ]
    return []


def _time(label: str, run: LogRun) -> dict[str, Any] | None:
    training: list[dict[str, Any]] = []
    evaluation: list[dict[str, Any]] = []
    if run.train_seconds is not None:
        training.append(_segment("training", run.train_seconds.value, run.train_seconds.source.line))
    for name, line, seconds in run.phases:
        side = training if _AFTER_TRAINING.search(name) else evaluation
        side.append(_segment(name, seconds, line))
    for result in run.results:
        if _finite(result.seconds) and not _told(evaluation, result):
            evaluation.append(_segment(result.label, result.seconds, result.line))
    training = [s for s in training if _finite(s["seconds"])]
    evaluation = [s for s in evaluation if _finite(s["seconds"])]
    if not (training or evaluation):
        return None
    return {"label": label, "path": run.path, "training": training, "evaluation": evaluation, "claimed": False}


def _told(segments: list[dict[str, Any]], result: EvalResult) -> bool:
    """Whether the time of this result was printed before: many programs print one pass as `x`, `x_exact` and `done`."""
    return any(
        abs(segment["seconds"] - result.seconds) <= 0.01 * result.seconds
        and abs((segment["line"] or 0) - result.line) <= SAME_PASS_LINES
        for segment in segments
    )


def _segment(name: str, seconds: float, line: int | None) -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "line": line}


def _claimed_time(case: Case) -> list[dict[str, Any]]:
    for metadata in case.metadata:
        train, evaluation = metadata.train_seconds, metadata.eval_seconds
        if train is None and evaluation is None:
            continue
        return [
            {
                "label": "claimed",
                "path": metadata.path,
                "claimed": True,
                "training": [_segment("training", train.value, train.source.line)] if train else [],
                "evaluation": [_segment("evaluation", evaluation.value, evaluation.source.line)] if evaluation else [],
            }
        ]
    return []


def ledger_row(claim: Claim, source: Any) -> dict[str, Any]:
    """A row of the ledger as JSON; `source` turns a `Source` into a place."""

    def quantity(item: Quantity) -> dict[str, Any]:
        value = item.value if math.isfinite(item.value) else None
        return {
            "value": value,
            "text": item.text or number(item.value),
            "key": item.source.key,
            "place": source(item.source),
        }

    computed = claim.computed if claim.computed is not None and math.isfinite(claim.computed) else None
    return {
        "subject": claim.subject,
        "scope": claim.scope,
        "unit": claim.unit,
        "status": claim.status,
        "note": claim.note,
        "claimed": [quantity(item) for item in claim.claimed],
        "evidence": [quantity(item) for item in claim.evidence],
        "computed": computed,
        "how": claim.how,
    }
