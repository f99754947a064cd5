"""Ledger rows about the metric: stated losses, and the byte denominator that loss and BPB reveal."""

from __future__ import annotations

import math
from collections.abc import Iterator

from auditor.documents.interval import Interval, mean_interval
from auditor.documents.ledger.common import (
    AGREES,
    CONFLICTS,
    NO_EVIDENCE,
    Parts,
    at_line,
    listing,
    number,
    place,
    row,
    says,
    scope_of,
    seed_key,
    written,
)
from auditor.documents.ledger.headline import (
    Headline,
    Scored,
    evaluations,
    evidence_of,
    with_loss,
)
from auditor.documents.metric import Denominator, diagnose, diagnose_line, odd_quotients, pair_of
from auditor.documents.model import Claim, LogRun, Quantity


def loss_rows(parts: Parts, head: Headline) -> Iterator[Claim]:
    """Claimed losses against the very line the BPB is from, and claimed loss/BPB pairs against the metric identity."""
    data = parts.main
    if data is None:
        return
    lines = {key: item for key, item in head.reported.items() if with_loss(item).val_loss}
    if data.val_loss is not None and data.val_loss.value > 0:
        yield _loss_row("submission", data.val_loss, list(lines.values()))
        if data.val_bpb is not None and data.val_bpb.value > 0:
            yield from _pair_row("submission", data.val_loss, data.val_bpb, parts)
    for name, values in data.seeds.items():
        loss, bpb, seed = values.get("val_loss"), values.get("val_bpb"), seed_key(name)
        if loss is None or loss.value <= 0:
            continue
        yield _loss_row(f"seed {seed}", loss, [lines[seed]] if seed in lines else [])
        if bpb is not None and bpb.value > 0:
            yield from _pair_row(f"seed {seed}", loss, bpb, parts)


def _loss_row(scope: str, claim: Quantity, lines: list[Scored]) -> Claim:
    pairs = [(item, pair[0]) for item in lines if (pair := pair_of(with_loss(item)))]
    if not pairs:
        return row("val_loss", scope, claimed=(claim,), unit="nats/token", status=NO_EVIDENCE)
    mean = mean_interval(loss for _, loss in pairs)
    single = [item for item, loss in pairs if says(claim, loss)]
    found = [(item.run, with_loss(item)) for item, _ in pairs]
    evidence = [at_line(run, line.line, line.val_loss or 0.0, line.text) for run, line in found]
    fits = bool(single) or says(claim, mean)
    note = ""
    if not fits:
        item = pairs[0][0]
        stated_bpb = any(says(claim, o.bpb) for o in lines) or says(claim, mean_interval(o.bpb for o in lines))
        note = (
            f"{place(claim)} says {claim.value:.6f} nats per token, the line of the BPB says "
            f"{mean.middle:.6f} (`{item.label}`, {item.where}"
            + (f" and {len(pairs) - 1} more)" if len(pairs) > 1 else ")")
            + ("; the stated number is the BPB" if stated_bpb else "")
        )
    return row(
        "val_loss",
        scope,
        claimed=(claim,),
        evidence=evidence,
        computed=mean.middle,
        unit="nats/token",
        how="loss of the headline line" + (f", mean of {len(pairs)}" if len(pairs) > 1 else ""),
        status=AGREES if fits else CONFLICTS,
        note=note,
    )


def _pair_row(scope: str, loss: Quantity, bpb: Quantity, parts: Parts) -> Iterator[Claim]:
    """A claimed pair that no right denominator can produce; agreement is not worth a row of its own."""
    if says(loss, written(bpb)):
        note = f"val_loss and val_bpb are both {bpb.value:.6f}: one of them holds the other"
        yield row("loss and BPB", scope, claimed=(loss, bpb), unit="tokens/byte", status=CONFLICTS, note=note)
        return
    answer = diagnose(written(loss), written(bpb))
    known = [d for run in parts.runs for item in evaluations(run)[-1:] if (d := diagnose_line(item.result, run))]
    # A tokenizer of the submission's own has no known ratio: its log lines say which one is right.
    own = any(answer.ratio.overlaps(other.ratio.widened(other.ratio.middle * 5e-4)) for other in known)
    if own or (answer.accepted is not False and not known and answer.tokenizer):
        return
    if answer.accepted is False or (known and answer.kind != "right ratio, coverage unknown"):
        expected = f"; the logs have {known[-1].ratio.middle:.5f}" if known else ""
        note = (
            f"loss {loss.value:.6f} and BPB {bpb.value:.6f} as stated make {answer.ratio.middle:.5f} tokens per byte"
            f"{expected}: they are not of one evaluation, or the denominator is wrong"
        )
        yield row(
            "loss and BPB",
            scope,
            claimed=(loss, bpb),
            computed=answer.ratio.middle,
            unit="tokens/byte",
            how="bpb * ln 2 / loss",
            status=CONFLICTS,
            note=note,
        )


def denominator_rows(run: LogRun, head: Headline) -> Iterator[Claim]:
    lines = [(item, answer) for item in evaluations(run) if (answer := diagnose_line(with_loss(item), run))]
    main = _main_line(run, head, lines)
    if main:
        item, answer = main
        status = {True: AGREES, False: CONFLICTS, None: NO_EVIDENCE}[answer.accepted]
        others = [f"`{o.label}` ({a.kind})" for o, a in lines if a.accepted is False and o.label != item.label]
        note = answer.reason if answer.accepted is not True else ""
        note += ("; " if note and others else "") + (f"other lines: {listing(others)}" if others else "")
        value = answer.bytes.middle if answer.bytes else None
        yield row(
            "scored bytes",
            scope_of(run),
            evidence=(evidence_of(item),),
            computed=value,
            unit="bytes",
            how=_identity(answer),
            status=status,
            note=note,
        )
    ratio, odd = odd_quotients(run)
    if odd:
        yield _quotient_row(run, ratio, odd)


def _main_line(
    run: LogRun, head: Headline, lines: list[tuple[Scored, Denominator]]
) -> tuple[Scored, Denominator] | None:
    """The headline's line of the run where it has a pair, else the last line that has one."""
    wanted = {id(item.result) for item in head.reported.values() if item.run is run}
    return next((pair for pair in lines if id(pair[0].result) in wanted), lines[-1] if lines else None)


def _identity(answer: Denominator) -> str:
    if answer.tokens is None:
        return f"{answer.ratio.middle:.5f} tokens per byte ({answer.kind})"
    return f"{number(answer.tokens)} targets x loss / (ln 2 x BPB): {answer.kind}, {answer.tokenizer or 'unlisted'}"


def _quotient_row(run: LogRun, ratio: Interval, odd: list) -> Claim:
    total = sum(1 for step in run.steps if pair_of(step))
    first = odd[0]
    expected = first.val_loss * ratio.middle / math.log(2)
    note = (
        f"{len(odd)} of {total} validation lines have a BPB that their loss cannot give: line {first.line} says loss "
        f"{first.val_loss:.4f}, BPB {first.val_bpb:.4f}, which would be {expected:.4f} at {ratio.middle:.5f} tokens "
        "per byte"
    )
    evidence = [at_line(run, step.line, step.val_bpb or 0.0, step.text) for step in odd[:12]]
    return row(
        "loss/BPB quotient",
        scope_of(run),
        evidence=evidence,
        computed=float(len(odd)),
        unit="lines",
        how=f"lines whose BPB differs from loss x {ratio.middle:.5f} / ln 2",
        status=CONFLICTS,
        note=note,
    )
