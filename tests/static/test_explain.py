"""`auditor explain PATH:LINE`: provenance, phase, loops, settings, events and rules at a line of the bundled submissions."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor.cli import main

FOLDER = Path("records/track_10min_16mb")


def explained(*arguments: str | Path) -> str:
    result = CliRunner(env={"COLUMNS": "400"}).invoke(main, ["explain", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.output


def section(text: str, title: str) -> str:
    """Lines below one heading."""
    parts = text.split(f"\n{title}", 1)
    return "" if len(parts) < 2 else parts[1].split("\n\n")[0]


@pytest.fixture
def script(submissions: Path) -> Path:
    return submissions / FOLDER / "2026-05-01_AdaptThenScore" / "train_gpt.py"


def line_of(script: Path, text: str, nth: int = 0) -> int:
    return [n for n, line in enumerate(script.read_text().splitlines(), 1) if text in line][nth]


def test_update_on_validation_tokens_is_explained(script: Path) -> None:
    number = line_of(script, "optimizer.step()", 1)
    text = explained(f"{script}:{number}")
    assert f":{number} in adapt()" in text
    assert "evaluation" in section(text, "Phase")
    assert "loop at line" in section(text, "Reached") and "call of adapt()" in section(text, "Reached")
    assert "optimizer of GPT" in section(text, "Values")
    assert "update of GPT" in section(text, "Events") and "validation tokens" in section(text, "Events")
    assert "FAIL PG-C3-score-first" in section(text, "Rules that used the line")


def test_values_say_where_they_come_from(script: Path) -> None:
    number = line_of(script, "inputs, targets = window[None, :-1], window[None, 1:]")
    values = section(explained(f"{script}:{number}"), "Values")
    assert "validation tokens" in values and "1 later in the stream" in values
    assert "training tokens" not in values


def test_training_line_is_of_the_training(script: Path) -> None:
    text = explained(f"{script}:{line_of(script, 'loss.backward()')}")
    assert "training" in section(text, "Phase")
    assert "training tokens" in section(text, "Values") and "validation tokens" not in section(text, "Values")


def test_switched_off_branch_names_condition_and_setting(script: Path, tmp_path: Path) -> None:
    source = script.read_text()
    marked = source.replace(
        "    eval_start = time.perf_counter()\n",
        "    if os.environ.get('SECOND_PASS', '0') == '1':\n        adapt(scored, val_tokens, device)\n"
        "    eval_start = time.perf_counter()\n",
    )
    assert marked != source
    file = tmp_path / "train_gpt.py"
    file.write_text(marked)
    text = explained(f"{file}:{line_of(file, 'adapt(scored, val_tokens, device)')}")
    assert "never" in section(text, "Reached") and "SECOND_PASS" in section(text, "Reached")
    assert not section(text, "Events")


def test_function_that_nobody_calls_is_said_to_be_unreached(script: Path, tmp_path: Path) -> None:
    file = tmp_path / "train_gpt.py"
    file.write_text(script.read_text() + "\n\ndef spare(x):\n    return x + 1\n")
    assert "nothing in this file names spare()" in explained(f"{file}:{line_of(file, 'return x + 1')}")


def test_line_of_a_target(script: Path) -> None:
    number = line_of(script, "def adapt")
    folder = script.parent
    assert explained(folder, f"train_gpt.py:{number}") == explained(folder, str(number))
    assert "in adapt()" in explained(folder, number + 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere/train_gpt.py:3",), "there is no file"),
        (("{folder}", "other.py:3"), "no program file 'other.py'"),
        (("{folder}", "train_gpt.py:99999"), "no statement"),
        (("{folder}", "train_gpt.py"), "names no line"),
    ],
)
def test_bad_places_are_one_message(script: Path, arguments: tuple[str, ...], words: str) -> None:
    given = [a.format(folder=script.parent) for a in arguments]
    result = CliRunner().invoke(main, ["explain", *given])
    assert result.exit_code == 4
    assert words in result.output


def test_a_rule_is_still_explained() -> None:
    assert "PG-C3-score-first" in explained("PG-C3-score-first")
