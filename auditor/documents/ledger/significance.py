"""Ledger row about a claimed p-value: recomputed from per-seed values against the standing record."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.documents.ledger.common import (
    AGREES,
    NO_EVIDENCE,
    Parts,
    claims,
    place,
    row,
    says,
)
from auditor.documents.ledger.headline import Headline
from auditor.documents.ledger.scores import seed_values
from auditor.documents.metric import diagnose_line
from auditor.documents.model import Claim, Quantity, Source
from auditor.documents.records import record_before
from auditor.documents.statistics import Comparison, Deviation, compare, describe
from auditor.submission import Submission, Track


def significance_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """A row when a p-value is claimed; nothing is computed otherwise."""
    told = claims(_json_p(parts), *(parts.readme.values.get("p_value", [])[:2] if parts.readme else []))
    if not told:
        return
    result = against_record(parts.submission, head)
    if result is None:
        yield row(
            "p-value",
            "submission",
            claimed=told,
            status=NO_EVIDENCE,
            note="fewer than two per-seed values, or no record stood at the date",
        )
        return
    tests = [*result.plain.values(), *(result.shifted or {}).values()]
    values = [test.p for test in tests if test.p is not None]
    wrong = [claim for claim in told if not any(_fits(claim, p) for p in values)]
    note = describe(result)
    if wrong:
        note = f"{place(wrong[0])} says {wrong[0].text or wrong[0].value}, possibly against another run. {note}"
    yield row(
        "p-value",
        "submission",
        claimed=told,
        computed=result.plain[Deviation.SAMPLE].p,
        how="one-sided Welch test, sample SD, no margin",
        status=NO_EVIDENCE if wrong else AGREES,
        note=note,
    )


def _fits(claim: Quantity, p: float) -> bool:
    """`p < 0.01` fits every smaller value, `p = 0.020` what rounds to it."""
    return says(claim, p) or (("<" in claim.text or "≪" in claim.text) and p < claim.value)


def _json_p(parts: Parts) -> Quantity | None:
    data = parts.main
    value = (data.raw or {}).get("p_value") if data else None
    if data is None or not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return Quantity(float(value), Source(data.path, key="p_value"), repr(value))


def against_record(submission: Submission, head: Headline) -> Comparison | None:
    """The submission's seeds against the record standing at its date, under both regimes.

    None without two per-seed values, a date, or a standing record, and for tracks without records.
    """
    values = seed_values(head)
    if len(values) < 2 or submission.date is None or submission.track not in (Track.RECORD, Track.UNKNOWN):
        return None
    record = record_before(submission.date, submission.pr, values)
    if record is None:
        return None
    item = next(iter(head.reported.values()), None)
    answer = diagnose_line(item.result, item.run) if item else None
    return compare(values, record, submission.date, answer.tokenizer if answer else "")
