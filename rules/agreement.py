"""Static and executed timeline side by side: question by question, what each says, and why they differ.

Where both answer alike there is nothing to explain. Where one could not see, the reason is what it could not follow or
never came to. Where they contradict each other the branch that only one of them took is looked for: what reading sees under
an undecided condition and the run never did is a matter of that condition, and a condition on the machine is told as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from auditor.case import Case
from auditor.findings import Finding, Status, Witness
from auditor.timeline import (
    Branch,
    Calibrate,
    Call,
    Loop,
    Node,
    Place,
    Probed,
    Report,
    Score,
    Sequence,
    Serialize,
    Split,
    Timeline,
    Unknown,
    Update,
)
from rules.events import may_idle
from rules.order import counted_once, score_before_update, untouched_before_export

AGREE, DISAGREE = "agree", "disagree"
ONLY_STATIC, ONLY_RUN, NEITHER = "only static analysis could see", "only the run could see", "neither could see"


@dataclass(frozen=True)
class Said:
    """A witness's answer: status None when it could not see, and what it says (or why not) in words."""

    status: Status | None
    words: str
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class Point:
    """One question put to both witnesses.

    Attributes:
        question: in words. rule: the rule that asks it.
        state: one of AGREE, DISAGREE, ONLY_STATIC, ONLY_RUN, NEITHER.
        reason: why they differ or why one could not see, "" when they agree; explained: a difference has its reason.
        machine: the difference hangs on a condition that asks what machine the program runs on.
    """

    question: str
    rule: str
    static: Said
    run: Said
    state: str
    reason: str = ""
    explained: bool = True
    machine: bool = False


def agreement(case: Case) -> list[Point]:
    """Every question with both answers; empty unless both witnesses testified. Computed once a case."""
    if Witness.RUN not in case.timelines or Witness.STATIC not in case.timelines:
        return []
    if "agreement" not in case.facts:
        case.facts["agreement"] = [_point(case, *question) for question in _questions()]
    return case.facts["agreement"]


def _questions() -> Iterator[tuple[str, str, Callable[[Case], Said], Callable[[Case], Said]]]:
    yield (
        "was every counted token scored before it changed the model?",
        "PG-C3-score-first", _static_answer("PG-C3-score-first", "PG-C3-multi-epoch", "PG-C3-prequant-ttt"),
        _from_order(score_before_update),
    )  # fmt: skip
    yield (
        "does every token count once, in one pass?",
        "PG-C4-single-pass", _static_passes, _run_passes,
    )  # fmt: skip
    yield (
        "do no validation tokens train the model before the artifact is written?",
        "PG-D-val-in-train", _static_answer("PG-D-val-in-train", "PG-C3-prequant-ttt"),
        _from_order(untouched_before_export),
    )  # fmt: skip
    yield "was the artifact read back before the headline?", "PG-B-from-artifact", _static_artifact, _run_artifact
    yield "is no validation token used for calibration?", "PG-D-gptq-calibration", _static_calibration, _run_calibration
    yield (
        "is each token scored from one distribution?",
        "PG-C2-normalisation", _static_answer("PG-C2-normalisation", "PG-C2-hashed-ngram-cache"), _run_distribution,
    )  # fmt: skip
    yield "are the bytes those of the official look-up?", "PG-B-bpb-formula", _static_bytes, _run_bytes


def _point(case: Case, question: str, rule: str, static: Callable[[Case], Said], run: Callable[[Case], Said]) -> Point:
    one, other = static(case), run(case)
    if one.status is None or other.status is None:
        both = {(False, True): ONLY_RUN, (True, False): ONLY_STATIC, (False, False): NEITHER}
        state = both[one.status is not None, other.status is not None]
        blind = [said.words for said in (one, other) if said.status is None]
        return Point(question, rule, one, other, state, "; ".join(blind), explained=all(blind))
    if (one.status is Status.PASS) == (other.status is Status.PASS):
        return Point(question, rule, one, other, AGREE)
    reason, machine = _why(case, rule, one, other)
    return Point(question, rule, one, other, DISAGREE, reason, bool(reason), machine)


# -- what static analysis says -----------------------------------------------------------------------------------------


