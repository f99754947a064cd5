"""Attention of the stand-in against plain attention."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch

from auditor.dynamic.inside import packages

BATCH, TOKENS, HEADS, WIDTH = 2, 6, 4, 8


@pytest.fixture
def heads() -> tuple:
    torch.manual_seed(0)
    keys = (BATCH, TOKENS, HEADS // 2, WIDTH)
    return torch.randn(BATCH, TOKENS, HEADS, WIDTH), torch.randn(keys), torch.randn(keys)


def plain(q, k, v, visible, scale=None):
    """Softmax attention written out; `visible` (queries, keys) says who sees whom."""
    k, v = (tensor.repeat_interleave(HEADS // tensor.shape[2], 2) for tensor in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * (scale or WIDTH**-0.5)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, v)


def test_causal_and_windows(heads: tuple) -> None:
    row, column = torch.arange(TOKENS)[:, None], torch.arange(TOKENS)[None, :]
    torch.testing.assert_close(packages.flash(*heads, causal=True), plain(*heads, column <= row))
    torch.testing.assert_close(packages.flash(*heads, 0.5, True), plain(*heads, column <= row, 0.5))
    near = (column <= row) & (column >= row - 2)
    torch.testing.assert_close(packages.flash(*heads, causal=True, window_size=(2, 0)), plain(*heads, near))


def test_fewer_queries_than_keys_stand_at_the_end(heads: tuple) -> None:
    q, k, v = heads
    last = packages.flash(q[:, -2:], k, v, causal=True)
    torch.testing.assert_close(last, packages.flash(q, k, v, causal=True)[:, -2:])


def test_documents_end_to_end_do_not_see_each_other(heads: tuple) -> None:
    bounds = torch.tensor([0, TOKENS, 2 * TOKENS])
    flat = [tensor.reshape(-1, *tensor.shape[2:]) for tensor in heads]
    out = packages.varlen(*flat, bounds, bounds, TOKENS, TOKENS, causal=True)
    torch.testing.assert_close(out.reshape(heads[0].shape), packages.flash(*heads, causal=True))


def test_cache_gives_what_the_whole_sequence_gives(heads: tuple) -> None:
    q, k, v = heads
    caches = [torch.zeros(BATCH, TOKENS + 3, HEADS // 2, WIDTH) for _ in range(2)]
    parts = []
    for at in range(0, TOKENS, 2):
        now = slice(at, at + 2)
        filled = torch.full((BATCH,), at)
        parts.append(packages.with_cache(q[:, now], *caches, k[:, now], v[:, now], cache_seqlens=filled, causal=True))
    torch.testing.assert_close(torch.cat(parts, 1), packages.flash(q, k, v, causal=True))


@pytest.mark.parametrize("foreign", [{"softcap": 15.0}, {"alibi_slopes": torch.ones(4)}, {"return_attn_probs": True}])
def test_what_would_change_the_result_is_refused(heads: tuple, foreign: dict) -> None:
    with pytest.raises(packages.Unsupported, match=next(iter(foreign))):
        packages.flash(*heads, causal=True, **foreign)
    packages.flash(*heads, causal=True, deterministic=True, softcap=0.0)
