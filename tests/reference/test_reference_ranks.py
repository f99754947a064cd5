"""One and two ranks give the same numbers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_ranks

from reference import container, pipeline, ranks
from reference.errors import ConfigError


@pytest.fixture(scope="module")
def both(shards: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict, Path]:
    """Results of one rank here and of two processes as torchrun would start them."""
    out = tmp_path_factory.mktemp("ranks")
    arguments = [str(shards), str(trained / pipeline.WEIGHTS_FILE), str(out)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PYTHONPATH": f"{here.parent.parent}{os.pathsep}{here}",
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, two_ranks.__file__, *arguments, str(out / "two.json")],
            env={**environment, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    one = two_ranks.compute(ranks.Ranks(), *map(Path, arguments))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return one, json.loads((out / "two.json").read_text()), out


@pytest.mark.parametrize("mode", ["standard", "sliding", "row_weighted"])
def test_scores_do_not_depend_on_ranks(both: tuple[dict, dict, Path], mode: str) -> None:
    one, two, _ = both
    assert two[mode][0] == pytest.approx(one[mode][0], abs=1e-6)
    assert two[mode][1:] == one[mode][1:]


def test_legacy_synchronisation_scores_everything(both: tuple[dict, dict, Path]) -> None:
    """Ranks that run out of rows do not deadlock; with `none` every rank does the work of one."""
    one, two, _ = both
    assert two["none"][0] == pytest.approx(one["none"][0], abs=1e-6)
    assert two["rank_mean"][1:] == one["rank_mean"][1:]
    assert two["rank_mean"][0] == pytest.approx(one["rank_mean"][0], abs=0.05)


def test_training_does_not_depend_on_ranks(both: tuple[dict, dict, Path]) -> None:
    one, two, out = both
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
    for kind in ("weights", "momentum"):
        assert list(two[kind]) == list(one[kind])
        for name, values in one[kind].items():
            assert two[kind][name] == pytest.approx(values, abs=2e-3), name
    meta, tensors = container.read(out / "c2")
    single = container.read(out / "c1")[1]
    assert meta["step"] == 6 and set(tensors) == set(single)
    names = [n for n in tensors if n != "random/torch"]
    difference = max(float((tensors[n].float() - single[n].float()).abs().max()) for n in names)
    assert difference < 2e-2
    assert torch.allclose(tensors["model/tok_embed"], single["model/tok_embed"], atol=1e-3)


def test_calibration_does_not_depend_on_ranks(both: tuple[dict, dict, Path]) -> None:
    one, two, _ = both
    assert two["hessian"] == pytest.approx(one["hessian"], rel=1e-5)
    assert two["largest"] == one["largest"] == 1.0


def test_device_errors() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device cpu"):
            ranks.start("cuda")
    assert [ranks.Ranks(r, 3).slice(10) for r in range(3)] == [(0, 3), (3, 6), (6, 10)]
