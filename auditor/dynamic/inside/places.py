"""Where tokens of the streams stand: ids to positions by their neighbours, and lines of the program to sites."""

from __future__ import annotations

import sys
from types import FrameType

import numpy as np

UNKNOWN = -1
_HERE = __file__.rsplit("/", 1)[0]
_FOREIGN = ("<frozen", "<__array_function__", "<attrs", "<string-template")
_REPOSITORY = "/repo/"  # where the submission stands; a copy of it in the scratch folder is told by the same path
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3")


class Places:
    """Places token ids by their neighbours, using the table of the watermark (see `auditor.dynamic.watermark`).

    `repeats` is the part of a stream in which pairs may repeat (see `auditor.dynamic.streams`): its tokens, and the place
    of the first one. There the longest run of tokens that the stream holds as well decides.
    """

    def __init__(self, table: np.ndarray, repeats: tuple[np.ndarray, int] | None = None) -> None:
        self.table = table
        self.size = table.shape[0]
        self.repeats = None if repeats is None else Repeats(*repeats)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Place (split code * 2^24 + position) of every id of a flat array of concatenated runs; UNKNOWN if foreign.

        An id is placed by its left neighbour or by its right one. Where both speak and differ (the seam of two rows
        that happens to look like a pair), the side whose own neighbour agrees is believed. In arrays long enough to
        tell, a place that no neighbour continues is a coincidence (hashed or shuffled ids) and is dropped.
        """
        ids = ids.reshape(-1).astype(np.int64)
        if len(ids) < 2:
            return np.full(len(ids), UNKNOWN, dtype=np.int64)
        if self.repeats is not None:
            return self.repeats.places(ids, self._pairs(ids))
        pair = self._pairs(ids)
        left = np.concatenate([[UNKNOWN], pair])
        right = np.concatenate([np.where(pair == UNKNOWN, UNKNOWN, pair - 1), [UNKNOWN]])
        agreed = np.where(left == UNKNOWN, right, left)
        torn = (left != UNKNOWN) & (right != UNKNOWN) & (left != right)
        for index in np.flatnonzero(torn):
            follows = index >= 2 and pair[index - 2] == left[index] - 1
            agreed[index] = left[index] if follows else right[index]
        return _coherent(agreed) if len(ids) >= 8 else agreed

    def whole(self, ids: np.ndarray) -> np.ndarray:
        """Place of every id of a part of one stream as it was read, headers before it UNKNOWN; all UNKNOWN if it is none.

        A stream has all its tokens one after the other, so a good part of them that stand where one beginning puts them
        places the others, also where pairs repeat.
        """
        ids = ids.reshape(-1).astype(np.int64)
        pairs = self._pairs(ids)
        begins = (pairs - np.arange(1, len(ids)))[pairs != UNKNOWN]
        none = np.full(len(ids), UNKNOWN, dtype=np.int64)
        if 4 * len(begins) < len(ids):
            return none
        values, counts = np.unique(begins, return_counts=True)
        if 4 * counts.max() < len(ids):
            return none
        places = np.arange(len(ids)) + values[counts.argmax()]
        first = int(np.argmax(pairs == places[1:]))
        places[:first] = UNKNOWN
        return places

    def _pairs(self, ids: np.ndarray) -> np.ndarray:
        """Place of the second token of every pair of neighbours."""
        valid = (ids >= 0) & (ids < self.size)
        safe = np.where(valid, ids, 0)
        return np.where(valid[:-1] & valid[1:], self.table[safe[:-1], safe[1:]], UNKNOWN).astype(np.int64)


class Repeats:
    """Places tokens of a stream in which pairs repeat: of all runs of tokens found in it, the longest one is right.

    Runs are found by their parts of `GRAM` tokens, so nothing shorter is placed. Where two places hold a run of the same
    length the earlier one is taken.
    """

    GRAM = 6

    def __init__(self, stream: np.ndarray, first: int) -> None:
        """`stream`: token ids, shape (tokens,); `first`: place of its first token."""
        keys = self._keys(stream.astype(np.int64))
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        self.first = first

    def _keys(self, ids: np.ndarray) -> np.ndarray:
        """A number for every `GRAM` neighbours (equal numbers of unequal neighbours: 1 in 2^64)."""
        count = max(len(ids) - self.GRAM + 1, 0)
        factors = np.random.default_rng(0).integers(1, 1 << 62, self.GRAM) * 2 + 1
        with np.errstate(over="ignore"):
            return np.sum([(ids[k : k + count] + 1) * factors[k] for k in range(self.GRAM)], axis=0, dtype=np.int64)

    def places(self, ids: np.ndarray, unique: np.ndarray) -> np.ndarray:
        """Places of a flat array; `unique`: places of its pairs where pairs do not repeat, UNKNOWN elsewhere."""
        found, best = np.full(len(ids), UNKNOWN, dtype=np.int64), np.zeros(len(ids), dtype=np.int64)
        at = np.flatnonzero(unique != UNKNOWN)
        runs = [(*run, 2) for run in _runs(at, unique[at] - 1)]
        runs += [(*run, self.GRAM) for run in _runs(*self._candidates(ids))]
        least = min(self.GRAM, len(ids))
        # Shortest first, so that longer runs overwrite.
        for start, end, shift, width in sorted(runs, key=lambda run: (run[1] - run[0] + run[3], run[2])):
            low, high = start, end + width - 1
            size = high - low
            if size < least:
                continue
            kept = best[low:high] == size
            found[low:high] = np.where(kept, found[low:high], np.arange(low, high) + shift)
            best[low:high] = size
        return found

    def _candidates(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every part of the array (its index) with every place of its first token in the stream."""
        keys = self._keys(ids)
        low, high = np.searchsorted(self.keys, keys, "left"), np.searchsorted(self.keys, keys, "right")
        count = high - low
        index = np.repeat(np.arange(len(keys)), count)
        inner = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
        return index, self.first + self.order[np.repeat(low, count) + inner]


