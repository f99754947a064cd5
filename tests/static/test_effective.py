"""Settings in force: run scripts of the folder, and a run that wrote two logs."""

from __future__ import annotations

from auditor.documents.logs import read_log
from auditor.documents.readme import read_readme
from auditor.documents.shell import Shell, read_shell
from auditor.static.effective import effective_settings

RUN = b"""#!/bin/bash
echo "usage: CACHE=9 WIDTH=64 run.sh"
export WIDTH=640
SEED="${SEED:-42}" \\
CACHE=1 \\
torchrun --standalone --nproc_per_node=8 train_gpt.py
"""
MODES = b"CACHE=0 WIDTH=64 python train_gpt.py\n"
STEPS = "".join(f"step:{n}00/900 train_loss:2.{n}000 train_time:{n}00ms step_avg:1.00ms\n" for n in range(1, 6))
RESULT = "final_exact val_loss:1.75870000 val_bpb:1.04160000\n"


def script(path: str, text: bytes = RUN) -> Shell:
    return read_shell(f"records/a/{path}", text)


def environment(readme: str, *scripts: Shell) -> dict[str, str]:
    return effective_settings(read_readme("README.md", readme.encode()), [], None, scripts).environment


def test_the_script_that_the_readme_starts_sets_what_the_readme_leaves_open() -> None:
    found = environment(
        "```bash\nWIDTH=768 bash records/a/run.sh\n```\n",
        script("other.sh", b"CACHE=5 python train_gpt.py\n"),
        script("run.sh"),
    )
    assert (found["CACHE"], found["WIDTH"]) == ("1", "768")


def test_the_only_script_is_the_command_where_none_is_documented() -> None:
    assert environment("# A model\n", script("run.sh"))["CACHE"] == "1"
    assert "CACHE" not in environment("# A model\n", script("run.sh"), script("ablation.sh"))
    assert environment("```bash\ntorchrun train_gpt.py\n```\n", script("run.sh"))["CACHE"] == "1"
    assert environment("```bash\nCACHE=3 torchrun train_gpt.py\n```\n", script("run.sh"))["CACHE"] == "3"
    assert "CACHE" not in environment("```bash\ntorchrun train_gpt.py\n```\n", script("run.sh", RUN + MODES))
    assert "CACHE" not in environment("# A model\n", script("setup.sh", b"export CACHE=1\npip install numpy\n"))


def test_further_scripts_and_the_bare_command_are_alternatives() -> None:
    readme = read_readme("README.md", b"```bash\ntorchrun train_gpt.py\n```\n")
    bare = effective_settings(readme, [], None, [script("run.sh")])
    assert any("CACHE" not in each for each in bare.alternatives)
    several = effective_settings(readme, [], None, [script("run.sh"), script("ablation.sh", b"python train_gpt.py\n")])
    assert any(each.get("CACHE") == "1" for each in several.alternatives)


def test_another_log_of_the_same_run_testifies_too() -> None:
    own = read_log("train.log", (STEPS + RESULT).encode())
    console = read_log("console.log", ("cache:enabled orders 2 to 9\n" + STEPS + RESULT).encode())
    other = read_log("seed7.log", ("phrases:enabled\n" + STEPS.replace("00ms", "07ms") + RESULT).encode())
    found = effective_settings(None, [own, console, other])
    assert "cache:enabled orders 2 to 9" in found.twin_lines
    assert "phrases:enabled" not in found.twin_lines
    assert "cache:enabled orders 2 to 9" not in found.lines


def test_switches_of_a_dump_in_json_are_settings() -> None:
    head = '{\n  "eval": {\n    "cache_on": true,\n    "rescored": false,\n    "orders": 12\n  }\n}\n'
    (run,) = read_log("train.log", (head + STEPS + RESULT).encode()).runs
    assert {name: run.settings[name] for name in ("cache_on", "rescored", "orders")} == {
        "cache_on": "true", "rescored": "false", "orders": "12",
    }  # fmt: skip
