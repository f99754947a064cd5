"""What a second run on a stream with another future shows: causality, normalisation, and whether runs repeat.

Causality: losses of tokens before the altered ones must not move (`Causal`). Normalisation: the new tokens are drawn from
a known distribution q, so no distribution p that is fixed before a token is known can win a bet on them (`Fair`): whatever
q is, the mean of p / q is the probability that p gives to all ids that may come, at most one. The product of
1 + a (p / q - 1) over positions, for any a in [0, 1], is then expected to stay below one, and exceeds 1 / delta with
probability delta at most (Ville's inequality), also for a scorer that knows q. No look at the code is needed, and training
on tokens that are scored later, reading the target, choosing the better of two losses after the fact, and shares of counts
that exceed one all show, the last ones because contexts come back under q.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from auditor.dynamic.attribution import POSITION, SPLIT_BITS, VAL, Attribution
from auditor.dynamic.streams import Future

# Nats a loss may move by rounding; what a token of context changes is larger by orders of magnitude.
TOLERANCE = 1e-3
# Evidence (natural log of the odds against chance) from which a result is called impossible by chance: 1 in 10^9.
DECISIVE = math.log(1e9)
# Evidence that somebody has to look at.
SUSPICIOUS = math.log(1e4)
_STAKES = (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)
_LEAST = 32


@dataclass(frozen=True)
class Causal:
    """Losses of the tokens before the altered ones, in both runs.

    Attributes:
        start: first altered position. compared: counted losses before it that both runs computed.
        moved: how many of them differ; largest: the largest difference, nats; positions: those that moved.
        by_weights: how many of those that moved were scored with other weights; after_future: how many were scored after
            altered tokens had been, so that state may have carried them over legally.
        event: score event of the first run that computed the first loss which moved with nothing to excuse it.
        repeats: losses of training tokens agree between the runs, None when there was nothing to compare.
        calibrated: forward pass of the first run that collected activations of altered tokens, after which the weights of
            the two runs were different ones for the first time, before anything counted. None where there is none.
    """

    start: int
    compared: int
    moved: int
    largest: float
    positions: np.ndarray
    by_weights: int
    after_future: int
    event: int | None
    repeats: bool | None
    calibrated: int | None = None

    @property
    def holds(self) -> bool | None:
        """True: nothing moved. False: something moved that nothing honest explains. None: cannot be told."""
        if not self.compared or self.repeats is False:
            return None
        if not self.moved:
            return True
        return False if self.event is not None or (self.by_weights and self.calibrated is not None) else None


@dataclass(frozen=True)
class Fair:
    """Counted losses of random tokens against what chance allows.

    Attributes:
        tokens: random tokens that count. chance, loss: nats of all of them by chance, and as counted.
        mass: estimated probability a scorer gives to all ids that could have stood there, None when only the sum of
            the losses is known. error: standard error of the estimate.
        evidence: natural log of the odds against a distribution fixed before each token was known.
    """

    tokens: int
    chance: float
    loss: float
    mass: float | None
    error: float
    evidence: float

    @property
    def holds(self) -> bool | None:
        """False: beats chance. None: too few tokens to tell."""
        if self.tokens < _LEAST:
            return None
        return self.evidence < DECISIVE


# -- causality -------------------------------------------------------------------------------------------------------


def causal(
    one: list[dict[str, Any]],
    first: Attribution,
    other: list[dict[str, Any]],
    second: Attribution,
    start: int,
) -> Causal:
    """Compare counted losses before position `start`; `one` and `other` are the events of the two runs."""
    derived = first.derived or second.derived
    a, b = _Losses(one, first, start, derived), _Losses(other, second, start, derived)
    paired = _paired(a, b)
    if paired is None:
        return Causal(start, 0, 0, 0.0, np.empty(0, np.int64), 0, 0, None, _repeats(one, other))
    rows_a, rows_b = paired
    moved = ~(np.abs(a.loss[rows_a] - b.loss[rows_b]) <= TOLERANCE)
    weights = np.array([a.uses[e] != b.uses[f] for e, f in zip(a.event[rows_a], b.event[rows_b], strict=True)], bool)
    late = a.event[rows_a] > a.future
    plain = moved & ~weights & ~late
    gaps = np.abs(a.loss[rows_a] - b.loss[rows_b])
    return Causal(
        start=start,
        compared=len(rows_a),
        moved=int(moved.sum()),
        largest=float(np.nan_to_num(gaps, nan=np.inf).max(initial=0.0)),
        positions=np.unique(a.position[rows_a][moved]),
        by_weights=int((moved & weights).sum()),
        after_future=int((moved & ~weights & late).sum()),
        event=int(a.event[rows_a][plain][0]) if plain.any() else None,
        repeats=_repeats(one, other),
        calibrated=_calibrated(one, first, other, start) if (moved & weights).any() else None,
    )


def _calibrated(one: list[dict[str, Any]], first: Attribution, other: list[dict[str, Any]], start: int) -> int | None:
    """The forward pass that collected activations of altered tokens and by which the weights came to differ.

    Everything that changed weights before it is the same in both runs to the last digit, so nothing but the altered tokens
    can have moved them; and no score had counted, so no token of them was known. Weights that an optimizer moved with
    validation tokens are left to the order of score and update.
    """
    before = min(first.event.tolist(), default=0)
    for mine, theirs in zip(_changes(one), _changes(other), strict=False):
        if mine["n"] >= before or (_val_of(mine) >= 0).any():
            return None
        if mine["kind"] == theirs["kind"] and _values(mine) == _values(theirs):
            continue
        if mine["kind"] != "write" or theirs["kind"] != "write":
            return None
        collected = (e for e in one if e["kind"] == "forward" and e["hooks"] and e["n"] < mine["n"])
        return next((e["n"] for e in collected if (_val(e) >= start).any()), None)
    return None


def _changes(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] in ("update", "write")]


def _values(event: dict[str, Any]) -> list[tuple[float, float]]:
    """Fingerprints of the weights that a change left, in no particular order of the weights."""
    return sorted((round(total, 4), round(norm, 5)) for _, total, norm, *_ in event["changes"])


def _val_of(event: dict[str, Any]) -> np.ndarray:
    return _val(event) if "places" in event else np.empty(0, np.int64)


class _Losses:
    """Losses as computed by the model for the counted tokens before a position, in the order of counting.

    Attributes:
        position, loss, event: one element for every count. uses: score event -> fingerprints of the weights it read.
        future: number of the first score event of altered tokens.
    """

    def __init__(self, events: list[dict[str, Any]], attribution: Attribution, start: int, derived: bool) -> None:
        scores = {e["n"]: e for e in events if e["kind"] == "score"}
        if derived:
            # What the program made of the losses is compared sum by sum, by the mean of each.
            sums = [s for s in sums_of(events, attribution) if (s.position < start).all()]
            self.position = np.array([s.position.min() for s in sums], dtype=np.int64)
            self.event = np.array([s.event for s in sums], dtype=np.int64)
            self.loss = np.array([s.value / len(s.position) for s in sums])
        else:
            kept = attribution.position < start
            self.position, self.event = attribution.position[kept], attribution.event[kept]
            self.loss = _computed(scores, self.position, self.event)
        self.uses = {n: _weights(scores[n]) if n in scores else () for n in np.unique(self.event).tolist()}
        self.future = min((n for n, event in scores.items() if (_val(event) >= start).any()), default=1 << 60)


def _weights(event: dict[str, Any]) -> tuple:
    return tuple(sorted((round(total, 4), round(norm, 5)) for _, total, norm, *_ in event["uses"]))


def _val(event: dict[str, Any]) -> np.ndarray:
    places = np.asarray(event["places"], dtype=np.int64)
    return np.where((places >= 0) & (places >> SPLIT_BITS == VAL), places & POSITION, -1)


def _computed(scores: dict[int, dict[str, Any]], position: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Recorded loss of each (position, score event); NaN where the event does not hold the position."""
    out = np.full(len(position), np.nan)
    for number in np.unique(event).tolist():
        if number not in scores:
            continue
        places, losses = _val(scores[number]), np.asarray(scores[number]["losses"], dtype=np.float64)
        order = np.argsort(places, kind="stable")
        rows = np.flatnonzero(event == number)
        at = np.minimum(np.searchsorted(places[order], position[rows]), len(places) - 1)
        found = places[order][at] == position[rows]
        out[rows[found]] = losses[order][at[found]]
    return out


