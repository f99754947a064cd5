"""Which tokens a table of counts has counted: places follow token ids into the keys under which they are counted."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

import torch

from auditor.dynamic.inside.arrays import trace
from auditor.dynamic.inside.places import Places
from auditor.dynamic.inside.tables import TokenArray, TokenTraces, table, with_places
from auditor.dynamic.watermark import make

PRIMES = (36313, 27191, 51647)


@pytest.fixture
def told() -> list[np.ndarray]:
    return []


def tokens(told: list[np.ndarray], count: int = 40, first: int = 100) -> TokenArray:
    ids = np.random.default_rng(3).integers(4, 900, count).astype(np.uint16)
    return with_places(ids, np.arange(first, first + count), told.append)


def keys_of(stream, order: int, rows: int):
    """Rows under which the tokens from `order` on are counted, behind contexts of `order` tokens."""
    at = np.arange(order, len(stream))
    hashed = stream[at].astype(np.int64) * PRIMES[0]
    for back in range(1, order + 1):
        hashed ^= stream[at - back].astype(np.int64) * PRIMES[back % 3]
    return hashed % rows


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(8, 40), st.sampled_from(["add.at", "+=", "bincount"]))
def test_keys_of_several_tokens_have_the_place_of_the_last(order: int, count: int, how: str) -> None:
    told: list[np.ndarray] = []
    stream = tokens(told, count)
    plain = keys_of(np.asarray(stream), order, 512)
    keys = keys_of(stream, order, 512)
    assert np.array_equal(keys, plain)
    counts, wanted = table(np.zeros(512, dtype=np.int32), told.append), np.bincount(plain, minlength=512)
    if how == "add.at":
        np.add.at(counts, keys, 1)
    elif how == "bincount":
        counts = np.bincount(keys, minlength=512)
    else:
        counts[keys] += 1
        wanted = (wanted > 0).astype(int)
    assert np.array_equal(counts, wanted)
    assert np.array_equal(np.concatenate(told), np.arange(100 + order, 100 + count))


@pytest.mark.parametrize("kind", [float, int])
def test_pairs_as_indices_of_a_square_table(kind: type, told: list[np.ndarray]) -> None:
    stream = tokens(told)
    counts = (
        trace(np.zeros((1024, 1024)), np.full((1024, 1024), -1), None)
        if kind is float
        else table(np.zeros((1024, 1024), int), told.append)
    )
    np.add.at(counts, (stream[:-1], stream[1:]), 1)
    assert counts.sum() == len(stream) - 1
    assert [set(places) for places in told] == [set(range(100, 139)), set(range(101, 140))]


def test_arithmetic_is_numpys_own(told: list[np.ndarray]) -> None:
    stream = tokens(told)
    plain = np.asarray(stream).copy()
    assert type(stream > 4) is np.ndarray
    assert type(stream / 2) is np.ndarray
    assert np.array_equal(np.unique(stream), np.unique(plain))
    assert np.array_equal(np.concatenate([stream[:5], stream[9:]]).places, np.r_[100:105, 109:140])
    assert np.array_equal(
        (stream.reshape(8, 5).astype(int) * [1, 2, 3, 4, 5]).sum(axis=1).places, np.arange(104, 140, 5)
    )
    assert type(pickle.loads(pickle.dumps(stream))) is np.ndarray
    stream[3:6] = 7
    assert stream.places[2:7].tolist() == [102, -1, -1, -1, 106]
    assert told == []


def test_rows_of_a_table_are_its_own_memory(told: list[np.ndarray]) -> None:
    counts = table(np.zeros((4, 128), dtype=np.uint32), told.append)
    np.add.at(counts[2], tokens(told)[:7] % 128, 1)
    assert counts.sum() == counts[2].sum() == 7
    assert len(told) == 1
    assert type(counts[2][np.array([1, 2])]) is np.ndarray


class Traced(torch.overrides.TorchFunctionMode):
    """Lets every operation be followed, as in a run."""

    def __init__(self, traces: TokenTraces) -> None:
        super().__init__()
        self.traces = traces

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.traces.follow(getattr(func, "__name__", ""), func, args, kwargs or {}, result)
        result, self.traces.replacement = (
            self.traces.replacement if self.traces.replacement is not None else result,
            None,
        )
        return result


@pytest.mark.parametrize("how", ["scatter_add_", "index_put_", "index_add_", "numpy"])
def test_streams_of_torch_are_followed_into_tables(how: str, told: list[np.ndarray]) -> None:
    mark = make(1024, {"train": 20_000, "val": 2049}, first_id=260)
    places = Places(mark.table)
    shard = np.concatenate([np.arange(256, dtype=np.uint16), mark.streams["val"]])
    with Traced(TokenTraces(places.whole, told.append)):
        val = torch.as_tensor(shard)[256:].to(torch.int64)
        keys = (val[1:] * PRIMES[0] ^ val[:-1] * PRIMES[1]) % 4096
        ones, counts = torch.ones(len(keys)), torch.zeros(4096)
        if how == "scatter_add_":
            counts.scatter_add_(0, keys, ones)
        elif how == "index_add_":
            counts.index_add_(0, keys, ones)
        elif how == "index_put_":
            counts.index_put_((keys,), ones, accumulate=True)
        else:
            np.add.at(counts.numpy(), keys.cpu().numpy(), 1)
    assert counts.sum() == len(keys)
    first = int(places.of(mark.streams["val"])[10]) - 10
    assert np.array_equal(np.concatenate(told), np.arange(first + 1, first + 2049))


@pytest.mark.parametrize("ids", [np.zeros(2000), np.random.default_rng(1).integers(0, 1024, 5000)])
def test_what_is_no_stream_has_no_places(ids: np.ndarray) -> None:
    places = Places(make(1024, {"train": 20_000, "val": 2049}, first_id=260).table)
    assert (places.whole(ids) == -1).all()
