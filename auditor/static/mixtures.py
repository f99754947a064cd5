"""What a symbolic timeline says about probabilities that are mixed with something else: counts, bytes, compiled code.

Pure functions on `auditor.timeline` types, as in `auditor.static.order`.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditor.findings import Status
from auditor.static.verdicts import Verdict
from auditor.timeline import Counted, Place, Report, Score, Split, Timeline, Update, Via

Chain = tuple[tuple[Place, str], ...]

#: Tokens whose counts make a probability: all that a table can be filled with besides generated text.
LIVE = (Split.VAL, Split.UNKNOWN, Split.TRAIN, Split.ARTIFACT)


def count_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """Counts, bytes, comparisons with the target and compiled code that take part in the claimed number."""
    reports = [e for e in timeline.events() if isinstance(e, Report) and e.headline]
    counts = {c: report for report in reports for c in report.counts}
    for report in reports:
        yield from _native(report)
        yield from _indicators(report)
        yield from _spread(timeline, report)
    live = [c for c in counts if c.split in LIVE]
    if not live:
        return
    report = counts[live[0]]
    yield from _counted(timeline, live, report)
    own = [c for c in live if c.own_tokens]
    if own:
        words = "a count table already holds the tokens it helps to score"
        yield Verdict("PG-C4-single-pass", Status.FAIL, words, _chain(timeline, own, report))
    doubt = [c for c in live if c.own_perhaps]
    if doubt and not own:
        words = (
            "a count table was filled before it is read; whether with the tokens it helps to score could not be told"
        )
        yield Verdict("PG-C4-single-pass", Status.WARN, words, _chain(timeline, doubt, report))


def _counted(timeline: Timeline, live: list[Counted], report: Report) -> Iterator[Verdict]:
    """Keys that hold the target, counts that enter as a number for one token, rows over the vocabulary."""
    at_target = [c for c in live if c.target_in_key and c.form in ("entry", "rates")]
    keyed = [c for c in live if c.target_in_key and c not in at_target]
    single = [c for c in live if c.form in ("single", "entry") or c in keyed]
    loose = [c for c in live if c.form in ("loose", "rates") and c not in single]
    if keyed and not any(c.joined or c.entered for c in keyed):
        words = (
            "a count is read at the token being scored; whether as an entry of a row or by a key that holds the token"
        )
        words += " could not be told"
        yield Verdict("PG-C2-hashed-ngram-cache", Status.UNKNOWN, words, _chain(timeline, keyed, report))
    elif keyed:
        yield Verdict(
            "PG-C2-hashed-ngram-cache", Status.FAIL,
            "a count table is read with the token being scored in its key, and the count enters its probability",
            _chain(timeline, keyed, report),
        )  # fmt: skip
    elif at_target:
        words = "the count of the token being scored is read from the row of its context; it is no part of a hashed key"
        yield Verdict("PG-C2-hashed-ngram-cache", Status.PASS, words, _chain(timeline, at_target, report))
    if single:
        yield Verdict(
            "PG-C2-normalisation", Status.FAIL,
            "counts enter the probability of the realised token only; no distribution over the vocabulary is formed",
            _chain(timeline, keyed or single, report),
        )  # fmt: skip
    elif loose:
        yield Verdict(
            "PG-C2-normalisation", Status.WARN,
            "counts are mixed into a row over the vocabulary, and nothing shows that the row still sums to one",
            _chain(timeline, loose, report),
        )  # fmt: skip
    else:
        words = "counts enter through a row over the vocabulary that is divided by its sum or goes through a softmax"
        for rule in ("PG-C2-normalisation", "PG-C2-hashed-ngram-cache"):
            yield Verdict(rule, Status.PASS, words, _chain(timeline, live, report))


def _native(report: Report) -> Iterator[Verdict]:
    """Compiled code that nobody read takes part in the number."""
    if not report.native:
        return
    chain = ((report.native[0], "loads compiled code"), (report.place, "reports what it took part in"))
    words = "compiled code takes part in the claimed number; what it does could not be read"
    for rule in ("PG-C2-normalisation", "PG-C2-hashed-ngram-cache", "PG-C2-byte-mixer", "PG-C1-ngram-target-gate"):
        yield Verdict(rule, Status.UNKNOWN, words, chain)


def _indicators(report: Report) -> Iterator[Verdict]:
    """Probabilities changed at the realised token only, without a count table."""
    if not report.indicators or report.counts:
        return
    chain = (
        (report.indicators[0], "adds a comparison with the target to its probability"),
        (report.place, "reports it"),
    )
    words = "a number for the realised token is mixed into its probability; no distribution is formed"
    yield Verdict("PG-C2-normalisation", Status.FAIL, words, chain)


def _spread(timeline: Timeline, report: Report) -> Iterator[Verdict]:
    """The loss of a token is divided over its bytes and mixed there."""
    if not report.spread:
        return
    live = [c for c in report.counts if c.split in LIVE]
    rest = _chain(timeline, live, report) if live else ((report.place, "reports the mixture"),)
    words = "the loss of the realised token is spread over its bytes and mixed with another model there"
    chain = ((report.spread[0], "divides the loss of a token over its bytes"), *rest)
    yield Verdict("PG-C2-byte-mixer", Status.FAIL, words, chain)


def _chain(timeline: Timeline, counts: list[Counted], report: Report) -> Chain:
    """Where tokens are counted, where the target enters the key, where the count is read, scored and reported.

    All of it about one table: the one whose filling and key are lines of their own.
    """
    fills = [e for e in timeline.events() if isinstance(e, Update) and e.via is Via.TABLE]
    own = {fill.state: fill.place for fill in reversed(fills) if fill.span.split is Split.VAL}
    filled = {fill.state: fill.place for fill in reversed(fills)} | own
    lines = set(filled.values())

    def rank(c: Counted) -> tuple[bool | int, ...]:
        # Of several reads that a number went through the last is the count, the ones before it picked the table; a read
        # that only fills the table further is none. Tables that travelled in one file are told apart by what fills them.
        fill = filled.get(c.table)
        return (
            not (c.target_in_key and c.entered), not c.target_in_key, c.place in lines, -c.place.line,
            c.table not in own, fill is None, -fill.line if fill else 0,
        )  # fmt: skip

    shown = min(counts, key=rank)
    chain = [(filled[shown.table], "counts tokens")] if shown.table in filled else []
    if shown.entered is not None and shown.target_in_key:
        chain.append((shown.entered, "the token being scored enters the key"))
    if shown.place not in lines:
        chain.append((shown.place, "reads the count"))
    scores = [e for e in timeline.events() if isinstance(e, Score) and e.counted]
    near = min(scores, key=lambda score: (not score.mixed, *_distance(score.place, shown.place)), default=None)
    chain += [(near.place, "the loss of the model it is mixed with")] if near is not None else []
    chain.append((report.place, "the count is part of this number"))
    return tuple(chain)


def _distance(one: Place, other: Place) -> tuple[bool, int]:
    """How far apart two lines are: a mixture stands beside the losses it mixes, a plain evaluation elsewhere."""
    return one.path != other.path, abs(one.line - other.line)
