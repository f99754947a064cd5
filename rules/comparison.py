"""The submission against the record standing at its date, from the case's statistics or from its own results."""

from __future__ import annotations

import datetime as dt
from statistics import mean
from typing import TYPE_CHECKING

from auditor.case import Case
from auditor.findings import Evidence
from rules.byte_accounts import accounts
from rules.measures import claim_is_logged, headline, reported, seed_claims
from rules.support import at

if TYPE_CHECKING:
    from auditor.documents.records import Record
    from auditor.documents.statistics import Comparison


# A folder without a number whose mean is that of a row (as listed, four decimals) is that row.
SAME_ROW = 6e-5


def comparison(case: Case) -> Comparison | None:
    """The comparison under both regimes; None without a result or a date."""
    from auditor.documents.statistics import Comparison, compare

    if isinstance(case.statistics, Comparison):
        return case.statistics
    values, date = per_seed(case), case.submission.date
    if not values or date is None:
        return None
    record = _standing(case, date, values)
    return compare(values, record, date, tokenizer(case)) if record else None


def per_seed(case: Case) -> list[float]:
    """Claimed BPB per seed, else the logged ones, else the headline alone."""
    claims = seed_claims(case)
    if claims:
        return [quantity.value for quantity in claims.values()]
    logged = [item.value for item in reported(case)] if claim_is_logged(case) else []
    if len(logged) > 1:
        return logged
    claim = headline(case)
    return [claim.value] if claim else logged


def tokenizer(case: Case) -> str:
    """Tokenizer that the byte accounts point to, "" when none does."""
    return next((a.denominator.tokenizer for a in accounts(case) if a.denominator.tokenizer), "")


def _standing(case: Case, date: dt.date, values: list[float]) -> Record | None:
    """The frontier before this submission; a merged row is not compared with itself."""
    from auditor.documents.records import record_at, records

    before = case.submission.pr
    if before is None:
        own = [
            row
            for row in records()
            if abs(mean(row.values) - mean(values)) < SAME_ROW and abs(row.date - date) < dt.timedelta(days=7)
        ]
        before = own[0].pr if own else None
    if before is not None:
        return record_at(date, before_pr=before)
    # Without a number the day is too coarse: what is dated the same day may have come later.
    return record_at(date - dt.timedelta(days=1)) or record_at(date)


def record_name(found: Comparison) -> str:
    """`#1855 (1.0611)` or the title of a row without a pull request."""
    record = found.record
    return f"#{record.pr} ({record.score:.4f})" if record.pr else f"{record.title} ({record.score:.4f})"


def headline_evidence(case: Case) -> list[Evidence]:
    """Where the result stands that is compared."""
    claim = headline(case)
    places = [at(claim, "headline")] if claim else []
    return places + [at(quantity, f"seed {seed}") for seed, quantity in seed_claims(case).items()]
