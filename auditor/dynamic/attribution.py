"""Which recorded losses make up the printed number: the claim of a run explained by what was computed in it.

Every loss the program computed for a validation token is known with its position, and so is every reduction that added
some of them up. Losses are grouped by the line that adds them (or, where nothing added them singly, by the line
that computed them) and added up in the ways that occur: all of them, the first or last score of each position, the smaller
one, from the beginning or from a later pass on. The combination that reproduces the printed number says which scores
counted. Losses in nats per token, scores in bits per byte: sum(nats) / ln 2 / sum(bytes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from auditor.documents.logs import read_log
from auditor.documents.model import EvalResult

SPLIT_BITS = 24
POSITION = (1 << SPLIT_BITS) - 1
VAL = 1  # code of the validation split: data sets are made in the order train, val
_MAX_STARTS = 48
_SINGLE = 3e-7  # relative error of a mean in single precision
_WHOLE, _MOST_BYTES = 2e-3, 50_000  # bytes; of more of them the digits printed leave no thousandths
_SAME_UNIT = 1e-5  # relative; sums in single precision
_KINDS = ("sum", "sums of a function", "scores", "scores of a function")  # the most specific first


@dataclass(frozen=True)
class Printed:
    """A result the run printed: number of the print event, label, nats per token, bits per byte, decimals, the text."""

    event: int
    label: str
    loss: float | None
    bpb: float | None
    digits: int
    text: str


@dataclass(frozen=True)
class Occurrences:
    """Losses of validation tokens in the order in which they were counted.

    Attributes:
        position: stream position, int64, shape (n,). loss: nats, float64. event: number of the score event that
            computed it. order: index of the reduction that counted it.
        plain: nats as the model gave them, float64. changed: for each reduction, whether the program had changed the losses it adds (loss then holds its values).
    """

    position: np.ndarray
    loss: np.ndarray
    event: np.ndarray
    order: np.ndarray
    changed: np.ndarray
    when: np.ndarray
    site: int
    kind: str
    plain: np.ndarray

    def __len__(self) -> int:
        return len(self.position)

    def last_before(self, event: int) -> int:
        """Number of the last reduction before an event, 0 when there is none."""
        index = int(np.searchsorted(self.when, event))
        return int(self.when[index - 1]) if index else 0


@dataclass(frozen=True)
class Attribution:
    """The combination that explains a printed number.

    Attributes:
        printed: what is explained.
        how: "all", "first", "last" or "min" score of each position, or "parts": all of them are parts of one score, or
            "weighted": means of each reduction over weights that the program gave to its tokens.
        position, loss, event: what counted, one element for every count of a position.
        site: call stack that adds the losses up.
        loss_nats: nats per token of the combination; official_bpb: with the official bytes of its positions.
        derived: the program changed the losses (mixing, blending) between computing and counting them.
        error: relative distance to the printed number.
        implied_bytes: bytes the printed pair of numbers divides by, None when it printed one only.
    """

    printed: Printed
    how: str
    position: np.ndarray
    loss: np.ndarray
    event: np.ndarray
    site: int
    loss_nats: float
    official_bpb: float
    official_bytes: int
    derived: bool
    error: float
    matched: str = "loss and bpb"
    implied_bytes: float | None = None

    @property
    def words(self) -> str:
        """In a few words: how the losses were put together and which printed numbers they are."""
        return f"{self.how} {self.matched}{', bits apart' if self.bits_apart else ''}"

    @property
    def bits_apart(self) -> bool:
        """Whether the printed bits per byte are not these losses over any whole number of bytes: they have another origin.

        False where the digits printed do not tell.
        """
        if self.matched != "loss" or not self.implied_bytes or not self.printed.bpb or self.printed.digits < 6:
            return False
        printing = 0.6 * 10.0**-self.printed.digits * (1 / self.printed.loss + 1 / self.printed.bpb)
        slack = _WHOLE + self.implied_bytes * (printing + _SINGLE)
        return slack < 0.25 and abs(self.implied_bytes - round(self.implied_bytes)) > slack


@dataclass
class Explained:
    """Every printed result with its explanation (None where nothing recorded adds up to it), in order."""

    results: list[tuple[Printed, Attribution | None]] = field(default_factory=list)
    headline: int | None = None

    @property
    def claim(self) -> tuple[Printed, Attribution | None] | None:
        """The headline with its explanation, None when the run printed no result."""
        return self.results[self.headline] if self.headline is not None else None


def printed_results(events: list[dict[str, Any]]) -> list[Printed]:
    """Results among the printed lines, in order of printing."""
    lines = [event for event in events if event["kind"] == "print"]
    log = read_log("stdout", "\n".join(str(event["text"]) for event in lines).encode())
    found: list[Printed] = []
    for run in log.runs:
        for item in [*run.results, *_training_results(run)]:
            if item.val_bpb is None and item.val_loss is None:
                continue
            event = lines[min(item.line, len(lines)) - 1]
            found.append(Printed(event["n"], item.label, item.val_loss, item.val_bpb, item.digits, event["text"]))
    return sorted(found, key=lambda result: result.event)


def _training_results(run: Any) -> Iterator[EvalResult]:
    """The validation line at the last step: the headline of programs that print no other result."""
    scored = [step for step in run.steps if step.val_bpb is not None]
    if scored and not any(result.val_bpb is not None for result in run.results):
        step = scored[-1]
        yield EvalResult(step.line, "last validation of training", step.val_loss, step.val_bpb, digits=4)


def explain(events: list[dict[str, Any]], token_bytes: np.ndarray, claimed_label: str = "") -> Explained:
    """Explain every printed result.

    Args:
        events: recorded events in order, arrays unpacked.
        token_bytes: bytes each position of the validation stream counts for by the official look-up, shape (tokens,).
        claimed_label: label of the line that the submission claims as its score; without it the last result is it.
    """
    results = printed_results(events)
    groups = list(_groups(events))
    explained = Explained()
    for result in results:
        explained.results.append((result, _explain(result, groups, results, token_bytes)))
    _drop_borrowed(explained)
    explained.headline = _headline(explained, claimed_label)
    return explained


def _headline(explained: Explained, claimed_label: str) -> int | None:
    """The last result of the claimed label, else the last one that gives bits per byte; of twins the explained one."""
    wanted = claimed_label.removesuffix("_exact")
    with_bpb = [i for i, (result, _) in enumerate(explained.results) if result.bpb is not None]
    named = [i for i in with_bpb if wanted and explained.results[i][0].label.removesuffix("_exact") == wanted]
    chosen = (named or with_bpb or [None])[-1]
    if chosen is None or explained.results[chosen][1] is not None:
        return chosen
    value = explained.results[chosen][0].bpb
    for index in with_bpb:
        other, found = explained.results[index]
        if found is not None and abs(other.bpb - value) <= 1.1 * 10.0 ** -min(other.digits, 4):
            return index
    return chosen


# -- groups of losses that may have been counted together ----------------------------------------------------------


def _groups(events: list[dict[str, Any]]) -> Iterator[Occurrences]:
    """Candidate groups, the most specific first: by adding line, by adding function, all sums, by scoring line."""
    scores = [event for event in events if event["kind"] == "score"]
    sums = [event for event in events if event["kind"] == "sum"]
    names = {event["site"]: event["frames"] for event in events if event["kind"] == "site"}
    flat = _Losses(scores)
    by_line = _partition(sums, lambda event: event["site"])
    yield from (flat.of_sums(chosen, "sum") for chosen in by_line)
    by_function = _partition(sums, lambda event: _function(names.get(event["site"], ())))
    yield from (flat.of_sums(chosen, "sums of a function") for chosen in by_function if chosen not in by_line)
    # Numbers that were taken out at one line and added up, changed or not, at others count where they were added.
    added = [[event for event in chosen if not event.get("taken")] for chosen in by_function]
    yield from (
        flat.of_sums(chosen, "sums of a function")
        for chosen, every in zip(added, by_function, strict=True)
        if 0 < len(chosen) < len(every) and chosen not in by_line
    )
    by_score = _partition(scores, lambda event: (event["site"], event["grad"]))
    yield from (flat.of_scores(chosen, "scores") for chosen in by_score)
    by_score_function = _partition(scores, lambda event: (_function(names.get(event["site"], ())[1:]), event["grad"]))
    yield from (
        flat.of_scores(chosen, "scores of a function") for chosen in by_score_function if chosen not in by_score
    )


def _function(frames: Any) -> tuple:
    """A stack without the line of its innermost frame."""
    frames = [tuple(frame) for frame in frames]
    return ((frames[0][0], frames[0][2]), *frames[1:]) if frames else ()


def _partition(events: list[dict[str, Any]], key: Any) -> list[list[dict[str, Any]]]:
    parts: dict[Any, list[dict[str, Any]]] = {}
    for event in events:
        parts.setdefault(key(event), []).append(event)
    return list(parts.values())


class _Losses:
    """Every recorded loss by its id."""

    def __init__(self, scores: list[dict[str, Any]]) -> None:
        size = max((event["base"] + len(event["places"]) for event in scores), default=0)
        self.place = np.full(size, -1, dtype=np.int64)
        self.loss = np.zeros(size)
        self.event = np.zeros(size, dtype=np.int64)
        for event in scores:
            part = slice(event["base"], event["base"] + len(event["places"]))
            self.place[part] = event["places"]
            self.loss[part] = event["losses"]
            self.event[part] = event["n"]

    def of_sums(self, sums: list[dict[str, Any]], kind: str) -> Occurrences:
        ids = [event["ids"][(event["ids"] >= 0) & (event["ids"] < len(self.place))] for event in sums]
        values = np.array([event["value"] for event in sums], dtype=np.float64)
        terms = [_terms(event, len(part)) for event, part in zip(sums, ids, strict=True)]
        return self._build(ids, values, np.array([event["n"] for event in sums]), sums[-1]["site"], kind, terms)

    def of_scores(self, scores: list[dict[str, Any]], kind: str) -> Occurrences:
        ids = [np.arange(event["base"], event["base"] + len(event["places"])) for event in scores]
        values = np.full(len(scores), np.nan)
        return self._build(ids, values, np.array([event["n"] for event in scores]), scores[-1]["site"], kind)

    def _build(
        self, ids: list, values: np.ndarray, when: np.ndarray, site: int, kind: str, terms: list | None = None
    ) -> Occurrences:
        flat = np.concatenate(ids) if ids else np.empty(0, np.int64)
        order = np.repeat(np.arange(len(ids)), [len(part) for part in ids])
        place = self.place[flat]
        kept = (place >= 0) & (place >> SPLIT_BITS == VAL)
        # A program may scale or mix losses before it adds them: what it added is shared out in proportion.
        own = np.bincount(order, weights=self.loss[flat], minlength=len(ids))
        usable = np.isfinite(values) & (np.abs(own) > 1e-9)
        # Sums of log-probabilities are losses with the other sign.
        ratio = np.where(usable, np.abs(values) / np.where(usable, own, 1.0), 1.0)
        ratio = np.where(np.abs(ratio * math.log(2) - 1.0) < _SAME_UNIT, 1.0, ratio)  # sums in bits
        loss = self.loss[flat] * ratio[order]
        changed = np.abs(ratio - 1.0) > 1e-3
        begins = np.searchsorted(order, np.arange(len(ids)))
        for index, own_terms in enumerate(terms or []):
            if own_terms is None:
                continue
            own_part = self.loss[flat[begins[index] : begins[index] + len(own_terms)]]
            if not np.allclose(own_terms * math.log(2), own_part, rtol=_SAME_UNIT, atol=1e-6):  # in bits: not changed
                loss[begins[index] : begins[index] + len(own_terms)], changed[index] = own_terms, True
        return Occurrences(
            place[kept] & POSITION,
            loss[kept],
            self.event[flat][kept],
            order[kept],
            changed,
            when,
            site,
            kind,
            self.loss[flat][kept],
        )


def _terms(event: dict[str, Any], count: int) -> np.ndarray | None:
    """What a reduction added up, as losses; None where it added up what the model computed."""
    terms = event.get("terms")
    if terms is None or len(terms) != count or not np.isfinite(terms).all():
        return None
    terms = np.asarray(terms, dtype=np.float64)
    return -terms if terms.sum() < 0 else terms


# -- search ----------------------------------------------------------------------------------------------------------


def _explain(
    result: Printed, groups: list[Occurrences], results: list[Printed], token_bytes: np.ndarray
) -> Attribution | None:
    """The best combination for one printed result: exact before approximate, simple before contrived."""
    earlier = [other.event for other in results if other.event < result.event]
    best: tuple[tuple, Attribution] | None = None
    # Of groups of one kind the one that was added up last comes first: a result is printed when it has been computed.
    for rank, group in enumerate(sorted(groups, key=lambda g: (_KINDS.index(g.kind), -g.last_before(result.event)))):
        for start in _starts(group, result.event, earlier):
            part = (group.order >= start) & (group.when[group.order] < result.event)
            if not part.any():
                continue
            for preference, how in enumerate(("all", "first", "last", "min", "parts", "weighted")):
                found = _try(result, group, part, how, token_bytes)
                if found is None:
                    continue
                coverage = len(np.unique(found.position))
                key = (_rank(found), -coverage, preference, start, rank)
                if best is None or key < best[0]:
                    best = key, found
        if best is not None and group.kind == "sum" and best[0][0] == best[0][2] == 0:
            # The program's own sums, complete and exact: nothing later can explain it better.
            if best[0][1] <= -0.9 * (len(token_bytes) - 1):
                break
    return best[1] if best else None


def _grade(found: Attribution) -> int:
    """How exact: 0 to rounding in double precision, 1 to that of sums in single precision, 2 within tolerance.

    Small models that learned little score almost the same in every pass, so the passes are told apart by rounding alone.
    """
    half = 0.6 * 10.0**-found.printed.digits / abs(found.printed.loss or found.printed.bpb or 1.0)
    return 0 if found.error <= max(3e-8, half) else 1 if found.error <= 1e-6 else 2


def _rank(found: Attribution) -> int:
    """Order of preference: both printed numbers before one alone, unless both are only near and one is exact."""
    grade, both = _grade(found), found.matched == "loss and bpb"
    return (0, 1, 3)[grade] if both else (2, 4, 5)[grade]


def _drop_borrowed(explained: Explained) -> None:
    """A combination that gives another printed number exactly does not explain this one by being close to it."""
    exact = [found for _, found in explained.results if found is not None and _grade(found) == 0]
    for index, (result, found) in enumerate(explained.results):
        if found is None or _grade(found) == 0:
            continue
        if any(_same(found, other) and not _agree(result, other.printed) for other in exact):
            explained.results[index] = result, None


def _same(one: Attribution, other: Attribution) -> bool:
    return np.array_equal(one.position, other.position) and np.array_equal(one.event, other.event)


def _agree(one: Printed, other: Printed) -> bool:
    """Whether two printed results are one number with different digits."""
    a, b = (one.loss, other.loss) if one.loss and other.loss else (one.bpb, other.bpb)
    return a is None or b is None or abs(a - b) <= 1.1 * 10.0 ** -min(one.digits, other.digits)


def _starts(group: Occurrences, before: int, earlier: list[int]) -> list[int]:
    """Reductions at which a pass may begin: the first, the first after a printed result, every return to old ground."""
    count = int(np.searchsorted(group.when, before))
    starts = {0}
    starts |= {int(np.searchsorted(group.when, event)) for event in earlier}
    lowest = np.full(count, np.iinfo(np.int64).max)
    inside = group.order < count
    np.minimum.at(lowest, group.order[inside], group.position[inside])
    floor = np.minimum.accumulate(lowest) if count else lowest
    returns = np.flatnonzero((lowest[1:] <= floor[:-1]) & (lowest[1:] < np.iinfo(np.int64).max)) + 1 if count else []
    starts |= {int(index) for index in returns[-_MAX_STARTS:]}
    return sorted(start for start in starts if start < count)


def _try(
    result: Printed, group: Occurrences, part: np.ndarray, how: str, token_bytes: np.ndarray
) -> Attribution | None:
    position, loss, event = group.position[part], group.loss[part], group.event[part]
    derived = bool(group.changed[np.unique(group.order[part])].any())
    if how == "parts":
        if not derived:
            return None
        # The program changed the losses and added up parts of each, byte by byte for instance.
        position, rows, inverse = np.unique(position, return_index=True, return_inverse=True)
        if len(position) == len(loss):
            return None
        loss, event = np.bincount(inverse, weights=loss), event[rows]
    elif how == "weighted":
        loss = _weighted(loss, group.plain[part], group.order[part]) if derived else None
        if loss is None:
            return None
    elif how != "all":
        kept = _choose(position, loss, how)
        if len(kept) == len(position):
            return None  # the same as "all"
        position, loss, event = position[kept], loss[kept], event[kept]
    total = float(loss.sum())
    if how == "weighted":
        loss = group.plain[part]  # what each token costs is what the model gave; only the mean is another one
    size = int(token_bytes[np.minimum(position, len(token_bytes) - 1)].sum())
    nats = total / len(position)
    bpb = total / math.log(2) / size if size else math.nan
    matched, error = _match(result, nats, bpb)
    if how == "weighted" and error > 1e-6:
        return None  # so free a form has to fit to rounding
    implied = None
    if not matched:
        # Windows that run over the end of the stream count a few of its tokens again.
        once = 1.05 * len(np.unique(position)) >= len(position) >= 0.9 * (len(token_bytes) - 1)
        implied = _whole_bytes(result, total, size) if how == "all" and group.kind == "sum" and once else None
        if implied is None:
            return None
        matched, error = "loss", abs(total / math.log(2) / result.bpb / implied - 1.0)
    if implied is None and result.loss and result.bpb:
        implied = result.loss * len(position) / math.log(2) / result.bpb
    return Attribution(
        result, how, position, loss, event, group.site, nats, bpb, size, derived, error, matched, implied
    )  # fmt: skip


def _weighted(loss: np.ndarray, plain: np.ndarray, order: np.ndarray) -> np.ndarray | None:
    """Losses times weights, as they make up means over the weights of their reductions; None where they are no such thing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = loss / plain
    if not np.isfinite(weight).all() or (weight < 0).any():
        return None
    total, count = np.bincount(order, weights=weight), np.bincount(order)
    return None if (total[count > 0] <= 0).any() else loss * count[order] / total[order]


