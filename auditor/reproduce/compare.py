"""Measured against stated: every number with its tolerance and the source of it, statistics, and one verdict.

Two comparisons are made. What a program printed is compared with what was measured outside it, at every scale. What the
submission claims is compared with the re-run only where the re-run is what the claim is about: full scale, eight H100.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from auditor.case import Case
from auditor.reproduce.measure import Measured
from auditor.reproduce.plan import FULL, RerunPlan

AGREES, NOISE, DIFFERS, UNSEEN = "agrees", "within noise", "differs", "not measured"
#: Rule book, PG-P-reproducibility: PASS up to 0.001 BPB, WARN up to 0.0025, FAIL beyond.
BAND_PASS, BAND_WARN = 0.001, 0.0025
BAND_SOURCE = "PG-P-reproducibility: pass to 0.001 BPB, warn to 0.0025"
#: Trusted scoring and the program's own sum differ by rounding and the order of windows only.
SCORING_TOLERANCE = 1e-4
ARRANGEMENT_SHARE = 0.002
CAP_BYTES = 16_000_000
CLOCK_SHARE, CLOCK_SECONDS, CLOCK_LINE = 0.02, 0.3, 0.05
TRAIN_PASS, TRAIN_WARN = 0.2, 1.0
CAUSALITY_TOLERANCE = 1e-3


class Outcome(enum.StrEnum):
    """Verdict of a re-run."""

    REPRODUCED = "REPRODUCED"
    NOISE = "WITHIN NOISE"
    NOT = "NOT REPRODUCED"
    COULD_NOT = "COULD NOT RUN"


@dataclass(frozen=True)
class Check:
    """One number: what is stated, what was measured, and how far they may be apart.

    Attributes:
        subject, scope: e.g. "artifact bytes", "seed 42". unit: of both numbers.
        stated, measured: None where there is none. tolerance: in the same unit; `source` says where it is from.
        status: "agrees", "within noise", "differs", "not measured". note: one sentence with the numbers.
        rule: rule that the number bears on. claim: stated by the submission's documents, not printed by the re-run.
    """

    subject: str
    scope: str
    unit: str
    stated: float | None
    measured: float | None
    tolerance: float
    source: str
    status: str
    note: str = ""
    rule: str = ""
    claim: bool = False


@dataclass
class Reproduction:
    """The re-run as data: the section `reproduction` of a report."""

    verdict: Outcome
    reason: str
    scale: str
    comparable: bool
    checks: list[Check] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    seeds: list[dict[str, Any]] = field(default_factory=list)
    claimed_curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)


def reproduce(case: Case, plan: RerunPlan, seeds: Sequence[Measured], environment: dict[str, Any]) -> Reproduction:
    """Compare a re-run with what was printed and claimed."""
    means = other_means(case)
    checks = [check for seed in seeds for check in seed_checks(seed, plan, means)]
    comparable, why = _comparable(plan, environment)
    if comparable:
        checks += list(claim_checks(case, seeds))
    statistics = _statistics(case, seeds, comparable)
    verdict, reason = decide(checks, seeds, comparable, why)
    deciding = {key: value for key, value in environment.items() if key != "packages"}
    curves = {run.path + (f" seed {run.seed}" if run.seed is not None else ""): _curve(run) for run in _claimed(case)}
    return Reproduction(
        verdict,
        reason,
        plan.scale,
        comparable,
        checks,
        statistics,
        plan.as_dict(),
        deciding,
        [seed.as_dict() for seed in seeds],
        curves,
    )


def _comparable(plan: RerunPlan, environment: dict[str, Any]) -> tuple[bool, str]:
    """Whether the re-run is the experiment the claim is about."""
    if plan.scale != FULL:
        return False, "a rehearsal at small scale"
    names = [gpu.get("name", "") for gpu in environment.get("gpus") or []]
    if plan.ranks != 8:
        return False, f"{plan.ranks} processes instead of 8"
    other = [name for name in names[:8] if "H100" not in name or "PCIe" in name or "NVL" in name]
    if len(names) < 8 or other:
        return False, "not eight H100 SXM: " + (", ".join(sorted(set(names))) or "no GPU seen")
    return True, ""


def decide(checks: Sequence[Check], seeds: Sequence[Measured], comparable: bool, why: str) -> tuple[Outcome, str]:
    """Verdict and its reason. What outside measurement contradicts outweighs everything else."""
    contradicted = [check for check in checks if check.status == DIFFERS]
    if contradicted:
        first = contradicted[0]
        more = f" (and {len(contradicted) - 1} more)" if len(contradicted) > 1 else ""
        return Outcome.NOT, f"{first.scope}, {first.subject}: {first.note}{more}"
    finished = [seed for seed in seeds if seed.complete and not any(seed.codes)]
    if not any("val_bpb" in seed.printed for seed in finished):
        reasons = "; ".join(f"seed {seed.seed}: {seed.reason or 'no result was printed'}" for seed in seeds)
        return Outcome.COULD_NOT, reasons or "no seed was run"
    if comparable:
        final = [check for check in checks if check.claim and check.subject == "mean val_bpb"]
        if not final:
            return Outcome.COULD_NOT, "the submission claims no val_bpb to compare with"
        within = final[0].status == NOISE
        return (Outcome.NOISE if within else Outcome.REPRODUCED), final[0].note
    scored = [check for check in checks if check.subject == "val_bpb"]
    open_ones = [check for check in scored if check.status == UNSEEN]
    if open_ones or len(scored) < len(seeds):
        told = open_ones[0].note if open_ones else "not every seed finished"
        return Outcome.COULD_NOT, f"{why}: {told}"
    return Outcome.REPRODUCED, f"{why}: what {len(scored)} seed(s) printed is what was measured"


# --- printed against outside ------------------------------------------------------------------------------------


def seed_checks(seed: Measured, plan: RerunPlan, means: Sequence[str] = ()) -> Iterator[Check]:
    """What one run printed against what was measured outside it.

    Args:
        means: what besides the model takes part in the program's score (see `other_means`).
    """
    if not seed.complete or any(seed.codes) or "val_bpb" not in seed.printed:
        return  # what a run printed before it broke off is not what it reports
    yield from _score_checks(seed, means)
    yield from _size_checks(seed)
    yield from _clock_checks(seed, plan)
    yield _data_check(seed)


def _score_checks(seed: Measured, means: Sequence[str]) -> Iterator[Check]:
    printed, scope = seed.printed["val_bpb"], f"seed {seed.seed}"
    trusted = seed.trusted or {}
    digits = int(seed.printed.get("digits") or 4)
    tolerance = max(SCORING_TOLERANCE, 0.5 * 10.0**-digits)
    source = "trusted scoring by the reference's loop; 1e-4 BPB for rounding"

    def check(measured: float | None, status: str, note: str) -> Check:
        return Check("val_bpb", scope, "BPB", printed, measured, tolerance, source, status, note, "PG-B-bpb-formula")

    if trusted.get("status") != "scored":
        yield check(None, UNSEEN, f"no trusted score: {trusted.get('reason', 'not made at this scale')}")
        return
    scores = trusted["scores"]
    best = min(scores, key=lambda item: abs(item["bpb"] - printed))
    # Windows laid another way than those tried move the score by about as much as those tried differ.
    values = [item["bpb"] for item in scores]
    arrangement = max(tolerance, ARRANGEMENT_SHARE * printed, 2 * (max(values) - min(values)))
    gap = printed - best["bpb"]
    numbers = f"printed {printed:.5f}, trusted {best['bpb']:.5f} ({best['windows']})"
    if abs(gap) <= tolerance:
        yield check(best["bpb"], AGREES, numbers)
    elif trusted.get("updates_after_load") or trusted.get("parameters_changed"):
        other = _other_line(seed, scores, tolerance)
        yield check(
            None,
            UNSEEN,
            "the model is trained further during evaluation, which the trusted pass does not"
            f" repeat; without it {best['bpb']:.5f}{other}",
        )
    elif abs(gap) <= arrangement:
        yield check(best["bpb"], NOISE, f"{numbers}: apart by what the layout of windows can do")
    elif gap > 0:
        yield check(best["bpb"], UNSEEN, f"{numbers}: printed is worse than any layout of windows that was tried")
    elif trusted.get("evaluation_followed") is False:
        note = f"{numbers}: printed is {-gap:.5f} better; its own evaluation was not followed, so look what it adds"
        yield check(best["bpb"], UNSEEN, note)
    elif means:
        yield check(
            best["bpb"], UNSEEN, f"{numbers}: it may come from {', '.join(means)}, which the trusted pass leaves out"
        )
    else:
        yield check(
            best["bpb"],
            DIFFERS,
            f"printed {printed:.5f}, but the model read back from the artifact scores"
            f" {best['bpb']:.5f} ({best['windows']}), {-gap:.5f} worse than printed",
        )
    moved = trusted["causality"]["largest_change"]
    status = DIFFERS if moved > CAUSALITY_TOLERANCE else AGREES
    yield Check(
        "causality",
        scope,
        "logit",
        0.0,
        moved,
        CAUSALITY_TOLERANCE,
        "PG-C1-causality",
        status,
        f"other tokens after a position change the logits before it by {moved:.2g}",
        "PG-C1-causality",
    )


def other_means(case: Case) -> tuple[str, ...]:
    """What besides the loaded model can take part in the score, by the static timeline: counts, updates, unknowns.

    A program that cannot be followed may do anything, so it is never said to have misprinted.
    """
    from auditor.findings import Witness
    from auditor.timeline import Phase, Report, Score, Unknown, Update

    timeline = case.timelines.get(Witness.STATIC)
    if timeline is None:
        return (f"what static analysis could not follow ({case.absent.get(Witness.STATIC, 'no timeline')})",)
    found: dict[str, None] = {}
    for event in timeline.events():
        if isinstance(event, Update) and event.phase is Phase.EVALUATION:
            found[f"updates during evaluation (line {event.place.line})"] = None
        elif (isinstance(event, Score) and event.tables) or (isinstance(event, Report) and event.counts):
            found["counts of tokens"] = None
        elif isinstance(event, Unknown) and event.phase in (Phase.EVALUATION, Phase.UNKNOWN):
            found[f"what could not be followed (line {event.place.line})"] = None
    return tuple(found)[:3]


def _other_line(seed: Measured, scores: list[dict], tolerance: float) -> str:
    for label, bpb, at in seed.results:
        if at is not None and at < (seed.clocks.artifact_read or 0):
            continue  # printed before the artifact was read back: another model
        if any(abs(item["bpb"] - bpb) <= tolerance for item in scores):
            return f", which is the printed {label}"
    return ""


def _size_checks(seed: Measured) -> Iterator[Check]:
    scope, printed = f"seed {seed.seed}", seed.printed
    exact = "file sizes are exact (PG-S-cap)"
    if seed.artifact is None:
        yield Check(
            "artifact bytes",
            scope,
            "bytes",
            printed.get("model_bytes"),
            None,
            0,
            exact,
            UNSEEN,
            "no artifact was found among the files written",
            "PG-S-cap",
        )
        return
    stated, size = printed.get("model_bytes"), seed.artifact.bytes

    def artifact(status: str, note: str) -> Check:
        return Check("artifact bytes", scope, "bytes", stated, size, 0, exact, status, note, "PG-S-cap")

    if stated is None:
        yield artifact(UNSEEN, "no size was printed")
    elif stated != size and not seed.artifact.alone:
        files = ", ".join(f"{path} {count:,}" for path, count in sorted(seed.read_back.items())[:6])
        yield artifact(UNSEEN, f"printed {stated:,}; which file is meant is not clear ({files or seed.artifact.how})")
    else:
        note = f"printed {stated:,}, on disk {size:,} ({seed.artifact.path})"
        yield artifact(AGREES if stated == size else DIFFERS, note)
    yield from _code_checks(seed, size)


def _code_checks(seed: Measured, size: int) -> Iterator[Check]:
    """Code as printed against code as shipped, and the total against the cap.

    Two conventions of counting code are accepted (PG-S-code-count), so only a total that is over the cap under the
    kinder one contradicts; which one applies is for the rule to say.
    """
    scope, code = f"seed {seed.seed}", seed.printed.get("code_bytes")
    if code is not None and not seed.printed.get("code_packed"):
        status = AGREES if code in (seed.code_bytes, seed.local_code_bytes) else NOISE
        note = f"printed {code:,}, shipped {seed.code_bytes:,}, with local modules {seed.local_code_bytes:,}"
        source = "PG-S-code-count: as shipped, or packed"
        yield Check("code bytes", scope, "bytes", code, seed.code_bytes, 0, source, status, note, "PG-S-code-count")
    kind, strict = size + min(code or seed.code_bytes, seed.code_bytes), size + seed.code_bytes
    status = DIFFERS if kind > CAP_BYTES else NOISE if strict > CAP_BYTES else AGREES
    note = f"{strict:,} of {CAP_BYTES:,} bytes on disk, {kind:,} with code as printed"
    yield Check("total bytes", scope, "bytes", CAP_BYTES, strict, 0, "PG-S-cap", status, note, "PG-S-cap")


def _clock_checks(seed: Measured, plan: RerunPlan) -> Iterator[Check]:
    yield from _training_checks(seed, plan)
    yield from _evaluation_check(seed, plan)


def _training_checks(seed: Measured, plan: RerunPlan) -> Iterator[Check]:
    """The program's clock against the wall clock, stretch by stretch, and the wall clock against the limit."""
    scope, told = f"seed {seed.seed}", seed.printed.get("train_seconds")
    source = "2 % or 0.3 s: lines are stamped when they arrive"
    pairs = seed.clock_pairs
    printed, outside = (sum(pair[i] for pair in pairs) for i in (0, 1))
    tolerance = max(CLOCK_SHARE * outside, CLOCK_SECONDS)

    def clock(stated: float | None, measured: float | None, status: str, note: str) -> Check:
        return Check("training clock", scope, "s", stated, measured, tolerance, source, status, note, "PG-T-train")

    if not pairs:
        yield clock(told, None, UNSEEN, "fewer than two lines show the training clock")
        return
    # The clock may stop for a validation or a warm-up that is undone: that is one stretch, not most of them.
    behind = [theirs - own for own, theirs in pairs if theirs - own > max(CLOCK_SHARE * theirs, CLOCK_LINE)]
    slow = outside - printed > tolerance
    status = AGREES if not slow else DIFFERS if 2 * len(behind) >= len(pairs) else NOISE
    note = f"between its step lines the program counted {printed:.1f} s while {outside:.1f} s passed"
    if status == NOISE:
        note += f"; the difference lies in {len(behind)} of {len(pairs)} stretches: see what stands there"
    yield clock(printed, outside, status, note)
    paused = sum(behind) if status == NOISE else 0.0
    over = outside - plan.train_limit
    limited = AGREES if over <= TRAIN_PASS else NOISE if over - paused <= TRAIN_WARN else DIFFERS
    note = f"{outside:.1f} s between the first and the last step line, limit {plan.train_limit:.0f}"
    bands = "PG-T-train: pass to 600.2 s, warn to 601"
    yield Check(
        "training seconds", scope, "s", plan.train_limit, outside, TRAIN_WARN, bands, limited, note, "PG-T-train"
    )


