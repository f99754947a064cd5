"""Declared settings, the small interpreter, and what reading a program says for the packaging rules."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.static.evaluate import UNKNOWN, call, evaluate
from auditor.static.facts import program_facts
from auditor.static.settings import declared_settings, known_names
from auditor.submission import Submission
from auditor.unpack import read_program

SETTINGS = """
import os
from dataclasses import dataclass
def _int(name, default):
    return int(os.environ.get(name, default))
class Hyperparameters:
    iterations = int(os.environ.get("ITERATIONS", 20_000))
    tie = bool(int(os.environ.get("TIE", "1")))
    width = _int("WIDTH", 512)
    rope: float = 1e4
    path = os.environ["DATA_PATH"]
STRIDE = int(os.getenv("STRIDE", "64"))
parser.add_argument("--learning-rate", type=float, default=3e-4)
"""


def test_declared_settings() -> None:
    found = {item.name: item for item in declared_settings(SETTINGS, "t.py")}
    assert (found["iterations"].default, found["iterations"].environment) == (20_000, "ITERATIONS")
    assert found["tie"].default == "1"
    assert (found["width"].default, found["width"].environment) == (512, "WIDTH")
    assert found["rope"].default == 1e4 and found["rope"].environment == ""
    assert found["path"].environment == "DATA_PATH" and found["path"].default is None
    assert found["STRIDE"].environment == "STRIDE"
    assert found["learning_rate"].default == 3e-4
    assert {"iterations", "WIDTH", "learning_rate"} <= known_names(SETTINGS)
    assert "hash_buckets" not in known_names(SETTINGS)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("max(a, 5) / 2", 2.5),
        ("a > 2 and b", False),
        ("unknown and False", False),
        ("unknown or True", True),
        ("1 if a else 2", 1),
        ("-a", -3),
        ("0 < a < 4", True),
        ("math.sqrt(16)", 4.0),
    ],
)
def test_interpreter(text: str, value: object) -> None:
    assert evaluate(ast.parse(text, mode="eval").body, {"a": 3, "b": 0}) in (value, bool(value))


@pytest.mark.parametrize(
    "text", ["unknown", "unknown + 1", "open('x')", "a.b", "1 / 0", "9 ** 999999", "[1][0]", "not x"]
)
def test_what_it_cannot_know_is_unknown(text: str) -> None:
    assert evaluate(ast.parse(text, mode="eval").body, {}) is UNKNOWN


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_interpreter_agrees_with_python(a: int, b: int) -> None:
    for text in ("a + b * 2", "a % 7 == 0 or b > a", "min(a, b) - abs(a)", "a if a > b else b"):
        node = ast.parse(text, mode="eval").body
        assert evaluate(node, {"a": a, "b": b}) == eval(text, {"a": a, "b": b})


def test_function_call_follows_branches() -> None:
    lines = (
        "def lr(step):",
        "  if step < warm:",
        "    return step / warm",
        "  left = total - step",
        "  return max(left / total, 0.0)",
    )
    function = ast.parse("\n".join(lines)).body[0]
    assert isinstance(function, ast.FunctionDef)
    names = {"warm": 10, "total": 100}
    assert call(function, {"step": 5}, names) == 0.5
    assert call(function, {"step": 75}, names) == 0.25
    assert call(function, {"step": 75}, {"warm": 10}) is UNKNOWN


MAIN = """
import os, subprocess, requests
import torch
import helper
from train_utils import pack
try:
    import flash_attn_interface
except ImportError:
    pass