def _static_answer(*names: str) -> Callable[[Case], Said]:
    """The gravest answer to several rules; a pass only where the first one passes."""

    def answer(case: Case) -> Said:
        answers = getattr(case.facts.get("static"), "answers", {})
        found = [answers[name] for name in names if name in answers]
        bad = [verdict for verdict in found if verdict.status in (Status.FAIL, Status.WARN)]
        if bad:
            worst = next((v for v in bad if v.status is Status.FAIL), bad[0])
            return Said(worst.status, worst.summary, tuple(place for place, _ in worst.chain))
        if names[0] in answers and answers[names[0]].status is Status.PASS:
            verdict = answers[names[0]]
            return Said(Status.PASS, verdict.summary, tuple(place for place, _ in verdict.chain))
        return Said(None, _blind(case))

    return answer


def _static_passes(case: Case) -> Said:
    """How often a token counts and whether a loss is chosen; scores after training are told by the first question."""
    found = _static_answer("PG-C4-single-pass")(case)
    headline = [e for e in case.timelines[Witness.STATIC].events() if isinstance(e, Report) and e.headline]
    chosen = any(report.choices for report in headline)
    if found.status is not Status.FAIL or chosen:
        return found
    if any(report.counts for report in headline):
        return Said(None, "reading tells it of a table of counts, which the run answers under another question")
    return Said(None, "reading tells it of scores after training, which is the first question")


def _blind(case: Case) -> str:
    """Why static analysis could not answer."""
    unknown = [e for e in case.timelines[Witness.STATIC].events() if isinstance(e, Unknown)]
    if unknown:
        first = unknown[0]
        return (
            f"reading could not follow {first.place.path.rsplit('/', 1)[-1]}:{first.place.line}: {first.reason[:120]}"
        )
    return "reading did not trace the claimed number to its scores"


def _static_artifact(case: Case) -> Said:
    scores = [e for e in case.timelines[Witness.STATIC].events() if isinstance(e, Score) and e.counted]
    known = [score for score in scores if score.from_artifact is not None]
    if not known:
        return Said(None, _blind(case))
    places = tuple(score.place for score in known[:2])
    if all(score.from_artifact for score in known):
        return Said(Status.PASS, "the parameters that score the headline come from the artifact", places)
    return Said(Status.WARN, "nothing shows that the scoring parameters come from the artifact", places)


def _static_calibration(case: Case) -> Said:
    verdict = getattr(case.facts.get("static"), "answers", {}).get("PG-D-gptq-calibration")
    if verdict is not None and verdict.status is Status.FAIL:
        return Said(Status.FAIL, verdict.summary, tuple(place for place, _ in verdict.chain))
    events = [e for e in case.timelines[Witness.STATIC].events() if isinstance(e, Calibrate)]
    if any(event.span.split in (Split.UNKNOWN, Split.OTHER) for event in events):
        return Said(None, "reading could not tell what the quantiser is calibrated on")
    if not any(isinstance(e, Report) and e.headline for e in case.timelines[Witness.STATIC].events()):
        return Said(None, _blind(case))
    return Said(Status.PASS, "no validation token reaches the quantiser")


def _static_bytes(case: Case) -> Said:
    table: Any = case.facts.get("byte_table")
    if table is None or table.status not in ("correct", "wrong"):
        return Said(None, getattr(table, "reason", "") or "the byte count could not be evaluated by reading")
    places = tuple(Place(p.path, p.line) for p in table.places[:3])
    return Said(Status.PASS if table.status == "correct" else Status.FAIL, table.reason, places)


# -- what the run says ---------------------------------------------------------------------------------------------------


def _unattributed(case: Case) -> str:
    unknown = [e for e in case.timelines[Witness.RUN].events() if isinstance(e, Unknown)]
    return f"the run could not tell: {unknown[0].reason}" if unknown else ""


def _from_order(read: Callable[[Timeline], Finding | None]) -> Callable[[Case], Said]:
    def answer(case: Case) -> Said:
        found = read(case.timelines[Witness.RUN])
        if found is None:
            return Said(None, _unattributed(case) or "the run counted no token whose position is known")
        return Said(found.status, found.summary, tuple(Place(e.path, e.line or 1) for e in found.evidence))

    return answer


