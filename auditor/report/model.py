"""The review as one JSON document ("review/1"): the truth that every renderer renders and nothing else.

`document` turns a `Review` (submission, case, findings, verdict) into plain dictionaries, lists, strings, numbers and
None, in a fixed order, every string made visible (`auditor.report.text`). It is described by
`reports/schema/review.schema.json`. The clock is never read here: the date is passed in.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from auditor import __version__
from auditor.documents.model import Source
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.report.board import FAMILIES, board, family
from auditor.report.byte_count import byte_count
from auditor.report.places import REPOSITORY, Places
from auditor.report.run import agreement_section, run_section
from auditor.report.series import ledger_row, series
from auditor.report.text import clean
from auditor.report.trees import timelines
from auditor.submission import Submission

if TYPE_CHECKING:
    from auditor.review import Review
    from rules.base import Rule

FORMAT = "review/1"
MAX_FILES = 400
MAX_PROBLEMS = 100

_SEVERITIES = [severity.value for severity in Severity]
_STATUSES = [status.value for status in (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS, Status.NOT_APPLICABLE)]
_LEDGER = ["conflicts", "no evidence", "not claimed", "agrees"]


def document(
    review: Review, generated: dt.date | dt.datetime | str | None = None, durations: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """The document of a review.

    Args:
        review: outcome of `auditor.review.review_target`; without a case (an ERROR review) most parts are empty.
        generated: date shown in the report, None to leave it out (two reports of one review are then identical).
        durations: part of the review -> seconds, in addition to the total.
    """
    case, submission = review.case, review.submission
    head = submission.head if submission else ""
    places = Places(case, head)
    findings = sorted((_finding(f, places) for f in review.findings), key=_gravity)
    stamp = generated.isoformat() if isinstance(generated, (dt.date, dt.datetime)) else generated
    return clean(
        {
            "format": FORMAT,
            "tool": {"name": "parameter-golf-auditor", "version": __version__},
            "generated": stamp,
            "seconds": round(review.seconds, 3),
            "durations": {key: round(value, 3) for key, value in sorted((durations or {}).items())},
            "submission": _submission(review.label, submission, review.case, places),
            "verdict": review.verdict.value,
            "exit_code": review.verdict.exit_code,
            "reason": review.reason,
            "not_checked": review.not_checked.removeprefix("Not checked: "),
            "error": {"message": review.error, "defect": review.defect} if review.error else None,
            "board": board(findings),
            "counts": _counts(findings),
            "witnesses": _witnesses(review),
            "findings": findings,
            "ledger": _ledger(case.ledger, places) if case else [],
            "forensics": [_forensic(fact, places) for fact in case.forensics] if case else [],
            "statistics": _plain(case.statistics) if case else None,
            "series": series(case) if case else None,
            "timelines": timelines(case.timelines, places) if case else {"static": None, "run": None},
            "reproduction": _plain(case.facts.get("reproduction")) if case else None,
            "run": run_section(case) if case else None,
            "agreement": agreement_section(case, places) if case else [],
            "byte_count": byte_count(case.facts.get("byte_table"), places) if case else None,
            "problems": _problems(review),
        }
    )


def _submission(label: str, submission: Submission | None, case: Any, places: Places) -> dict[str, Any]:
    if submission is None:
        return {
            "label": label,
            "name": None,
            "author": None,
            "pr": None,
            "url": None,
            "head": "",
            "base": "",
            "folder": "",
            "track": "unknown",
            "date": None,
            "head_date": None,
            "main_script": None,
            "packed": False,
            "counted_code_bytes": None,
            "files": [],
            "files_left_out": 0,
            "changes": 0,
            "other_folders": [],
            "stale_folders": [],
        }
    s = submission
    main = case.metadata[0] if case and case.metadata else None
    files = [
        {"path": path, "role": _role(s, path), "size": entry.size, "kind": entry.kind, "url": places.url(path)}
        for path, entry in sorted(s.files.items())
    ]
    return {
        "label": s.label or label,
        "name": (main.name if main else None) or (case.readme.title if case and case.readme else None) or None,
        "author": (main.github_id or main.author) if main else None,
        "pr": s.pr,
        "url": f"{REPOSITORY}/pull/{s.pr}" if s.pr is not None else None,
        "head": s.head,
        "base": s.base,
        "folder": s.folder,
        "track": s.track.value,
        "date": s.date.isoformat() if s.date else None,
        "head_date": s.head_date.isoformat() if s.head_date else None,
        "main_script": s.main_script,
        "packed": case.program.packed if case else False,
        "counted_code_bytes": case.program.counted_bytes if case else None,
        "files": files[:MAX_FILES],
        "files_left_out": max(len(files) - MAX_FILES, 0),
        "changes": len(s.changes),
        "other_folders": list(s.other_folders),
        "stale_folders": list(s.stale_folders),
    }


def _role(submission: Submission, path: str) -> str:
    roles = (
        ("main script", [submission.main_script]),
        ("readme", [submission.readme]),
        ("metadata", submission.metadata),
        ("log", submission.logs),
        ("artifact", submission.artifacts),
        ("module", submission.modules),
    )
    return next((role for role, paths in roles if path in paths), "other")


def _finding(finding: Finding, places: Places) -> dict[str, Any]:
    from auditor.judge import is_violation

    rule = _rule(finding.rule)
    key = family(finding.rule)
    return {
        "rule": finding.rule,
        "title": rule.title if rule else finding.rule,
        "family": key,
        "family_name": FAMILIES.get(key, key),
        "status": finding.status.value,
        "severity": finding.severity.value,
        "violation": is_violation(finding),
        "summary": finding.summary,
        "explanation": finding.explanation,
        "statement": rule.statement if rule else "",
        "since": rule.since.isoformat() if rule else None,
        "authority": rule.authority if rule else "",
        "evidence": places.excerpts(finding.evidence),
        "remedy": _remedy(finding, rule),
        "precedents": {"legal": list(rule.legal_precedents), "illegal": list(rule.illegal_precedents)}
        if rule
        else {"legal": [], "illegal": []},
        "sources": list(rule.sources) if rule else [],
        "history": rule.history if rule else "",
        "witness": finding.witness.value,
        "decided_by": [witness.value for witness in finding.decided_by],
    }


def _remedy(finding: Finding, rule: Rule | None) -> str:
    """The finding's own remedy, else the rule's where something is wrong: an unknown must not read as an accusation."""
    wrong = finding.status in (Status.FAIL, Status.WARN)
    return finding.remedy or (rule.remedy if rule and wrong else "")


def _rule(name: str) -> Rule | None:
    from auditor.errors import AuditorError
    from rules import rule

    try:
        return rule(name)
    except AuditorError:
        return None


def _gravity(finding: dict[str, Any]) -> tuple[int, int, int, str]:
    """Failures first, the gravest severity first, then in the order of the rule book's groups, then by id."""
    groups = list(FAMILIES)
    group = groups.index(finding["family"]) if finding["family"] in groups else len(groups)
    return (_STATUSES.index(finding["status"]), _SEVERITIES.index(finding["severity"]), group, finding["rule"])


