"""Validation streams with a future nobody can know: the data of the probe run.

From a position on, every token but the document marks is drawn from a distribution q that only its document's own past
decides, and that is known exactly. Contexts come back all the time under q, so that caches, tables of counts and second
passes are busy; now and then any id at all may come, so that probability given to ids that never come is missed. Tokens
before that position are those of the first run, so nothing honest that is computed before it may differ.

The likeliest token is, in parts of a document called chains, one of three ids that follow the last one; in parts called
echoes, what stood at the same place of an earlier part; in parts called recalls, what comes next in the training stream, for
caches that were filled from it. A document draws on nothing else outside itself, so that the order in which documents are
scored does not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from auditor.dynamic.watermark import UNKNOWN, Watermark

BOS = 1
TRAIN, VAL = "train", "val"
# Part of the stream that keeps its tokens: enough to compare, little enough that the rest says something of the whole, and
# ending inside a chunk whatever the usual chunk sizes, so that what a chunk shares among its tokens shows.
SHARE = 0.19
_CONTROL = 4  # ids below it are control and unknown pieces
_BLOCK = 48
_SOURCE = 1  # block of a document that its echoes repeat
_CORE = 24  # ids that follow others; few, so that contexts come back
_FOLLOWERS = (0.85, 0.1, 0.05)
_SURPRISES = {"chain": 0.3, "echo": 0.2, "recall": 0.2}  # probability of any id at all
_EVERY = 4  # every fourth block of a document is a recall, the second one first
# Tokens from the beginning of the training stream that are recalled: the first steps train on them, and whoever reads only
# a part of a shard reads them.
_RECALLED = 3072


@dataclass
class Future:
    """A redrawn end of the validation stream.

    Attributes:
        vocab_size: ids of the tokenizer; any of them that may stand in text can come. 0: those of the watermark.
        share: part of the stream that stays as it is.
        seed: of the random draw.
        start: first position that was redrawn, set by `apply`.
        cost: -ln q of the token that came, nats, float64, shape (tokens,); 0 where nothing was drawn. What an honest
            scorer can expect to pay at least.
        times: how many times as long the stream is; takes: CPU time of a run with it, of one with the stream as it was.
        where: what differs besides the future, in words.
        familiar: whether the token before had been followed by something often, bool, shape (tokens,): there a table of
            counts has something to say.
    """

    vocab_size: int = 0
    share: float = SHARE
    seed: int = 0
    start: int = 0
    cost: np.ndarray = field(default_factory=lambda: np.zeros(0))
    familiar: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    times: ClassVar[int] = 1
    takes: ClassVar[float] = 1.0
    where: ClassVar[str] = ""

    def apply(self, mark: Watermark) -> None:
        """Redraw the end of the validation stream in place and take its old pairs out of the table."""
        stream = mark.streams[VAL].astype(np.int64)
        self.start = _start(stream, self.share)
        # Pieces of bytes come as well: what a model gives to ids that never come could not be counted.
        ids = np.arange(_CONTROL, max(self.vocab_size, mark.vocab_size))
        mark.table[stream[self.start - 1 : -1], stream[self.start :]] = UNKNOWN
        self.cost, self.familiar = np.zeros(len(stream)), np.zeros(len(stream), dtype=bool)
        train = mark.streams.get(TRAIN, np.empty(0))[:_RECALLED].astype(np.int64)
        source = Source(ids, self.seed, train)
        marks = np.flatnonzero(stream == BOS)
        begins = marks[np.maximum(np.searchsorted(marks, np.arange(len(stream)), side="right") - 1, 0)]
        for position in range(self.start, len(stream)):
            if stream[position] != BOS:
                begin = max(int(begins[position]), self.start - 1)
                past = stream[begin:position]
                self.familiar[position] = source.familiar(past)
                stream[position], self.cost[position] = source.draw(past)
        mark.streams[VAL] = stream.astype(np.uint16)
        mark.redrawn = self.start


@dataclass
class Longer(Future):
    """A longer stream, for evidence that was close."""

    times: ClassVar[int] = 4
    takes: ClassVar[float] = 2.5
    where: ClassVar[str] = "on two streams, one of them four times as long"

    def __post_init__(self) -> None:
        self.seed += 1  # other tokens, so that what is won on both is won twice


@dataclass
class Repeated(Future):
    """What is recalled of the training stream stands in it again and again, for counts that want to have seen it twice."""

    where: ClassVar[str] = "where the training text repeats itself"

    def apply(self, mark: Watermark) -> None:
        """As without repetition, behind a training stream that is one block over and over."""
        train = mark.streams[TRAIN]
        train[1:] = np.resize(train[1 : 1 + _BLOCK], len(train) - 1)
        super().apply(mark)


@dataclass
class Few(Future):
    """A stream of few ids, each as likely as the next, from its first token on: for results nobody can take apart.

    What a printed mean amounts to is compared with the logarithm of their number, which is what every token costs. The ids
    are long words that differ in their last letter, so that all bytes but one are certain: probability that is spread over
    bytes and mixed byte by byte exceeds one most there.
    """

    def apply(self, mark: Watermark) -> None:
        """Redraw the whole validation stream in place and take its old pairs out of the table."""
        stream = mark.streams[VAL].astype(np.int64)
        mark.table[stream[:-1], stream[1:]] = UNKNOWN
        ids = _words(self.vocab_size, mark)
        drawn = np.flatnonzero((stream != BOS) & (np.arange(len(stream)) > 0))
        # The highest id occurs once: some programs tell the size of the vocabulary by it.
        stream[drawn[0]], drawn = stream.max(), drawn[1:]
        stream[drawn] = np.random.default_rng(self.seed).choice(ids, len(drawn))
        self.start, self.cost, self.familiar = 1, np.zeros(len(stream)), np.ones(len(stream), dtype=bool)
        self.cost[drawn] = math.log(len(ids))
        mark.streams[VAL] = stream.astype(np.uint16)
        mark.redrawn = self.start


def _words(vocab_size: int, mark: Watermark) -> np.ndarray:
    """Ids of the long words; some ids at equal distances in a vocabulary without them."""
    from auditor.dynamic.dataset import SPACE, STEM, vocabulary

    pieces = enumerate(vocabulary(max(vocab_size, mark.vocab_size)))
    used = np.unique(mark.streams[VAL])
    used = used[used != BOS].astype(np.int64)
    found = [index for index, (text, _) in pieces if text.startswith(SPACE + STEM) and index >= used.min()]
    return np.array(found) if len(found) >= 8 else used[:: max(len(used) // 26, 1)]


class Source:
    """The distribution q: `draw` continues a document, `distribution` states what it draws from."""

    def __init__(self, ids: np.ndarray, seed: int, train: np.ndarray | None = None) -> None:
        """`ids`: what may come; `train`: the training tokens that are recalled, none without it."""
        self.ids = ids
        # A mark begins a document and is never drawn.
        self.train = np.empty(0, np.int64) if train is None else train[train != BOS]
        self.generator = np.random.default_rng(seed)
        self.core = core = self.generator.permutation(ids)[:_CORE]
        # Followers of every id, likeliest first, distinct; most of the core goes round in one long circle.
        self.followers = core[
            np.stack([self.generator.permutation(len(core))[: len(_FOLLOWERS)] for _ in range(int(ids.max()) + 1)])
        ]
        self.followers[core, 0] = np.roll(core, 1)
        for place in range(1, len(_FOLLOWERS)):
            self.followers[core, place] = np.roll(core, 1 + 5 * place)

    def distribution(self, past: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Probability of a surprise (spread evenly over all ids), and the likely ids with their share of the rest.

        Args:
            past: tokens of the document so far, its mark first, at least one.
        """
        recalled = self._recalled(past)
        if recalled:
            return _SURPRISES["recall"], self.train[recalled : recalled + 1], np.ones(1)
        copied = self._copied(past)
        if copied:
            return _SURPRISES["echo"], past[copied : copied + 1], np.ones(1)
        last = min(int(past[-1]), len(self.followers) - 1)
        return _SURPRISES["chain"], self.followers[last], np.array(_FOLLOWERS)

    def familiar(self, past: np.ndarray) -> bool:
        """Whether the last token of a document stood before what is likely to follow it now, or stands there often."""
        recalled = self._recalled(past)
        if recalled:
            return bool(self.train[recalled - 1] == past[-1])
        copied = self._copied(past)
        return bool(past[copied - 1] == past[-1]) if copied else bool(past[-1] in self.core)

    def _copied(self, past: np.ndarray) -> int:
        """Index of the token that is to be repeated next, 0 outside echoes."""
        block, offset = divmod(len(past) - 1, _BLOCK)
        return 1 + _SOURCE * _BLOCK + offset if block > _SOURCE and block % 2 == 0 else 0

    def _recalled(self, past: np.ndarray) -> int:
        """Index of the training token that is to be recalled next, 0 outside recalls.

        Where a recall begins depends on the length of the document so far and on its first token, both known.
        """
        block, offset = divmod(len(past) - 1, _BLOCK)
        room = len(self.train) - _BLOCK - 1
        if block % _EVERY != 1 or room < _BLOCK:
            return 0
        return 1 + (block * 997 + int(past[min(1, len(past) - 1)]) * 61) % room + offset

    def draw(self, past: np.ndarray) -> tuple[int, float]:
        """The next token of a document, and -ln of the probability it had, nats."""
        surprise, likely, shares = self.distribution(past)
        if self.generator.random() < surprise:
            token = int(self.ids[self.generator.integers(len(self.ids))])
        else:
            token = int(likely[self.generator.choice(len(likely), p=shares)])
        share = surprise / len(self.ids) + (1 - surprise) * float(shares[likely == token].sum())
        return token, -math.log(share)


def _start(stream: np.ndarray, share: float) -> int:
    """A position inside a document, at least two tokens from its ends."""
    for position in range(int(len(stream) * share), len(stream) - 4):
        if not (stream[position - 2 : position + 3] == BOS).any():
            return position
    return max(len(stream) // 2, 2)
