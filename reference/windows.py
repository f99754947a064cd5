"""Which windows score which positions: non-overlapping rows, sliding windows, chunks (specification 5.2-5.4).

Window i reads inputs `tokens[starts[i]:ends[i]]` and scores positions `firsts[i]..ends[i]-1`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Windows as int64 arrays of equal length, ordered by first scored position."""

    starts: np.ndarray
    ends: np.ndarray
    firsts: np.ndarray

    def __len__(self) -> int:
        return int(self.starts.size)

    def take(self, index: slice | np.ndarray) -> Windows:
        """Some of the windows."""
        return Windows(self.starts[index], self.ends[index], self.firsts[index])

    def batches(self, tokens: int) -> Iterator[Windows]:
        """Windows of equal length and equal number of scored positions together, at most `tokens` inputs a batch."""
        shape = np.stack((self.ends - self.starts, self.ends - self.firsts))
        for length, scored in np.unique(shape, axis=1).T:
            members = np.flatnonzero((shape[0] == length) & (shape[1] == scored))
            size = max(tokens // int(length), 1)
            for begin in range(0, members.size, size):
                yield self.take(members[begin : begin + size])


def rows(positions: int, length: int) -> Windows:
    """Standard evaluation: row j holds and scores positions `jT..jT+T-1`."""
    starts = np.arange(0, positions - length + 1, length, dtype=np.int64)
    return Windows(starts, starts + length, starts)


def sliding(positions: int, length: int, stride: int, tail: Literal["exact", "legacy_dup"]) -> Windows:
    """Sliding windows.

    `exact`: window 0 scores all it reads, then every window scores the next `stride` positions with a full context;
    every position is scored once for any number of positions.
    `legacy_dup`: starts at every multiple of the stride while at least `stride` inputs are left. Windows that reach the
    end all score the last `stride` positions again, with ever shorter context.
    """
    if tail == "legacy_dup":
        starts = np.arange(0, positions - stride + 1, stride, dtype=np.int64)
        ends = np.minimum(starts + length, positions)
        return Windows(starts, ends, np.where(starts == 0, 0, ends - stride))
    whole = min(length, positions)
    firsts = np.concatenate(([0], np.arange(whole, positions, stride, dtype=np.int64)))
    ends = np.minimum(firsts + stride, positions)
    ends[0] = whole
    return Windows(np.maximum(ends - length, 0), ends, firsts)


def chunk_count(positions: int, chunk: int) -> int:
    """Chunks of a stream, the last one possibly shorter."""
    return -(-positions // chunk)


def chunk_of(windows: Windows, positions: int, chunk: int) -> np.ndarray:
    """Chunk in which each window is scored: that of its first scored position."""
    return np.minimum(windows.firsts // chunk, chunk_count(positions, chunk) - 1)


def merged_ranges(begins: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Half-open ranges, sorted and joined where they touch or overlap."""
    if not begins.size:
        return []
    order = np.argsort(begins, kind="stable")
    begins, ends = begins[order], np.maximum.accumulate(ends[order])
    breaks = np.flatnonzero(begins[1:] > ends[:-1])
    first = np.concatenate(([0], breaks + 1))
    last = np.concatenate((breaks, [begins.size - 1]))
    return [(int(a), int(b)) for a, b in zip(begins[first], ends[last], strict=True)]
