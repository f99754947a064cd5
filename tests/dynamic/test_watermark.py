"""Watermarked streams: no pair twice, splits disjoint, places found again; the tokenizer agrees with our byte table."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.dynamic.dataset import build, vocabulary
from auditor.dynamic.watermark import UNKNOWN, largest_prime, make


@settings(max_examples=25, deadline=None)
@given(
    vocab=st.integers(300, 1200),
    train=st.integers(2, 4000),
    val=st.integers(2, 2000),
    document=st.integers(4, 700),
)
def test_pairs_are_unique_and_places_are_found(vocab, train, val, document):
    mark = make(vocab, {"train": train, "val": val}, first_id=200, document=document)
    pairs = set()
    for code, name in enumerate(mark.splits):
        stream = mark.streams[name].astype(np.int64)
        assert stream.max() < vocab and stream[0] == 1
        own = set(zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True))
        assert len(own) == len(stream) - 1 and not own & pairs
        pairs |= own
        split, position = mark.locate(stream[:-1], stream[1:])
        assert (split == code).all() and (position == np.arange(1, len(stream))).all()


def test_rows_of_any_batch_are_placed_including_their_first_element():
    mark = make(1024, {"train": 9000, "val": 5000}, first_id=260)
    rows = np.stack([mark.streams["val"][start : start + 65] for start in (0, 64, 1000, 4900)]).astype(np.int64)
    split, position = mark.locate_rows(rows)
    assert (split == 1).all()
    assert (position == np.array([[0], [64], [1000], [4900]]) + np.arange(65)).all()


def test_foreign_tokens_are_not_placed():
    mark = make(1024, {"val": 3000}, first_id=260)
    split, _ = mark.locate(np.array([5, 7, -1, 4000]), np.array([6, 5000, 3, 1]))
    assert (split == UNKNOWN).all()


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(ValueError, match="too few pairs"):
        make(64, {"val": 10_000}, first_id=4)
    with pytest.raises(ValueError, match="no prime"):
        largest_prime(1)


@pytest.mark.parametrize("size", [1024, 4096, 8192])
def test_vocabulary_has_distinct_pieces_and_the_lone_space(size):
    pieces = [text for text, _ in vocabulary(size)]
    assert len(set(pieces)) == size == len(pieces)
    assert pieces[260] == "\u2581"


@pytest.mark.parametrize(("vocab", "byte_vocab"), [(1024, False), (4096, False), (260, True)])
def test_sentencepiece_reads_the_model_and_counts_the_same_bytes(tmp_path, vocab, byte_vocab):
    sentencepiece = pytest.importorskip("sentencepiece")
    data = build(tmp_path, vocab_size=vocab, train_tokens=4000, val_tokens=3000, byte_vocab=byte_vocab, sidecar=True)
    model = sentencepiece.SentencePieceProcessor(model_file=str(data.tokenizer))
    assert model.vocab_size() == vocab and model.bos_id() == 1 and model.unk_id() == 3 and model.pad_id() == 0
    stream = data.watermark.streams["val"].tolist()
    begins = [index for index, token in enumerate(stream) if token == 1] + [len(stream)]
    for start, end in pairwise(begins):
        document = stream[start + 1 : end]
        text = b"".join(_piece_bytes(model, token) for token in document)
        # The official look-up does not count a leading space right after BOS.
        skipped = 1 if document and model.id_to_piece(document[0]).startswith("\u2581") else 0
        assert data.token_bytes[start:end].sum() == len(text) - skipped
    raw = (tmp_path / "fineweb_val_bytes_000000.bin").read_bytes()
    assert (np.frombuffer(raw[1024:], dtype="<u2") == data.token_bytes).all()


def _piece_bytes(model, token: int) -> bytes:
    if model.is_byte(token):
        return bytes([int(model.id_to_piece(token)[3:5], 16)])
    return model.id_to_piece(token).replace("\u2581", " ").encode()
