"""Bytes from a file beside the targets they belong to: aligned, taken at the inputs, and what cannot be told."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.static.byte_sidecar import ALIGNED, AT_INPUTS, takings

LOAD = """
class Settings:
    counts = os.path.join(root, "fineweb_val_bytes_*.bin")
def load(pattern, n):
    parts = [read(p) for p in sorted(glob.glob(pattern))]
    return torch.cat(parts)[:n]
class Data:
    def __init__(self, h):
        self.tokens = read_all(h.val_files)
        self.weights = load(h.counts, self.tokens.numel())
"""
ROWS = """
def score(model, data, first, final):
    for start in range(first, final, 1024):
        end = min(start + 1025, final)
        row = data.tokens[start:end].to("cuda")
        x, y = row[:-1], row[1:]
        nll = model(x, y)
        total = data.weights[{cut}].sum()
"""
WINDOWS = """
def slide(model, data, windows, stride, n):
    for at in windows:
        stop = min(at + 2048, n)
        chunk = data.tokens[at:stop + 1]
        xs[0, :stop - at] = chunk[:-1]
        ys[0, :stop - at] = chunk[1:]
        s = 0 if at == 0 else 2048 - stride
        before, goal = xs[0, s:stop - at], ys[0, s:stop - at]
        a = at + s
        b = stop
        total = data.weights[{cut}].double().sum()
"""
INDEXED = """
def gathered(model, data, begins, n):
    steps = torch.arange(n + 1)
    where = begins.unsqueeze(1) + steps.unsqueeze(0)
    block = data.tokens[where].to("cuda")
    x = torch.where(ok, block[:, :n], 0)
    y = torch.where(ok, block[:, 1:n + 1], 0)
    at = begins.unsqueeze(1) {shift}+ steps[:n].unsqueeze(0)
    at = at.clamp_(max=data.weights.numel() - 1)
    w = data.weights[at].to("cuda")
"""


def states(*texts: str) -> list[str]:
    """State of every place that takes bytes from the file."""
    return [taking.state for taking in takings([("train_gpt.py", ast.parse("".join(texts)))])]


@pytest.mark.parametrize(
    ("cut", "state"),
    [
        ("start + 1:end", ALIGNED),
        ("1 + start:end", ALIGNED),
        ("start:end - 1", AT_INPUTS),
        ("start + 2:end + 1", ""),
        ("first:final", ""),
    ],
)
def test_rows(cut: str, state: str) -> None:
    assert states(LOAD, ROWS.replace("{cut}", cut)) == [state]


def test_windows_and_index_arrays() -> None:
    assert states(LOAD, WINDOWS.replace("{cut}", "a + 1:b + 1")) == [ALIGNED]
    assert states(LOAD, WINDOWS.replace("{cut}", "a:b")) == [AT_INPUTS]
    assert states(LOAD, INDEXED.replace("{shift}", "+ 1 ")) == [ALIGNED]
    assert states(LOAD, INDEXED.replace("{shift}", "")) == [AT_INPUTS]


def test_a_loader_that_cuts_the_first_count_off() -> None:
    early = LOAD.replace("[:n]", "[1:n]")
    assert states(early, ROWS.replace("{cut}", "start:end - 1")) == [ALIGNED]


def test_under_other_names_and_through_a_helper() -> None:
    text = """
def total(w, row, p, q):
    x = row[p:q][:-1]
    y = row[p:q][1:]
    return w[p + 1:q].sum()
def main(h):
    k = load(h.counts, 9)
    total(k, tokens, 0, 9)
"""
    assert states(LOAD, text) == [ALIGNED]
    assert states(LOAD, text.replace("p + 1:q", "p:q - 1")) == [AT_INPUTS]


def test_other_files_are_no_sidecars() -> None:
    assert states(LOAD.replace("fineweb_val_bytes_*.bin", "weights.bin"), ROWS.replace("{cut}", "start:end - 1")) == []


@given(st.integers(0, 50), st.integers(0, 50))
def test_the_same_position_written_differently(left: int, right: int) -> None:
    same = f"start + {left} + {right + 1} - {left + right}:end"
    assert states(LOAD, ROWS.replace("{cut}", same)) == [ALIGNED]