def _counts(findings: list[dict[str, Any]]) -> dict[str, int]:
    return {status: sum(finding["status"] == status for finding in findings) for status in _STATUSES}


def _witnesses(review: Review) -> list[dict[str, Any]]:
    """Every witness with whether it testified; absence always has a reason."""
    rows = []
    for witness in Witness:
        decided = sum(
            finding.witness is witness and finding.status in (Status.PASS, Status.FAIL, Status.WARN)
            for finding in review.findings
        )
        why = review.case.absent.get(witness, "") if review.case else "the submission could not be read"
        present = review.case is not None and (decided > 0 or (not why and _present(review, witness)))
        rows.append(
            {
                "name": witness.value,
                "testified": present,
                "decided": decided,
                "partly": why if present else "",
                "absent_because": "" if present else why or "not part of this review",
            }
        )
    return rows


def _present(review: Review, witness: Witness) -> bool:
    return (
        witness is Witness.DOCUMENTS
        or witness in review.case.timelines
        or (witness is Witness.REPRODUCTION and "reproduction" in review.case.facts)
        or any(finding.witness is witness and finding.status is not Status.UNKNOWN for finding in review.findings)
    )


def _ledger(claims: list[Any], places: Places) -> list[dict[str, Any]]:
    def source(item: Source) -> dict[str, Any]:
        return places.place(item.path, item.line, item.excerpt)

    rows = [ledger_row(claim, source) for claim in claims]
    rank = {status: i for i, status in enumerate(_LEDGER)}
    return sorted(rows, key=lambda row: (row["scope"] != "submission", rank.get(row["status"], 9)))


def _forensic(fact: Any, places: Places) -> dict[str, Any]:
    evidence = [Evidence(source.path, source.line, source.excerpt, source.key) for source in fact.sources[:12]]
    return {
        "kind": fact.kind,
        "strength": fact.strength,
        "summary": fact.summary,
        "explanation": fact.explanation,
        "evidence": places.excerpts(evidence),
    }


def _problems(review: Review) -> list[str]:
    found: list[str] = []
    if review.submission is not None:
        found += review.submission.problems
    if review.case is not None:
        found += review.case.program.problems
        found += [problem for metadata in review.case.metadata for problem in metadata.problems]
        found += [problem for log in review.case.logs for problem in log.problems]
    return list(dict.fromkeys(found))[:MAX_PROBLEMS]


def _plain(value: Any, depth: int = 0) -> Any:
    """Dataclasses, enumerations and dates as JSON; what JSON cannot hold (NaN, deep or foreign objects) as None."""
    if value is None or (isinstance(value, (str, bool, int)) and not isinstance(value, enum.Enum)):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dt.date):
        return value.isoformat()
    if depth > 6:
        return None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, depth + 1) for key, item in list(value.items())[:200]}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)
        return [_plain(item, depth + 1) for item in items[:200]]
    return _plain(value.item(), depth + 1) if hasattr(value, "item") else None
