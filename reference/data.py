"""Shards of token ids, the training stream, and batches on the device.

A shard is 256 little-endian int32 (magic, version, token count, zeros) followed by that many little-endian uint16.
Documents begin with BOS and run across shard boundaries; there is no EOS (specification 1.1).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reference.errors import DataError

MAGIC = 20240520
VERSION = 1
HEADER_INTS = 256
HEADER_BYTES = 4 * HEADER_INTS
SIDECAR_MARK = "_bytes_"
BOS = 1
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")


def read_shard(path: Path) -> np.ndarray:
    """Tokens of one shard as a read-only memory map, uint16 `[n]`.

    Raises:
        DataError: fewer than 256 header ints, wrong magic or version, or a size other than 1024 + 2n bytes.
    """
    try:
        size = path.stat().st_size
        header = np.fromfile(path, dtype="<i4", count=HEADER_INTS)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if header.size < HEADER_INTS:
        raise DataError(f"{path}: {size} bytes, a shard begins with a header of {HEADER_BYTES}; download it again")
    if header[0] != MAGIC or header[1] != VERSION:
        raise DataError(f"{path}: magic {header[0]}, version {header[1]}; a shard has {MAGIC} and {VERSION}")
    count = int(header[2])
    if count < 0 or size != HEADER_BYTES + 2 * count:
        raise DataError(f"{path}: header says {count} tokens, so {HEADER_BYTES + 2 * count} bytes, but it has {size}")
    if count == 0:
        return np.zeros(0, dtype=np.uint16)
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Writes one shard; refuses ids outside uint16.

    Raises:
        DataError: an id below 0 or above 65,535, or more tokens than the header can count.
    """
    tokens = np.asarray(tokens)
    if tokens.ndim != 1 or tokens.size >= 2**31:
        raise DataError(f"{path}: a shard holds one row of fewer than 2^31 tokens, got shape {tokens.shape}")
    if tokens.size and (int(tokens.min()) < 0 or int(tokens.max()) > 0xFFFF):
        raise DataError(f"{path}: token ids {int(tokens.min())}..{int(tokens.max())} do not fit in uint16")
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, tokens.size
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        file.write(header.tobytes())
        file.write(tokens.astype("<u2").tobytes())
    os.replace(temporary, path)


def find_shards(folder: Path, pattern: str, *, sidecars: bool = False) -> list[Path]:
    """Shards matching a pattern in order of names; sidecars (`_bytes_` in the name) only when asked for.

    Raises:
        DataError: nothing matches.
    """
    found = sorted(p for p in folder.glob(pattern) if (SIDECAR_MARK in p.name) == sidecars)
    if not found and not sidecars:
        raise DataError(f"{folder}: no file matches {pattern}; give --data-dir, or make shards: reference data make")
    return found


def sidecar_paths(shards: Sequence[Path]) -> list[Path]:
    """Byte sidecars beside validation shards: `fineweb_val_000000.bin` has `fineweb_val_bytes_000000.bin`.

    Returns:
        One path for each shard, or an empty list when there is none at all.

    Raises:
        DataError: some shards have a sidecar and others have not.
    """
    paths = []
    for shard in shards:
        stem, _, number = shard.stem.rpartition("_")
        paths.append(shard.with_name(f"{stem}{SIDECAR_MARK}{number}{shard.suffix}"))
    present = [p.is_file() for p in paths]
    if any(present) and not all(present):
        missing = next(p for p, there in zip(paths, present, strict=True) if not there)
        raise DataError(f"{missing}: byte sidecar is missing although other shards have one")
    return paths if all(present) and paths else []


class TokenStream:
    """The concatenation of shards as a cyclic array of uint16."""

    def __init__(self, shards: Sequence[np.ndarray]) -> None:
        self.shards = [shard for shard in shards if shard.size]
        self.ends = np.cumsum([shard.size for shard in self.shards], dtype=np.int64)
        if not self.shards:
            raise DataError("the training shards hold no tokens")

    @classmethod
    def open(cls, folder: Path, pattern: str) -> TokenStream:
        """Stream over the shards of a folder that match a pattern."""
        return cls([read_shard(path) for path in find_shards(folder, pattern)])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def slice(self, start: int, count: int) -> np.ndarray:
        """`count` tokens from position `start` (modulo the length), across shard ends, as a new uint16 array."""
        out = np.empty(count, dtype=np.uint16)
        filled, position = 0, start % len(self)
        while filled < count:
            index = int(np.searchsorted(self.ends, position, side="right"))
            begin = position - (int(self.ends[index]) - self.shards[index].size)
            piece = self.shards[index][begin : begin + count - filled]
            out[filled : filled + piece.size] = piece
            filled += piece.size
            position = (position + piece.size) % len(self)
        return out

    def span(self, step: int, index: int, span_tokens: int, spans: int = 8) -> np.ndarray:
        """Span `index` of step `step`: `span_tokens + 1` tokens (specification 1.5); does not depend on the ranks."""
        return self.slice((spans * step + index) * (span_tokens + 1), span_tokens + 1)


