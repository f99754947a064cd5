"""Rules and evidence to findings, findings to one verdict.

A rule decides on evidence alone; here its answer is fitted to the submission's track and date, and the findings are
weighed. The sets below say which rules weigh how; nothing else decides a verdict.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Verdict, Witness
from auditor.submission import Track
from rules.base import Rule

# The order of events: without an answer to each of these nobody can call a score honest.
# Causality of the forward pass is not among them: reading shows it for attention only, and the report says so.
ORDER_RULES = (
    "PG-C2-normalisation",
    "PG-C3-score-first",
    "PG-C4-single-pass",
    "PG-D-val-in-train",
    "PG-D-train-at-eval",
)
# What the documents have to show before a submission is called clean.
MEASURED_RULES = ("PG-S-cap", "PG-B-bpb-formula", "PG-B-full-val", "PG-T-train", "PG-T-eval")
DECIDING = ORDER_RULES + MEASURED_RULES

# Illegal on the track, but legal as a study: a failure makes a submission not eligible, not dishonest. The last one is
# a claim that names the wrong line of an honest log.
ELIGIBILITY_RULES = ("PG-S-cap", "PG-T-train", "PG-T-eval", "PG-T-no-third-phase", "PG-B-from-artifact")

# Warnings of rules of illegal severity that a reviewer may read and pass: accepted practice, or hints without proof.
LIGHT_WARNINGS = (
    *ELIGIBILITY_RULES,
    "PG-D-gptq-calibration",
    "PG-E-network",
    "PG-ST-seed-search",
)
# Disputed rules whose warning or failure can change what a score is worth.
WEIGHTY_DISPUTES = ("PG-C4-order", "PG-B-lossy-normalisation")

# Which failing rule is named first when several make a submission not eligible.
_REASON_ORDER = (
    "PG-S-cap", "PG-T-train", "PG-T-eval", "PG-T-hardware", "PG-B-", "PG-P-required-files", "PG-P-submission-json",
    "PG-P-log-provenance", "PG-ST-", "PG-P-runs-in-folder", "PG-P-one-folder",
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """What follows from all findings.

    Attributes:
        findings: one for every rule, in rule-book order.
        verdict: the one-word answer. `reason`: the single strongest reason, with its numbers.
        second_line: what was not checked, "" when every witness testified.
    """

    findings: tuple[Finding, ...]
    verdict: Verdict
    reason: str
    second_line: str = ""


def judge(case: Case, rules: Iterable[Rule] | None = None) -> Judgement:
    """Examine every rule (default: the whole rule book) and weigh the findings. Never raises for a bad rule."""
    if rules is None:
        from rules import all_rules

        rules = all_rules()
    findings = []
    predating = set()
    for rule in rules:
        finding = examine(rule, case)
        softened = soften_by_date(finding, rule, case)
        if softened.status is not finding.status:
            predating.add(rule.id)
        findings.append(softened)
    verdict, reason = _weigh(findings, frozenset(predating))
    return Judgement(tuple(findings), verdict, reason, _not_checked(case, findings))


# --- one rule ------------------------------------------------------------------------------------------------------


def examine(rule: Rule, case: Case) -> Finding:
    """Finding of one rule on one case, for its track; a crash inside the rule is an unknown that names it."""
    track = case.submission.track
    if track is not Track.UNKNOWN and track not in rule.tracks:
        tracks = ", ".join(sorted(each.value for each in rule.tracks))
        return Finding(rule.id, Status.NOT_APPLICABLE, f"binds {tracks}; this is {track.value}", severity=rule.severity)
    if rule.decide is None:
        return Finding(
            rule.id, Status.UNKNOWN, "nobody can decide this yet", severity=rule.severity, decided_by=rule.witnesses
        )
    try:
        finding = rule.decide(case)
    except Exception as error:  # one rule must never take the others down
        text = f"the rule itself failed: {type(error).__name__}: {error}"
        finding = Finding(
            rule.id, Status.UNKNOWN, text, "A defect of this program, not of the submission.", decided_by=rule.witnesses
        )
    severity = rule.severity if finding.severity is Severity.ADVICE else finding.severity
    remedy = finding.remedy or (rule.remedy if finding.status in (Status.FAIL, Status.WARN) else "")
    finding = replace(finding, rule=rule.id, severity=severity, remedy=remedy)
    return _soften_by_track(finding, rule, track)


def _soften_by_track(finding: Finding, rule: Rule, track: Track) -> Finding:
    """A rule of the record track alone cannot fail a submission whose track nobody can tell."""
    if track is not Track.UNKNOWN or Track.NON_RECORD in rule.tracks or finding.status is not Status.FAIL:
        return finding
    note = "The track cannot be told from folder or metadata; on the record track this would be a failure."
    return replace(finding, status=Status.WARN, explanation=f"{finding.explanation} {note}".strip())


def soften_by_date(finding: Finding, rule: Rule, case: Case) -> Finding:
    """A failure becomes a warning when the submission is older than the rule.

    A ruling that closed what was open on its day (`Rule.reaches_back`) binds older submissions too.
    """
    date = date_of(case)
    if finding.status is not Status.FAIL or date is None or date >= rule.since:
        return finding
    if rule.reaches_back:
        note = (
            f"The submission is of {date.isoformat()}, the ruling of {rule.since.isoformat()} ({rule.authority}): "
            f"{rule.reaches_back}"
        )
        return replace(finding, explanation=f"{finding.explanation} {note}".strip())
    note = (
        f"The rule dates from {rule.since.isoformat()} ({rule.authority}); the submission is of {date.isoformat()} "
        "and is judged by its own date."
    )
    return replace(finding, status=Status.WARN, explanation=f"{finding.explanation} {note}".strip())


def date_of(case: Case) -> dt.date | None:
    """Date by which a submission is judged: its own (folder or metadata), or that of its pull request's head if later.

    Code and evidence count from the day they were public (PG-P-chronology): a head pushed after a ruling was made
    knows of it. The head of the main branch says nothing about the age of one folder.
    """
    submission = case.submission
    head = submission.head_date.date() if submission.head_date and submission.pr is not None else None
    known = [date for date in (submission.date, head) if date is not None]
    return max(known, default=None)


# --- all findings --------------------------------------------------------------------------------------------------


def _weigh(findings: list[Finding], predating: frozenset[str]) -> tuple[Verdict, str]:
    failed = [finding for finding in findings if finding.status is Status.FAIL]
    violations = [finding for finding in failed if is_violation(finding)]
    if violations:
        return Verdict.VIOLATION, _say(min(violations, key=_violation_rank))
    doubts = [finding for finding in findings if is_doubt(finding, predating)]
    barred = [finding for finding in failed if bars_eligibility(finding)]
    if doubts:
        return Verdict.NEEDS_REVIEW, _say(min(doubts, key=_violation_rank))
    if barred:
        return Verdict.NOT_ELIGIBLE, _say(min(barred, key=_bar_rank))
    open_rules = [finding for finding in findings if finding.status is Status.UNKNOWN and finding.rule in DECIDING]
    if open_rules:
        return Verdict.NEEDS_REVIEW, _open_question(open_rules)
    return Verdict.CLEAN, _clean(findings)


def is_violation(finding: Finding) -> bool:
    """Whether a failure makes the score invalid: illegal severity, more than eligibility, with a place as evidence."""
    return (
        finding.status is Status.FAIL
        and finding.severity is Severity.ILLEGAL
        and finding.rule not in ELIGIBILITY_RULES
        and any(evidence.path for evidence in finding.evidence)
    )


def bars_eligibility(finding: Finding) -> bool:
    """Whether a failure keeps a submission off the track it claims."""
    return finding.status is Status.FAIL and (
        finding.severity in (Severity.NOT_RECORD_ELIGIBLE, Severity.PACKAGING) or finding.rule in ELIGIBILITY_RULES
    )


def is_doubt(finding: Finding, predating: frozenset[str] = frozenset()) -> bool:
    """Whether a finding, without proving a breach, is something a reviewer has to decide."""
    if finding.status not in (Status.WARN, Status.FAIL):
        return False
    if finding.rule in WEIGHTY_DISPUTES:
        return True
    if finding.severity is not Severity.ILLEGAL or is_violation(finding) or bars_eligibility(finding):
        return False
    if finding.rule in predating:
        return finding.rule not in ELIGIBILITY_RULES
    return finding.rule not in LIGHT_WARNINGS


def _violation_rank(finding: Finding) -> tuple[bool, int]:
    """Strongest first: seen by a witness of the order before the documents, then by the rule book's groups."""
    groups = ("PG-C", "PG-D", "PG-B", "PG-X", "PG-S", "PG-E", "PG-T", "PG-ST", "PG-P")
    group = next((i for i, prefix in enumerate(groups) if finding.rule.startswith(prefix)), len(groups))
    return finding.status is not Status.FAIL, group