def _evaluation_check(seed: Measured, plan: RerunPlan) -> Iterator[Check]:
    scope = f"seed {seed.seed}"
    clocks = seed.clocks
    if clocks.result is None or clocks.artifact_written is None:
        return
    # The trusted pass of a rehearsal holds the evaluation up; that time is not the program's.
    held = float((seed.trusted or {}).get("seconds") or 0) if plan.scale != FULL else 0.0
    spent = max(clocks.result - clocks.artifact_written - held, 0.0)
    stated = seed.printed.get("eval_seconds")
    note = f"{spent:.1f} s from the artifact to the result, limit {plan.eval_limit:.0f}"
    note += f"; printed {stated:.1f} s" if stated is not None else ""
    # The scored pass alone is what merged rows count; loading and compiling before it may come on top of the limit.
    status = AGREES if spent <= plan.eval_limit else NOISE if (stated or math.inf) <= plan.eval_limit else DIFFERS
    yield Check(
        "evaluation seconds", scope, "s", stated, spent, plan.eval_limit, "PG-T-eval: 600 s", status, note, "PG-T-eval"
    )


def _data_check(seed: Measured) -> Check:
    scope, source = f"seed {seed.seed}", "PG-D-train-at-eval: none"

    def check(status: str, note: str, count: float | None) -> Check:
        return Check(
            "training data at evaluation", scope, "accesses", 0, count, 0, source, status, note, "PG-D-train-at-eval"
        )

    if not seed.inotify:
        return check(UNSEEN, "file accesses could not be watched here", None)
    if seed.clocks.artifact_written is None:
        return check(UNSEEN, "no artifact marks the beginning of evaluation", None)
    if not seed.shard_reads:
        held = f"; {len(seed.mapped_after)} shard(s) stay mapped" if seed.mapped_after else ""
        return check(AGREES, f"no training shard was opened or read after the artifact was written{held}", 0)
    at, path, what = seed.shard_reads[0]
    note = f"{path.rsplit('/', 1)[-1]}: {what} {at - seed.clocks.artifact_written:.1f} s after the artifact was written"
    return check(DIFFERS, note, len(seed.shard_reads))


# --- claims against the re-run ----------------------------------------------------------------------------------


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
            yield _bpb_check("val_bpb claimed", f"seed {seed.seed}", claims[seed.seed].value, seed.printed["val_bpb"])
    if claim is not None:
        yield _bpb_check("mean val_bpb", f"{len(values)} seed(s)", claim.value, mean)
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


def _bpb_check(subject: str, scope: str, stated: float, measured: float) -> Check:
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


# --- statistics -------------------------------------------------------------------------------------------------


def _statistics(case: Case, seeds: Sequence[Measured], comparable: bool) -> dict[str, Any]:
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


def _claimed(case: Case) -> list:
    from rules.measures import reported_runs

    return reported_runs(case)


def _curve(run: Any) -> list[tuple[int, float]]:
    return [(step.step, step.train_loss) for step in run.steps if step.train_loss is not None]
