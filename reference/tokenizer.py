"""Tokenizers as byte tables: how many bytes of text each token stands for.

`bytes(prev, t) = base[t] + (1 if lead[t] and not bound[prev])`: a piece that begins with U+2581 counts one byte for its
space, except after a boundary token such as BOS (specification 1.3). SentencePiece is imported only where it is needed.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reference.data import BOS
from reference.errors import DataError

SPACE = "▁"
BYTE260_SIZE = 260
BYTE260_OFFSET = 4


@dataclass(frozen=True)
class ByteTables:
    """Byte counts of a vocabulary, arrays of length V.

    Attributes:
        base: int16, bytes of the piece itself, its leading space left out.
        lead: bool, the piece begins with a space.
        bound: bool, the token is a boundary (control, unknown, unused): no bytes, and no space is counted after it.
    """

    base: np.ndarray
    lead: np.ndarray
    bound: np.ndarray

    def __len__(self) -> int:
        return int(self.base.size)

    def count(self, tokens: np.ndarray) -> np.ndarray:
        """Bytes of every target of a stream: entry p is `bytes(tokens[p], tokens[p+1])`, int16 `[len(tokens) - 1]`.

        Raises:
            DataError: a token id is outside the vocabulary.
        """
        if tokens.size and int(tokens.max()) >= len(self):
            raise DataError(f"token id {int(tokens.max())} is outside the vocabulary of {len(self)}; wrong tokenizer?")
        targets, previous = tokens[1:], tokens[:-1]
        return self.base[targets] + (self.lead[targets] & ~self.bound[previous]).astype(np.int16)


class Tokenizer(Protocol):
    """What the trainer needs of a tokenizer."""

    kind: str
    vocab_size: int
    tables: ByteTables

    def encode(self, text: str) -> np.ndarray:
        """BOS and the tokens of one document, uint16."""
        ...

    def decode(self, tokens: np.ndarray) -> str:
        """Text of tokens; boundary tokens vanish."""
        ...


class ByteTokenizer:
    """byte260: pad 0, BOS 1, EOS 2, unknown 3, byte b is id b + 4."""

    kind = "byte260"
    vocab_size = BYTE260_SIZE

    def __init__(self) -> None:
        base = np.ones(BYTE260_SIZE, dtype=np.int16)
        base[:BYTE260_OFFSET] = 0
        self.tables = ByteTables(base, np.zeros(BYTE260_SIZE, dtype=bool), base == 0)

    def encode(self, text: str) -> np.ndarray:
        """BOS and the UTF-8 bytes of one document, each plus 4, uint16."""
        data = np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.uint16)
        return np.concatenate([np.array([BOS], dtype=np.uint16), data + BYTE260_OFFSET])

    def decode(self, tokens: np.ndarray) -> str:
        """Text of tokens; boundary tokens vanish, broken UTF-8 is replaced."""
        kept = np.asarray(tokens)
        return (kept[kept >= BYTE260_OFFSET] - BYTE260_OFFSET).astype(np.uint8).tobytes().decode("utf-8", "replace")


class SentencePieceTokenizer:
    """A SentencePiece model with its byte tables."""

    kind = "sentencepiece"

    def __init__(self, path: Path) -> None:
        self.processor = _sentencepiece().SentencePieceProcessor()
        try:
            self.processor.Load(str(path))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: not a SentencePiece model: {error}") from error
        self.vocab_size = int(self.processor.vocab_size())
        self.tables = sentencepiece_tables(self.processor, self.vocab_size)

    def encode(self, text: str) -> np.ndarray:
        """BOS and the pieces of one document, uint16; the text is normalised by the model first."""
        return np.array([BOS, *self.processor.Encode(text)], dtype=np.uint16)

    def decode(self, tokens: np.ndarray) -> str:
        """Normalised text of tokens."""
        return str(self.processor.Decode([int(t) for t in tokens]))


def _sentencepiece() -> Any:
    """The sentencepiece module.

    Raises:
        DataError: it is not installed.
    """
    try:
        return importlib.import_module("sentencepiece")
    except ImportError as error:
        raise DataError(
            "sentencepiece is not installed: install the extra 'torch', or use data.tokenizer=byte260"
        ) from error


def sentencepiece_tables(processor: Any, vocab_size: int) -> ByteTables:
    """Byte tables of a SentencePiece model, padded with boundary entries up to `vocab_size`.

    Raises:
        DataError: the lone space is not a piece, so that spaces would vanish from the byte count.
    """
    size = max(int(processor.vocab_size()), vocab_size)
    base, lead, bound = np.zeros(size, dtype=np.int16), np.zeros(size, dtype=bool), np.ones(size, dtype=bool)
    for token in range(int(processor.vocab_size())):
        if processor.IsControl(token) or processor.IsUnknown(token) or processor.IsUnused(token):
            continue
        bound[token] = False
        if processor.IsByte(token):
            base[token] = 1
            continue
        piece = processor.IdToPiece(token)
        lead[token] = piece.startswith(SPACE)
        base[token] = len(piece.removeprefix(SPACE).encode("utf-8"))
    if processor.IsUnknown(processor.PieceToId(SPACE)):
        raise DataError("the tokenizer has no piece for a lone space: bytes of spaces could not be counted")
    return ByteTables(base, lead, bound)


def load_tokenizer(name: str, vocab_size: int, *, folder: Path | None = None, sha256: str = "") -> Tokenizer:
    """Tokenizer by name (`byte260`) or model file (a path, or a name inside the data folder or its `tokenizers`).

    Raises:
        DataError: the file is missing, its digest or its vocabulary size is not the expected one.
    """
    if name == "byte260":
        return _checked(ByteTokenizer(), name, vocab_size)
    candidates = [Path(name)]
    if folder is not None:
        candidates += [
            folder / name,
            folder / "tokenizers" / name,
            folder.parent / "tokenizers" / name,
            folder.parent.parent / "tokenizers" / name,
        ]
    path = next((p for p in candidates if p.is_file()), None)
    if path is None:
        raise DataError(f"tokenizer {name} not found; set data.tokenizer to the path of the model file")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 and digest != sha256:
        raise DataError(f"{path}: sha256 {digest}, expected {sha256}; change data.tokenizer_sha256 to accept it")
    return _checked(SentencePieceTokenizer(path), str(path), vocab_size)


def _checked(tokenizer: Any, name: str, vocab_size: int) -> Tokenizer:
    if tokenizer.vocab_size != vocab_size:
        raise DataError(f"{name}: {tokenizer.vocab_size} pieces, but data.vocab_size is {vocab_size}")
    return tokenizer


def train_sentencepiece(texts: list[str], path: Path, vocab_size: int) -> None:
    """Trains a byte-fallback BPE model like the official ones (specification 1.2) and writes it to `path`.

    Raises:
        DataError: sentencepiece is missing, or the text has too few or too many characters for this size.
    """
    import io

    model = io.BytesIO()
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=0.999,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="nmt_nfkc",
            add_dummy_prefix=False,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            hard_vocab_limit=True,
            minloglevel=2,
            num_threads=1,
            max_sentence_length=16_384,
        )
    except RuntimeError as error:
        raise DataError(f"no tokenizer of {vocab_size} pieces fits this text: {error}; use byte260") from error
    path.write_bytes(model.getvalue())
