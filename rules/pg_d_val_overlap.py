"""PG-D-val-overlap: Train shards must be disjoint from the 50,000 validation documents."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts
from rules.data_builds import leaky_builds, rebuilt_cleanly, wrong_token_counts
from rules.examples import runs, variant
from rules.measures import reported_runs
from rules.support import at, failed, listed, passed, unknown, warned

LEAKY = "./data/datasets/datasets/fineweb10B_sp1024"


def decide(case: Case) -> Finding:
    """Fingerprints of the data build in the logs: shard count, doubled path, validation tokens."""
    leaky = leaky_builds(case)
    if leaky:
        if rebuilt_cleanly(case):
            return warned(
                f"{leaky[0].note}, but the README builds the data with 50,000 reserved documents",
                leaky,
                "A local build with --val-docs 50000 has the same number of shards and is clean: ask for its manifest.",
            )
        return failed(
            leaky[0].note,
            leaky,
            "The shipped default of the preparation script reserves 10,000 validation "
            "documents; the other 40,000 that are scored stand in the training shards.",
        )
    wrong = [a for a in accounts(case) if a.denominator.kind in ("wrong split", "10,000 documents")]
    if wrong:
        return failed(wrong[0].denominator.reason, [account.evidence for account in wrong])
    odd = wrong_token_counts(case)
    if odd:
        return failed(odd[0].note, odd)
    known = [run for run in reported_runs(case) if run.train_shards and run.train_shards.value > 0]
    if not known:
        return unknown("no log states the number of train shards", (Witness.STATIC, Witness.REPRODUCTION))
    counts = sorted({int(run.train_shards.value) for run in known})
    return passed(
        f"{listed(counts)} train shards: no fingerprint of a build that overlaps the validation documents",
        [at(run.train_shards, "train shards as logged") for run in known],
    )


RULE = Rule(
    id="PG-D-val-overlap",
    title="Train shards must be disjoint from the 50,000 validation documents",
    statement=(
        "The validation split is the first 50,000 documents of the published stream; training data must start "
        "after them. A re-export that reserves fewer documents (`prepare_caseops_data.py --val-docs 10000`, "
        "the shipped default) trains on documents 10,000-49,999 that are later scored: such a score is "
        "contaminated and not rankable."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 5, 1),
    authority="organiser ruling (cocohearts)",
    violations=(
        (
            "log fingerprint `train_shards: 1499` and a doubled path `datasets/datasets` (local build with "
            "the leaky default)"
        ),
        "`val_tokens: 9662464` or `total_docs: 10000` (only 10k documents scored)",
        ('`val_tokens: 36562944` (four parallel builds, each with its own "first N": non-canonical val, #2109)'),
    ),
    allowed=(
        (
            "download of the canonical export (`train_shards: 80`, `val_tokens: 47851520` for CaseOps; "
            "manifest docs_val=50000)"
        ),
        ("shipping the script with the leaky default while the logs prove canonical data (#1855, #2135): merged"),
    ),
    history=(
        "Issue #2127 audited 34 CaseOps PRs: 15 leaky. Grace never applied to contaminated scores (#2130 "
        "excluded, #2135 with the same code but clean data included)."
    ),
    legal_precedents=(1729, 1736, 1855, 1945, 1953, 2014, 2135),
    illegal_precedents=(1854, 2018, 2109, 2118, 2130),
    sources=(
        "https://github.com/openai/parameter-golf/issues/2127",
        "https://github.com/openai/parameter-golf/pull/2018",
        "https://github.com/openai/parameter-golf/pull/2130",
        "https://github.com/openai/parameter-golf/pull/2146",
        "https://github.com/openai/parameter-golf/pull/2109",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy=(
        "Use the published export (for CaseOps: 80 train shards, 47,851,520 validation tokens) or rebuild "
        "with 50,000 reserved documents, train again and ship those logs. A contaminated score cannot be "
        "kept."
    ),
    legal=(Example("published export, 80 shards"),),
    illegal=(
        Example(
            "1,499 shards under a doubled path",
            variant(done=runs(train_shards=1499, data_path=LEAKY, settings=(f"  datasets_dir: {LEAKY}",))),
            Status.FAIL,
        ),
        Example("10,000 validation documents", variant(done=runs(val_tokens=9662464, val_bytes=29950000)), Status.FAIL),
    ),
    decide=decide,
)