class BatchLoader:
    """Batches of one rank, read ahead by a thread and copied to the device without waiting.

    Micro-step `a` of rank `r` uses span `a * world + r`. On CUDA the copy goes from
    pinned memory on a stream of its own.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        span_tokens: int,
        seq_len: int,
        spans: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        if spans % world:
            raise DataError(f"{world} ranks: the number of ranks must divide data.spans_per_step={spans}")
        self.stream, self.span_tokens, self.seq_len, self.spans = stream, span_tokens, seq_len, spans
        self.rank, self.world, self.device = rank, world, device
        self.micro_steps = spans // world
        # The reading thread must pin memory for this rank's GPU, not for the first one.
        choose = (lambda: torch.cuda.set_device(device)) if device.type == "cuda" else None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shards", initializer=choose)
        self._pending: tuple[tuple[int, int], Future[Tensor]] | None = None
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def batch(self, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one micro-step, int64 `[span_tokens / T, T]` each."""
        key = (step, micro)
        if self._pending is not None and self._pending[0] == key:
            tokens = self._pending[1].result()
        else:
            tokens = self._read(*key)
        if self._copies is not None:
            torch.cuda.current_stream(self.device).wait_stream(self._copies)
            tokens.record_stream(torch.cuda.current_stream(self.device))
        following = (step, micro + 1) if micro + 1 < self.micro_steps else (step + 1, 0)
        self._pending = (following, self._reader.submit(self._read, *following))
        tokens = tokens.long()
        return tokens[:-1].view(-1, self.seq_len), tokens[1:].view(-1, self.seq_len)

    def _read(self, step: int, micro: int) -> Tensor:
        """Span as int32 on the device; uint16 has no arithmetic in torch, int32 halves the copy against int64."""
        span = self.stream.span(step, micro * self.world + self.rank, self.span_tokens, self.spans)
        host = torch.from_numpy(span.astype(np.int32))
        if self._copies is None:
            return host.to(self.device)
        host = host.pin_memory()
        with torch.cuda.stream(self._copies):
            return host.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Stops the reading thread."""
        self._reader.shutdown(wait=True, cancel_futures=True)


def documents_of(paths: Sequence[Path]) -> Iterator[str]:
    """Documents of text files: each line's `text` in `.jsonl`, otherwise paragraphs gathered to ~4,000 characters.

    Raises:
        DataError: a file is missing, is not UTF-8, or a JSON line has no text.
    """
    import json

    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise DataError(f"{path}: cannot be read as UTF-8 text: {reason}") from error
        if path.suffix != ".jsonl":
            yield from split_documents(text)
            continue
        for number, line in enumerate(text.splitlines(), 1):
            try:
                yield json.loads(line)["text"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not a JSON object with a 'text' field") from error


def split_documents(text: str, target: int = 4000) -> Iterator[str]:
    """Cuts a text at blank lines into documents of at least `target` characters (the last one may be shorter)."""
    gathered: list[str] = []
    length = 0
    for paragraph in _BLANK_LINE.split(text):
        if not paragraph.strip():
            continue
        gathered.append(paragraph.strip("\n"))
        length += len(paragraph)
        if length >= target:
            yield "\n\n".join(gathered)
            gathered, length = [], 0
    if gathered:
        yield "\n\n".join(gathered)


def make_shards(
    documents: Sequence[np.ndarray], folder: Path, *, val_documents: int, shard_tokens: int, prefix: str = "fineweb"
) -> dict[str, int]:
    """Writes the first `val_documents` encoded documents as validation shards, the others as training shards.

    Returns:
        Tokens written for `val` and `train`; the two never share a shard.
    """
    if len(documents) < 2:
        raise DataError(f"the text has {len(documents)} document(s): give more text, or blank lines between paragraphs")
    if not 0 < val_documents < len(documents):
        raise DataError(f"--val-docs {val_documents}: must be between 1 and {len(documents) - 1} for this text")
    folder.mkdir(parents=True, exist_ok=True)
    counts = {}
    for split, part in (("val", documents[:val_documents]), ("train", documents[val_documents:])):
        tokens = np.concatenate(part)
        counts[split] = int(tokens.size)
        for number, begin in enumerate(range(0, tokens.size, shard_tokens)):
            write_shard(folder / f"{prefix}_{split}_{number:06d}.bin", tokens[begin : begin + shard_tokens])
    return counts
