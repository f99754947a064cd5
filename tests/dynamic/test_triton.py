"""Triton kernels are interpreted: the same numbers as torch, whatever decorators say about block sizes."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("torch")

import torch

from auditor.dynamic.inside import triton as interpreter


def refuse(what):
    def ended(*_, **__):
        raise RuntimeError(what)

    return ended


@pytest.fixture
def triton():
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "triton"}
    interpreter.install(refuse)
    yield sys.modules["triton"]
    for name in [name for name in sys.modules if name.split(".")[0] == "triton"]:
        del sys.modules[name]
    sys.modules.update(kept)


def added(triton, *decorators):
    tl = triton.language

    def kernel(x, y, out, n, BLOCK: int, EVEN: bool):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = None if EVEN else at < n
        tl.store(out + at, tl.load(x + at, mask=mask) + tl.load(y + at, mask=mask), mask=mask)

    made = triton.jit(kernel)
    for decorate in decorators:
        made = decorate(made)
    return made


@pytest.mark.parametrize("n", [64, 61])
def test_block_sizes_of_autotuning_and_heuristics_reach_kernel_and_grid(triton, n):
    x, y, out = torch.arange(n).float(), torch.full((n,), 0.5), torch.zeros(n)
    grids = []

    def grid(meta):
        grids.append(meta["BLOCK"])
        return (triton.cdiv(meta["n"], meta["BLOCK"]),)

    even = triton.heuristics({"EVEN": lambda args: args["n"] % args["BLOCK"] == 0})
    tuned = triton.autotune(
        configs=[triton.Config({"BLOCK": 16}, num_warps=4), triton.Config({"BLOCK": 32})], key=["n"]
    )
    added(triton, even, tuned)[grid](x, y, out, n)
    assert torch.equal(out, x + y)
    assert grids == [16]


def test_what_a_launch_says_itself_is_not_tuned(triton):
    x, y, out = torch.ones(8), torch.ones(8), torch.zeros(8)
    tuned = triton.autotune(configs=[triton.Config({"BLOCK": 16})], key=["n"])
    added(triton, tuned)[(2,)](x, y, out, 8, BLOCK=4, EVEN=True)
    assert out.tolist() == [2.0] * 8


def test_what_the_language_lacks_here_ends_the_run_with_its_name(triton):
    with pytest.raises(RuntimeError, match="inline_asm_elementwise"):
        triton.language.inline_asm_elementwise("mov", [])
