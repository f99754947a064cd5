"""Shards, streams, tokenizers and the validation stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import data, texts, tokenizer
from reference.errors import DataError
from reference.validation import (
    FINGERPRINTS,
    ValidationStream,
    bits_per_byte,
    matching_fingerprint,
)


@given(tokens=st.lists(st.integers(0, 65_535), max_size=50))
def test_shard_round_trip(tmp_path_factory: pytest.TempPathFactory, tokens: list[int]) -> None:
    path = tmp_path_factory.mktemp("shard") / "fineweb_val_000000.bin"
    data.write_shard(path, np.array(tokens, dtype=np.int64))
    assert data.read_shard(path).tolist() == tokens
    assert path.stat().st_size == 1024 + 2 * len(tokens)
    assert np.fromfile(path, "<i4", 3).tolist() == [20240520, 1, len(tokens)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:1000], "header of 1024"),
        (lambda b: b"\0" + b[1:], "magic"),
        (lambda b: b[:4] + b"\2" + b[5:], "version 2"),
        (lambda b: b[:-2], "it has 1042"),
        (lambda b: b + b"\0\0", "it has 1046"),
        (lambda b: b[:8] + b"\xff\xff\xff\xff" + b[12:], "-1 tokens"),
    ],
)
def test_damaged_shards_are_refused(tmp_path: Path, damage, message: str) -> None:
    path = tmp_path / "x.bin"
    data.write_shard(path, np.arange(10))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        data.read_shard(path)


def test_ids_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"-1\.\.70000"):
        data.write_shard(tmp_path / "x.bin", np.array([-1, 70_000]))
    with pytest.raises(DataError, match="shape"):
        data.write_shard(tmp_path / "x.bin", np.zeros((2, 2)))
    with pytest.raises(DataError, match="cannot be read"):
        data.read_shard(tmp_path / "missing.bin")


LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=5)


@given(lengths=LENGTHS, start=st.integers(0, 200), count=st.integers(0, 99))
def test_slices_run_across_shards_and_wrap(lengths: list[int], start: int, count: int) -> None:
    whole = np.arange(sum(lengths), dtype=np.uint16)
    if not whole.size:
        with pytest.raises(DataError):
            data.TokenStream([whole])
        return
    stream = data.TokenStream(np.split(whole, np.cumsum(lengths)[:-1]))
    assert stream.slice(start, count).tolist() == [(start + i) % whole.size for i in range(count)]


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_batches_equal_a_naive_reader_for_any_number_of_ranks(world: int) -> None:
    """Rank r at micro-step a reads what a single reader would hand out one span after the other."""
    whole = np.arange(500, dtype=np.uint16)
    stream = data.TokenStream([whole[:210], whole[210:]])
    endless = np.tile(whole, 10)
    for rank in range(world):
        loader = data.BatchLoader(
            stream, span_tokens=16, seq_len=8, spans=8, rank=rank, world=world, device=torch.device("cpu")
        )
        for step in range(6):
            for micro in range(8 // world):
                span = (step * 8 + micro * world + rank) * 17
                x, y = loader.batch(step, micro)
                assert x.flatten().tolist() == endless[span : span + 16].tolist()
                assert y.flatten().tolist() == endless[span + 1 : span + 17].tolist()
                assert x.shape == y.shape == (2, 8)
        loader.close()
    with pytest.raises(DataError, match="must divide"):
        data.BatchLoader(stream, span_tokens=16, seq_len=8, spans=8, rank=0, world=3, device=torch.device("cpu"))


def test_sidecars_are_not_token_shards(tmp_path: Path) -> None:
    for name in ("fineweb_val_000000.bin", "fineweb_val_000001.bin", "fineweb_val_bytes_000000.bin"):
        data.write_shard(tmp_path / name, np.array([1, 5, 6]))
    shards = data.find_shards(tmp_path, "fineweb_val_*.bin")
    assert [p.name for p in shards] == ["fineweb_val_000000.bin", "fineweb_val_000001.bin"]
    with pytest.raises(DataError, match="fineweb_val_bytes_000001"):
        data.sidecar_paths(shards)
    data.write_shard(tmp_path / "fineweb_val_bytes_000001.bin", np.array([0, 3, 4]))
    stream = ValidationStream.open(tmp_path, "fineweb_val_*.bin", tokenizer.ByteTokenizer().tables, 2)
    assert stream.target_bytes.tolist() == [5, 6, 0, 3]
    with pytest.raises(DataError, match="no file matches"):
        data.find_shards(tmp_path, "*.other")
    (tmp_path / "fineweb_val_bytes_000001.bin").unlink()
    data.write_shard(tmp_path / "fineweb_val_bytes_000001.bin", np.array([0]))
    with pytest.raises(DataError, match="4 entries for 6"):
        ValidationStream.open(tmp_path, "fineweb_val_*.bin", tokenizer.ByteTokenizer().tables, 2)


@given(st.text(max_size=60))
def test_byte_tokenizer_counts_utf8_bytes(text: str) -> None:
    encoder = tokenizer.ByteTokenizer()
    tokens = encoder.encode(text)
    assert int(encoder.tables.count(tokens).sum()) == len(text.encode())
    assert encoder.decode(tokens) == text


@pytest.fixture(scope="module")
def piece_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece")
    path = tmp_path_factory.mktemp("sp") / "small.model"
    tokenizer.train_sentencepiece(texts.standard_library_documents(60_000), path, 400)
    return path


def test_sentencepiece_bytes_equal_the_decoded_text(piece_model: Path) -> None:
    encoder = tokenizer.load_tokenizer(str(piece_model), 400)
    for document in ["", "x", "Ünïcödé ½ — 漢字 \U0001f600", *texts.standard_library_documents(20_000)]:
        tokens = encoder.encode(document)
        decoded = encoder.decode(tokens[1:])
        # A leading space after BOS is not counted, so a document that begins with one has a byte less.
        assert int(encoder.tables.count(tokens).sum()) == len(decoded.encode())
    tables = encoder.tables
    assert tables.bound[:4].all() and not tables.bound[4:].any()
    assert (tables.base[4:260] == 1).all() and tables.lead.any()


def test_tokenizer_errors(tmp_path: Path, piece_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"400 pieces, but data.vocab_size is 1024"):
        tokenizer.load_tokenizer(str(piece_model), 1024)
    with pytest.raises(DataError, match="sha256"):
        tokenizer.load_tokenizer(piece_model.name, 400, folder=piece_model.parent, sha256="0" * 64)
    with pytest.raises(DataError, match="not found"):
        tokenizer.load_tokenizer("nowhere.model", 400, folder=tmp_path)
    (tmp_path / "bad.model").write_bytes(b"no model")
    with pytest.raises(DataError, match="not a SentencePiece model"):
        tokenizer.SentencePieceTokenizer(tmp_path / "bad.model")
    with pytest.raises(DataError, match="outside the vocabulary"):
        tokenizer.ByteTokenizer().tables.count(np.array([1, 300]))
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(DataError, match="byte260"):
        tokenizer.SentencePieceTokenizer(piece_model)


def test_space_must_be_a_piece() -> None:
    class NoSpace:
        def vocab_size(self) -> int:
            return 2

        def IsControl(self, token: int) -> bool:
            return False

        def IsUnknown(self, token: int) -> bool:
            return token == 0

        IsUnused = IsByte = IsControl

        def IdToPiece(self, token: int) -> str:
            return "a"

        def PieceToId(self, piece: str) -> int:
            return 0

    with pytest.raises(DataError, match="lone space"):
        tokenizer.sentencepiece_tables(NoSpace(), 2)


@given(n=st.integers(2, 300), length=st.integers(1, 40))
def test_stream_is_cut_to_whole_rows(n: int, length: int) -> None:
    tokens = (np.arange(n) % 250 + 4).astype(np.uint16)
    tables = tokenizer.ByteTokenizer().tables
    if n - 1 < length:
        with pytest.raises(DataError, match="less than one row"):
            ValidationStream.from_tokens(tokens, tables, length)
        return
    stream = ValidationStream.from_tokens(tokens, tables, length)
    assert stream.positions == (n - 1) // length * length
    assert stream.tokens.size == stream.positions + 1
    assert stream.bytes == stream.positions == stream.span_bytes(0, stream.positions)


def test_counts_and_bits_per_byte() -> None:
    tokens = np.full(21, 7, dtype=np.uint16)
    stream = ValidationStream.from_tokens(tokens, tokenizer.ByteTokenizer().tables, 10)
    stream.check_counts(20, 20)
    with pytest.raises(DataError, match=r"data.val_bytes is 21"):
        stream.check_counts(20, 21)
    assert matching_fingerprint(stream, 260) is None
    known = FINGERPRINTS[0]
    # The logged pair of #598: loss 1.913751, bpb 1.13343416, on the stream with the legacy tail.
    nats = 1.913751 * (known.tokens + 31 * 64)
    assert bits_per_byte(nats, known.bytes + 31 * 143) == pytest.approx(1.13343416, abs=1e-6)
    assert bits_per_byte(1.0, 0) == float("inf")


def test_documents_of_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 5000 + "\n\n" + "y" * 10 + "\n \n\n\n" + "z", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    assert [len(d) for d in data.documents_of([tmp_path / "a.txt"])] == [5000, 13]
    assert list(data.documents_of([tmp_path / "b.jsonl"])) == ["one", "two"]
    (tmp_path / "c.jsonl").write_text('{"body": 1}\n', encoding="utf-8")
    for name, message in (("c.jsonl", "c.jsonl:1"), ("none.txt", "none.txt")):
        with pytest.raises(DataError, match=message):
            list(data.documents_of([tmp_path / name]))


def test_make_shards_never_mixes_splits(tmp_path: Path) -> None:
    documents = [np.full(5, i, dtype=np.uint16) for i in range(6)]
    counts = data.make_shards(documents, tmp_path, val_documents=2, shard_tokens=7)
    assert counts == {"val": 10, "train": 20}
    assert [data.read_shard(p).size for p in data.find_shards(tmp_path, "fineweb_train_*.bin")] == [7, 7, 6]
    assert set(data.TokenStream.open(tmp_path, "fineweb_val_*.bin").slice(0, 10).tolist()) == {0, 1}
    with pytest.raises(DataError, match="blank lines between"):
        data.make_shards(documents[:1], tmp_path, val_documents=1, shard_tokens=7)
    with pytest.raises(DataError, match="val-docs 6"):
        data.make_shards(documents, tmp_path, val_documents=6, shard_tokens=7)


def test_texts_fall_back_to_docstrings(monkeypatch: pytest.MonkeyPatch) -> None:
    first = texts.standard_library_documents(30_000)
    assert 30_000 <= sum(map(len, first)) < 200_000
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    assert sum(map(len, texts.standard_library_documents(5_000))) >= 5_000
    monkeypatch.setattr(texts.sysconfig, "get_paths", lambda: {"stdlib": "/nonexistent"})
    with pytest.raises(DataError, match="--text"):
        texts.standard_library_documents(10)
