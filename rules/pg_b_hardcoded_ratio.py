"""PG-B-hardcoded-ratio: No hard-coded bytes-per-token."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts, by_denominator
from rules.byte_code import with_code, with_formula
from rules.example_program import EVALUATION, edited, program
from rules.examples import SP1024_TOKENS, runs, variant, without_loss
from rules.support import failed
from rules.testimony import ORDER_WITNESSES

CONSTANT = edited(EVALUATION, "(totals[0] / math.log(2) / totals[2]).item()", "val_loss / (math.log(2) * 2.44)")


def decide(case: Case) -> Finding:
    """A denominator that is the true count to a few bytes is no constant; a short round ratio is one."""
    for account in accounts(case):
        ratio = account.denominator.ratio
        if ratio.low <= 0 or not account.exact:
            continue
        for constant in (1 / ratio.middle, ratio.middle):
            short = round(constant, 3)
            inverse = 1 / short if constant > 1 else short
            # One byte per token is exact for a byte vocabulary; elsewhere PG-B-bpb-formula sees it.
            if short not in (0, 1) and inverse in ratio.widened(1e-9):
                return failed(
                    f"bytes per token are exactly {short if constant > 1 else 1 / short:g}: a constant, not a sum",
                    [account.evidence],
                )
    counted = with_code(case, by_denominator(case, (), "", ORDER_WITNESSES), ("constant ratio", TOKENS))
    return with_formula(case, counted, ("constant ratio", TOKENS))


TOKENS = "tokens counted as bytes"
PER_TOKEN = edited(EVALUATION, "(totals[0] / math.log(2) / totals[2]).item()", "val_loss / math.log(2)")
PER_TOKEN = edited(PER_TOKEN, "            nbytes = size[targets] + (space[targets] & ~control[inputs])\n", "")
PER_TOKEN = edited(PER_TOKEN, "nbytes.double().sum()", "torch.zeros((), device=device).double()")


RULE = Rule(
    id="PG-B-hardcoded-ratio",
    title="No hard-coded bytes-per-token",
    statement=(
        "The denominator must be summed from the actual scored tokens. A constant ratio makes the score invalid."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 28),
    authority="community text; organiser ruling (cocohearts)",
    violations=("`val_bpb = val_loss / (math.log(2) * 3.5)`, `BYTES_PER_TOKEN = ...` used in the metric",),
    allowed=("a constant used only for a progress print",),
    reaches_back=(
        "the official script has counted bytes this way since the launch; the date is that of the first audit that "
        "was accepted, not of a new demand."
    ),
    history="",
    legal_precedents=(),
    illegal_precedents=(2009,),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1017",
        "https://github.com/openai/parameter-golf/pull/2009",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy="Sum the bytes of the scored tokens from the piece table and divide by that sum.",
    legal=(Example("denominator summed over the scored tokens"),),
    illegal=(
        Example(
            "2.44 bytes per token",
            variant(program(evaluation=CONSTANT), done=runs(val_bytes=SP1024_TOKENS * 2.44)),
            Status.FAIL,
        ),
        Example(
            "every token counted as one byte, no loss beside the BPB in the log",
            without_loss(variant(program(evaluation=PER_TOKEN))),
            Status.FAIL,
            witnesses=(Witness.STATIC,),
        ),
    ),
    decide=decide,
)
