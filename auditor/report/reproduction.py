"""The section of a report on a re-run: plots for the page, lines for Markdown and the terminal.

Drawn from `review["reproduction"]` alone (see the schema); None, or a review of an older version, has no section.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from auditor.report import plots
from auditor.report.text import clip, number

MARK = {"agrees": "agrees", "within noise": "within noise", "differs": "DIFFERS", "not measured": "not measured"}
CHECK_ROWS = 12


def drawn(section: dict[str, Any] | None) -> list[Markup]:
    """Claimed and re-run training curves over each other, and the wall clock of every seed against the budgets."""
    if not section:
        return []
    return [plot for plot in (_curves(section), _budgets(section)) if plot]


def _curves(section: dict[str, Any]) -> Markup:
    # At small scale the model is another one: its losses beside the claimed ones would mean nothing.
    curves = [curve for curve in section["curves"] if section["scale"] == "full" or not curve["claimed"]]
    if not any(not curve["claimed"] for curve in curves):
        return Markup("")
    tails = [point[1] for curve in curves for point in curve["train_loss"][len(curve["train_loss"]) // 10 :]]
    chart = plots.Chart(
        "Training loss: claimed logs and re-run" if section["scale"] == "full" else "Training loss of the rehearsal",
        "training step",
        "nats per token",
        (0, max(curve["train_loss"][-1][0] for curve in curves)),
        (min(tails), max(tails)),
    )
    for i, curve in enumerate(sorted(curves, key=lambda item: item["claimed"])):
        points = [[step, loss, 0] for step, loss in curve["train_loss"]]
        label = ("claimed: " if curve["claimed"] else "") + clip(curve["label"], 40)
        chart.line(i, points, label, "step {x}: {y} nats", marks=len(points) < 16)
    return chart.svg("")


def _budgets(section: dict[str, Any]) -> Markup:
    """Stretches of the wall clock from outside, a bar for what counts as training and one for evaluation."""
    rows = []
    for seed in section["seeds"]:
        clocks = seed["clocks"]
        for name, parts in (("train", _training(clocks)), ("eval", _evaluation(clocks))):
            if parts:
                total = sum(seconds for _, seconds in parts)
                label = f"seed {clip(str(seed['seed']), 8)}, {name}"
                kinds = ["evaluation" if name == "eval" else kind for kind, _ in parts]
                text = f"{total:,.1f} s"
                rows.append(
                    {"label": label, "claimed": False, "parts": parts, "kinds": kinds, "total": total, "text": text}
                )
    limit = section["train_limit"] or 600.0
    kinds = ("training", "after training", "evaluation")
    return plots.bars("Wall clock measured from outside", "seconds", rows, limit, f"{limit:g} s each", kinds)


def _training(clocks: dict[str, Any]) -> list[tuple[str, float]]:
    first, stop, written = (clocks.get(name) for name in ("first_step", "training_stop", "artifact_written"))
    if first is None or stop is None:
        return []
    after = [("after training", written - stop)] if written is not None and written > stop else []
    return [("training", max(stop - first, 0.0)), *after]


def _evaluation(clocks: dict[str, Any]) -> list[tuple[str, float]]:
    written, result = clocks.get("artifact_written"), clocks.get("result")
    if written is None or result is None:
        return []
    return [("evaluation", max(result - written, 0.0))]


def value(amount: float | None, unit: str) -> str:
    """A number as its unit is usually written: bytes with separators, BPB with five decimals."""
    if amount is None:
        return "–"
    if unit == "bytes":
        return f"{amount:,.0f}"
    return f"{amount:.5f}" if unit == "BPB" else f"{amount:.2g}" if unit == "logit" else number(amount, 1)


def told(section: dict[str, Any]) -> str:
    """The re-run in one sentence: what ran, on what, and what came of it."""
    seeds = section["seeds"]
    finished = sum(seed["complete"] for seed in seeds)
    scale = "full scale" if section["scale"] == "full" else "rehearsal at small scale"
    what = f"{finished} of {len(seeds)} seeds finished, {section['ranks']} processes, {scale}, {section['machine']}"
    return f"{section['verdict']}: {section['reason']} ({what})"


def checks(section: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table: what differs first, then what could not be measured, claims before prints."""
    order = ("differs", "not measured", "within noise", "agrees")
    return sorted(section["checks"], key=lambda row: (order.index(row["status"]), not row["claim"]))


def markdown(section: dict[str, Any] | None, escape: Any) -> list[str]:
    """Lines of the comment; `escape` makes untrusted text safe in a table cell."""
    if not section:
        return []
    rows = checks(section)
    lines = ["", f"### Re-run: {escape(told(section), 700)}", ""]
    lines += ["| number | of | stated | measured | result | tolerance |", "|---|---|---:|---:|---|---|"]
    for row in rows[:CHECK_ROWS]:
        cells = [escape(row["subject"], 40), escape(row["scope"], 30)]
        cells += [value(row["stated"], row["unit"]), value(row["measured"], row["unit"]), MARK[row["status"]]]
        lines.append(f"| {' | '.join(cells)} | {escape(row['source'], 120)} |")
    if len(rows) > CHECK_ROWS:
        lines += ["", f"*and {len(rows) - CHECK_ROWS} further numbers*"]
    return lines