DATA = os.environ.get("DATA_PATH", "/workspace/data/x")
CACHE = "/home/me/cache"
subprocess.run(["gcc", "-O3", "fast.c", "-o", "fast.so"])
TABLE = "x" * 3
exec(open("stage2.py").read())
"""


@pytest.fixture(scope="module")
def facts() -> dict:
    folder = "records/track_10min_16mb/2026-04-01_x/"
    files = {
        "train_gpt.py": MAIN,
        "helper.py": "import wandb\n",
        "stage2.py": "import socket\n",
        "fast.c": "int main(){}",
        "prepare.py": "import huggingface_hub\n",
    }
    submission = Submission.from_files({folder + name: text.encode() for name, text in files.items()})
    return program_facts(read_program(submission), submission)


def test_imports_and_local_files(facts: dict) -> None:
    names = {item.name for item in facts["imports"]}
    assert {"os", "requests", "torch", "wandb", "socket", "flash_attn_interface"} <= names
    assert "helper" not in names and "huggingface_hub" not in names
    local = {item.path.rpartition("/")[2]: item.how for item in facts["local_files"]}
    assert local["helper.py"] == "import" and local["stage2.py"] == "run" and "fast.c" in local
    assert [path.rpartition("/")[2] for path in facts["idle"]] == ["prepare.py"]
    assert [item.name for item in facts["missing_modules"]] == ["train_utils"]
    assert next(item for item in facts["imports"] if item.name == "flash_attn_interface").guarded


def test_processes_network_and_paths(facts: dict) -> None:
    assert [item.name for item in facts["processes"]] == ["gcc -O3 fast.c -o fast.so"]
    assert {"requests", "wandb", "socket"} <= {item.name for item in facts["network"]}
    paths = {item.name: item.guarded for item in facts["private_paths"]}
    assert paths == {"/workspace/data/x": True, "/home/me/cache": False}
    assert facts["compiled"] and facts["dynamic_code"] and facts["syntax_error"] is None
    assert ("DATA_PATH", "/workspace/data/x") in {(item.name, item.detail) for item in facts["environment"]}


def test_script_that_does_not_parse_is_reported() -> None:
    submission = Submission.from_files({"records/track_10min_16mb/2026-04-01_x/train_gpt.py": b"def broken(:\n"})
    found = program_facts(read_program(submission), submission)
    assert found["syntax_error"] is None or found["syntax_error"].line == 1
    assert found["imports"] == []


def test_options_of_documented_commands() -> None:
    from auditor.static.arguments import options_of

    commands = ["torchrun --nproc_per_node=8 train.py --slot-steps 100 --compile --lr=0.1", "python train.py --lr 0.5"]
    assert options_of(commands) == {"slot_steps": "100", "compile": "", "lr": "0.1"}


@pytest.mark.parametrize(("flag", "expected"), [("--steps 8", {8}), ("", {3})])
def test_an_option_takes_the_value_of_the_documented_command(flag: str, expected: set) -> None:
    source = (
        "import argparse\n"
        "def main():\n"
        "    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--steps', type=int, default=3)\n"
        "    parser.add_argument('--quick', action='store_true')\n"
        "    args = parser.parse_args()\n"
        "    seen = args.steps\n"
        "    if args.quick:\n"
        "        seen = 'quick'\n"
        "    return seen\n"
        "answer = main()\n"
    )
    from auditor.static.analysis import static_timeline
    from auditor.static.arguments import options_of
    from auditor.static.effective import Effective

    program = read_program(Submission.from_files({"records/track_10min_16mb/a/train_gpt.py": source.encode()}))
    effective = Effective(options=options_of([f"python train_gpt.py {flag}"]))
    machine = static_timeline(program, effective, keep=True).machine
    assert machine is not None
    module = next(iter(machine.modules.values()))
    assert {module.frame.slots["answer"].const} == expected


def test_without_a_log_the_first_command_is_meant_and_later_ones_are_variants() -> None:
    from auditor.documents.readme import read_readme
    from auditor.static.effective import effective_settings

    text = (
        b"# Run\n```bash\nexport DEPTH=9\n```\n```bash\nEPOCHS=6 torchrun train_gpt.py\n```\n"
        b"Without adaptation:\n```bash\nEPOCHS=0 WIDTH=4 torchrun train_gpt.py\n```\n"
    )
    found = effective_settings(read_readme("README.md", text), [])
    assert found.environment["EPOCHS"] == "6" and "WIDTH" not in found.environment
    assert found.environment["DEPTH"] == "9"


def test_a_process_is_seen_through_another_name_of_its_module() -> None:
    from auditor.submission import Submission
    from auditor.unpack import read_program

    source = b"import subprocess as q\nfrom subprocess import run as r\nq.run(['lrzip', 'a'])\nr(['xz', 'b'])\n"
    submission = Submission.from_files({"records/t/train_gpt.py": source}, label="aliases", folder="records/t")
    found = program_facts(read_program(submission), submission)["processes"]
    assert [item.name for item in found] == ["lrzip a", "xz b"]