def _whole_bytes(result: Printed, total: float, size: int) -> int | None:
    """Bytes a printed score divides by where no loss was printed and these are not the official ones, None if none fit.

    Nats and score together give their number; that it comes out whole, to a few thousandths, is what speaks for these nats.
    """
    if result.loss or not result.bpb or result.digits < 8 or not size:
        return None
    implied = total / math.log(2) / result.bpb
    near = 0.5 < implied / size < 2.0 and abs(implied - round(implied)) <= _WHOLE
    return round(implied) if near and implied < _MOST_BYTES else None


def _choose(position: np.ndarray, loss: np.ndarray, how: str) -> np.ndarray:
    """Indices of the first, last or smallest occurrence of every position."""
    if how == "min":
        order = np.lexsort((np.arange(len(position)), loss, position))
    else:
        order = np.argsort(position if how == "first" else position[::-1], kind="stable")
        order = order if how == "first" else len(position) - 1 - order
    ordered = position[order]
    head = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    return np.sort(order[head])


def _match(result: Printed, nats: float, bpb: float) -> tuple[str, float]:
    """Which printed values a combination reproduces, and the relative distance; "" when it does not.

    The loss decides, because it does not depend on how bytes were counted; bits per byte alone decide where no loss
    was printed.
    """
    half = 0.6 * 10.0**-result.digits
    loss_off = abs(nats - result.loss) / abs(result.loss) if result.loss else None
    bpb_off = abs(bpb - result.bpb) / abs(result.bpb) if result.bpb else None
    loss_fits = loss_off is not None and loss_off <= max(3e-5, half / abs(result.loss))
    bpb_fits = bpb_off is not None and bpb_off <= max(3e-5, half / abs(result.bpb))
    if loss_fits and bpb_fits:
        return "loss and bpb", max(loss_off or 0.0, bpb_off or 0.0)
    if bpb_fits and loss_off is None:
        return "loss and bpb", bpb_off or 0.0
    if loss_fits:
        return "loss" if bpb_off is not None else "loss and bpb", loss_off or 0.0
    if bpb_fits:
        return "bpb", bpb_off or 0.0
    return "", math.inf
