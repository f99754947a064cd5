"""PG-D-dataset-change: Changes to tokenizer or dataset."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts
from rules.examples import runs, variant
from rules.support import failed, listed, passed, unknown, warned


def decide(case: Case) -> Finding:
    """Known token count and byte denominator, or a new export that needs proof."""
    found = accounts(case)
    if not found:
        return unknown("no log states validation tokens, loss and BPB together", (Witness.REPRODUCTION,))
    strange = [account for account in found if not account.denominator.tokenizer]
    wrong = [account for account in strange if account.denominator.accepted is False]
    if wrong:
        return failed(
            f"not a published export, and the byte count does not support it: {wrong[0].denominator.reason}",
            [account.evidence for account in wrong],
        )
    if strange:
        return warned(
            f"a data set without known counts: {strange[0].denominator.reason}",
            [account.evidence for account in strange],
            "A new tokenizer or export is allowed; its author proves that the same text is scored.",
        )
    names = sorted({account.denominator.tokenizer for account in found})
    return passed(f"published export {listed(names)}", [account.evidence for account in found])


RULE = Rule(
    id="PG-D-dataset-change",
    title="Changes to tokenizer or dataset",
    statement=(
        "Tokenizer and data pipeline may be changed, but the submitter must prove beyond doubt that val_bpb "
        "is computed correctly on the same 50k documents; such PRs are examined harder."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=(
        "new tokenizer/export without round-trip and byte-sum evidence",
        "validation shards built from other documents, other order, filtered or truncated text",
    ),
    allowed=(
        "public retokenised exports (sp4096/sp8192 of #78, CaseOps of #1729) with documented provenance",
        (
            "training on any number of published train shards (25, 39, 80, 128, 143, 180, 195 seen in merged "
            "logs); training on a prefix of the frozen stream is the documented norm"
        ),
    ),
    history=(
        "Severity: not record-eligible (without proof). A Discord reading of 2026-03-20 that training data "
        "may not be filtered or re-ordered is not in the README; coprime-stride loaders and curricula were "
        "merged (#1060)."
    ),
    legal_precedents=(1218, 1394, 1729, 1736),
    illegal_precedents=(1143, 1184, 1242, 1289),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/78",
        "https://github.com/openai/parameter-golf/pull/1729",
        "https://github.com/openai/parameter-golf/pull/1143",
        "https://github.com/openai/parameter-golf/pull/1314",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.REPRODUCTION),
    remedy=(
        "Ship the round-trip proof: decode the validation ids, compare with the original text, and show that "
        "the byte sum is that of the 50,000 documents."
    ),
    legal=(Example("the published sp1024 export"),),
    illegal=(
        Example(
            "own tokenizer, right number of bytes, no proof", variant(done=runs(val_tokens=55_103_488)), Status.WARN
        ),
        Example(
            "own tokenizer, 8 % more bytes",
            variant(done=runs(val_tokens=55_103_488, val_bytes=163_166_792)),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
