"""Ledger rows about size, time, seeds, configuration, vocabulary and hardware."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from ledger_parts import (
    FOLDER,
    MODEL_BYTES,
    SCRIPT,
    SEEDS,
    conflicts,
    ledger,
    metadata,
    quantity,
    result,
    rows,
    run,
)

from auditor.documents.ledger.parts_of_size import mib_as_mb
from auditor.documents.ledger.settings import gpu_count, gpu_of
from auditor.documents.ledger.sizes import packed_size
from auditor.documents.ledger.times import spoken_of
from auditor.documents.model import EvalResult, Quantity, Readme, SizeLine, Source

TOTAL = {seed: size + len(SCRIPT) for seed, size in MODEL_BYTES.items()}


def artifact(value: float) -> dict[str, object]:
    return {"artifact_bytes": quantity(float(value), f"{value}", "bytes_total")}


def test_largest_run_is_the_size() -> None:
    row = rows(ledger(), "artifact bytes", "submission")[0]
    assert row.computed == max(TOTAL.values())
    assert row.status == "agrees"


def test_total_that_is_the_model_alone() -> None:
    claims = ledger(metadata(**artifact(MODEL_BYTES[314]), seeds={}), [run(314)])
    row = rows(claims, "artifact bytes", "submission")[0]
    assert row.status == "conflicts"
    assert "that is the model without code" in row.note
    assert f"{TOTAL[314]:,}" in row.note


def test_printed_total_without_code() -> None:
    bent = run(42)
    bent.sizes[-1] = replace(bent.sizes[-1], size=MODEL_BYTES[42])
    row = rows(ledger(metadata(seeds={}, artifact_bytes=None), [bent]), "artifact bytes", "seed 42")[0]
    assert row.status == "conflicts"
    assert "the model alone, without code" in row.note


def test_printed_parts_that_do_not_add_up() -> None:
    bent = run(42)
    bent.sizes[-1] = replace(bent.sizes[-1], size=TOTAL[42] - 5_000)
    row = rows(ledger(metadata(seeds={}, artifact_bytes=None), [bent]), "artifact bytes", "seed 42")[0]
    assert row.status == "conflicts"
    assert f"{TOTAL[42] - 5_000:,}" in row.note


def test_smallest_seed_as_size_is_told() -> None:
    row = rows(ledger(metadata(**artifact(TOTAL[2025]))), "artifact bytes", "submission")[0]
    assert row.status == "agrees"
    assert f"the largest is {TOTAL[314]:,}" in row.note


def test_wrong_size_shows_the_difference() -> None:
    row = rows(ledger(metadata(**artifact(15_000_000))), "artifact bytes", "submission")[0]
    assert row.status == "conflicts"
    assert f"{15_000_000 - TOTAL[42]:+,}" in row.note


def test_shipped_script_that_is_not_the_one_that_ran() -> None:
    claims = ledger(metadata(seeds={}, artifact_bytes=None), [run(42, code=27_592)])
    row = rows(claims, "code bytes")[0]
    assert row.status == "conflicts"
    assert "27,592" in row.note
    assert "+408" in row.note
    shipped = rows(claims, "artifact bytes, script as shipped")[0]
    assert shipped.computed == MODEL_BYTES[42] + len(SCRIPT)


def test_model_on_disk_is_measured() -> None:
    claims = ledger(**{"final_model.int6.ptz": b"\0" * 15_810_900})
    row = rows(claims, "artifact file")[0]
    assert row.computed == 15_810_900
    assert row.status == "conflicts"


def test_helpers_and_packing_are_counted_apart() -> None:
    big = {seed: 15_990_000 for seed in SEEDS}
    runs = [run(seed, model=big[seed]) for seed in SEEDS]
    claims = ledger(metadata(seeds={}, artifact_bytes=None), runs)
    shipped = rows(claims, "artifact bytes, script as shipped")[0]
    packed = rows(claims, "artifact bytes, script packed")[0]
    assert shipped.note == "18,000 bytes over 16,000,000"
    assert packed.computed < 16_000_000


def test_packing_estimate_is_what_a_wrapper_would_have() -> None:
    source = b"\n".join(b"def function_%d(x): return x * %d" % (i, i * 7) for i in range(2000))
    assert 1_000 < packed_size(source) < len(source) / 3


@pytest.mark.parametrize(
    ("text", "meant"),
    [("15.51 MB", True), ("16.27 MB", False), ("16 MB", False), ("15.60 MB", False), ("15.5 MB", False)],
)
def test_mib_presented_as_mb(text: str, meant: bool) -> None:
    claim = quantity(float(text.split()[0]), text)
    assert bool(mib_as_mb(claim, {"total": 16_265_723.0})) is meant


def test_clock_against_claims() -> None:
    data = metadata(train_seconds=quantity(600, "600", "wallclock_seconds"))
    assert rows(ledger(data), "train seconds", "submission")[0].status == "agrees"
    data = metadata(train_seconds=quantity(540, "540", "wallclock_seconds"))
    row = rows(ledger(data), "train seconds", "submission")[0]
    assert row.status == "conflicts"
    assert "says 540.0 s" in row.note
    assert "600.0 s" in row.note


def test_calibration_after_the_clock_is_added() -> None:
    bent = run(42)
    bent.phases = [("gptq:collected hessians", 28, 4.7), ("compile", 29, 100.0), ("hessian warmup", 12, 9.0)]
    row = rows(ledger(runs=[bent]), "train seconds with calibration")[0]
    assert row.computed == pytest.approx(604.741)
    assert "line 28" in row.note


def test_step_average_that_does_not_fit_the_clock() -> None:
    bent = run(42)
    last = bent.steps[-1]
    bent.steps[-1] = replace(last, step_ms=95.0, text=last.text + " step_avg:95.00ms")
    assert ("train seconds", "seed 42, steps x average") in conflicts(ledger(runs=[bent]))
    bent.steps[-1] = replace(last, step_ms=86.96, text=last.text + " step_avg:86.96ms")
    assert ("train seconds", "seed 42, steps x average") not in conflicts(ledger(runs=[bent]))


def test_evaluation_seconds_of_headline_and_of_all_passes() -> None:
    bent = run(42)
    bent.results.append(result(50, "legal_ttt", 1.1150, 8, 401.5))
    bent.phases = [("ngram hint precompute", 45, 155.0)]
    data = metadata(val_bpb=quantity(1.1150, key="val_bpb"), eval_seconds=quantity(401.5, "401.5"), seeds={})
    claims = ledger(data, [bent])
    assert rows(claims, "eval seconds", "seed 42")[0].computed == 401.5
    assert rows(claims, "eval seconds, all passes")[0].computed == pytest.approx(401.5 + 74.2 + 2.1 + 155.0)
    assert rows(claims, "eval seconds", "submission")[0].status == "agrees"


def test_total_time_line_after_the_headline() -> None:
    bent = run(42)
    bent.results.append(EvalResult(55, "total_eval_time", seconds=455.4, text="total_eval_time:455.4s"))
    bent.results[1] = replace(bent.results[1], seconds=None)
    assert rows(ledger(runs=[bent]), "eval seconds", "seed 42")[0].computed == 455.4


def test_missing_and_copied_logs() -> None:
    missing = rows(ledger(runs=[run(42)]), "seeds")[0]
    assert missing.status == "conflicts"
    assert "seed 314, seed 2025" in missing.note


def test_other_configuration_in_one_log() -> None:
    runs = [run(seed) for seed in SEEDS]
    runs[1].settings["num_layers"] = "10"
    row = rows(ledger(runs=runs), "configuration across seeds")[0]
    assert row.status == "conflicts"
    assert "num_layers 10, 11" in row.note


def test_setting_that_one_program_does_not_know() -> None:
    runs = [run(seed) for seed in SEEDS]
    for item in runs:
        item.settings |= {f"option_{index}": "1" for index in range(25)}
    runs[0].settings["ttt_hash_embed"] = "1"
    row = rows(ledger(runs=runs), "configuration across seeds")[0]
    assert row.status == "conflicts"
    assert "only seed 42 prints ttt_hash_embed" in row.note


def test_vocabulary_claim_against_counts_and_first_loss() -> None:
    data = metadata(settings={"vocab_size": quantity(256.0, "256", "vocab_size")})
    row = rows(ledger(data), "vocabulary")[0]
    assert row.status == "conflicts"
    assert "says 256" in row.note
    assert "starts near 5.5452" in row.note
    assert rows(ledger(metadata(settings={"vocab_size": "1024"})), "vocabulary")[0].status == "agrees"


def test_settings_and_parameters_against_the_log() -> None:
    data = metadata(settings={"num_layers": "9", "model_params": quantity(26_993_756.0, "26993756", "model_params")})
    claims = ledger(data)
    assert ("num_layers", "submission") in conflicts(claims)
    assert rows(claims, "parameters")[0].status == "agrees"
    rough = metadata(settings={"model_params": quantity(21_800_000.0, "21.8M", "model_params")})
    assert ("parameters", "submission") in conflicts(ledger(rough))


@pytest.mark.parametrize(
    ("text", "model", "count"),
    [
        ("8xH100 80GB SXM", "H100", 8),
        ("4×A100-PCIE-40GB", "A100", 4),
        ("8 x NVIDIA H100 80GB HBM3", "H100", 8),
        ("1x RTX 5090", "RTX5090", 1),
        ("a laptop", "", None),
    ],
)
def test_hardware_phrases(text: str, model: str, count: int | None) -> None:
    assert (gpu_of(text), gpu_count(text)) == (model, count)


def test_hardware_claim_against_the_log() -> None:
    bent = run(42)
    bent.environment = {"gpu": "NVIDIA A100-SXM4-80GB", "gpu_count": "4"}
    row = rows(ledger(runs=[bent]), "hardware")[0]
    assert row.status == "conflicts"
    assert "A100" in row.note


def test_ledger_is_fast_and_free_of_scipy() -> None:
    ledger()
    start = time.perf_counter()
    ledger()
    assert time.perf_counter() - start < 0.05


def test_nothing_but_a_folder_gives_no_crash() -> None:
    readme = Readme("README.md")
    claims = ledger(metadata(val_bpb=None, artifact_bytes=None, seeds={}, hardware=None), [], readme)
    assert {row.status for row in claims} <= {"not claimed", "no evidence", "agrees"}
    assert rows(claims, "val_bpb", "submission")[0].note == "no document states a val_bpb"
    assert FOLDER.startswith("records/")


def test_two_artifacts_in_one_log() -> None:
    """A log that prints two quantised artifacts (int8, then int6): the last total counts, the first is no conflict."""
    bent = run(42)
    first = [
        SizeLine(31, "model", 17_000_000, "int8+zlib", "Serialized model int8+zlib: 17000000 bytes"),
        SizeLine(32, "total", 17_000_000 + len(SCRIPT), "int8+zlib", "Total submission size int8+zlib"),
    ]
    bent.sizes = [bent.sizes[0], bent.sizes[1], *first, *bent.sizes[2:]]
    claims = ledger(metadata(seeds={}, **artifact(TOTAL[42])), [bent])
    assert rows(claims, "artifact bytes", "seed 42")[0].status != "conflicts"
    assert rows(claims, "artifact bytes", "submission")[0].computed == TOTAL[42]


@pytest.mark.parametrize(
    ("line", "metric"),
    [
        ("Training time: 1386 s on 8xH100", "train_seconds"),
        ("| Eval time | 1386 s |", "eval_seconds"),
        ("training time under the 1386 s limit", ""),
        ("GPTQ takes 1386 s", ""),
        ("training time 600 s, GPTQ 1386 s", ""),
    ],
)
def test_seconds_of_a_readme_are_those_its_line_names(line: str, metric: str) -> None:
    assert spoken_of(Quantity(1386.0, Source("README.md", 3, line), "1386 s")) == metric


def test_readme_time_against_the_log() -> None:
    told = Quantity(2222.0, Source("README.md", 9, "Training time: 2222 s"), "2222 s")
    row = rows(ledger(readme=Readme("README.md", values={"seconds": [told]})), "train seconds", "submission")[0]
    assert row.status == "conflicts"
    assert "README.md:9 says 2,222.0 s" in row.note


def test_measurements_are_not_configuration() -> None:
    runs = [run(seed) for seed in SEEDS]
    for index, item in enumerate(runs):
        item.settings |= {"reserved": str(22_000 + index), "dropout": "0.0", "data_path": f"/disk{index}"}
    assert conflicts(ledger(runs=runs)) == set()
    runs[2].settings["dropout"] = "0.1"
    assert conflicts(ledger(runs=runs)) == {("configuration across seeds", "submission")}


def test_result_file_with_another_size_and_a_partial_evaluation() -> None:
    file = b'{"gptq_file_bytes": 16319735, "ttt": {"chunks_processed": 900, "total_possible_chunks": 1893}}'
    claims = ledger(**{"gptq_results.json": file})
    row = rows(claims, "artifact bytes", "result files")[0]
    assert row.status == "conflicts"
    assert "gptq_results.json (gptq_file_bytes) says 16,319,735 bytes" in row.note
    share = rows(claims, "scored share")[0]
    assert share.computed == pytest.approx(900 / 1893)
    assert "47.5%" in share.note


def test_result_file_that_agrees_or_is_broken() -> None:
    good = f'{{"artifact_bytes": {TOTAL[314]}}}'.encode()
    claims = ledger(**{"results.json": good, "broken.json": b"{not json", "list.json": b"[1, 2]"})
    assert rows(claims, "artifact bytes", "result files")[0].status == "agrees"
    assert conflicts(claims) == set()
