"""PG-B-bpb-formula: val_bpb formula."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts, by_denominator
from rules.byte_code import with_code, with_formula
from rules.example_program import EVALUATION, edited, program
from rules.examples import runs, variant, without_loss
from rules.support import warned
from rules.testimony import ORDER_WITNESSES


def decide(case: Case) -> Finding:
    """Loss, BPB and target count of a line determine the bytes; they have to be those of the validation set."""
    logged = by_denominator(
        case,
        ("not the canonical bytes", "unexplained inflation"),
        "loss and BPB do not belong together",
        ORDER_WITNESSES,
    )
    more = [account for account in accounts(case) if account.denominator.kind == "slightly more bytes"]
    if more and logged.status is Status.UNKNOWN:
        return warned(more[0].denominator.reason, [account.evidence for account in more])
    # A right table and sum do not settle how sums of ranks and batches are put together.
    counted = with_code(case, logged, ("byte counts differ from the text",), decides=False)
    return with_formula(case, counted, FAULTS)


FAULTS = (
    "ratio of tokens and bytes inverted",
    "not divided by ln 2",
    "divided by ln 2 twice",
    "rates averaged instead of sums divided",
)
HELPER = """
def per_byte(per_token, tokens, length):
    bits = per_token / math.log(2)
    return (bits * tokens / length).item()
"""
QUOTIENT = "(totals[0] / math.log(2) / totals[2]).item()"


RULE = Rule(
    id="PG-B-bpb-formula",
    title="val_bpb formula",
    statement=(
        "val_bpb = (sum of natural-log losses over scored target tokens / ln 2) / (sum of original UTF-8 "
        "bytes of those tokens); val_loss is nats per token. Both are computed over the same targets."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="official code",
    violations=(
        (
            "mean of per-batch means with unequal batches; dividing by ln 2 twice; tokens/bytes ratio "
            "inverted; perplexity for loss"
        ),
        "averaging BPB per document or per rank instead of sum/sum",
    ),
    allowed=("any re-implementation that gives the same sums (float64 accumulation recommended)",),
    history=(
        "Severity: illegal (if it changes the number). Identity for logs: bytes = "
        "tokens*val_loss/(ln2*val_bpb); see the fingerprint table."
    ),
    legal_precedents=(549, 1855),
    illegal_precedents=(2009,),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/train_gpt.py",
        "https://github.com/openai/parameter-golf/issues/1017",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Sum losses and bytes over the same targets in float64, reduce over ranks, divide once; report "
        "val_loss and val_bpb of that pass."
    ),
    legal=(
        Example("sums over the whole set"),
        Example(
            "the same quotient in a helper, under other names",
            without_loss(
                variant(
                    program(
                        evaluation=edited(EVALUATION, QUOTIENT, "per_byte(val_loss, totals[1], totals[2])"),
                        extra=HELPER,
                    )
                )
            ),
            Status.UNKNOWN,
        ),
    ),
    illegal=(
        Example("BPB 7 % too low for its loss", variant(done=runs(val_bytes=162_462_757)), Status.FAIL),
        Example(
            "ratio of tokens and bytes inverted in a helper, no loss beside the BPB in the log",
            without_loss(
                variant(
                    program(
                        evaluation=edited(EVALUATION, QUOTIENT, "per_byte(val_loss, totals[2], totals[1])"),
                        extra=HELPER,
                    )
                )
            ),
            Status.FAIL,
            witnesses=(Witness.STATIC,),
        ),
        Example(
            "nats per byte under the name of bits",
            without_loss(variant(program(evaluation=edited(EVALUATION, QUOTIENT, "(totals[0] / totals[2]).item()")))),
            Status.FAIL,
            witnesses=(Witness.STATIC,),
        ),
    ),
    decide=decide,
)
