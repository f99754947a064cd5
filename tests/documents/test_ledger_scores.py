"""Ledger rows about the score: which line is the headline, per-seed values, means, losses, denominators."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ledger_parts import (
    SEEDS,
    conflicts,
    ledger,
    loss_of,
    metadata,
    quantity,
    result,
    rows,
    run,
    step,
)

from auditor.documents.ledger import kind_of
from auditor.documents.model import Readme


def test_consistent_documents_have_no_conflict() -> None:
    claims = ledger()
    assert conflicts(claims) == set()
    assert rows(claims, "val_bpb", "submission")[0].computed == pytest.approx(sum(SEEDS.values()) / 3)
    assert [row.computed for row in rows(claims, "scored bytes")] == pytest.approx([151_080_363] * 3, abs=2)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("final_int8_zlib_roundtrip", "quantised"),
        ("pre-quantization post-ema", "float"),
        ("DIAGNOSTIC post_ema", "float"),
        ("diagnostic quantized", "quantised"),
        ("pre_ttt_quant_eval", "quantised"),
        ("legal_ttt", "quantised"),
        ("quantized_ttt_phased", "quantised"),
        ("something_new", "unstated"),
    ],
)
def test_labels_say_which_model_was_scored(label: str, kind: str) -> None:
    assert kind_of(label) == kind


def test_headline_in_no_log_names_the_nearest_line() -> None:
    claims = ledger(metadata(val_bpb=quantity(1.1002, key="val_bpb"), seeds={}))
    row = rows(claims, "val_bpb", "submission")[0]
    assert row.status == "conflicts"
    assert "1.1002 BPB (submission.json (val_bpb)) is in no log" in row.note
    assert "1.11874406" in row.note
    assert "0.0185 away" in row.note


def test_headline_that_is_the_float_model_is_a_conflict() -> None:
    bent = [run(seed) for seed in SEEDS]
    data = metadata(val_bpb=quantity(1.1379, key="val_bpb"), seeds={})
    row = rows(ledger(data, bent), "val_bpb", "submission")[0]
    assert row.status == "conflicts"
    assert "measured before quantisation" in row.note
    assert "final_int6_sliding_window" in row.note


def test_validation_line_of_training_is_not_the_artifact() -> None:
    data = metadata(val_bpb=quantity(1.1385, key="val_bpb"), seeds={})
    row = rows(ledger(data, [run(42)]), "val_bpb", "submission")[0]
    assert row.status == "conflicts"
    assert "step 6900" in row.note


def test_float_line_without_any_other_is_said_but_no_conflict() -> None:
    only = run(42)
    only.results = [result(30, "ema_val", 1.1379, 8)]
    data = metadata(val_bpb=quantity(1.1379, key="val_bpb"), seeds={})
    row = rows(ledger(data, [only]), "val_bpb", "submission")[0]
    assert row.status == "agrees"
    assert "no line scores the quantised model" in row.note


def test_best_seed_as_headline_is_told() -> None:
    data = metadata(val_bpb=quantity(1.11874406, key="val_bpb"))
    row = rows(ledger(data), "val_bpb", "submission")[0]
    assert row.status == "agrees"
    assert "seed 2025" in row.note
    assert "not the mean of 3 runs (1.11913065)" in row.note


def test_seeds_without_logs_are_no_evidence() -> None:
    claims = ledger(runs=[run(42)])
    assert rows(claims, "val_bpb", "seed 314")[0].status == "no evidence"
    assert rows(claims, "val_bpb", "seed 42")[0].status == "agrees"
    mean = rows(claims, "val_bpb", "submission")[0]
    assert mean.status == "no evidence"
    assert "mean of 3 claimed seeds" in mean.note
    assert "seed 314, seed 2025 have no log" in mean.note


def test_wrong_seed_value_shows_both_numbers() -> None:
    data = metadata()
    data.seeds["314"]["val_bpb"] = quantity(1.1180, key="seed_results.314.val_bpb")
    row = rows(ledger(data), "val_bpb", "seed 314")[0]
    assert row.status == "conflicts"
    assert "1.1180" in row.note
    assert "1.11961277" in row.note


def test_claim_cut_instead_of_rounded_agrees() -> None:
    """1.11913065 written as 1.1191 or 1.119 or, cut, 1.11913; 1.1193 is wrong."""
    for text in ("1.1191", "1.119", "1.11913"):
        data = metadata(val_bpb=quantity(float(text), text))
        assert rows(ledger(data), "val_bpb", "submission")[0].status == "agrees", text
    data = metadata(val_bpb=quantity(1.1193))
    assert rows(ledger(data), "val_bpb", "submission")[0].status == "conflicts"


@pytest.mark.parametrize(("stated", "status", "word"), [
    (0.00044, "agrees", ""),
    (0.00036, "agrees", "population"),
    (0.00110, "conflicts", "0.000442"),
])  # fmt: skip
def test_stated_deviation_in_either_convention(stated: float, status: str, word: str) -> None:
    row = rows(ledger(metadata(std_bpb=quantity(stated, f"{stated:.5f}"))), "standard deviation")[0]
    assert row.status == status
    assert word in row.note


def test_stated_mean_is_recomputed() -> None:
    good = rows(ledger(metadata(mean_bpb=quantity(1.11913))), "mean val_bpb")[0]
    bad = rows(ledger(metadata(mean_bpb=quantity(1.11890))), "mean val_bpb")[0]
    assert (good.status, bad.status) == ("agrees", "conflicts")
    assert "1.119131" in bad.note


def test_identical_seeds_are_suspicious_spread() -> None:
    same = [run(seed, bpb=1.11903512) for seed in SEEDS]
    row = rows(ledger(metadata(seeds={}), same), "standard deviation")[0]
    assert "0.000000 BPB" in row.note


def test_loss_from_another_line_is_a_conflict() -> None:
    data = metadata(val_loss=quantity(1.9215, key="val_loss"), seeds={})
    claims = ledger(data)
    assert ("val_loss", "submission") in conflicts(claims)
    assert "1.9215" in rows(claims, "val_loss")[0].note
    pair = rows(claims, "loss and BPB")[0]
    assert "tokens per byte" in pair.note


def test_loss_field_holding_the_bpb_is_named() -> None:
    data = metadata(val_loss=quantity(round(sum(SEEDS.values()) / 3, 4), key="val_loss"), seeds={})
    assert any("one of them holds the other" in row.note for row in rows(ledger(data), "loss and BPB"))


def test_matching_loss_agrees() -> None:
    mean = sum(SEEDS.values()) / 3
    claims = ledger(metadata(val_loss=quantity(round(loss_of(mean), 4), key="val_loss")))
    assert rows(claims, "val_loss")[0].status == "agrees"
    assert rows(claims, "loss and BPB") == []


def test_wrong_denominator_of_a_log_is_diagnosed() -> None:
    bent = run(42)
    exact = bent.results[-1]
    wrong = exact.val_bpb * 151_080_363 / 176_332_748
    text = f"{exact.label} val_loss:{exact.val_loss:.8f} val_bpb:{wrong:.8f}"
    bent.results = [replace(exact, val_bpb=round(wrong, 8), text=text)]
    row = rows(ledger(metadata(val_bpb=quantity(round(wrong, 4)), seeds={}), [bent]), "scored bytes")[0]
    assert row.status == "conflicts"
    assert "counted in the byte table and again in the sum" in row.note
    assert row.computed == pytest.approx(176_332_748, abs=3)


def test_invented_validation_line_breaks_the_quotient() -> None:
    bent = run(42)
    bent.steps.insert(1, replace(step(15, 3000, 1.2451, 260_000), val_bpb=1.2457, text=""))
    row = rows(ledger(runs=[bent]), "loss/BPB quotient")[0]
    assert row.status == "conflicts"
    assert "1 of 3 validation lines" in row.note
    assert "line 15" in row.note
    assert "1.2457" in row.note


def test_readme_title_with_another_score_is_a_row_of_its_own() -> None:
    title = quantity(1.1090, "1.1090", path="README.md", line=1)
    readme = Readme("README.md", title="Example: val_bpb 1.1090", values={"val_bpb": [title]})
    claims = ledger(readme=readme)
    verdicts = {row.claimed[0].value: row.status for row in rows(claims, "val_bpb", "submission")}
    assert verdicts == {1.1191: "agrees", 1.1090: "conflicts"}


def test_no_log_at_all() -> None:
    row = rows(ledger(runs=[]), "val_bpb", "submission")[0]
    assert (row.status, row.note) == ("no evidence", "there is no log")


def test_readme_values_that_nothing_shows_are_listed() -> None:
    values = [quantity(v, str(v), path="README.md", line=n) for n, v in enumerate((1.1540, 1.1379, 1.1194, 1.1191), 5)]
    row = rows(ledger(readme=Readme("README.md", values={"val_bpb": values})), "BPB values of the README")[0]
    # 1.1379 is a log line, 1.1194 a leaderboard row, 1.1191 the mean of the seeds.
    assert [claim.value for claim in row.claimed] == [1.1540]
    assert (row.status, "1.1540 (line 5)" in row.note) == ("no evidence", True)


def test_table_by_training_step_is_not_a_table_of_seeds() -> None:
    curve = {
        str(steps): {"val_bpb": quantity(1.4 - steps / 1e5, path="README.md", line=steps)} for steps in (500, 1000)
    }
    claims = ledger(readme=Readme("README.md", seeds=curve))
    assert {row.scope for row in rows(claims, "val_bpb")} == {"submission", "seed 42", "seed 314", "seed 2025"}


def test_rerun_of_a_seed_is_told_apart() -> None:
    """The README shows a re-run, submission.json the original: both are logged, neither is a contradiction."""
    again = run(42, bpb=1.11850001)
    again.path = again.path.replace("seed42", "seed42_rerun")
    shown = {"42": {"val_bpb": quantity(1.11850001, path="README.md", line=44)}}
    claims = ledger(runs=[*(run(seed) for seed in SEEDS), again], readme=Readme("README.md", seeds=shown))
    row = rows(claims, "val_bpb", "seed 42")[0]
    assert (row.status, row.computed) == ("agrees", SEEDS[42])
    assert "states another run of the seed" in row.note


def test_of_a_seed_run_twice_the_run_that_prints_the_headline_counts() -> None:
    """A later run of the same seed that was stopped after its float evaluation is not the claim."""
    stopped = run(42)
    stopped.path = stopped.path.replace("seed42", "second_plan")
    stopped.results = [result(30, "DIAGNOSTIC post_ema", 1.1243, 4, 2.1)]
    data = metadata(val_bpb=quantity(SEEDS[42], key="val_bpb"), seeds={})
    row = rows(ledger(data, [run(42), stopped]), "val_bpb", "submission")[0]
    assert (row.status, row.computed) == ("agrees", SEEDS[42])


def test_claimed_p_value_is_recomputed_against_the_standing_record() -> None:
    """1.11913 in three seeds on 28 March stands against 1.1147: worse, whatever is claimed."""
    data = metadata()
    data.raw = {"p_value": 0.003}
    row = rows(ledger(data), "p-value")[0]
    assert row.computed > 0.99
    assert row.status == "no evidence"
    assert "against 1.11474 over 3 seeds (PR 1019): worse by 0.0044" in row.note
    assert "0.005 nats per token at p < 0.01" in row.note
    assert rows(ledger(), "p-value") == []
