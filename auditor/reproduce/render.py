"""The section of the report as Markdown: verdict, measured against stated, budgets, what each seed left behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from auditor.report.markdown import text as markdown_text
from auditor.reproduce.checks import Check
from auditor.reproduce.compare import Reproduction

_MARK = {"agrees": "ok", "within noise": "within noise", "differs": "**DIFFERS**", "not measured": "not measured"}


def markdown(found: Reproduction) -> str:
    """The whole section; text that came from the submission is escaped."""
    return "\n".join(_lines(found)) + "\n"


def _lines(found: Reproduction) -> Iterator[str]:
    plan = found.plan
    yield f"## Reproduction: {found.verdict}"
    yield ""
    yield markdown_text(found.reason)
    yield ""
    what = "rehearsal on a CPU, scaled down" if plan["scale"] == "small" else f"full scale on {plan['gpus']} GPUs"
    yield f"Seeds {', '.join(map(markdown_text, plan['seeds']))}; {plan['ranks']} process(es); {what}."
    for note in plan["notes"]:
        yield f"- {markdown_text(note)}"
    yield from _checks(found.checks)
    yield from _statistics(found.statistics)
    if found.comparable:
        yield from _curves(found)
    yield from _budgets(found.seeds)
    yield from _ran(found.seeds)


def _checks(checks: list[Check]) -> Iterator[str]:
    if not checks:
        return
    yield ""
    yield "### Stated and measured"
    yield ""
    yield "| number | of | stated | measured | result | tolerance and its source |"
    yield "|---|---|---:|---:|---|---|"
    for check in checks:
        cells = (check.subject, check.scope, number(check.stated, check.unit), number(check.measured, check.unit))
        tolerance = f"{number(check.tolerance, check.unit)} {check.unit}; {check.source}"
        yield f"| {' | '.join(map(markdown_text, cells))} | {_MARK[check.status]} | {markdown_text(tolerance)} |"
    for check in checks:
        if check.status in ("differs", "not measured"):
            yield ""
            yield f"- {markdown_text(check.scope)}, {check.subject}: {markdown_text(check.note)} ({check.rule})"


def number(value: float | None, unit: str) -> str:
    """A number as its unit is usually written: bytes with separators, BPB with five decimals."""
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value:,.0f}"
    return f"{value:.5f}" if unit == "BPB" else f"{value:.3g}" if unit == "logit" else f"{value:.1f}"


def _statistics(found: dict[str, Any]) -> Iterator[str]:
    if not found:
        return
    ours = found["re_run"]
    yield ""
    yield "### Statistics"
    yield ""
    spread = f", SD {ours['sd_sample']:.5f}" if ours["sd_sample"] is not None else ""
    interval = f", 95 % interval {ours['ci'][0]:.5f} to {ours['ci'][1]:.5f}" if ours["ci"] else ""
    yield f"Mean {ours['mean']:.5f} BPB over {ours['n']} seed(s){spread}{interval}."
    test = found.get("against_claim")
    if test and test["p"] is not None:
        yield f"{test['kind']} test that the re-run is worse than the claim: p = {test['p']:.3g}."
    if found.get("detectable_difference") is not None:
        yield f"Smallest difference these seeds could show at p < 0.01: {found['detectable_difference']:.5f} BPB."
    if found.get("against_record"):
        yield markdown_text(found["against_record"]["text"])


def _curves(found: Reproduction) -> Iterator[str]:
    """Training loss of the claimed logs and of the re-run at the steps both print, at most a dozen of them."""
    claimed = {name: dict(curve) for name, curve in found.claimed_curves.items() if curve}
    ours = {f"re-run seed {seed['seed']}": dict(seed["curve"]) for seed in found.seeds if seed["curve"]}
    if not claimed or not ours:
        return
    columns = {**claimed, **ours}
    common = sorted(set.intersection(*(set(curve) for curve in columns.values())))
    chosen = common[:: max(len(common) // 12, 1)]
    if not chosen:
        return
    yield ""
    yield "### Training loss, claimed logs and re-run (nats per token)"
    yield ""
    yield "| step | " + " | ".join(markdown_text(name) for name in columns) + " |"
    yield "|---:|" + "---:|" * len(columns)
    for step in chosen:
        yield f"| {step} | " + " | ".join(f"{curve[step]:.4f}" for curve in columns.values()) + " |"


def _budgets(seeds: list[dict[str, Any]]) -> Iterator[str]:
    """Wall clock from outside, seconds since the processes were started."""
    yield ""
    yield "### Wall clock from outside (seconds since start)"
    yield ""
    names = ("first_output", "first_step", "training_stop", "last_train_read", "artifact_written", "result", "end")
    yield "| seed | " + " | ".join(name.replace("_", " ") for name in names) + " |"
    yield "|---|" + "---:|" * len(names)
    for seed in seeds:
        cells = [f"{seed['clocks'][name]:.1f}" if seed["clocks"][name] is not None else "-" for name in names]
        yield f"| {markdown_text(seed['seed'])} | " + " | ".join(cells) + " |"


def _ran(seeds: list[dict[str, Any]]) -> Iterator[str]:
    yield ""
    for seed in seeds:
        parts = [f"seed {markdown_text(seed['seed'])}"]
        parts.append("ended by itself" if seed["complete"] else "cut short")
        if seed["reason"]:
            parts.append(markdown_text(seed["reason"]))
        if seed["artifact"]:
            item = seed["artifact"]
            parts.append(f"artifact {markdown_text(item['path'])}, {item['bytes']:,} bytes, {item['how']}")
        parts.append(f"peak memory {seed['peak_bytes'] / 2**20:,.0f} MiB")
        for name, values in seed["gpu"].items():
            parts.append(f"GPU {name} mean {values['mean']}, max {values['max']}")
        parts.append("sandbox layers: " + ", ".join(seed["layers"]))
        yield "- " + "; ".join(parts)
