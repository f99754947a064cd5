"""The registry, the explanation of a rule and the example package."""

from __future__ import annotations

import ast
import io
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rules import UnknownRule, all_rules, rule
from rules.example_program import edited, program
from rules.examples import FOLDER, RUNS, SP1024_BYTES, Run, log, overlaid, package, variant
from rules.explain import changes, render_rule


def test_ids_are_unique_and_the_book_is_whole() -> None:
    ids = [each.id for each in all_rules()]
    assert len(ids) == len(set(ids)) == 64
    assert ids[0].startswith("PG-C1-") and ids[-1].startswith("PG-P-")


@pytest.mark.parametrize("name", ["PG-S-cap", "pg-s-cap", "S-cap", "s_cap", " PG-S-CAP "])
def test_rule_is_found_however_it_is_spelt(name: str) -> None:
    assert rule(name).id == "PG-S-cap"


@pytest.mark.parametrize(
    ("name", "offer"),
    [("PG-S-capp", "PG-S-cap"), ("score-frist", "PG-C3-score-first"), ("gptq", "PG-D-gptq-calibration")],
)
def test_unknown_rule_offers_the_close_ones(name: str, offer: str) -> None:
    with pytest.raises(UnknownRule, match=offer):
        rule(name)


@pytest.mark.parametrize("width", [72, 160])
def test_every_rule_can_be_explained(width: int) -> None:
    for each in all_rules():
        console = Console(file=io.StringIO(), width=width, color_system=None)
        render_rule(each, console)
        text = console.file.getvalue()
        assert each.id in text and "Remedy" in text and each.sources[0][:40] in text.replace("\n", "")


def test_explanation_shows_what_an_example_changes() -> None:
    cap = rule("PG-S-cap")
    assert any("16265723" in line for _, _, lines in changes(cap.illegal[0]) for line in lines)
    ((path, language, lines),) = changes(rule("PG-C3-score-first").illegal[0])
    assert (path, language) == ("train_gpt.py", "python")
    assert "def adapt(model, val_tokens, device):" in lines
    assert any("adapt(scored, val_tokens, device)" in line for line in lines)


def test_example_programs_are_python() -> None:
    for each in all_rules():
        for example in (*each.legal, *each.illegal):
            text = example.files.get("train_gpt.py")
            if text and "syntax" not in example.title:
                ast.parse(text)


def test_edit_that_no_longer_matches_is_an_error() -> None:
    with pytest.raises(ValueError, match="once"):
        edited(program(), "no such line", "")


def test_package_is_consistent_with_itself() -> None:
    files = package()
    data = json.loads(files[f"{FOLDER}/submission.json"])
    script = files[f"{FOLDER}/train_gpt.py"]
    assert data["bytes_code"] == len(script.encode())
    for run in RUNS:
        text = files[f"{FOLDER}/train_seed{run.seed}.log"]
        assert f"Code size: {len(script.encode())} bytes" in text
        assert data["seed_results"][str(run.seed)]["artifact_bytes"] == run.model_bytes + len(script.encode())


@given(st.floats(0.9, 1.4), st.integers(40_000_000, 70_000_000))
def test_logged_loss_and_bpb_belong_together(bpb: float, tokens: int) -> None:
    run = Run(bpb=bpb, val_tokens=tokens)
    exact = next(line for line in log(run, program()).splitlines() if line.startswith(f"{run.label}_exact"))
    loss, score = (float(part.split(":")[1]) for part in exact.split()[1:])
    implied = tokens * loss / (math.log(2) * score)
    assert abs(implied - SP1024_BYTES) < 4


def test_overlay_removes_and_moves() -> None:
    files = overlaid({"submission.json": None, "train_gpt.py": "x = 1\n"}, "records/track_non_record_16mb/a")
    assert "records/track_non_record_16mb/a/submission.json" not in files
    assert files["records/track_non_record_16mb/a/train_gpt.py"] == "x = 1\n"
    assert variant(done=RUNS[:1])["train_seed2024.log"] is None
