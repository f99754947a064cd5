"""The environment record and GPU samples, with a program called nvidia-smi that answers as the real one does."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from auditor.reproduce.compare import reproduce
from auditor.reproduce.contained import EVENTS
from auditor.reproduce.environment import digest, environment_record, gpu_sample, gpus
from auditor.reproduce.measure import Measured, measure
from auditor.reproduce.plan import make_rerun_plan
from auditor.submission import Submission
from tests.reproduce.conftest import case_of
from tests.reproduce.programs import CLEAN

_SMI = """#!/bin/sh
case "$*" in
  *utilization.gpu*) for i in 0 1 2 3 4 5 6 7; do echo "9$i, 5120$i, [N/A]"; done ;;
  *driver_version*) for i in 0 1 2 3 4 5 6 7; do echo "$i, {name}, 550.90.07, 81559, 1980, 700.00, 00000000:0$i:00.0"; done ;;
  *topo*) echo "GPU0 NV18" ;;
  *) exit 9 ;;
esac
"""


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def put(name: str = "NVIDIA H100 80GB HBM3", text: str = _SMI) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(text.replace("{name}", name))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def test_record_names_every_gpu_and_what_decides_a_number(smi) -> None:
    smi()
    record = environment_record(case_of(CLEAN).submission)
    assert len(record["gpus"]) == 8 and record["gpus"][7]["name"] == "NVIDIA H100 80GB HBM3"
    assert record["gpus"][0]["driver_version"] == "550.90.07" and record["topology"] == "GPU0 NV18"
    assert record["deciding_packages"]["numpy"] and json.loads(json.dumps(record)) == record


def test_samples_are_averaged_over_the_run(smi, tmp_path: Path) -> None:
    smi()
    sample = gpu_sample()
    assert sample["utilisation"] == [90, 91, 92, 93, 94, 95, 96, 97] and sample["power_w"] == [None] * 8
    events = [{"t": float(i), "kind": "gpu", **sample} for i in range(3)] + [{"kind": "end", "codes": [0], "t": 3}]
    (tmp_path / EVENTS).write_text("\n".join(map(json.dumps, events)) + "\n")
    made = measure(tmp_path, "1")
    assert made.gpu["utilisation"] == {"mean": 93.5, "max": 97, "samples": 3}
    assert made.gpu["memory_mib"]["max"] == 51207 and "power_w" not in made.gpu


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 6\n", "#!/bin/sh\necho No devices were found; exit 0\n"])
def test_a_driver_that_fails_is_no_gpu(smi, text: str) -> None:
    smi(text=text)
    assert gpu_sample() is None and gpus() is None


@pytest.mark.parametrize(
    ("name", "comparable"), [("NVIDIA H100 80GB HBM3", True), ("NVIDIA H100 PCIe", False), ("NVIDIA A100", False)]
)
def test_only_eight_h100_sxm_are_what_the_claim_is_about(smi, tmp_path: Path, name: str, comparable: bool) -> None:
    smi(name)
    case = case_of(CLEAN)
    plan = make_rerun_plan(case, ("1",), data=tmp_path)
    found = reproduce(case, plan, [Measured("1", False)], environment_record(case.submission))
    assert found.comparable is comparable


def test_a_folder_and_a_clone_have_one_digest(tmp_path: Path) -> None:
    given = case_of(CLEAN).submission
    for path in given.files:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(given.read(path))
    assert digest(Submission.from_folder(tmp_path / given.folder)) == digest(given)
    main = tmp_path / given.main_script
    main.write_bytes(main.read_bytes() + b"#")
    assert digest(Submission.from_folder(tmp_path / given.folder)) != digest(given)
