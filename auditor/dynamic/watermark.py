"""Token streams in which any two neighbouring tokens tell the split and the position.

Over an alphabet of n ids (n prime) the walk 0, s, 2s, ... (mod n) visits every id once and makes n pairs (a, a + s).
Walks with different steps s share no pair, so a stream made of walks for s = 1, 2, 3, ... never repeats a pair, and
train and validation streams made of different steps never share one. No co-operation of the audited program is
needed to know which tokens a tensor holds: two neighbours are enough.

Documents begin with BOS, as in the real stream. The two pairs around a BOS are unique as well, because no two documents
start with the same id or follow the same one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNKNOWN = -1


def largest_prime(limit: int) -> int:
    """Largest prime <= limit.

    Raises:
        ValueError: limit < 2.
    """
    for candidate in range(limit, 1, -1):
        if all(candidate % divisor for divisor in range(2, int(candidate**0.5) + 1)):
            return candidate
    raise ValueError(f"there is no prime up to {limit}")


@dataclass
class Watermark:
    """Streams of several splits and the way back from a pair of neighbours to its place.

    Attributes:
        streams: split name -> token ids, uint16, shape (tokens,).
        splits: split names in the order of their codes.
        vocab_size: ids are below it.
        table: int32, shape (vocab_size, vocab_size): place of the second token of a pair, as code * 2^24 + position,
            UNKNOWN for pairs that occur nowhere.
        redrawn: position of the validation stream from which on pairs may repeat (a probe's), None when none do.
    """

    streams: dict[str, np.ndarray]
    splits: list[str]
    vocab_size: int
    table: np.ndarray
    redrawn: int | None = None

    def locate(self, previous: np.ndarray, token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split code and stream position of `token` given its left neighbour; UNKNOWN where the pair is foreign.

        Args:
            previous, token: integer arrays of one shape.
        """
        inside = (previous >= 0) & (previous < self.vocab_size) & (token >= 0) & (token < self.vocab_size)
        place = self.table[np.where(inside, previous, 0), np.where(inside, token, 0)]
        known = inside & (place != UNKNOWN)
        return np.where(known, place >> 24, UNKNOWN), np.where(known, place & 0xFFFFFF, UNKNOWN)

    def locate_rows(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split code and position of every element of rows of consecutive tokens, shape (rows, length >= 2).

        The first element of a row is placed by its right neighbour.
        """
        split, position = self.locate(tokens[:, :-1], tokens[:, 1:])
        first_known = split[:, :1] != UNKNOWN
        split = np.concatenate([split[:, :1], split], axis=1)
        position = np.concatenate([np.where(first_known, position[:, :1] - 1, UNKNOWN), position], axis=1)
        return split, position


def make(vocab_size: int, sizes: dict[str, int], *, first_id: int, bos: int = 1, document: int = 512) -> Watermark:
    """Streams of the given sizes.

    Args:
        vocab_size: number of ids; ids from `first_id` on carry the watermark.
        sizes: split name -> number of tokens.
        first_id: lowest ordinary id that may occur (260 for SentencePiece with byte fallback, 4 for byte vocabularies).
        bos: id that begins every document.
        document: mean document length, tokens; lengths vary between half and one and a half times that.

    Raises:
        ValueError: the vocabulary has too few pairs or too few document beginnings for the sizes.
    """
    prime = largest_prime(vocab_size - first_id)
    first_id = vocab_size - prime  # the highest id occurs: some programs tell the size of the vocabulary by it
    budget = _Budget(prime)
    # Half of the ids may begin a document, shared evenly: the last free ones would cost whole walks to reach.
    quota = max(prime // 2 // len(sizes), 1)
    streams = {split: _stream(size, prime, first_id, bos, document, budget, quota) for split, size in sizes.items()}
    table = np.full((vocab_size, vocab_size), UNKNOWN, dtype=np.int32)
    for code, stream in enumerate(streams.values()):
        ids = stream.astype(np.int64)
        table[ids[:-1], ids[1:]] = (code << 24) + np.arange(1, len(ids))
    return Watermark(streams, list(sizes), vocab_size, table)


class _Budget:
    """Steps, document beginnings and document ends already used, over all splits."""

    def __init__(self, prime: int) -> None:
        self.prime = prime
        self.step = 0
        self.begun: set[int] = set()
        self.ended: set[int] = set()

    def next_step(self) -> int:
        self.step += 1
        if self.step >= self.prime:
            raise ValueError(f"{self.prime} ids make too few pairs for streams of that size")
        return self.step


def _stream(size: int, prime: int, first_id: int, bos: int, document: int, budget: _Budget, quota: int) -> np.ndarray:
    """One stream: documents cut from walks; a walk is dropped where a cut would repeat a beginning or an end."""
    stream = np.empty(size, dtype=np.uint16)
    stream[0] = bos
    filled, since, turn = 1, 0, 0
    walk = iter(())
    limit = document // 2
    while filled < size:
        token = next(walk, None)
        if token is None:
            # A new walk starts where the last one ended, so that the pair between them belongs to the new step.
            start = int(stream[filled - 1]) - first_id if stream[filled - 1] != bos else turn % prime
            step = budget.next_step()
            skip = 1 if stream[filled - 1] != bos else 0
            walk = iter([(start + index * step) % prime for index in range(skip, prime)])
            continue
        if since == 0 and token in budget.begun:
            continue
        if since == 0:
            budget.begun.add(token)
        stream[filled] = token + first_id
        filled, since = filled + 1, since + 1
        if since >= limit and token not in budget.ended and filled < size:
            budget.ended.add(token)
            stream[filled] = bos
            filled, since, turn = filled + 1, 0, turn + 1
            limit = document // 2 + (turn * 97) % max(document, 1)
            if turn >= quota:
                limit = size  # the rest is one document
    return stream
