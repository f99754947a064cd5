"""Verdicts do not hang on names and shapes, and one edit that breaks a rule is caught on the edited line.

A sample of what `benchmarks/fuzz_variants.py` and `benchmarks/mutants.py` do on hundreds of programs.
"""

from __future__ import annotations

import random
from functools import cache

import pytest
from edits import EDITS, LOG_IS_ANOTHERS, spoilt
from spoiling import Inapplicable, sites_of
from subjects import answer, caught_by, example_cases, settings_names, with_program
from variants import SHAPES, variant

from auditor.case import Case
from auditor.casefile import build_case
from auditor.submission import Submission
from rules.examples import package

# Beside the clean package: learns during evaluation, in the legal order.
LEARNS = "PG-C3-score-first legal: score a chunk, then train on it"
SAMPLE = 12
CAUGHT = ("adapt, then score", "adapt before the export", "update before score", "smaller of two losses",
          "counts keyed by the target", "score in a second pass", "validation shards in training",
          "half of the stream", "leading space counted twice", "attention looks ahead", "adapted by hand",
          "smaller of two passes", "train on the next chunk")  # fmt: skip


@cache
def cases() -> dict[str, Case]:
    files = {path: text.encode() for path, text in package().items()}
    return {"the clean package": build_case(Submission.from_files(files, label="clean"))} | dict(example_cases())


def _drawn() -> list[tuple[str, str]]:
    """(example, shape): every shape at least once, examples drawn with a fixed seed."""
    from rules import all_rules
    from rules.example_program import program

    rng = random.Random(20260521)
    names = [
        f"{rule.id} {side}: {example.title}"
        for rule in all_rules()
        for side, examples in (("legal", rule.legal), ("illegal", rule.illegal))
        for example in examples
        if rule.id.startswith(("PG-C", "PG-D")) and example.files.get("train_gpt.py", program()) != program()
    ]
    chosen = rng.sample(names, SAMPLE)
    shapes = [shape for _ in range(SAMPLE) for shape in rng.sample(sorted(SHAPES), len(SHAPES))]
    return list(zip(chosen, shapes[:SAMPLE], strict=True))


@pytest.mark.parametrize(("name", "shape"), _drawn())
def test_verdict_is_the_same_in_another_shape(name: str, shape: str) -> None:
    pytest.importorskip("torch")
    case = cases()[name]
    text = case.program.main.text if case.program.main else ""
    before = answer(with_program(case, text))
    after = answer(with_program(case, variant(text, shape, 1, settings_names(case))))
    changed = {
        r: (before.statuses[r], after.statuses[r])
        for r in before.statuses
        if before.statuses[r] is not after.statuses[r]
    }
    assert changed == {}
    assert after.verdict is before.verdict


@pytest.mark.parametrize("edit", CAUGHT)
@pytest.mark.parametrize("name", ["the clean package", LEARNS])
def test_edit_that_breaks_a_rule_is_caught_on_its_line(name: str, edit: str) -> None:
    case = cases()[name]
    plain, sites = sites_of(case)
    try:
        text, lines = spoilt(sites, edit, seed=1)
    except Inapplicable as reason:
        pytest.skip(str(reason))
    silent = edit in LOG_IS_ANOTHERS
    before = answer(with_program(case, sites.text, silent) if silent else plain)
    caught, shown = caught_by(before, answer(with_program(case, text, silent)), EDITS[edit][1], lines)
    assert caught, f"not caught: {sorted(lines)}"
    assert shown, f"{caught} without line {sorted(lines)}"
