"""Cluster jobs without a cluster: what is asked for, what is said when submitit is absent, and submitit's own executors."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditor.cli import main
from auditor.commands.reproduce import Options, run
from auditor.reproduce.cluster import NoCluster, resources_of, submit
from auditor.reproduce.plan import RerunPlan

PLAN = RerunPlan(
    "x", "abcdef0123456789", "full", ("1", "2", "3"), 8, 8, "/submission/train_gpt.py", minutes_a_seed=24.0
)


@pytest.fixture
def target(submissions: Path) -> str:
    return str(submissions / "records/track_10min_16mb/2026-05-01_SmallByTheBook")


def test_a_job_asks_for_one_node_with_every_gpu_and_time_to_spare(tmp_path: Path) -> None:
    found = resources_of(PLAN, tmp_path, partition="h100", account="golf")
    assert (found.gpus, found.cores) == (8, 96) and found.minutes >= 3 * 24 * 1.5
    asked = found.parameters("slurm")
    assert asked["nodes"] == asked["tasks_per_node"] == 1 and asked["gpus_per_node"] == 8
    assert asked["slurm_partition"] == "h100" and asked["slurm_account"] == "golf"
    assert not [name for name in found.parameters("local") if name.startswith("slurm")]
    assert resources_of(PLAN, tmp_path, limit_minutes=60).minutes == 184


def test_without_submitit_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: object, **kwargs: object) -> object:
        if name.partition(".")[0] == "submitit":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(NoCluster, match=r"\[slurm\]"):
        submit(run, "861", Options(out=tmp_path), resources_of(PLAN, tmp_path))


def test_dry_run_shows_the_job_and_hands_nothing_in(target: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["reproduce", target, "--seeds", "1", "--scale", "small", "--cluster", "slurm", "--partition", "gpu"]
    done = CliRunner().invoke(main, [*arguments, "--dry-run", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert '"slurm_partition": "gpu"' in done.output and "dry run" in done.output and not out.exists()


def test_a_job_runs_the_command_again_without_the_cluster(target: str, tmp_path: Path) -> None:
    """submitit's debug executor runs the job here; a dry run shows that the options arrive whole."""
    pytest.importorskip("submitit")
    options = Options(seeds="1", scale="small", dry_run=True, cluster="debug", out=tmp_path / "out")
    job = submit(run, target, options, resources_of(PLAN, tmp_path / "out"), "debug")
    assert job.result() == 0


def test_no_slurm_here_is_said_plainly(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoCluster, match="handed in"):
        submit(run, target, Options(out=tmp_path), resources_of(PLAN, tmp_path), "slurm")
