"""Ends of a run that are the program's own on every machine, and those that may be this one's doing."""

from __future__ import annotations

import pytest

from auditor.dynamic.nowhere import Crash, may_be_own, nothing_scored, own_error, own_module, same_at_full_size

PROGRAM = """
import torch

limit = 3

class Model(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("table", torch.zeros(width))
        self.weight = 1

    def forward(self, x, plain):
        if plain:
            out = x
        for step in range(limit):
            last = step
        if x.numel() > 100:
            large = x
        return out

def main(width):
    inner = 2
    return Model(width, depth=inner)
"""


def test_source_with_newer_strings_is_read() -> None:
    text = PROGRAM + """print(f"{", ".join(["a"])}")\n"""
    assert own_error(Crash("NameError", "name 'inner' is not defined", 20), text)
    assert "neither" in nothing_scored(["""print(f"{", ".join(["a"])}")\n"""])


def test_names_that_nothing_binds() -> None:
    assert "bound nowhere" in own_error(Crash("NameError", "name 'inner' is not defined", 20), PROGRAM)
    assert own_error(Crash("NameError", "name 'limit' is not defined", 20), PROGRAM) == ""
    assert own_error(Crash("NameError", "name 'inner' is not defined", 20), PROGRAM + "exec('inner = 1')\n") == ""


@pytest.mark.parametrize(("name", "own"), [("out", True), ("last", False), ("large", False)])
def test_locals_that_switches_decide_but_not_loops_and_sizes(name: str, own: bool) -> None:
    line = next(i for i, text in enumerate(PROGRAM.splitlines(), 1) if "return out" in text)
    message = f"cannot access local variable '{name}' where it is not associated with a value"
    assert bool(own_error(Crash("UnboundLocalError", message, line), PROGRAM)) is own


@pytest.mark.parametrize(
    ("owner", "attribute", "own"),
    [("Model", "blocks", True), ("Model", "weight", False), ("Model", "table", False), ("Tensor", "blocks", False)],
)
def test_attributes_that_nothing_gives(owner: str, attribute: str, own: bool) -> None:
    crash = Crash("AttributeError", f"'{owner}' object has no attribute '{attribute}'", 20)
    assert bool(own_error(crash, PROGRAM)) is own


def test_calls_of_own_functions_are_told_from_calls_of_libraries() -> None:
    assert own_error(Crash("TypeError", "Model.__init__() got an unexpected keyword argument 'depth'"), PROGRAM)
    assert not own_error(Crash("TypeError", "Linear.__init__() got an unexpected keyword argument 'depth'"), PROGRAM)
    assert not own_error(Crash("TypeError", "can't convert cuda:0 device type tensor to numpy"), PROGRAM)


def test_source_that_is_no_python_of_any_version() -> None:
    assert own_error(Crash("IndentationError", "unexpected indent (train_gpt.py, line 3)"), "  x")
    assert own_error(Crash("SyntaxError", "unterminated string literal (detected at line 3)"), "'")
    assert not own_error(Crash("SyntaxError", "invalid syntax (train_gpt.py, line 3)"), "type X = int")


def test_an_error_counts_as_own_where_the_submitted_sizes_show_it_at_the_same_line() -> None:
    small = Crash("RuntimeError", "shape '[8, 2, 1]' is invalid for input of size 64", 70)
    full = Crash("RuntimeError", "shape '[8, 4, 1]' is invalid for input of size 128", 70)
    assert may_be_own(small)
    assert "line 70" in same_at_full_size(small, full)
    assert same_at_full_size(small, None) == ""
    assert same_at_full_size(small, Crash("RuntimeError", full.message, 71)) == ""
    other = Crash("RuntimeError", "CUDA graphs: no stand-in on a CPU", 70)
    assert not may_be_own(other)
    assert same_at_full_size(other, other) == ""


def test_sources_without_a_score() -> None:
    assert "neither trains nor evaluates" in nothing_scored(["import modal\nmodal.run('train')\n"])
    assert "prints no" in nothing_scored(
        ["loss.backward()\nprint(f'step {i} train {loss}')\nVAL = 'fineweb_val_*.bin'\n"]
    )
    assert nothing_scored(["import helper\n", "loss = f(x)\nprint(f'val_loss:{loss}')\n"]) == ""
    assert nothing_scored(["loss = 1\nprint('bits per byte', loss)\n"]) == ""


def test_a_script_that_calls_nothing() -> None:
    snippet = "import torch\nSIZE = int(3)\ndef evaluate(model):\n    print('val_loss', model.loss)\n"
    assert "calls none" in nothing_scored([snippet])
    for rest in ("evaluate(1)\n", "if __name__ == '__main__':\n    evaluate(1)\n", "for i in range(3):\n    torch.f(evaluate)\n",
                 "result = evaluate(1)\n", "exec('evaluate(1)')\n"):  # fmt: skip
        assert nothing_scored([snippet + rest]) == ""


def test_missing_modules_that_no_document_installs_are_own() -> None:
    assert own_module("context_features", "pip install torch\n")
    assert not own_module("context_features", "pip install numpy context-features\n")
    assert not own_module("some_lib.ops", "some_lib==1.2\n")
    assert not own_module("transformers", "")
