"""PG-B-lossy-normalisation: Lossy normalisation (casefold, NFKC, lower())."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts, canonical
from rules.examples import runs, variant
from rules.measures import at_log, reported_runs, setting
from rules.support import failed, passed
from rules.testimony import from_timelines

FOLDED = "  tokenizer_path: ./data/tokenizers/fineweb_8192_casefold.model"
_LOSSY = re.compile(r"(?i)case[-_ ]?fold|nfkc|\blower-?cased? (?:text|corpus|val)")


def decide(case: Case) -> Finding:
    """Names and byte counts of a casefolded corpus; the tokenizer's normaliser is for other witnesses."""
    folded = [account for account in accounts(case) if account.denominator.kind == "casefolded text"]
    if folded:
        return failed(f"{folded[0].denominator.reason}; no ruling, never accepted", [a.evidence for a in folded])
    for run in reported_runs(case):
        for name in ("tokenizer_path", "data_path", "datasets_dir", "dataset"):
            value = setting(run, name) or ""
            if _LOSSY.search(value):
                return failed(
                    f"the logged {name} names a lossy transform: {value}; no ruling, never accepted",
                    [at_log(case, run, run.setting_lines.get(name), "lossy by its name")],
                )
    if canonical(case) and all(account.denominator.tokenizer for account in accounts(case)):
        return passed(
            f"a published export without lossy normalisation ({accounts(case)[0].denominator.tokenizer})",
            [account.evidence for account in accounts(case)],
        )
    return from_timelines(case, "whether decoding the ids reproduces the original bytes", rule=RULE.id)


RULE = Rule(
    id="PG-B-lossy-normalisation",
    title="Lossy normalisation (casefold, NFKC, lower())",
    statement=(
        "A transform from which the original bytes cannot be reproduced by decoding the token ids makes the "
        "task easier and redefines the text. Asked in #1604 (2026-04-13 onwards); no organiser answer; no "
        "casefold submission was ever accepted while lossless CaseOps was merged."
    ),
    severity=Severity.DISPUTED,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 4, 13),
    authority="community argument; organiser practice",
    violations=(
        '`unicodedata.normalize("NFKC", text).lower()` in the val export',
        "tokenizer whose normaliser is nmt_nfkc_cf or that maps unknown characters away",
    ),
    allowed=("bijective transforms with escape codes (CaseOps); SentencePiece identity normaliser",),
    history='Severity: disputed (never accepted). Treat as FAIL for record eligibility with the note "no ruling".',
    legal_precedents=(1729, 1736),
    illegal_precedents=(1578, 1585, 1670, 1693, 1873, 2098),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1604",
        "https://github.com/openai/parameter-golf/pull/1578",
        "https://github.com/openai/parameter-golf/pull/1585",
        "https://github.com/openai/parameter-golf/pull/1670",
        "https://github.com/openai/parameter-golf/pull/1693",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Use a transform that decodes to the original bytes (escape codes, as CaseOps), or the identity normaliser."
    ),
    legal=(Example("published export, identity normaliser"),),
    illegal=(Example("casefolded corpus", variant(done=runs(settings=(FOLDED,), val_bytes=151_082_429)), Status.FAIL),),
    decide=decide,
)
