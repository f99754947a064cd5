"""Rules that need the order of events ask here: which witnesses testified, what each timeline says, do they agree.

A rule gives the question in words and a `read` function that judges one timeline. Without a timeline the answer is
`unknown` and names the witnesses that could decide; two timelines that lead to different answers are a finding of their
own (design, "Four witnesses, one timeline").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from auditor.case import Case
from auditor.findings import Finding, Status, Witness
from auditor.timeline import Place, Probed, Timeline
from rules.events import may_idle, place
from rules.support import at_line, failed, listed, passed, unknown, warned

ORDER_WITNESSES = (Witness.STATIC, Witness.RUN)

# A rule's reading of one timeline; None when this timeline holds nothing the rule could judge.
Read = Callable[[Timeline], Finding | None]


def from_timelines(
    case: Case,
    question: str,
    read: Read | None = None,
    witnesses: Iterable[Witness] = ORDER_WITNESSES,
    rule: str = "",
    weak: Witness | None = None,
) -> Finding:
    """Finding from the timelines of `witnesses`, in their order; unknown when none of them could answer `question`.

    Static analysis answers by `rule` id where it can, executed timelines by `read`. A pass of the `weak` witness, which
    may not have come to what another one saw, does not contradict a failure.
    """
    asked = tuple(witnesses)
    heard = [(witness, case.timelines[witness]) for witness in asked if witness in case.timelines]
    answers = []
    for witness, timeline in heard:
        finding = stated(case, rule) if rule and witness is Witness.STATIC else None
        if finding is None and read is not None:
            finding = read(timeline)
        if finding is not None:
            answers.append(replace(finding, witness=witness))
    if not answers:
        return not_examined(case, question, asked)
    if any(answer.status is Status.FAIL for answer in answers):
        answers = [each for each in answers if each.witness is not weak or each.status is not Status.PASS]
    if any(answer.status is Status.PASS for answer in answers) and len({answer.status for answer in answers}) > 1:
        return _disagreement(case, question, rule, answers)
    return min(answers, key=lambda answer: _GRAVITY.index(answer.status))


def _disagreement(case: Case, question: str, rule: str, answers: list[Finding]) -> Finding:
    """A finding of its own, with the reason why the witnesses differ where one is known."""
    from rules.agreement import agreement

    said = listed(f"{answer.witness.value}: {answer.status.value} ({answer.summary})" for answer in answers)
    worst = min(answers, key=lambda answer: _GRAVITY.index(answer.status))
    point = next((point for point in agreement(case) if rule and point.rule == rule and point.reason), None)
    head = f"witnesses disagree about {question}"
    if point is not None and point.machine:
        head = "the program asks what machine it runs on and does otherwise there"
    reason = f" Why they differ: {point.reason}." if point is not None else ""
    return replace(warned(head, worst.evidence, f"{said}.{reason}"), witness=worst.witness)


_GRAVITY = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS, Status.NOT_APPLICABLE)


def stated(case: Case, rule: str) -> Finding | None:
    """What static analysis says about a rule, None when it could not decide it."""
    verdict = getattr(case.facts.get("static"), "answers", {}).get(rule)
    if verdict is None or verdict.status is Status.UNKNOWN:
        return None
    evidence = [at_line(where.path, where.line, source_line(case, where), words) for where, words in verdict.chain]
    make = {Status.FAIL: failed, Status.WARN: warned}.get(verdict.status, passed)
    return replace(make(verdict.summary, evidence), witness=Witness.STATIC)


def source_line(case: Case, where: Place) -> str:
    """Text of a source line, "" when the file is not among the program's layers."""
    for layer in case.program.layers:
        if layer.name == where.path:
            lines = layer.text.split("\n")
            return lines[where.line - 1].strip()[:200] if 0 < where.line <= len(lines) else ""
    return ""


def not_examined(case: Case, question: str, witnesses: Iterable[Witness] = ORDER_WITNESSES) -> Finding:
    """Unknown: nobody who could see it has testified; says why each did not."""
    asked = tuple(witnesses)
    reasons = listed(f"{witness.value}: {case.absent.get(witness, 'no answer to this question')}" for witness in asked)
    return unknown(f"not examined: {question}", asked, explanation=f"Decided by the order of events ({reasons}).")


def unless_failed(read: Read) -> Read:
    """The reading of another rule as far as it clears this one; its failures are told by that rule alone."""

    def cleared(timeline: Timeline) -> Finding | None:
        found = read(timeline)
        return None if found is None or found.status is Status.FAIL else found

    return cleared


def probed(question: str) -> Read:
    """Reads what an experiment on the running program showed; timelines without that experiment say nothing."""

    def read(timeline: Timeline) -> Finding | None:
        found = next((e for e in timeline.events() if isinstance(e, Probed) and e.question == question), None)
        if found is None or (found.holds is None and not found.doubt):
            return None
        if found.holds:
            return passed(found.finding, [place(found)])
        make = failed if found.holds is False else warned
        return make(found.finding, [place(found, "computes these losses")], _PROBES)

    return read


def exercised(case: Case, read: Read) -> Read:
    """`read`, whose passes count only where reading found nothing that the run's data may have left idle.

    Contexts come back in the stream of a probe run, but not as long ones and not for long: that a table of counts or a
    compiled cache gave out no more than one there does not clear it. Without a reading nobody knows whether there is one.
    """

    def passed_by(timeline: Timeline) -> Finding | None:
        found = read(timeline)
        return None if found is not None and found.status is Status.PASS and may_idle(case) else found

    return passed_by


_PROBES = (
    "Measured by running the program again at reduced scale, on a stream whose tokens were drawn at random from a "
    "distribution that is known exactly: no honest scorer is moved by them before they come, and none can win a bet on "
    "them, because what it gives to all tokens that could come is one at most."
)