def _run_passes(case: Case) -> Said:
    found = _from_order(counted_once)(case)
    attribution = getattr(case.facts.get("run"), "attribution", None)
    if found.status is Status.PASS and attribution is not None and attribution.how == "min":
        return Said(Status.FAIL, "the smallest of several losses of a token counts")
    reports = [e for e in case.timelines[Witness.STATIC].events() if isinstance(e, Report) and e.headline]
    if found.status is Status.PASS and any(report.choices for report in reports):
        return Said(None, "the run sees how often a token counts, not which of two losses was kept for it")
    return found


def _run_artifact(case: Case) -> Said:
    """A file the run wrote is read back before the first counted score."""
    from rules.artifact import artifact_before_headline

    found = artifact_before_headline(case.timelines[Witness.RUN])
    if found is None:
        return Said(None, _unattributed(case) or "the run saw no counted score")
    return Said(found.status, found.summary, tuple(Place(e.path, e.line or 1) for e in found.evidence))


def _run_calibration(case: Case) -> Said:
    order = [e for e in case.timelines[Witness.RUN].events() if isinstance(e, Calibrate | Serialize)]
    last = max((i for i, e in enumerate(order) if isinstance(e, Serialize)), default=len(order))
    events = [e for e in order[:last] if isinstance(e, Calibrate)]
    on_val = [e for e in events if e.span.split is Split.VAL]
    if on_val:
        return Said(Status.FAIL, "activations of validation tokens are collected", tuple(e.place for e in on_val[:2]))
    splits = sorted({event.span.split.value for event in events})
    words = f"calibration reads {', '.join(splits)} tokens" if splits else "no calibration took place"
    return Said(Status.PASS, words, tuple(e.place for e in events[:2]))


def _run_distribution(case: Case) -> Said:
    found = next(
        (e for e in case.timelines[Witness.RUN].events() if isinstance(e, Probed) and e.question == "normalisation"),
        None,
    )
    if found is None:
        tried = getattr(case.facts.get("run"), "experiment", None)
        return Said(None, getattr(tried, "absent", "") or "the run was not repeated on another future")
    if found.holds is None:
        return Said(None, f"the run could not tell: {found.finding}")
    if found.holds and may_idle(case):
        return Said(
            None,
            "the run's stream repeats short contexts only, so what reading found beside the model may not fire in it",
        )
    return Said(Status.PASS if found.holds else Status.FAIL, found.finding, (found.place,))


def _run_bytes(case: Case) -> Said:
    attribution = getattr(case.facts.get("run"), "attribution", None)
    if attribution is None:
        return Said(None, _unattributed(case))
    if attribution.matched == "loss and bpb" and attribution.printed.bpb is not None:
        return Said(Status.PASS, f"the printed BPB divides by the {attribution.official_bytes:,} official bytes")
    if attribution.implied_bytes is None:
        return Said(None, "the run printed no loss beside its BPB")
    if attribution.bits_apart:
        return Said(None, "the printed BPB is not the loss beside it over any whole number of bytes")
    ratio = attribution.implied_bytes / attribution.official_bytes if attribution.official_bytes else float("nan")
    if attribution.matched == "loss":
        words = f"the printed BPB divides by {ratio:.4f} times the official bytes of the stand-in tokenizer"
        return Said(Status.FAIL, words)
    return Said(None, "only the printed BPB could be explained, not the loss beside it")


# -- why they differ -----------------------------------------------------------------------------------------------------


