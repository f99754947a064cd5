"""Watermarked data in the official formats: shards, a tokenizer of the size the submission expects, byte sidecars.

Shard format (reference specification, 1.1): 256 little-endian int32 (magic 20240520, version 1, token count), then
uint16 ids. The tokenizer is a SentencePiece model written by hand: control ids 0-2, unknown 3, byte pieces 4-259, then
ordinary pieces, a third of them with a leading space, the lone space marker among them.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auditor.dynamic.watermark import Watermark, make

PREFIX = "fineweb"  # of the official shards' names
MAGIC, VERSION, HEADER_INTS = 20240520, 1, 256
# Ids the streams are written with: enough pairs, and a table of pairs that stays small whatever the vocabulary.
ALPHABET = 2048
SPACE = "\u2581"
STEM = "understand"  # of long words that differ in their last letter, as real vocabularies have them
FIRST_PIECE = 260
NORMAL, UNKNOWN_PIECE, CONTROL, BYTE = 1, 2, 3, 6


@dataclass
class Dataset:
    """A data set on disk.

    Attributes:
        folder: holds the shards; `tokenizer`: path of the SentencePiece model.
        watermark: the streams with the way back from tokens to positions.
        token_bytes: bytes that each position of the validation stream counts for under the official look-up,
            int64, shape (tokens,); position 0 counts nothing.
    """

    folder: Path
    tokenizer: Path
    watermark: Watermark
    token_bytes: np.ndarray


def build(
    folder: Path,
    *,
    vocab_size: int,
    train_tokens: int,
    val_tokens: int,
    train_shards: int = 1,
    sidecar: bool = False,
    byte_vocab: bool = False,
    folders: tuple[str, ...] = (),
    models: tuple[str, ...] = (),
    shards: tuple[str, ...] = (),
    change: Callable[[Watermark], None] | None = None,
) -> Dataset:
    """Write a data set for one CPU run.

    Args:
        vocab_size: ids of the tokenizer (1024, 4096, 8192, or 260 for bytes).
        train_tokens, val_tokens: stream lengths, tokens; the first is cut to what the vocabulary has room for.
        train_shards: files the training stream is cut into.
        sidecar: also write `fineweb_val_bytes_*.bin`, the byte count of every validation token.
        byte_vocab: ids from 4 on are single bytes (byte260).
        folders, models: further names under which programs look for the shards (`datasets/NAME`) and the tokenizer
            (`tokenizers/NAME`). shards: further beginnings of the shards' names (`NAME_train_000000.bin`).
        change: called with the streams before anything is written, to alter them (a probe).

    Raises:
        ValueError: the vocabulary is too small for streams of that length.
    """
    first_id = 4 if byte_vocab else min(FIRST_PIECE, vocab_size // 2)
    ids = min(vocab_size, ALPHABET)
    # A small vocabulary has few pairs; half of them is what streams can be made of without dropping most walks.
    room = max((ids - first_id) ** 2 // 2 - val_tokens, val_tokens)
    mark = make(ids, {"train": min(train_tokens, room), "val": val_tokens}, first_id=first_id)
    if change is not None:
        change(mark)
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(np.array_split(mark.streams["train"], train_shards)):
        write_shard(folder / f"{PREFIX}_train_{index:06d}.bin", part)
    write_shard(folder / f"{PREFIX}_val_000000.bin", mark.streams["val"])
    pieces = list(vocabulary(vocab_size))
    token_bytes = count_bytes(mark.streams["val"], pieces)
    if sidecar:
        write_shard(folder / "fineweb_val_bytes_000000.bin", token_bytes.astype(np.uint16))
    for name in sorted({*shards} - {PREFIX}):
        for path in sorted(folder.glob(f"{PREFIX}_*.bin")):
            (folder / path.name.replace(PREFIX, name, 1)).symlink_to(path.name)
    tokenizer = folder / f"fineweb_{vocab_size}_bpe.model"
    tokenizer.write_bytes(sentencepiece_model(pieces))
    _name(folder / "datasets", {f"fineweb10B_sp{vocab_size}", *folders}, "..")
    _name(folder / "tokenizers", {tokenizer.name, *models}, f"../{tokenizer.name}")
    return Dataset(folder, tokenizer, mark, token_bytes)


def _name(folder: Path, names: set[str], target: str) -> None:
    """Links called `names` in a folder, all to one place."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).symlink_to(target)


