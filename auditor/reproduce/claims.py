"""What the documents claim against a comparable re-run: values, bands of the rule book, statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from auditor.case import Case
from auditor.reproduce.checks import AGREES, DIFFERS, NOISE, Check
from auditor.reproduce.measure import Measured

#: Rule book, PG-P-reproducibility: PASS up to 0.001 BPB, WARN up to 0.0025, FAIL beyond.
BAND_PASS, BAND_WARN = 0.001, 0.0025
BAND_SOURCE = "PG-P-reproducibility: pass to 0.001 BPB, warn to 0.0025"


def claim_checks(case: Case, seeds: Sequence[Measured]) -> Iterator[Check]:
    """What the documents claim against a comparable re-run."""
    from rules.measures import claimed_total, headline, logged_total, reported_runs, seed_claims, train_seconds

    finished = [seed for seed in seeds if seed.complete and "val_bpb" in seed.printed]
    if not finished:
        return
    values = [seed.printed["val_bpb"] for seed in finished]
    claim, claims = headline(case), seed_claims(case)
    mean = sum(values) / len(values)
    for seed in finished:
        if seed.seed in claims:
            yield bpb_check("val_bpb claimed", f"seed {seed.seed}", claims[seed.seed].value, seed.printed["val_bpb"])
    if claim is not None:
        yield bpb_check("mean val_bpb", f"{len(values)} seed(s)", claim.value, mean)
    runs = reported_runs(case)
    steps = [max((step.step for step in run.steps), default=0) for run in runs]
    ours = [seed.printed["steps"] for seed in finished if seed.printed.get("steps")]
    if any(steps) and ours:
        stated, measured = sum(steps) / len(steps), sum(ours) / len(ours)
        near = abs(measured - stated) <= 0.02 * stated
        # Fewer steps explain a worse score; they do not refute it.
        yield Check(
            "training steps",
            "mean",
            "steps",
            stated,
            measured,
            0.02 * stated,
            "2 %: speed of the machine",
            AGREES if near else NOISE,
            f"claimed runs made {stated:.0f} steps, the re-run {measured:.0f}",
            "PG-P-reproducibility",
            True,
        )
    totals = [found.value for run in runs if (found := logged_total(case, run))]
    stated_total = max(totals, default=claimed_total(case).value if claimed_total(case) else None)
    sizes = [seed.artifact.bytes + seed.code_bytes for seed in finished if seed.artifact]
    if stated_total and sizes:
        gap = max(sizes) - stated_total
        yield Check(
            "total bytes claimed",
            "largest",
            "bytes",
            stated_total,
            max(sizes),
            0.005 * stated_total,
            "0.5 %: compressed size varies from run to run",
            AGREES if gap <= 0.005 * stated_total else NOISE,
            f"claimed {stated_total:,.0f}, re-run {max(sizes):,}",
            "PG-S-cap",
            True,
        )
    clocks = [found.value for run in runs if (found := train_seconds(case, run))]
    measured_clocks = [seed.printed["train_seconds"] for seed in finished if seed.printed.get("train_seconds")]
    if clocks and measured_clocks:
        yield Check(
            "training seconds claimed",
            "largest",
            "s",
            max(clocks),
            max(measured_clocks),
            1.0,
            "one step and a second",
            AGREES if max(measured_clocks) <= max(clocks) + 1 else NOISE,
            f"claimed {max(clocks):.1f} s, re-run {max(measured_clocks):.1f} s",
            "PG-T-train",
            True,
        )


def bpb_check(subject: str, scope: str, stated: float, measured: float) -> Check:
    worse = measured - stated
    status = AGREES if worse <= BAND_PASS else NOISE if worse <= BAND_WARN else DIFFERS
    word = "worse" if worse > 0 else "better"
    return Check(
        subject,
        scope,
        "BPB",
        stated,
        measured,
        BAND_WARN,
        BAND_SOURCE,
        status,
        f"claimed {stated:.5f}, re-run {measured:.5f}, {abs(worse):.5f} {word}",
        "PG-P-reproducibility",
        True,
    )


def statistics_of(case: Case, seeds: Sequence[Measured], comparable: bool) -> dict[str, Any]:
    """Mean, spread, interval of the re-run; tests against the claim and the record where these are comparable."""
    from auditor.documents.statistics import compare, describe, detectable_difference, summarize, welch

    values = [seed.printed["val_bpb"] for seed in seeds if seed.complete and "val_bpb" in seed.printed]
    if not values:
        return {}
    ours = summarize(values, 0.95)
    found: dict[str, Any] = {"values": values, "re_run": asdict(ours)}
    if not comparable:
        return found
    from rules.comparison import per_seed, tokenizer

    claimed = per_seed(case)
    if claimed:
        theirs = summarize(claimed, 0.95)
        # One-sided: is the re-run worse than the claim? The claim takes the place of the "new", better side.
        test = welch(theirs, ours)
        found |= {
            "claimed": asdict(theirs),
            "against_claim": asdict(test) | {"question": "re-run worse than the claim, one-sided"},
            "detectable_difference": detectable_difference(theirs, ours, 0.01),
        }
    from auditor.documents.records import record_before

    date = case.submission.date
    record = record_before(date, case.submission.pr, claimed) if date else None
    if record is not None:
        against = compare(values, record, date, tokenizer(case))
        found["against_record"] = {
            "record": record.title,
            "pull_request": record.pr,
            "text": describe(against),
            "delta_bpb": against.delta_bpb,
            "passes": {str(regime): passed for regime, passed in against.passes.items()},
            "regime": str(against.regime),
            "detectable": {str(regime): value for regime, value in against.detectable.items()},
            "notes": list(against.notes),
        }
    return found
