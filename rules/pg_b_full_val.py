"""PG-B-full-val: Full validation set."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import by_denominator
from rules.data_builds import partial_evidence
from rules.example_program import EVALUATION, edited, program
from rules.examples import RUNS, runs, variant
from rules.support import failed
from rules.testimony import ORDER_WITNESSES, stated

SUBSET = ("ppm_mixer: subset=3000000 tokens of 62021632",)
DISCLOSED = "Coverage: 900/1893 chunks of the validation set were scored."

# Windows drawn at random: some tokens are scored twice, others never.
DRAWN = edited(
    EVALUATION,
    "    starts = range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len)\n",
    "    starts = np.random.randint(0, val_tokens.numel() - args.seq_len - 1, 100)\n",
)
IN_STEPS = edited(
    EVALUATION,
    "    starts = range(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len)\n",
    "    starts = np.arange(rank * args.seq_len, val_tokens.numel() - 1, world_size * args.seq_len)\n",
)
# A further adaptation that was started when the score stood, and was cut off.
CUT_OFF = tuple(f"  ttt_chunk [{done}/1893] bpb=1.0{512 - done} time={done * 0.3:.1f}s" for done in range(10, 121, 10))
NO_LOGS = {f"train_seed{run.seed}.log": None for run in RUNS}


def decide(case: Case) -> Finding:
    """Target count, implied bytes, and lines that say how far the pass went."""
    missing = partial_evidence(case)
    if missing is None:
        counted = by_denominator(case, (), "", ORDER_WITNESSES, ratio_decides=False)
        read = stated(case, RULE.id)
        # A logged count of every target outweighs the program, which may have run under other settings.
        if counted.status is Status.PASS or read is None or read.status is not Status.FAIL:
            return counted
        missing = read.summary, list(read.evidence), False
    summary, evidence, disclosed = missing
    if disclosed:
        read = stated(case, RULE.id)
        evidence = [*evidence, *(read.evidence if read is not None and read.status is Status.FAIL else ())]
        return failed(
            f"{summary}; the author says so",
            evidence,
            "An openly partial result is a study, not a score.",
            severity=Severity.NOT_RECORD_ELIGIBLE,
        )
    if case.submission.track in (Track.NON_RECORD, Track.UNLIMITED):
        return failed(
            summary, evidence, "Illegal as a record score; this is not one.", severity=Severity.NOT_RECORD_ELIGIBLE
        )
    return failed(summary, evidence)


RULE = Rule(
    id="PG-B-full-val",
    title="Full validation set",
    statement=(
        "The reported score must cover the whole fineweb_val split (all shards, fixed first 50,000 "
        "documents). Subsets, random mini-batches, prefixes, 10k-document builds or VAL_TOKEN_LIMIT runs are "
        "not scores."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README/official code + rulings",
    violations=(
        ("`val_tokens[:N]`, VAL_DOC_FRACTION<1, `PPM_SUBSET_TOKENS`, only the first val shard, 20 random batches"),
        "log `subset=3000000`, `val_tokens: 9662464`",
    ),
    allowed=(
        "truncation of the tail to a multiple of seq_len as in the stock loader (loses < seq_len tokens)",
        "smoke runs in non-record folders that say so (#823 was flagged as proxy)",
    ),
    history=(
        "Severity: illegal (as a record score). Knobs such as VAL_DOC_FRACTION and TTT_EVAL_ONLY exist in "
        "merged code: check the effective value in the log."
    ),
    legal_precedents=(549, 1855),
    illegal_precedents=(1835, 1854, 1861, 2009, 2039),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/1835",
        "https://github.com/openai/parameter-golf/pull/2009",
        "https://github.com/openai/parameter-golf/pull/2039",
        "https://github.com/openai/parameter-golf/issues/2127",
        "https://github.com/openai/parameter-golf/blob/main/train_gpt.py",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Score the whole validation split in the reported pass; report a partial result as what it is, in the "
        "non-record folder."
    ),
    legal=(
        Example("62,021,632 targets, 151,080,363 bytes"),
        Example("every window in steps of its length", variant(program(evaluation=IN_STEPS))),
        Example("another pass cut off behind the result", variant(done=runs(after_score=CUT_OFF))),
    ),
    illegal=(
        Example("10,000 documents", variant(done=runs(val_tokens=9_662_464, val_bytes=29_950_000)), Status.FAIL),
        Example(
            "a pass over part of the chunks before the result", variant(done=runs(before_score=CUT_OFF)), Status.FAIL
        ),
        Example("a mixer on a subset of the tokens", variant(done=runs(before_score=SUBSET)), Status.FAIL),
        Example(
            "windows drawn at random, without a log",
            {**variant(program(evaluation=DRAWN)), **NO_LOGS},
            Status.FAIL,
            witnesses=ORDER_WITNESSES,
        ),
        Example(
            "partial coverage, openly stated",
            variant(readme_more=DISCLOSED, val_bpb=1.0301, seed_results=None),
            Status.FAIL,
        ),
    ),
    decide=decide,
)
