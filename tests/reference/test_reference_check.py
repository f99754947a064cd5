"""`reference check` passes where arithmetic is right and names what is wrong where it is not."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from tiny_run import TINY

from reference import check, data, ttt_step
from reference.cli import main
from reference.model import attention
from reference.ranks import Ranks


def findings(*overrides: str) -> dict[str, bool]:
    bench = check.prepare("smoke", (*TINY, *overrides), Ranks())
    return {finding.what.split(":")[0].split(",")[0].split(" (")[0]: finding.holds for finding in check.run(bench)}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_everything_agrees_here(precision: str) -> None:
    found = findings(f"run.precision={precision}")
    assert len(found) == len(check.COMPARISONS) and all(found.values()), found


def test_a_wrong_attention_kernel_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.causal_attention
    monkeypatch.setattr(check, "causal_attention", lambda q, k, v, scale, flash: real(q, k, v, 1.05 * scale, flash))
    assert not findings()["attention"]


def test_wrong_scored_columns_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask that is off by one for the last columns lets positions see too little: their losses change."""
    real = attention._last_columns
    monkeypatch.setattr(attention, "_last_columns", lambda q, k, v, scale: real(q, k[:, :, :-1], v[:, :, :-1], scale))
    assert not check.scoring(check.prepare("smoke", tuple(TINY), Ranks())).holds


def test_a_batch_copied_too_late_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = data.BatchLoader._read

    def stale(self, step, micro):
        return real(self, step, micro) if (step, micro) != (1, 3) else torch.zeros_like(real(self, step, micro))

    monkeypatch.setattr(data.BatchLoader, "_read", stale)
    assert not findings()["batches on the device are those of the shards"]


def test_a_wrong_update_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference run of a comparison is eager; an error of the other path shows as a difference."""
    bench = check.prepare("smoke", tuple(TINY), Ranks())  # two chunks trained on, two epochs, one step each
    real, calls = ttt_step.TestTimeStep._differentiate, 0

    def wrong(self, inputs, targets, weight):
        nonlocal calls
        calls += 1
        real(self, inputs, targets, weight if calls <= 4 else 0.0)

    monkeypatch.setattr(ttt_step.TestTimeStep, "_differentiate", wrong)
    assert not check.adaptation(bench).holds


def test_a_comparison_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("flash_attn_func() got an unexpected keyword argument")

    monkeypatch.setattr(check, "causal_attention", broken)
    monkeypatch.setattr(check, "COMPARISONS", (check.collectives, check.attention))
    result = CliRunner().invoke(main, ["check", "--device", "cpu", "--speed", *(f"--set={key}" for key in TINY)])
    assert result.exit_code == 1
    assert "FAIL Attention kernels agree with the softmax written out: TypeError: flash_attn_func()" in result.output
    assert "not timed" in result.output


def test_speed_is_timed_once_everything_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "COMPARISONS", (check.collectives,))
    result = CliRunner().invoke(main, ["check", "--device", "cpu", "--speed", *(f"--set={key}" for key in TINY)])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].startswith("ok   collectives over 1 rank(s)")
    assert lines[1].startswith("training, 512 tokens a step: ") and lines[1].endswith("tokens/s")
    assert "targets/s" in lines[2] and "targets/s" in lines[3]
