"""What a symbolic timeline proves about the order of events: pure functions on `auditor.timeline` types.

Each function answers one question with a `Verdict`, or with None when the timeline holds nothing to judge. A verdict
names the places that prove it, in the order in which they happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from auditor.findings import Status
from auditor.timeline import (
    Branch,
    Counted,
    Event,
    Loop,
    Node,
    Phase,
    Place,
    Read,
    Report,
    Score,
    Seen,
    Sequence,
    Split,
    Timeline,
    Unknown,
    Update,
    Via,
)


@dataclass(frozen=True)
class Verdict:
    """One answer: rule id, status, one line in words, and (place, what happens there) in order."""

    rule: str
    status: Status
    summary: str
    chain: tuple[tuple[Place, str], ...] = ()


def order_verdicts(timeline: Timeline) -> list[Verdict]:
    """Every verdict this timeline supports, violations first."""
    found = [*state_verdicts(timeline), *count_verdicts(timeline), *choice_verdicts(timeline)]
    found += coverage(timeline, found)
    return sorted(found, key=lambda v: _RANK.index(v.status))


_RANK = (Status.FAIL, Status.WARN, Status.UNKNOWN, Status.PASS, Status.NOT_APPLICABLE)


def headline_scores(timeline: Timeline) -> list[Score]:
    """Scores of validation tokens that reach the claimed number."""
    return [e for e in timeline.events() if isinstance(e, Score) and e.counted and e.span.split is Split.VAL]


# -- parameters that had seen the scored tokens ------------------------------------------------------------------------


def state_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """Counted scores whose own tokens had already changed the parameters that scored them."""
    reads = [e for e in timeline.events() if isinstance(e, Read) and e.span.split is Split.VAL]
    counted = headline_scores(timeline)
    told: set[tuple[str, Place]] = set()
    for score in counted:
        for seen in score.seen:
            rule, status, words = _classified(timeline, score, seen)
            if (rule, seen.place) in told:
                continue
            told.add((rule, seen.place))
            yield Verdict(rule, status, words, _chain(timeline, reads, score, seen))


def _classified(timeline: Timeline, score: Score, seen: Seen) -> tuple[str, Status, str]:
    if seen.how == "free tensor":
        return (
            "PG-C3-slot", Status.WARN,
            "a tensor is optimised on validation targets that are then scored with it (disputed practice)",
        )  # fmt: skip
    if seen.how == "calibration":
        return (
            "PG-D-gptq-calibration", Status.FAIL,
            "statistics of validation tokens shape the quantised weights that score these tokens",
        )  # fmt: skip
    if seen.table:
        return "PG-C4-single-pass", Status.FAIL, "a count table already holds the tokens it helps to score"
    earlier = _scored_before(timeline, seen)
    if _before_export(timeline, seen):
        return (
            "PG-C3-prequant-ttt", Status.FAIL,
            "parameters are trained on validation tokens before the artifact is written, and then score these tokens",
        )  # fmt: skip
    if earlier:
        return (
            "PG-C4-single-pass", Status.FAIL,
            "validation tokens are scored again with parameters that have been trained on them",
        )  # fmt: skip
    return (
        "PG-C3-score-first", Status.FAIL,
        "parameters had been trained on the tokens before these were scored",
    )  # fmt: skip


def _scored_before(timeline: Timeline, seen: Seen) -> bool:
    """True when the update stands in a scheme that scores before it trains (a first pass)."""
    for loop in loops(timeline.root):
        events = list(_inside(loop))
        for number, event in enumerate(events):
            if isinstance(event, Update) and event.place == seen.place:
                return any(isinstance(e, Score) and not e.seen and e.span.split is Split.VAL for e in events[:number])
    return False


def _before_export(timeline: Timeline, seen: Seen) -> bool:
    return any(
        isinstance(e, Update) and e.place == seen.place and e.span.split is Split.VAL
        and e.phase in (Phase.TRAINING, Phase.SETUP)
        for e in timeline.events()
    )  # fmt: skip


def _chain(timeline: Timeline, reads: list[Read], score: Score, seen: Seen) -> tuple[tuple[Place, str], ...]:
    chain: list[tuple[Place, str]] = []
    if reads:
        chain.append((reads[0].place, "validation tokens are read"))
    chain.append((seen.place, f"changes {seen.state} with them ({seen.how})"))
    chain.append((score.place, "scores the same tokens"))
    report = next((e for e in timeline.events() if isinstance(e, Report) and e.headline), None)
    if report is not None:
        chain.append((report.place, "reports this score"))
    return tuple(chain)


# -- counts ------------------------------------------------------------------------------------------------------------


def count_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """Counts of evaluated tokens that take part in the claimed number."""
    reports = [e for e in timeline.events() if isinstance(e, Report) and e.headline]
    counts = {c: report for report in reports for c in report.counts}
    live = [c for c in counts if c.split in (Split.VAL, Split.UNKNOWN, Split.TRAIN)]
    if not live:
        return
    keyed = [c for c in live if c.target_in_key]
    own = [c for c in live if c.own_tokens]
    report = counts[live[0]]
    if keyed:
        yield Verdict(
            "PG-C2-hashed-ngram-cache", Status.FAIL,
            "a count table is read with the token being scored in its key, and the count enters its probability",
            _count_chain(timeline, keyed, report),
        )  # fmt: skip
    if report.spread:
        chain = ((report.spread[0], "divides the loss of a token over its bytes"), *_count_chain(timeline, live, report))
        yield Verdict(
            "PG-C2-byte-mixer", Status.FAIL,
            "a byte model is mixed with the loss of the realised token spread over its bytes", chain,
        )  # fmt: skip
    yield Verdict(
        "PG-C2-normalisation", Status.FAIL,
        "counts enter the probability of the realised token only; no distribution over the vocabulary is formed",
        _count_chain(timeline, live, report),
    )  # fmt: skip
    if own:
        yield Verdict(
            "PG-C4-single-pass", Status.FAIL,
            "a count table already holds the tokens it helps to score",
            _count_chain(timeline, own, report),
        )  # fmt: skip


def _count_chain(timeline: Timeline, counts: list[Counted], report: Report) -> tuple[tuple[Place, str], ...]:
    updates = [e for e in timeline.events() if isinstance(e, Update) and e.via is Via.TABLE]
    chain = [(u.place, "counts tokens") for u in updates[:1]]
    chain += [(c.place, "reads the count") for c in counts[:2]]
    chain.append((report.place, "the count is part of this number"))
    return tuple(chain)


def choice_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """The better of several losses enters the claimed number."""
    for event in timeline.events():
        if isinstance(event, Report) and event.headline and event.choices:
            chain = [(place, "keeps the smaller of two losses of the same token") for place in event.choices[:2]]
            chain.append((event.place, "reports the sum"))
            yield Verdict(
                "PG-C4-single-pass", Status.FAIL, "the smaller of several losses is kept after the target was seen",
                tuple(chain),
            )  # fmt: skip
            return


# -- what was proven, what could not be seen ---------------------------------------------------------------------------


def coverage(timeline: Timeline, found: list[Verdict]) -> Iterator[Verdict]:
    """Score-first proven, or why it could not be decided."""
    order_rules = ("PG-C3-score-first", "PG-C3-prequant-ttt", "PG-C4-single-pass")
    if any(v.rule in order_rules and v.status is Status.FAIL for v in found):
        return
    counted = headline_scores(timeline)
    blind = [e for e in timeline.events() if isinstance(e, Unknown)]
    updates = [
        e for e in timeline.events() if isinstance(e, Update) and e.span.split is Split.VAL and e.via is not Via.TABLE
    ]
    if not counted:
        chain = tuple((e.place, e.reason) for e in blind[:3])
        yield Verdict("PG-C3-score-first", Status.UNKNOWN, "the claimed number could not be traced to its scores", chain)
    elif not updates:
        yield Verdict(
            "PG-C3-score-first", Status.PASS, "no parameters change through validation tokens",
            ((counted[0].place, "scores the claimed number"),),
        )  # fmt: skip
    else:
        yield Verdict(
            "PG-C3-score-first", Status.PASS, "every counted token is scored before any update that consumes it",
            ((counted[0].place, "scores"), (updates[0].place, "updates, afterwards")),
        )  # fmt: skip


def loops(node: Node) -> Iterator[Loop]:
    """Every loop below a node, outermost first."""
    if isinstance(node, Loop):
        yield node
        yield from loops(node.body)
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from loops(item)
    elif isinstance(node, Branch):
        yield from loops(node.then)
        yield from loops(node.otherwise)
    elif hasattr(node, "body"):
        yield from loops(node.body)


def _inside(loop: Loop) -> Iterable[Event]:
    return Timeline("", loop.body).events()
