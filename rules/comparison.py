"""The submission against the record standing at its date, from the case's statistics or from its own results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from auditor.case import Case
from auditor.findings import Evidence
from rules.byte_accounts import accounts
from rules.measures import claim_is_logged, headline, reported, seed_claims
from rules.support import at

if TYPE_CHECKING:
    from auditor.documents.statistics import Comparison


def comparison(case: Case) -> Comparison | None:
    """The comparison under both regimes; None without a result or a date."""
    from auditor.documents.records import record_before
    from auditor.documents.statistics import Comparison, compare

    if isinstance(case.statistics, Comparison):
        return case.statistics
    values, date = per_seed(case), case.submission.date
    if not values or date is None:
        return None
    record = record_before(date, case.submission.pr, values)
    return compare(values, record, date, tokenizer(case)) if record else None


def per_seed(case: Case) -> list[float]:
    """Logged BPB per seed when the logs bear the claim out, else the claimed ones, else the headline alone."""
    claims = seed_claims(case)
    logged = [item.value for item in reported(case)] if claim_is_logged(case) else []
    if len(logged) > 1 and len(logged) >= len(claims):
        return logged
    if claims:
        return [quantity.value for quantity in claims.values()]
    claim = headline(case)
    return [claim.value] if claim else logged


def tokenizer(case: Case) -> str:
    """Tokenizer that the byte accounts point to, "" when none does."""
    return next((a.denominator.tokenizer for a in accounts(case) if a.denominator.tokenizer), "")


def record_name(found: Comparison) -> str:
    """`#1855 (1.0611)` or the title of a row without a pull request."""
    record = found.record
    return f"#{record.pr} ({record.score:.4f})" if record.pr else f"{record.title} ({record.score:.4f})"


def headline_evidence(case: Case) -> list[Evidence]:
    """Where the result stands that is compared."""
    claim = headline(case)
    places = [at(claim, "headline")] if claim else []
    return places + [at(quantity, f"seed {seed}") for seed, quantity in seed_claims(case).items()]