def _why(case: Case, rule: str, static: Said, run: Said) -> tuple[str, bool]:
    """Reason of a contradiction in words, and whether it hangs on a question about the machine."""
    if static.status is Status.PASS:
        return _unread(case, rule, run), False
    seen = _lines_of_run(case)
    unreached = [
        branch for branch in _learning(case.timelines[Witness.STATIC].root) if not _reached(case, branch, seen)
    ]
    questions = _machine(case)
    for branch in unreached:
        question = questions.get((branch.place.path, branch.place.line))
        if question:
            words = f"{_short(branch.place)} asks about the machine ({question}): `{branch.condition[:80]}`"
            return f"{words}; what reading sees there did not happen in the run", True
    if unreached:
        words = f"reading cannot decide `{unreached[0].condition[:80]}` ({_short(unreached[0].place)})"
        return f"{words}; the run did not go where it leads", False
    missed = [place for place in static.places if (place.path, place.line) not in seen and _acts(case, place)]
    scaled = _scaled(case)
    if rule == "PG-B-from-artifact":
        return "reading does not follow how the file's content gets into the model; the run saw the file read", False
    if rule == "PG-B-bpb-formula":
        return "the run counts with a stand-in tokenizer and stand-in tables; reading evaluates the shipped ones", False
    if missed and scaled:
        return f"{_short(missed[0])} was not reached in the run, which used {scaled}", False
    if missed:
        return f"{_short(missed[0])} was not reached in the run", False
    return "", False


def _unread(case: Case, rule: str, run: Said) -> str:
    """Why reading may have missed what the run saw: a branch it leaves out, or something it could not follow."""
    if rule == "PG-B-bpb-formula":
        return "the run counts with a stand-in tokenizer and stand-in tables; reading evaluates the shipped ones"
    for place in run.places:
        before = [
            (line, condition)
            for path, line, condition in getattr(case.facts.get("static"), "dead", [])
            if path == place.path and 0 <= place.line - line <= _NEAR
        ]
        if before:
            line, condition = max(before)
            where = _short(Place(place.path, line))
            return f"reading leaves out {where} (`{condition[:60]}`) under the settings it found; the run went there"
    if any(isinstance(e, Unknown) for e in case.timelines[Witness.STATIC].events()):
        return f"{_blind(case)}; the run went there"
    return ""


# A branch that is left out holds what stands within so many lines below its condition.
_NEAR = 60


def _machine(case: Case) -> dict[tuple[str, int], str]:
    from auditor.static.machine_questions import machine_questions

    return machine_questions(case.program)


def _lines_of_run(case: Case) -> set[tuple[str, int]]:
    """Lines that stood on the stack when something was recorded."""
    return {
        (place.path, place.line)
        for event in case.timelines[Witness.RUN].events()
        for place in (event.place, *event.why)
    }


def _scaled(case: Case) -> str:
    plan = getattr(getattr(case.facts.get("run"), "run", None), "plan", None)
    notes = getattr(plan, "notes", {})
    return ", ".join(f"{name} {new} for {old}" for name, (old, new) in sorted(notes.items())[:3] if old != new)


def _acts(case: Case, place: Place) -> bool:
    """Whether something is scored, changed or collected at a line; a run leaves a trace of such lines only."""
    events = case.timelines[Witness.STATIC].events()
    return any(event.place == place and isinstance(event, Update | Calibrate | Score) for event in events)


def _learning(node: Node) -> Iterator[Branch]:
    """Undecided branches in which something learns from validation tokens, outermost first."""
    if isinstance(node, Branch):
        events = Timeline("", Sequence((node.then, node.otherwise))).events()
        if any(isinstance(event, Update | Calibrate) and event.span.split is Split.VAL for event in events):
            yield node
            yield from _learning(node.then)
            yield from _learning(node.otherwise)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _learning(item)
    elif isinstance(node, Loop | Call):
        yield from _learning(node.body)


def _reached(case: Case, branch: Branch, seen: set[tuple[str, int]]) -> bool:
    """Whether a line that stands in this branch alone was on the stack in the run."""
    elsewhere = _places(case.timelines[Witness.STATIC].root, branch)
    inside = set(_places(branch.then)) | set(_places(branch.otherwise))
    return any((place.path, place.line) in seen for place in inside - set(elsewhere))


def _places(node: Node, leave_out: Branch | None = None) -> Iterator[Place]:
    """Lines of every node, calls and loops among them."""
    if node is leave_out:
        return
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _places(item, leave_out)
        return
    yield node.place
    if isinstance(node, Branch):
        yield from _places(node.then, leave_out)
        yield from _places(node.otherwise, leave_out)
    elif isinstance(node, Loop | Call):
        yield from _places(node.body, leave_out)


def _short(place: Place) -> str:
    return f"{place.path.rsplit('/', 1)[-1]}:{place.line}"
