"""PG-S-side-channel: No uncounted information channel from training to evaluation."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import PurePosixPath

from auditor.case import Case
from auditor.findings import Finding, Severity, Status
from auditor.submission import Track
from auditor.timeline import External, Timeline
from rules.base import Example, Rule
from rules.events import blind_spots, evaluation_events, place
from rules.example_program import program
from rules.examples import variant
from rules.support import failed, listed, passed, warned
from rules.testimony import ORDER_WITNESSES, from_timelines

TABLE = """
    prior = torch.from_numpy(np.load("unigram_prior.npy")).to(device)
    scored.wte.weight.data.add_(prior)
    val_loss, val_bpb = evaluate(scored, val_tokens, tables, rank, world_size, device)
"""


def decide(case: Case) -> Finding:
    """Needs to see which files are opened during evaluation."""
    question = "which files evaluation reads besides artifact, tokenizer and validation shards"
    found = from_timelines(case, question, read, rule=RULE.id)
    names = {PurePosixPath(path).name for path in case.submission.files}
    opened = [item for item in found.evidence if item.note]
    if found.status is Status.FAIL and opened and all(PurePosixPath(item.note).name in names for item in opened):
        # The file is there for everybody to see and to weigh; whether the stated size holds it is PG-S-code-count.
        return replace(warned(f"{found.summary}, which the folder holds", found.evidence), witness=found.witness)
    return found


def read(timeline: Timeline) -> Finding | None:
    """Paths opened in the evaluation phase that are neither artifact nor data."""
    opened = [
        event
        for event in evaluation_events(timeline)
        # A program that reads its own source (for the log, or to count its bytes) learns nothing from it.
        if isinstance(event, External) and event.kind == "path" and not event.detail.endswith(event.place.path)
    ]
    if opened:
        return failed(
            f"evaluation reads {listed(event.detail or 'a path' for event in opened)}",
            [place(event, event.detail) for event in opened],
        )
    if any(blind_spots(timeline)):
        return None
    return passed("evaluation opens no file besides artifact, tokenizer and data")


RULE = Rule(
    id="PG-S-side-channel",
    title="No uncounted information channel from training to evaluation",
    statement=(
        "Nothing but the counted bytes may carry information from training (or from the author) to "
        "evaluation: no extra files, environment variables with payload, tokenizer pieces stuffed with data, "
        "Python packages with tables, global caches, shared memory."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README; Discord statement",
    violations=(
        (
            "np.load/torch.load/open of any file at eval that is not artifact, tokenizer or val data "
            "(allow-list: fineweb_val_*.bin, fineweb_val_bytes_*.bin)"
        ),
        "SEED/RUN env strings decoded into weights; pickled constants in a second module",
        "tokenizer larger than its vocabulary needs (custom .model used as storage)",
    ),
    allowed=(
        "sidecar of val bytes (metric only, never a model input)",
        "compiled-kernel caches",
    ),
    history="Discord, Will DePue, 2026-03-25: run-time memory is free, bits sent from train to eval are not.",
    legal_precedents=(),
    illegal_precedents=(945, 1056),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/commit/9a60d1676",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
        "https://github.com/openai/parameter-golf/pull/891",
    ),
    witnesses=ORDER_WITNESSES,
    remedy="Let evaluation open nothing but the artifact, the tokenizer and the validation shards.",
    legal=(Example("artifact, tokenizer and shards only", witnesses=ORDER_WITNESSES),),
    illegal=(
        Example("a table in a file of its own", variant(program(score=TABLE)), Status.FAIL, witnesses=ORDER_WITNESSES),
        Example(
            "a table in a file of the folder",
            {**variant(program(score=TABLE)), "unigram_prior.npy": "numbers"},
            Status.WARN,
            witnesses=ORDER_WITNESSES,
        ),
    ),
    decide=decide,
)
