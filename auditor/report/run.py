"""The CPU run in the document: what ran, what its printed results consist of, what the probes showed, who agrees."""

from __future__ import annotations

from typing import Any

from auditor import timeline as tl
from auditor.case import Case
from auditor.findings import Witness
from auditor.report.places import Places

MAX_RESULTS = 40
MAX_SCALE = 60


def run_section(case: Case) -> dict[str, Any] | None:
    """What the CPU run has to say beside its timeline; None when no run was made."""
    from rules.order import order_of

    made = case.facts.get("run")
    if made is None:
        return None
    run = made.run
    notes = run.plan.notes if run.plan else {}
    tried = made.experiment
    timeline = case.timelines.get(Witness.RUN)
    order = order_of(timeline) if timeline else None
    return {
        "status": run.status,
        "reason": run.reason[:400],
        "seconds": round(run.seconds, 1),
        "memory_mib": run.peak_bytes >> 20,
        "attempts": run.attempts,
        "layers": sorted(str(layer) for layer in run.layers),
        "scale": [
            {"name": name, "full": str(old), "used": str(new)}
            for name, (old, new) in sorted(notes.items())
            if old != new
        ][:MAX_SCALE],
        "results": [_result(made, index) for index in range(len(made.explained.results))][-MAX_RESULTS:],
        "available": made.available,
        "counted": made.counted,
        "late": made.late,
        "repeated": order.repeated if order else 0,
        "probes": [_probe(event) for event in timeline.events() if isinstance(event, tl.Probed)] if timeline else [],
        "probes_absent": "" if tried is None else tried.absent,
        "second_run_seconds": None if tried is None else round(tried.seconds, 1),
    }


def _result(made: Any, index: int) -> dict[str, Any]:
    printed, why = made.explained.results[index]
    return {
        "label": printed.label,
        "bpb": printed.bpb,
        "loss": printed.loss,
        "headline": index == made.explained.headline,
        "text": printed.text[:200],
        "consists_of": None
        if why is None
        else {
            "scores": why.how,
            "matches": why.matched,
            "bits_apart": why.bits_apart,
            "changed_after_model": why.derived,
            "tokens": len(set(why.position.tolist())),
            "official_bpb": why.official_bpb,
        },
    }


def _probe(event: tl.Probed) -> dict[str, Any]:
    return {"question": event.question, "holds": event.holds, "doubt": event.doubt, "finding": event.finding}


def agreement_section(case: Case, places: Places) -> list[dict[str, Any]]:
    """Both witnesses' answers, question by question; empty unless both testified."""
    from rules.agreement import agreement

    def said(answer: Any) -> dict[str, Any]:
        return {
            "status": answer.status.value if answer.status is not None else None,
            "words": answer.words,
            "places": [places.place(place.path, place.line) for place in answer.places[:3]],
        }

    return [
        {
            "question": point.question,
            "rule": point.rule,
            "state": point.state,
            "reason": point.reason,
            "static": said(point.static),
            "run": said(point.run),
        }
        for point in agreement(case)
    ]


def told(review: dict[str, Any]) -> list[str]:
    """The CPU run of a document in a few lines of plain words; empty when no run was made."""
    run = review.get("run")
    if not run:
        return []
    if run["status"] != "finished":
        return [f"{run['status']}: {run['reason']}"]
    lines = []
    headline = next((result for result in run["results"] if result["headline"]), None)
    if headline is not None and headline["consists_of"] is None:
        lines.append(f"no combination of recorded losses gives the printed {headline['label']}")
    elif headline is not None:
        late = f"{run['late']:,} of them" if run["late"] else "none of them"
        lines.append(
            f"{run['counted']:,} of {run['available']:,} tokens count in {headline['label']}; {late} had shaped the model before"
        )
    lines += [f"{probe['question']}: {probe['finding']}" for probe in run["probes"]]
    if run["probes_absent"]:
        lines.append(f"not run again on another future: {run['probes_absent']}")
    points = review.get("agreement") or []
    if points:
        alike = sum(point["state"] == "agree" for point in points)
        lines.append(f"reading and running agree on {alike} of {len(points)} questions")
    lines += [
        f"they differ: {point['question']} {point['reason'] or 'no reason was found'}"
        for point in points
        if point["state"] == "disagree"
    ]
    return lines
