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
    """Places token ids by their neighbours, using the table of the watermark (see `auditor.dynamic.watermark`)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.size = table.shape[0]

    def of(self, ids: np.ndarray) -> np.ndarray:
        """Place (split code * 2^24 + position) of every id of a flat array of concatenated runs; UNKNOWN if foreign.

        An id is placed by its left neighbour or by its right one. Where both speak and differ (the seam of two rows
        that happens to look like a pair), the side whose own neighbour agrees is believed. In arrays long enough to
        tell, a place that no neighbour continues is a coincidence (hashed or shuffled ids) and is dropped.
        """
        ids = ids.reshape(-1).astype(np.int64)
        if len(ids) < 2:
            return np.full(len(ids), UNKNOWN, dtype=np.int64)
        valid = (ids >= 0) & (ids < self.size)
        safe = np.where(valid, ids, 0)
        pair = np.where(valid[:-1] & valid[1:], self.table[safe[:-1], safe[1:]], UNKNOWN).astype(np.int64)
        left = np.concatenate([[UNKNOWN], pair])
        right = np.concatenate([np.where(pair == UNKNOWN, UNKNOWN, pair - 1), [UNKNOWN]])
        agreed = np.where(left == UNKNOWN, right, left)
        torn = (left != UNKNOWN) & (right != UNKNOWN) & (left != right)
        for index in np.flatnonzero(torn):
            follows = index >= 2 and pair[index - 2] == left[index] - 1
            agreed[index] = left[index] if follows else right[index]
        return _coherent(agreed) if len(ids) >= 8 else agreed


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
