"""Validation streams with a future nobody can know: the data of the probe run.

From a position on, every token but the document marks is drawn at random among the ids that keep the watermark intact
(pairs of neighbours stay unique). How many ids could have stood at a position is known, so the shortest code length that
any honest scorer can expect is known too: log of that number, in nats, summed over positions. Tokens before that position
are those of the first run, so nothing honest that is computed before it may differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from auditor.dynamic.watermark import UNKNOWN, Watermark

BOS = 1
VAL = "val"


@dataclass
class Future:
    """A redrawn end of the validation stream.

    Attributes:
        share: part of the stream that stays as it is.
        seed: of the random draw.
        start: first position that was redrawn, set by `apply`.
        choices: ids that could have stood at each position, int64, shape (tokens,); 1 where nothing was drawn.
    """

    share: float = 0.4
    seed: int = 0
    start: int = 0
    choices: np.ndarray = field(default_factory=lambda: np.ones(0, dtype=np.int64))

    def apply(self, mark: Watermark) -> None:
        """Redraw the end of the validation stream in place and bring the table of pairs up to date."""
        stream = mark.streams[VAL].astype(np.int64)
        self.start = _start(stream, self.share)
        self.choices = np.ones(len(stream), dtype=np.int64)
        code = mark.splits.index(VAL)
        table = mark.table
        # Pairs of the old end are free again.
        table[stream[self.start - 1 : -1], stream[self.start :]] = UNKNOWN
        ordinary = np.unique(np.concatenate([ids[ids != BOS] for ids in mark.streams.values()])).astype(np.int64)
        generator = np.random.default_rng(self.seed)
        for position in range(self.start, len(stream)):
            if stream[position] != BOS:
                follower_is_mark = position + 1 < len(stream) and stream[position + 1] == BOS
                stream[position], self.choices[position] = _draw(
                    table, ordinary, int(stream[position - 1]), follower_is_mark, generator
                )
            table[stream[position - 1], stream[position]] = (code << 24) + position
        mark.streams[VAL] = stream.astype(np.uint16)


def _start(stream: np.ndarray, share: float) -> int:
    """A position inside a document, at least two tokens from its ends."""
    for position in range(int(len(stream) * share), len(stream) - 4):
        if not (stream[position - 2 : position + 3] == BOS).any():
            return position
    return max(len(stream) // 2, 2)


def _draw(
    table: np.ndarray, ordinary: np.ndarray, before: int, ends: bool, generator: np.random.Generator
) -> tuple[int, int]:
    """A token for one position, and among how many it was drawn."""
    free = ordinary[table[before, ordinary] == UNKNOWN]
    if ends:
        free = free[table[free, BOS] == UNKNOWN]
    if not len(free):
        free = ordinary  # the watermark is lost here, the draw is not
    return int(free[generator.integers(len(free))]), len(free)
