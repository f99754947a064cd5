"""Whether the trusted score is a number that the program printed, and if not, why: one word for a table, one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from auditor.reproduce.measure import Measured

#: Trusted scoring and the program's own sum differ by rounding and the order of windows only.
SCORING_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """Trusted score beside the printed ones.

    Attributes:
        outcome: "headline", "another printed result", or what stands in the way, fit for counting.
        finished: whether the program came to its end and printed a result. why: the numbers, one sentence.
    """

    outcome: str
    finished: bool
    why: str = ""


def tolerance_of(digits: int) -> float:
    """BPB by which a printed number of so many digits may differ from the score it rounds."""
    return max(SCORING_TOLERANCE, 0.5 * 10.0**-digits)


def agreement(seed: Measured) -> Agreement:
    """Compare what a run printed after it read its artifact back with the trusted scores."""
    trusted = seed.trusted or {}
    if not seed.complete or any(seed.codes):
        return Agreement("the program failed", False, seed.reason)
    if not seed.results:
        return Agreement("no result was printed", False, seed.reason)
    if trusted.get("status") != "scored":
        return Agreement(f"not scored: {trusted.get('status', 'no report')}", True, trusted.get("reason", ""))
    headline = seed.printed.get("val_bpb")
    scores = trusted_scores(trusted)
    allowed = tolerance_of(int(seed.printed.get("digits") or 4))
    if headline is not None:
        name, bpb = min(scores.items(), key=lambda item: abs(item[1] - headline))
        numbers = f"printed {headline:.5f}, trusted {bpb:.5f} ({name})"
        if abs(bpb - headline) <= allowed:
            return Agreement("headline", True, numbers)
    for label, printed, _ in reversed(seed.results):
        name, bpb = min(scores.items(), key=lambda item: abs(item[1] - printed))
        if abs(bpb - printed) <= allowed:
            also = f"; the headline {headline:.5f} is not, because {why_not(trusted)}" if headline is not None else ""
            return Agreement("another printed result", True, f"{label} {printed:.5f} is {name}{also}")
    changed = trusted.get("updates_after_load") or trusted.get("parameters_changed")
    last = ", ".join(f"{label} {bpb:.5f}" for label, bpb, _ in seed.results[-3:])
    kind = "adapted during evaluation" if changed else "no printed result is near"
    return Agreement(kind, True, f"printed {last}; trusted {_listed(scores)}; {why_not(trusted)}")


def why_not(trusted: dict[str, Any]) -> str:
    """Why a printed score is none of the trusted ones, as far as the trusted loop can tell; a clause."""
    followed = trusted.get("followed") or {}
    refused = sum(item["refused"] for item in followed.get("passes", ()))
    if refused:
        return f"{refused} of its updates are on tokens that were not scored by then, which the trusted loop refuses"
    if any(not item["fresh"] for item in followed.get("passes", ())):
        return (
            "a pass begins with weights that an earlier pass trained on the same tokens, which the trusted loop refuses"
        )
    if followed.get("obstacle"):
        return str(followed["obstacle"])
    if trusted.get("updates_after_load") or trusted.get("parameters_changed"):
        return "the trusted loop does not come to the printed score when it repeats the updates"
    return "something beside the model takes part in it (counts of tokens, a temperature, a bias), or its windows are others"


def trusted_scores(trusted: dict[str, Any]) -> dict[str, float]:
    """Every score the trusted loop took, bits per byte by the words that say how.

    A repeated pass stands for what was printed only when it began with the weights of the artifact, reached every position,
    and no update had to be refused.
    """
    scores = {item["windows"]: item["bpb"] for item in trusted.get("scores", ())}
    for item in (trusted.get("followed") or {}).get("passes", ()):
        if not item["fresh"] or item["refused"] or item["covered"] < item["positions"]:
            continue
        updates = f", {item['updates']} updates" if item["updates"] else ""
        for found in item["scores"]:
            scores[f"pass {item['pass']} repeated{updates}, {found['windows']}"] = found["bpb"]
    return scores


def _listed(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {bpb:.5f}" for name, bpb in scores.items())