def write_shard(path: Path, tokens: np.ndarray) -> None:
    """Write token ids (uint16, shape (n,)) as an official shard."""
    header = np.zeros(HEADER_INTS, dtype="<i4")
    header[:3] = MAGIC, VERSION, len(tokens)
    path.write_bytes(header.tobytes() + np.ascontiguousarray(tokens, dtype="<u2").tobytes())


def vocabulary(size: int) -> Iterator[tuple[str, int]]:
    """Pieces of a SentencePiece vocabulary with byte fallback as (text, type), `size` of them."""
    special = [("<pad>", CONTROL), ("<s>", CONTROL), ("</s>", CONTROL), ("<unk>", UNKNOWN_PIECE)]
    yield from itertools.islice(itertools.chain(special, _bytes(), [(SPACE, NORMAL)], _words()), size)


def _bytes() -> Iterator[tuple[str, int]]:
    return ((f"<0x{value:02X}>", BYTE) for value in range(256))


def _words() -> Iterator[tuple[str, int]]:
    """Distinct words: a few long ones, then some of one to four letters, every third with a leading space, not all ASCII."""
    letters = "abcdefghijklmnopqrstuvwxyz\u00e9\u00fc"
    yield from ((f"{SPACE}{STEM}{letter}", NORMAL) for letter in letters[:26])
    index = 0
    for length in itertools.count(1):
        for combination in itertools.product(letters, repeat=length):
            yield (SPACE if index % 3 == 0 else "") + "".join(combination), NORMAL
            index += 1


def count_bytes(stream: np.ndarray, pieces: list[tuple[str, int]]) -> np.ndarray:
    """Bytes of every position by the official look-up (reference specification, 1.3), int64, shape (tokens,).

    A leading space counts one byte unless the previous token is a boundary (control, unknown) token.
    """
    base = np.array([_base_bytes(text, kind) for text, kind in pieces], dtype=np.int64)
    lead = np.array([kind == NORMAL and text.startswith(SPACE) for text, kind in pieces])
    boundary = np.array([kind in (CONTROL, UNKNOWN_PIECE) for _, kind in pieces])
    ids = stream.astype(np.int64)
    counted = base[ids]
    counted[1:] += lead[ids[1:]] & ~boundary[ids[:-1]]
    counted[0] = 0
    return counted


def _base_bytes(text: str, kind: int) -> int:
    if kind == BYTE:
        return 1
    return len(text.removeprefix(SPACE).encode()) if kind == NORMAL else 0


def sentencepiece_model(pieces: list[tuple[str, int]]) -> bytes:
    """A SentencePiece model file: protocol buffer `ModelProto` with BPE pieces, trainer and normaliser fields.

    Field numbers are those of sentencepiece_model.proto: ModelProto pieces=1, trainer_spec=2, normalizer_spec=3.
    """
    out = bytearray()
    for index, (text, kind) in enumerate(pieces):
        body = (
            _text(1, text) + b"\x15" + struct.pack("<f", -float(index)) + (_number(3, kind) if kind != NORMAL else b"")
        )
        out += _bytes_field(1, body)
    trainer = (
        _number(3, 2)
        + _number(4, len(pieces))
        + _number(35, 1)
        + _number(40, 3)
        + _number(41, 1)
        + _number(42, 2)
        + _number(43, 0)
    )
    normaliser = _text(1, "identity") + _number(3, 0) + _number(4, 0) + _number(5, 1)
    return bytes(out + _bytes_field(2, trainer) + _bytes_field(3, normaliser))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes_field(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _text(field: int, text: str) -> bytes:
    return _bytes_field(field, text.encode())
