"""Commands as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from tiny_run import TINY

from reference.cli import main
from reference.data import write_shard
from reference.runlog import PACKAGE


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), catch_exceptions=False)


def sets(*extra: str) -> list[str]:
    return [part for key in [*TINY, *extra] for part in ("--set", key)]


def test_smoke_runs_everything_and_passes(tmp_path: Path) -> None:
    """The whole chain at a smaller size still: nothing is skipped, every check holds."""
    small = ["schedule.iterations=60", "schedule.warmdown=30", "data.batch_tokens=1024"]
    result = invoke("smoke", "--out", str(tmp_path), *[part for key in small for part in ("--set", key)])
    assert result.exit_code == 0, result.output
    assert result.output.count("ok  ") == 6 and "FAIL" not in result.output
    text = (tmp_path / "logs" / "smoke.txt").read_text()
    for line in (
        "warmup_step:2/2",
        "late_qat:enabled",
        "ema:applying",
        "gptq:calibrated",
        "ttt_sliding:done",
        "final_mixed_sliding_window_exact",
        "legal_ttt_exact",
        "untrained val_loss",
    ):
        assert line in text, line
    scores = json.loads((tmp_path / "results.json").read_text())
    assert scores["ttt"]["repeats"] == 0
    assert all((tmp_path / f"ledger_{mode}.jsonl").is_file() for mode in ("standard", "sliding", "ttt"))


def test_smoke_fails_loudly(tmp_path: Path) -> None:
    result = invoke(
        "smoke",
        "--out",
        str(tmp_path),
        "--tokenizer",
        "byte260",
        "--set",
        "schedule.iterations=0",
        "--set",
        "schedule.warmdown=0",
        "--set",
        "averaging.apply=none",
    )
    assert result.exit_code == 1 and "FAIL training lowers" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoke", "--tokenizer", "other"], "use auto, sentencepiece or byte260"),
        (["smoke", "--text", "missing.txt"], "missing.txt"),
        (["train", "--config", "pr1"], "no configuration 'pr1'"),
        (
            ["train", "--config", "smoke", "--data-dir", "nowhere", "--device", "cpu"],
            "make shards: reference data make",
        ),
        (["data", "inspect", "nowhere.bin"], "cannot be read"),
        (["evaluate", "--config", "smoke", "--device", "cpu", "--out", "new"], "train first with the same --out"),
        (["quantize", "--config", "smoke", "--device", "cpu", "--out", "new"], "name a file with --weights"),
        (["train", "--config", "smoke", "--device", "cpu", "--out", "/dev/null/x"], "/dev/null/x"),
        (["evaluate", "--config", "smoke", "--set", "model.heads=7"], "model.heads"),
    ],
)
def test_errors_are_messages(arguments: list[str], message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2 and message in " ".join(result.output.split()), result.output
    assert "Traceback" not in result.output


def test_train_quantize_evaluate(shards: Path, tmp_path: Path) -> None:
    common = ["--config", "smoke", "--data-dir", str(shards), "--out", str(tmp_path), "--device", "cpu"]
    few = sets(
        "schedule.iterations=6",
        "schedule.warmdown=2",
        "schedule.val_every=0",
        "schedule.checkpoint_every=4",
        "schedule.max_wallclock_seconds=100.0",
        "run.threads=1",
    )
    assert invoke("train", *common, *few).exit_code == 0
    first = (tmp_path / "final_model.pgz").read_bytes()
    resumed = invoke("train", *common, *few, "--resume")
    assert "resumed: step:4/6" in resumed.output and "(inside;" in resumed.output
    assert (tmp_path / "final_model.pgz").read_bytes() == first
    coarse = invoke("quantize", *common, *sets("artifact.compressor=zstd22"))
    assert coarse.exit_code == 0 and "mixed+zstd22" in coarse.output
    result = invoke("evaluate", *common, *sets(), "--mode", "all", "--resume", "--run-id", "e")
    assert result.exit_code == 0 and "legal_ttt_exact" in result.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == {"standard", "sliding", "ttt"} and (tmp_path / "logs" / "e.jsonl").is_file()
    weights = str(tmp_path / "final_model.weights")
    floats = invoke("evaluate", *common, *sets("ttt.enabled=false"), "--artifact", weights)
    assert "pre_ttt_float_eval" in floats.output and "legal_ttt" not in floats.output


def test_data_commands(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i}. " + "word " * 900 for i in range(12))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    made = invoke(
        "data",
        "make",
        "--text",
        str(tmp_path / "a.txt"),
        "--tokenizer",
        "byte260",
        "--out",
        str(tmp_path / "d"),
        "--val-docs",
        "3",
        "--shard-tokens",
        "20000",
    )
    assert made.exit_code == 0 and made.output.startswith("12 documents: ")
    shown = invoke("data", "inspect", str(tmp_path / "d"))
    assert "fineweb_val_000000.bin: 13" in shown.output and "3 documents" in shown.output
    assert "begins with BOS: yes" in shown.output
    verified = invoke("data", "verify", str(tmp_path / "d"), "--tokenizer", "byte260", "--vocab-size", "260")
    assert verified.exit_code == 2 and "not an official validation set" in verified.output
    empty = invoke("data", "inspect", str(tmp_path))
    assert empty.exit_code == 2 and "no .bin files" in empty.output
    wrong = invoke(
        "data",
        "make",
        "--text",
        str(tmp_path / "a.txt"),
        "--tokenizer",
        "byte260",
        "--out",
        str(tmp_path / "d"),
        "--val-docs",
        "99",
    )
    assert wrong.exit_code == 2 and "--val-docs 99" in wrong.output


def test_verify_recognises_known_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reference import validation

    write_shard(tmp_path / "fineweb_val_000000.bin", np.array([1] + [9] * 40))
    known = validation.Fingerprint("small", 260, 8, 40, 40, "made here")
    monkeypatch.setattr(validation, "FINGERPRINTS", (known,))
    arguments = ["data", "verify", str(tmp_path), "--tokenizer", "byte260", "--vocab-size", "260", "--seq-len", "8"]
    assert "1 documents instead of 50000" in " ".join(invoke(*arguments).output.split())
    monkeypatch.setattr(validation, "VALIDATION_DOCUMENTS", 1)
    assert "official validation set small" in invoke(*arguments).output


def test_no_pickle_anywhere() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "torch.load" not in text and "import pickle" not in text, path
