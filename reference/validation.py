"""The validation stream: its targets, their bytes, and the fingerprints of the official data sets.

Position p is the prediction of token p+1 from tokens up to p, 0-based in the truncated stream (specification 1.4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reference.data import BOS, find_shards, read_shard, sidecar_paths
from reference.errors import DataError
from reference.tokenizer import ByteTables


@dataclass(frozen=True)
class Fingerprint:
    """Known counts of a full validation set; `provenance` says how they are known."""

    name: str
    vocab_size: int
    seq_len: int
    tokens: int
    bytes: int
    provenance: str


FINGERPRINTS = (
    Fingerprint("sp1024", 1024, 2048, 62_021_632, 151_080_363, "solved from 63 logged loss/bpb pairs; T = 1024..8192"),
    Fingerprint("sp8192", 8192, 2048, 40_540_160, 151_078_222, "ratio of 84 log lines"),
    Fingerprint("sp8192 CaseOps", 8192, 2048, 47_851_520, 151_074_309, "ratio of 26 log lines, byte sidecar"),
)
VALIDATION_DOCUMENTS = 50_000


@dataclass(frozen=True)
class ValidationStream:
    """Truncated validation tokens with the bytes of every target.

    Attributes:
        tokens: uint16 `[N + 1]`.
        target_bytes: int16 `[N]`, bytes of the target of each position.
        byte_ends: int64 `[N + 1]`, exact prefix sums: bytes of positions `a..b-1` are `byte_ends[b] - byte_ends[a]`.
        seq_len: T used for the truncation.
        documents: BOS tokens in the whole, untruncated stream.
    """

    tokens: np.ndarray
    target_bytes: np.ndarray
    byte_ends: np.ndarray
    seq_len: int
    documents: int

    @property
    def positions(self) -> int:
        """Number of scored targets N."""
        return int(self.target_bytes.size)

    @property
    def bytes(self) -> int:
        """Bytes of all N targets."""
        return int(self.byte_ends[-1])

    @classmethod
    def from_tokens(
        cls, tokens: np.ndarray, tables: ByteTables, seq_len: int, *, sidecar: np.ndarray | None = None
    ) -> ValidationStream:
        """Truncates to whole rows of `seq_len` targets and counts bytes from the tables, or from a sidecar.

        Raises:
            DataError: fewer than `seq_len` + 1 tokens, or a sidecar of another length.
        """
        usable = (tokens.size - 1) // seq_len * seq_len
        if usable <= 0:
            raise DataError(f"the validation shards hold {tokens.size} tokens, less than one row of {seq_len} + 1")
        if sidecar is not None and sidecar.size != tokens.size:
            raise DataError(f"byte sidecars hold {sidecar.size} entries for {tokens.size} tokens")
        documents = int(np.count_nonzero(tokens == BOS))
        kept = np.ascontiguousarray(tokens[: usable + 1])
        counted = tables.count(kept) if sidecar is None else sidecar[1 : usable + 1].astype(np.int32)
        ends = np.zeros(usable + 1, dtype=np.int64)
        np.cumsum(counted, out=ends[1:], dtype=np.int64)
        return cls(kept, counted, ends, seq_len, documents)

    @classmethod
    def open(cls, folder: Path, pattern: str, tables: ByteTables, seq_len: int) -> ValidationStream:
        """Stream over the validation shards of a folder; uses byte sidecars when they lie beside the shards."""
        shards = find_shards(folder, pattern)
        sidecars = sidecar_paths(shards)
        tokens = np.concatenate([read_shard(path) for path in shards])
        counted = np.concatenate([read_shard(path) for path in sidecars]) if sidecars else None
        return cls.from_tokens(tokens, tables, seq_len, sidecar=counted)

    def span_bytes(self, begin: np.ndarray | int, end: np.ndarray | int) -> int:
        """Bytes of the targets of half-open ranges of positions, exact."""
        return int(np.sum(self.byte_ends[end] - self.byte_ends[begin]))

    def check_counts(self, tokens: int, byte_count: int) -> None:
        """Compares with expected counts, 0 meaning not known.

        Raises:
            DataError: naming both numbers, when one differs.
        """
        for what, expected, found in (("val_tokens", tokens, self.positions), ("val_bytes", byte_count, self.bytes)):
            if expected and expected != found:
                raise DataError(
                    f"validation: counted {found}, but data.{what} is {expected}:"
                    " another validation set or tokenizer, or an incomplete download (0 accepts any)"
                )


def bits_per_byte(nats: float, byte_count: int) -> float:
    """Loss in bits per byte of text: `nats / ln 2 / bytes`; infinite when there are no bytes."""
    return nats / math.log(2.0) / byte_count if byte_count else math.inf


def matching_fingerprint(stream: ValidationStream, vocab_size: int) -> Fingerprint | None:
    """The official validation set with the same vocabulary size, target count and byte count, if any."""
    for known in FINGERPRINTS:
        if (vocab_size, stream.positions, stream.bytes) == (known.vocab_size, known.tokens, known.bytes):
            return known
    return None
