"""What a symbolic timeline proves about the order of events: pure functions on `auditor.timeline` types.

Each function answers one question with a `Verdict`, or with None when the timeline holds nothing to judge. A verdict
names the places that prove it, in the order in which they happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from auditor.findings import Status
from auditor.static.mixtures import count_verdicts
from auditor.static.origin import origin_verdicts
from auditor.static.verdicts import Verdict
from auditor.timeline import (
    Branch,
    Calibrate,
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
    Serialize,
    Split,
    Timeline,
    Unknown,
    Update,
    Via,
)


def order_verdicts(timeline: Timeline) -> list[Verdict]:
    """Every verdict this timeline supports, violations first."""
    found = [
        *state_verdicts(timeline),
        *count_verdicts(timeline),
        *choice_verdicts(timeline),
        *target_verdicts(timeline),
        *origin_verdicts(timeline),
        *stored_verdicts(timeline),
        *part_verdicts(timeline),
    ]
    if any(v.rule in ("PG-C3-prequant-ttt", "PG-D-gptq-calibration") and v.status is Status.FAIL for v in found):
        worst = next(v for v in found if v.rule in ("PG-C3-prequant-ttt", "PG-D-gptq-calibration"))
        words = "validation tokens change the weights that are written to the artifact"
        found.append(Verdict("PG-D-val-in-train", Status.FAIL, words, worst.chain))
    found += coverage(timeline, found)
    return sorted(found, key=lambda v: _RANK.index(v.status))


def answers(timeline: Timeline) -> dict[str, Verdict]:
    """The gravest verdict for every rule the timeline can decide; rules it cannot decide are left out.

    Nothing is answered with a pass when the claimed number could not be traced to its scores.
    """
    found: dict[str, Verdict] = {}
    for verdict in order_verdicts(timeline):
        found.setdefault(verdict.rule, verdict)
    first = found.get("PG-C3-score-first")
    if first is not None and first.status is Status.UNKNOWN:
        return found
    scores = headline_scores(timeline)
    chain = ((scores[0].place, "scores the claimed number"),) if scores else ()
    compiled = [e for e in timeline.events() if isinstance(e, Unknown) and e.reason.startswith("native code")]
    for rule in _UNREADABLE if compiled else ():
        words = "the program calls compiled code that could not be read; it may take part in the probabilities"
        found.setdefault(rule, Verdict(rule, Status.UNKNOWN, words, ((compiled[0].place, "loads compiled code"),)))
    for rule, words in _CLEAN.items():
        if scores or rule in _ABOUT_UPDATES:
            found.setdefault(rule, Verdict(rule, Status.PASS, words, chain or (first.chain if first else ())))
    return found


# What compiled code could do unseen.
_UNREADABLE = ("PG-C2-normalisation", "PG-C2-hashed-ngram-cache", "PG-C2-byte-mixer", "PG-C1-ngram-target-gate")
_CLEAN = {
    "PG-C2-normalisation": "every counted loss is a cross entropy over the vocabulary; nothing is mixed in afterwards",
    "PG-C2-hashed-ngram-cache": "no count table takes part in the claimed number",
    "PG-C2-byte-mixer": "no byte model takes part in the claimed number",
    "PG-C3-score-first": "no counted token had changed the parameters that score it",
    "PG-C3-multi-epoch": "no later epoch over the same tokens reaches the claimed number",
    "PG-C3-adapt-scope": "what a token changes is not used to score it",
    "PG-C3-prequant-ttt": "no validation token changes the parameters before the artifact is written",
    "PG-C3-slot": "nothing is optimised on the targets that it then scores",
    "PG-C4-single-pass": "no counted loss was computed with what an earlier pass over the same tokens had learnt",
    "PG-D-val-in-train": "no validation token reaches weights or quantiser before the tokens are scored",
}


# What can be said of a program whose claimed number was not traced, when nothing in it learns from validation tokens.
_ABOUT_UPDATES = ("PG-C3-score-first", "PG-C3-multi-epoch", "PG-C3-adapt-scope", "PG-C3-prequant-ttt", "PG-C3-slot",
                  "PG-D-val-in-train")  # fmt: skip
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
            chain = _chain(timeline, reads, score, seen)
            yield Verdict(rule, status, words, chain)
            if rule in _ALSO_SCORE_FIRST and not seen.table:
                yield Verdict("PG-C3-score-first", status, words, chain)


def _classified(timeline: Timeline, score: Score, seen: Seen) -> tuple[str, Status, str]:
    if seen.how == "shared tensor":
        return (
            "PG-C3-adapt-scope", Status.FAIL,
            "a tensor that lives on between items is trained on the tokens before they are scored with it",
        )  # fmt: skip
    if seen.how == "tensor of its own":
        return (
            # No organiser ever ruled on it in so many words: a reviewer decides (rule book, PG-C3-slot).
            "PG-C3-slot", Status.WARN,
            "a tensor is optimised on targets of the window that is then scored with it; nobody ever ruled on this",
        )  # fmt: skip
    if seen.how == "calibration":
        return (
            "PG-D-gptq-calibration", Status.FAIL,
            "statistics of validation tokens shape the quantised weights that score these tokens",
        )  # fmt: skip
    if seen.table:
        return "PG-C4-single-pass", Status.FAIL, "a count table already holds the tokens it helps to score"
    if seen.rows:
        return (
            "PG-C3-score-first", Status.WARN,
            "validation tokens are scored by a selection of rows of a bank of parameters that they have trained; "
            "whether they trained these rows could not be told",
        )  # fmt: skip
    if seen.forgotten:
        return (
            "PG-C3-score-first", Status.WARN,
            "parameters that score validation tokens were trained on some of them before; whether on these could not "
            "be told",
        )  # fmt: skip
    earlier = _scored_before(timeline, seen)
    if _before_export(timeline, seen):
        return (
            "PG-C3-prequant-ttt", Status.FAIL,
            "parameters are trained on validation tokens before the artifact is written, and then score these tokens",
        )  # fmt: skip
    if seen.within_loop:
        return (
            "PG-C3-multi-epoch", Status.FAIL,
            "a later round over the same tokens is scored after an earlier round has trained on them",
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


_ALSO_SCORE_FIRST = ("PG-C3-prequant-ttt", "PG-C4-single-pass", "PG-C3-multi-epoch", "PG-C3-adapt-scope")


def _scored_before(timeline: Timeline, seen: Seen) -> bool:
    """True when the update stands in a scheme that scores the same tokens before it trains (a first pass)."""
    for loop in loops(timeline.root):
        events = list(_inside(loop))
        for number, event in enumerate(events):
            if isinstance(event, Update) and event.place == seen.place:
                return any(isinstance(e, Score) and _fresh(e, seen) for e in events[:number])
    return False


def _fresh(score: Score, seen: Seen) -> bool:
    """True when the score was taken of the same tokens before the change, by parameters that knew nothing of it."""
    return score.place in seen.scored and all(other.place != seen.place for other in score.seen)


def _before_export(timeline: Timeline, seen: Seen) -> bool:
    """True when what is written to the artifact after this change has learnt by it."""
    changed = False
    for event in timeline.events():
        if isinstance(event, Update) and event.place == seen.place and event.span.split is Split.VAL:
            changed = changed or event.phase is not Phase.EVALUATION
        elif changed and isinstance(event, Serialize) and seen.place in event.learnt:
            return True
    return False


def _read_for(timeline: Timeline, reads: list[Read], seen: Seen) -> Read | None:
    """The last read of validation tokens before the first change: by then its tokens were there."""
    latest = None
    for event in timeline.events():
        if isinstance(event, Read) and event.span.split is Split.VAL:
            latest = event
        elif isinstance(event, Update) and event.place == seen.place and event.span.split is Split.VAL:
            break
    return latest or (reads[0] if reads else None)


def _chain(timeline: Timeline, reads: list[Read], score: Score, seen: Seen) -> tuple[tuple[Place, str], ...]:
    chain: list[tuple[Place, str]] = []
    read = _read_for(timeline, reads, seen)
    if read is not None:
        chain += [(place, "names validation files") for place in read.why]
        chain.append((read.place, "validation tokens are read"))
    if seen.how == "calibration":
        collects = (e for e in timeline.events() if isinstance(e, Calibrate) and e.span.split is Split.VAL)
        chain += [(event.place, "statistics of them are collected") for event in list(collects)[:1]]
    called = seen.calls if seen.calls and seen.place.path == score.place.path else None
    chain += [(called[0], "this call leads to the change")] if called else []
    chain += [(seen.ahead, "goes on to the tokens of a later round")] if seen.ahead else []
    chain.append((seen.place, f"changes {seen.state} with them ({seen.how})"))
    chain += [(called[1], "this call leads to the score")] if called else []
    same = "tokens of the same window" if seen.how == "tensor of its own" else "the same tokens"
    chain.append((score.place, f"scores {same}"))
    report = next((e for e in timeline.events() if isinstance(e, Report) and e.headline), None)
    if report is not None:
        chain.append((report.place, "reports this score"))
    return tuple(chain)


def target_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """Logits of a counted score that were computed from its own targets."""
    for score in headline_scores(timeline):
        if score.own_target:
            yield Verdict(
                "PG-C1-causality",
                Status.FAIL,
                "the logits depend on the tokens they are scored against",
                ((score.place, "scores targets that are part of the logits"),),
            )
            return


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
        if isinstance(event, Report) and event.headline and event.perhaps_choices:
            chain = [(place, "keeps one of two losses of the same token") for place in event.perhaps_choices[:2]]
            words = (
                "one of two losses of a token is kept by a result of a model; whether it is a loss could not be told"
            )
            yield Verdict("PG-C4-single-pass", Status.WARN, words, (*chain, (event.place, "reports the sum")))
            return


def stored_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """Validation content that travels in a file: its comparison with the tokens being scored enters the number."""
    for event in timeline.events():
        if isinstance(event, Report) and event.headline and event.revealed:
            read, compared = min(event.revealed, key=lambda pair: (pair[1].path, pair[1].line))
            chain = (
                (read, "reads a file"),
                (compared, "compares what it holds for a position with the validation token there"),
                (event.place, "the outcome is part of this number"),
            )
            words = "losses are changed where a stored token equals the validation token at its position"
            yield Verdict("PG-D-paid-prefix", Status.FAIL, words, chain)
            return


def part_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """The claimed number is made of a part of the validation stream, or of none of it."""
    scores = [e for e in timeline.events() if isinstance(e, Score) and e.counted]
    reports = [e for e in timeline.events() if isinstance(e, Report) and e.headline]
    if not scores or not reports or not all(score.partial for score in scores):
        return
    reasons = dict.fromkeys(reason for score in scores for reason in score.partial)
    chain = (*list(reasons)[:3], (scores[0].place, "scores these"), (reports[-1].place, "reports the score"))
    official = any(score.span.split is Split.VAL for score in scores)
    words = "part of the validation tokens" if official else "documents from elsewhere, not the validation shards"
    yield Verdict("PG-B-full-val", Status.FAIL, f"the claimed number scores {words}", chain)


# -- what was proven, what could not be seen ---------------------------------------------------------------------------


def coverage(timeline: Timeline, found: list[Verdict]) -> Iterator[Verdict]:
    """Score-first proven, or why it could not be decided."""
    order_rules = ("PG-C3-score-first", "PG-C3-prequant-ttt", "PG-C4-single-pass")
    if any(v.rule in order_rules and v.status is Status.FAIL for v in found):
        return
    slot = next((v for v in found if v.rule == "PG-C3-slot"), None)
    if slot is not None:
        words = (
            "a tensor optimised on targets of a window then scores it: SLOT, on which nobody ever ruled (PG-C3-slot)"
        )
        yield Verdict("PG-C3-score-first", Status.WARN, words, slot.chain)
        return
    counted = headline_scores(timeline)
    blind = [e for e in timeline.events() if isinstance(e, Unknown)]
    updates = [
        e for e in timeline.events() if isinstance(e, Update) and e.span.split is Split.VAL and e.via is not Via.TABLE
    ]
    reads = [e for e in timeline.events() if isinstance(e, Read) and e.span.split is Split.VAL]
    trains = [e for e in timeline.events() if isinstance(e, Update) and e.span.split is Split.TRAIN]
    counts = [e for e in timeline.events() if isinstance(e, Update) and e.span.split is Split.VAL]  # tables too
    if not counted and not blind and not counts and reads and trains:
        yield Verdict(
            "PG-C3-score-first", Status.PASS,
            "no parameters change through validation tokens anywhere in the program, whichever number is the claim",
            ((reads[0].place, "validation tokens are read"), (trains[0].place, "training tokens change parameters")),
        )  # fmt: skip
    elif not counted:
        chain = tuple((e.place, e.reason) for e in blind[:3])
        yield Verdict(
            "PG-C3-score-first", Status.UNKNOWN, "the claimed number could not be traced to its scores", chain
        )
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