def _paired(a: _Losses, b: _Losses) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows of the same position in both runs, the k-th count of a position with the k-th; None when they do not match."""
    rows_a, rows_b = np.argsort(a.position, kind="stable"), np.argsort(b.position, kind="stable")
    if len(rows_a) == 0 or not np.array_equal(a.position[rows_a], b.position[rows_b]):
        return None
    known = ~np.isnan(a.loss[rows_a])
    return rows_a[known], rows_b[known]


def _repeats(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool | None:
    """Whether the losses of training tokens, which nothing altered, agree before any validation token is scored."""
    pairs = zip(_training(one), _training(other), strict=False)
    compared = [np.allclose(x, y, atol=TOLERANCE, rtol=0) for x, y in pairs if len(x) == len(y)]
    return all(compared) if compared else None


def _training(events: list[dict[str, Any]], limit: int = 64) -> list[np.ndarray]:
    found = []
    for event in events:
        if event["kind"] != "score":
            continue
        if not event["grad"] or (_val(event) >= 0).any():
            break
        found.append(np.asarray(event["losses"], dtype=np.float64))
        if len(found) == limit:
            break
    return found


# -- normalisation -----------------------------------------------------------------------------------------------------


def fair(attribution: Attribution, future: Future) -> Fair:
    """Counted losses of the redrawn tokens against the distribution they were drawn from, in the run that had them."""
    position, loss = _once(attribution)
    drawn = (position < len(future.cost)) & (future.cost[np.minimum(position, len(future.cost) - 1)] > 0)
    drawn &= np.isfinite(loss)
    position, loss = position[drawn], loss[drawn]
    cost, familiar = future.cost[position], future.familiar[position]
    if not len(loss):
        return Fair(0, 0.0, 0.0, None, 0.0, 0.0)
    odds = np.exp(np.clip(cost - loss, -50.0, 50.0))
    error = float(odds.std() / math.sqrt(len(odds)))
    return Fair(len(odds), float(cost.sum()), float(loss.sum()), float(odds.mean()), error, evidence(odds, familiar))


def _once(attribution: Attribution) -> tuple[np.ndarray, np.ndarray]:
    """Every counted position with what it costs: its first count, or all of them where the program changed the losses.

    A changed loss may be a part of one: the byte of a token, the share of a window among several.
    """
    position, rows, inverse = np.unique(attribution.position, return_index=True, return_inverse=True)
    if not attribution.derived:
        return position, attribution.loss[rows]
    return position, np.bincount(inverse, weights=attribution.loss, minlength=len(position))


def evidence(odds: np.ndarray, familiar: np.ndarray) -> float:
    """Natural log of what betting on `odds` (p / q of each token, q what it was drawn from) makes of a stake of one.

    The stake is shared over several players. Each puts the same part of what he has on every token, or on every token
    after a context that came before (`familiar`); both are settled before the token is known. The mean of what they end
    with exceeds 1 / delta with probability delta at most where every p sums to one or less.
    """
    ends = []
    for stake in _STAKES:
        with np.errstate(divide="ignore"):  # all staked on a token that was given nothing
            gains = np.log1p(stake * (odds - 1.0))
        ends += [float(gains.sum()), float(gains[familiar].sum())]
    return _log_mean_exp(ends)


@dataclass(frozen=True)
class Sum:
    """Losses of validation tokens that the program added up: their positions, the result in nats, the event."""

    position: np.ndarray
    value: float
    event: int


def sums_of(events: list[dict[str, Any]], attribution: Attribution) -> list[Sum]:
    """Sums of validation losses at the place that adds up an attributed result, in order, before it was printed."""
    where = _places_of_ids(events)
    found = []
    for event in events:
        if event["kind"] != "sum" or event["site"] != attribution.site or event["n"] > attribution.printed.event:
            continue
        position = where[event["ids"][event["ids"] < len(where)]]
        if len(position) and (position >= 0).all() and math.isfinite(event["value"]):
            found.append(Sum(position, abs(float(event["value"])), event["n"]))
    return found


def _places_of_ids(events: list[dict[str, Any]]) -> np.ndarray:
    scores = [event for event in events if event["kind"] == "score"]
    size = max((event["base"] + len(event["places"]) for event in scores), default=0)
    where = np.full(size, -1, dtype=np.int64)
    for event in scores:
        where[event["base"] : event["base"] + len(event["places"])] = _val(event)
    return where


def _log_mean_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))
