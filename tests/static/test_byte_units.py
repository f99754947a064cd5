"""What a printed BPB is made of: right formulas in many shapes, every fault by name, and what cannot be told."""

from __future__ import annotations

import ast
import textwrap

import pytest

from auditor.static.byte_units import (
    AVERAGED,
    INVERTED,
    LN2_TWICE,
    NO_LN2,
    NUMBER,
    TOKENS_FOR_BYTES,
    formulas,
)

LOOP = """
import math
import torch.nn.functional as F
def evaluate(model, batches, size):
    nats = 0.0
    count = 0
    length = 0
    for x, y in batches:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        nats += loss.item()
        count += y.numel()
        length += size[y].sum().item()
    {end}
"""


def faults(text: str, bases: tuple[str, ...] = ("size",)) -> list[str | None]:
    """Fault of every printed BPB, in source order."""
    found = formulas([("train_gpt.py", ast.parse(textwrap.dedent(text)))], frozenset(bases))
    return [item.fault for item in sorted(found, key=lambda item: item.line)]


def ended(end: str) -> str:
    """The evaluation loop with another end."""
    return LOOP.replace("{end}", textwrap.indent(textwrap.dedent(end), "    ").strip())


@pytest.mark.parametrize(
    "end",
    [
        "print(f'val_bpb:{nats / math.log(2) / length:.4f}')",
        "v = nats / count\nb = v / math.log(2.0) * (count / length)\nprint(f'val_bpb:{b}')",
        "b = (nats / count) * (count / (length * 0.6931471805599453))\nprint(f'final BPB = {b:.4f}')",
        "out = {'val_bpb': float(nats) * math.log2(math.e) / max(length, 1)}",
        "bits = nats / math.log(2)\nprint(f'bits per byte: {bits / length}')",
        "r = count / length\nprint(f'bpb={nats / count / math.log(2) * r}')",
        "b = nats / math.log(2) / length if length > 0 else float('inf')\nprint(f'bpb {b}')",
    ],
)
def test_right_formulas(end: str) -> None:
    assert faults(ended(end)) == [""]


@pytest.mark.parametrize(
    ("end", "fault"),
    [
        ("v = nats / count\nb = v / math.log(2) * (length / count)\nprint(f'val_bpb:{b}')", INVERTED),
        ("print(f'val_bpb:{nats / length}')", NO_LN2),
        ("bits = nats / math.log(2)\nprint(f'val_bpb:{bits / math.log(2) / length}')", LN2_TWICE),
        ("print(f'val_bpb:{nats / math.log(2) / count}')", TOKENS_FOR_BYTES),
        ("print(f'val_bpb:{nats / count / math.log(2) / 2.44}')", NUMBER),
        ("K = 2.44\nprint(f'val_bpb:{nats / count / (math.log(2) * K)}')", NUMBER),
    ],
)
def test_faults(end: str, fault: str) -> None:
    assert faults(ended(end)) == [fault]


RATES = """
import math
import numpy as np
import torch.nn.functional as F
def evaluate(model, batches, size):
    total, n, rates = 0.0, 0, []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y, reduction="sum")
        rate = loss.item() / math.log(2) / size[y].sum().item()
        total += rate
        rates.append(rate)
        n += 1
    {end}
"""


@pytest.mark.parametrize("end", ["print(f'val_bpb:{total / n}')", "print(f'val_bpb:{np.mean(rates)}')"])
def test_rates_of_batches_averaged(end: str) -> None:
    assert faults(RATES.replace("{end}", end)) == [AVERAGED]


def test_split_into_helpers_and_results_taken_apart() -> None:
    split = """
    import math
    LOG2 = math.log(2.0)
    def ratio(a, b):
        return a / LOG2 / b
    def evaluate(model, batches, size):
        s = torch.zeros(())
        n = torch.zeros(())
        for x, y in batches:
            s += F.cross_entropy(model(x), y, reduction="sum")
            n += size[y].sum()
        return s.item() / 5, ratio(s.item(), n.item())
    def main():
        q_loss, q = evaluate(None, None, None)
        print(f"done q_loss:{q_loss:.8f} val_bpb:{q:.8f}")
    """
    assert faults(split) == [""]
    assert faults(split.replace("a / LOG2 / b", "a / LOG2 * b")) == [None]  # no tokens there: not judged
    assert faults(split.replace("a / LOG2 / b", "a / b")) == [NO_LN2]


def test_minified_and_renamed() -> None:
    text = "import math as m;from torch.nn.functional import cross_entropy as c\ndef e(M,B,t):\n a=b=0\n for x,y in B:a+=c(M(x),y,reduction='sum').item();b+=t[y].sum().item()\n print(f'bpb {a/m.log(2)/b}')\n"
    assert faults(text, ("t",)) == [""]
    hidden = text.replace("a/m.log(2)/b", "a/b")
    assert faults(hidden, ("t",)) == [None]  # the loss goes by another name: it may be in bits
    text = text.replace("cross_entropy as c", "cross_entropy").replace("c(M", "cross_entropy(M")
    assert faults(text, ("t",)) == [""]
    assert faults(text.replace("a/m.log(2)/b", "a/b"), ("t",)) == [NO_LN2]


def test_sums_in_one_array() -> None:
    text = """
    def evaluate(model, batches, size):
        totals = torch.zeros(3)
        for x, y in batches:
            nll = F.cross_entropy(model(x), y, reduction="none")
            totals += torch.stack([nll.sum(), torch.tensor(float(y.numel())), size[y].sum()])
        dist.all_reduce(totals)
        print(f"val_bpb:{(totals[0] / math.log(2) / totals[2]).item():.4f}")
    """
    assert faults(text) == [""]
    assert faults(text.replace("totals[2]", "totals[1]")) == [TOKENS_FOR_BYTES]


def test_what_is_not_known_is_not_judged() -> None:
    assert faults("print(f'val_bpb:{best}')") == [None]
    assert faults("def f(a, b):\n    print(f'val_bpb:{a / b}')\n") == [None]
    assert faults("def f(n):\n    return f(n)\nprint(f'bpb:{f(1)}')\n") == [None]
    assert faults("x = x / y\ny = x\nprint(f'bpb:{x}')\n") == [None]
    assert faults("print(f'loss:{a / b}')") == []


def test_a_log2_of_probabilities_needs_no_ln2() -> None:
    text = ended("print(f'val_bpb:{nats / length}')").replace(
        'loss = F.cross_entropy(model(x), y, reduction="sum")', "loss = -np.log2(model(x)[y]).sum()"
    )
    assert faults(text) == [""]
