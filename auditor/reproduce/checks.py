"""What a re-run printed against what was measured outside it: every number with its tolerance and the source of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from auditor.case import Case
from auditor.reproduce.agreement import SCORING_TOLERANCE, tolerance_of, trusted_scores, why_not
from auditor.reproduce.measure import Measured
from auditor.reproduce.plan import FULL, RerunPlan

AGREES, NOISE, DIFFERS, UNSEEN = "agrees", "within noise", "differs", "not measured"
ARRANGEMENT_SHARE = 0.002
CAP_BYTES = 16_000_000
CLOCK_SHARE, CLOCK_SECONDS, CLOCK_LINE = 0.02, 0.3, 0.05
TRAIN_PASS, TRAIN_WARN = 0.2, 1.0
CAUSALITY_TOLERANCE = MASS_TOLERANCE = 1e-3


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
    trusted = seed.trusted or {}
    if trusted.get("status") != "scored":
        yield _score(seed, None, UNSEEN, f"no trusted score: {trusted.get('reason', 'not made at this scale')}")
        return
    yield _score_check(seed, trusted, means)
    yield from _probe_checks(seed, trusted)


def _score(seed: Measured, measured: float | None, status: str, note: str) -> Check:
    tolerance = tolerance_of(int(seed.printed.get("digits") or 4))
    source = f"trusted scoring by the reference's loop; {SCORING_TOLERANCE:g} BPB for rounding"
    stated, scope = seed.printed["val_bpb"], f"seed {seed.seed}"
    return Check("val_bpb", scope, "BPB", stated, measured, tolerance, source, status, note, "PG-B-bpb-formula")


def _score_check(seed: Measured, trusted: dict[str, Any], means: Sequence[str]) -> Check:
    """The printed score against those of the trusted loop; what the loop could not repeat is never said to differ."""
    printed, scores = seed.printed["val_bpb"], trusted_scores(trusted)
    tolerance = tolerance_of(int(seed.printed.get("digits") or 4))
    name, best = min(scores.items(), key=lambda item: abs(item[1] - printed))
    plain = [item["bpb"] for item in trusted["scores"]]
    # Windows laid another way than those tried move the score by about as much as those tried differ.
    arrangement = max(tolerance, ARRANGEMENT_SHARE * printed, 2 * (max(plain) - min(plain)))
    gap = printed - best
    numbers = f"printed {printed:.5f}, trusted {best:.5f} ({name})"
    if abs(gap) <= tolerance:
        return _score(seed, best, AGREES, numbers)
    if trusted.get("updates_after_load") or trusted.get("parameters_changed"):
        return _score(seed, None, UNSEEN, _adapted(seed, trusted, tolerance))
    if abs(gap) <= arrangement:
        return _score(seed, best, NOISE, f"{numbers}: apart by what the layout of windows can do")
    if gap > 0:
        return _score(seed, best, UNSEEN, f"{numbers}: printed is worse than any layout of windows that was tried")
    if trusted.get("evaluation_followed") is False:
        note = f"{numbers}: printed is {-gap:.5f} better; its own evaluation was not followed, so look what it adds"
        return _score(seed, best, UNSEEN, note)
    if means:
        note = f"{numbers}: it may come from {', '.join(means)}, which the trusted pass leaves out"
        return _score(seed, best, UNSEEN, note)
    note = f"printed {printed:.5f}, but the model read back from the artifact scores {best:.5f} ({name}),"
    return _score(seed, best, DIFFERS, f"{note} {-gap:.5f} worse than printed")


def _adapted(seed: Measured, trusted: dict[str, Any], tolerance: float) -> str:
    """Why a score with training during evaluation is not confirmed, in one sentence."""
    plain = trusted["scores"][0]["bpb"]
    return (
        f"the model is trained further during evaluation: {why_not(trusted)}; without training it scores"
        f" {plain:.5f}{_other_line(seed, trusted['scores'], tolerance)}"
    )


def _probe_checks(seed: Measured, trusted: dict[str, Any]) -> Iterator[Check]:
    """Causality and normalisation of the weights that were read back, at sampled positions."""
    scope, rule = f"seed {seed.seed}", "PG-C1-causality"
    moved = trusted["causality"]["largest_change"]
    status = DIFFERS if moved > CAUSALITY_TOLERANCE else AGREES
    note = f"other tokens after a position change the logits before it by {moved:.2g}"
    yield Check("causality", scope, "logit", 0.0, moved, CAUSALITY_TOLERANCE, rule, status, note, rule)
    probe, rule = trusted.get("normalisation") or {}, "PG-C2-normalisation"
    gap = probe.get("largest_gap")
    if gap is None:
        return  # the softmax was taken by the trusted loop, so there is nothing of its own to test
    summed = probe["how"].startswith("sum")
    # A mean may hold further terms of training; only probabilities that sum to something else are a contradiction.
    status = AGREES if gap <= MASS_TOLERANCE else DIFFERS if summed else NOISE
    note = f"{probe['how']}: off by {gap:.2g} at most, {probe['probes']} positions"
    yield Check("normalisation", scope, "logit", 0.0, gap, MASS_TOLERANCE, rule, status, note, rule)


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
