"""What a program without a count of bytes does instead."""

from __future__ import annotations

import ast

import pytest

from auditor.static.byte_absence import ELSEWHERE, NATS, NO_SCORE, OPEN, REPEATED, absence
from auditor.static.byte_table import byte_table
from auditor.unpack import Layer, Program

TOOL = '''
"""Prints the sizes of the files of a folder."""
import os
for name in sorted(os.listdir(".")):
    print(name, os.path.getsize(name))
'''
IN_NATS = """
import torch.nn.functional as F

def step(model, inputs, targets):
    loss = F.cross_entropy(model(inputs), targets)
    print(f"loss {loss.item():.4f}")
"""
FROM_A_LOG = """
import re
import subprocess
text = subprocess.run(["python", "train.py"], capture_output=True, text=True).stdout
print("val_bpb", float(re.findall(r"val_bpb:([0-9.]+)", text)[-1]))
"""
OF_A_MODULE = """
import torch.nn.functional as F
from prepare import evaluate_bpb

def train(model, inputs, targets):
    F.cross_entropy(model(inputs), targets).backward()

def main(model, tokenizer):
    val_bpb = evaluate_bpb(model, tokenizer)
    print(f"val_bpb: {val_bpb:.6f}")
"""
NOT_FOUND = """
import torch.nn.functional as F

def evaluate(model, batches, share):
    total = sum(F.cross_entropy(model(x), y).item() for x, y in batches)
    return total * share(batches)

def main(model, batches, share):
    print(f"val_bpb: {evaluate(model, batches, share):.4f}")
"""


@pytest.mark.parametrize(
    ("text", "kind"),
    [(TOOL, NO_SCORE), (IN_NATS, NATS), (FROM_A_LOG, REPEATED), (OF_A_MODULE, ELSEWHERE), (NOT_FOUND, OPEN)],
)
def test_each_kind_is_told_from_the_others(text: str, kind: str) -> None:
    layer = Layer("train_gpt.py", text, text.encode())
    found = byte_table(Program(layer, [layer], len(text), False, []))
    assert (found.status, found.absence) == ("none", kind)
    assert found.reason


def test_a_docstring_that_speaks_of_bits_per_byte_prints_none() -> None:
    described = IN_NATS.replace(
        "def step(model, inputs, targets):\n", 'def step(model, inputs, targets):\n    """Not BPB."""\n'
    )
    assert absence([ast.parse(described)])[0] == NATS


def test_a_column_of_a_table_is_a_bpb() -> None:
    assert absence([ast.parse('ROWS = [("val_bpb", 1.2)]\nprint(ROWS)')])[0] == REPEATED