class Context:
    """Tokens that went into a model one at a time: they stand before a target that has no neighbours of its own."""

    KEPT = 16

    def __init__(self, places: Places) -> None:
        self.places = places
        self.table: int | None = None  # of several tables that the same tokens are looked up in, the first
        self.rows = np.empty((0, 0), dtype=np.int64)

    def embedded(self, ids: np.ndarray, table: int) -> None:
        """Tokens of one forward pass, shape (rows, columns) or (columns,), and what tells the table they are looked up in."""
        self.table = table if self.table is None else self.table
        if table != self.table or ids.ndim not in (1, 2):
            return
        ids = ids.reshape(len(ids) if ids.ndim == 2 else 1, -1).astype(np.int64)
        if ids.shape[1] == 1 and len(self.rows) == len(ids):
            ids = np.concatenate([self.rows, ids], axis=1)
        self.rows = ids[:, -self.KEPT :]

    def of(self, targets: np.ndarray) -> np.ndarray:
        """Place of every target, shape (rows,), as what follows the tokens of its row; UNKNOWN where that cannot be told."""
        if len(targets) != len(self.rows) or not self.rows.size:
            return np.full(len(targets), UNKNOWN, dtype=np.int64)
        rows = np.concatenate([self.rows, targets.reshape(-1, 1)], axis=1)
        return np.array([self.places.of(row)[-1] for row in rows], dtype=np.int64)


def _runs(index: np.ndarray, place: np.ndarray) -> list[tuple[int, int, int]]:
    """Runs of parts that are neighbours both in the array and in the stream: first index, end, place minus index."""
    if not len(index):
        return []
    shift = place - index
    order = np.lexsort((index, shift))
    index, shift = index[order], shift[order]
    start = np.flatnonzero(np.concatenate([[True], (np.diff(shift) != 0) | (np.diff(index) != 1)]))
    end = np.concatenate([start[1:], [len(index)]])
    return list(zip(index[start].tolist(), (index[end - 1] + 1).tolist(), shift[start].tolist(), strict=True))


def _coherent(places: np.ndarray) -> np.ndarray:
    """Places of which neither neighbour is the place before or after become UNKNOWN, as do arrays of mere pairs."""
    follows = np.concatenate([[False], (places[1:] == places[:-1] + 1) & (places[:-1] != UNKNOWN)])
    run = follows | np.concatenate([follows[1:], [False]])
    kept = np.where(run, places, UNKNOWN)
    # Among ids in random order almost every run is one chance pair; in a stream runs are long.
    starts = run & ~follows
    if starts.any() and run.sum() / starts.sum() < 3 and len(places) >= 16:
        return np.full(len(places), UNKNOWN, dtype=np.int64)
    return kept


class Sites:
    """Call stacks of the submission as small numbers; `new` lists those not yet sent."""

    def __init__(self) -> None:
        self._known: dict[tuple, int] = {}
        self.new: list[tuple[int, list[tuple[str, int, str]]]] = []

    def frames(self) -> list[tuple[str, int, str]]:
        """The running stack: (file, line, function) of the submission's frames, innermost first."""
        frames: list[tuple[str, int, str]] = []
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and len(frames) < 12:
            name = frame.f_code.co_filename
            if not name.startswith((_HERE, *_FOREIGN)) and not any(part in name for part in _LIBRARIES):
                name = _REPOSITORY + name.partition(_REPOSITORY)[2] if _REPOSITORY in name else name
                frames.append((name, frame.f_lineno, frame.f_code.co_name))
            frame = frame.f_back
        return frames

    def ours(self, depth: int) -> bool:
        """Whether the function that many calls above the caller of this one is the submission's."""
        name = sys._getframe(depth + 1).f_code.co_filename
        return not name.startswith((_HERE, *_FOREIGN)) and not any(part in name for part in _LIBRARIES)

    def here(self) -> int:
        """Number of the running stack."""
        frames = self.frames()
        # The launcher itself ends every stack.
        key = tuple(frames)
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self._known)
            self.new.append((number, frames))
        return number