def _bar_rank(finding: Finding) -> tuple[int, bool]:
    place = next((i for i, prefix in enumerate(_REASON_ORDER) if finding.rule.startswith(prefix)), len(_REASON_ORDER))
    return place, finding.severity is not Severity.ILLEGAL


def _say(finding: Finding) -> str:
    return f"{finding.rule}: {finding.summary}"


def _open_question(findings: list[Finding]) -> str:
    """Why nothing was found wrong and yet nothing is clean."""
    order = [finding for finding in findings if finding.rule in ORDER_RULES]
    if order:
        absent = sorted({witness.value for finding in order for witness in finding.decided_by})
        who = f" (no {' or '.join(absent)} witness)" if absent else ""
        return f"order of events not examined{who}: {len(order)} of {len(ORDER_RULES)} deciding rules are open"
    return "; ".join(_say(finding) for finding in findings[:2])


def _clean(findings: list[Finding]) -> str:
    decided = sum(finding.status is Status.PASS for finding in findings)
    warned = sum(finding.status is Status.WARN for finding in findings)
    tail = f", {warned} with a warning" if warned else ""
    return f"{decided} rules passed{tail}; every deciding rule was examined"


def _not_checked(case: Case, findings: list[Finding]) -> str:
    """The witnesses that did not testify and the number of rules left open by it."""
    unknown = [finding for finding in findings if finding.status is Status.UNKNOWN]
    if not unknown:
        return ""
    missing = [
        _missing(witness, case, sum(witness in finding.decided_by for finding in unknown))
        for witness in (Witness.STATIC, Witness.RUN, Witness.REPRODUCTION)
        if witness not in case.timelines and any(witness in finding.decided_by for finding in unknown)
    ]
    head = f"Not checked: {len(unknown)} of {len(findings)} rules are unknown"
    return f"{head}; no testimony from {', '.join(missing)}." if missing else f"{head}."


def _missing(witness: Witness, case: Case, rules: int) -> str:
    """An absent witness with the reason and the number of open rules it could decide."""
    could = f"could decide {rules} of them"
    return (
        f"{witness.value} ({case.absent[witness]}; {could})" if witness in case.absent else f"{witness.value} ({could})"
    )
