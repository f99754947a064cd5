"""Programs that misreport are exposed by what is measured outside them; an honest one is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import (
    ADAPTED,
    BETTER_BPB,
    BIGGER_ARTIFACT,
    CLEAN,
    ONE_SEED_FAILS,
    SLOW_CLOCK,
    TRAIN_AT_EVALUATION,
)

from auditor.reproduce.checks import AGREES, DIFFERS, UNSEEN
from auditor.reproduce.compare import Outcome
from auditor.reproduce.render import markdown
from auditor.reproduce.state import load
from tests.reproduce.conftest import Rehearse, case_of


def statuses(found: object) -> dict[str, str]:
    return {check.subject: check.status for check in found.checks}


def test_honest_program_is_confirmed_number_by_number(rehearse: Rehearse, tmp_path: Path) -> None:
    found, [seed] = rehearse(CLEAN)
    assert found.verdict is Outcome.REPRODUCED, found.reason
    assert set(statuses(found).values()) == {AGREES}
    clocks = seed.clocks
    order = [clocks.first_output, clocks.first_step, clocks.training_stop, clocks.artifact_written, clocks.result]
    assert None not in order and order == sorted(order) and order[-1] <= clocks.end
    kept = tmp_path / "seed_42/attempt_1/files" / seed.artifact.path
    assert kept.stat().st_size == seed.artifact.bytes == seed.printed["model_bytes"]
    assert abs(seed.trusted["scores"][0]["bpb"] - seed.printed["val_bpb"]) < 1e-6
    assert "network namespace" in seed.layers
    assert "REPRODUCED" in markdown(found) and json.loads(json.dumps(found.as_dict()))["verdict"] == "REPRODUCED"


def test_a_printed_score_better_than_the_artifact_scores_is_exposed(rehearse: Rehearse) -> None:
    found, _ = rehearse(BETTER_BPB)
    assert found.verdict is Outcome.NOT
    assert [name for name, status in statuses(found).items() if status == DIFFERS] == ["val_bpb"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "subject"),
    [
        (SLOW_CLOCK, "training clock"),
        (BIGGER_ARTIFACT, "artifact bytes"),
        (TRAIN_AT_EVALUATION, "training data at evaluation"),
    ],
)
def test_other_misreports_are_exposed_and_nothing_else_is(rehearse: Rehearse, source: str, subject: str) -> None:
    found, _ = rehearse(source)
    assert found.verdict is Outcome.NOT
    assert [name for name, status in statuses(found).items() if status == DIFFERS] == [subject]


@pytest.mark.slow
def test_an_adapted_score_is_not_called_a_misreport(rehearse: Rehearse) -> None:
    found, _ = rehearse(ADAPTED)
    assert statuses(found)["val_bpb"] == UNSEEN
    assert found.verdict is Outcome.COULD_NOT and "final_int8_before" in found.reason


@pytest.mark.slow
def test_two_ranks_three_seeds_and_one_that_fails(rehearse: Rehearse) -> None:
    found, seeds = rehearse(ONE_SEED_FAILS, ("1", "2", "3"), ranks=2)
    assert [seed.codes for seed in seeds] == [(0, 0), (1, 1), (0, 0)]
    assert "seed two" in seeds[1].reason
    assert found.statistics["re_run"]["n"] == 2
    assert {check.scope for check in found.checks if check.subject == "val_bpb"} == {"seed 1", "seed 3"}
    assert found.verdict is Outcome.COULD_NOT


_RUN = """
import sys; sys.path[:0] = {paths!r}
from pathlib import Path
from programs import CLEAN
from tests.reproduce.conftest import case_of
from auditor.reproduce.plan import make_rerun_plan
from auditor.reproduce.rerun import rerun
case = case_of(CLEAN)
plan = make_rerun_plan(case, ("1", "2"), ranks=1, scale="small")
rerun(case, plan, Path({out!r}), tell=lambda text: print(text, flush=True))
"""


@pytest.mark.slow
def test_killed_between_and_within_seeds(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), str(root / "tests/reproduce")]
    command = [sys.executable, "-c", _RUN.format(paths=paths, out=str(tmp_path))]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    for line in first.stdout:
        if line.startswith("seed 2: started"):
            break
    time.sleep(3.0)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    finished = (tmp_path / "seed_1/attempt_1/events.jsonl").read_bytes()
    partial = (tmp_path / "seed_2/attempt_1/events.jsonl").read_bytes()
    assert b'"kind":"end"' in finished and b'"kind":"started"' in partial and b'"kind":"end"' not in partial
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "seed 1: ran before, kept" in told and "seed 2: ran after" in told
    assert (tmp_path / "seed_1/attempt_1/events.jsonl").read_bytes() == finished
    state = load(tmp_path, json.loads((tmp_path / "state.json").read_text())["key"], ("1", "2"))
    assert [item.stage for item in state.seeds.values()] == ["done", "done"] and state.seeds["2"].attempts == 2


def test_case_of_is_a_complete_package() -> None:
    case = case_of(CLEAN)
    assert case.submission.main_script and case.readme is not None and case.logs


@pytest.mark.slow
def test_rescoring_takes_the_given_artifact_not_the_programs_own(rehearse: Rehearse, tmp_path: Path) -> None:
    from auditor.reproduce.rescore import NotScored, rescore

    _, [seed] = rehearse(CLEAN)
    kept = tmp_path / "seed_42/attempt_1/files" / seed.artifact.path
    found = rescore(case_of(CLEAN), kept, scale="small")
    assert abs(found["scores"][0]["bpb"] - seed.printed["val_bpb"]) < 1e-6 and found["swapped"]
    broken = tmp_path / "broken.ptz"
    broken.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(NotScored, match=r"broken\.ptz"):
        rescore(case_of(CLEAN), broken, scale="small")
    with pytest.raises(NotScored, match="no file"):
        rescore(case_of(CLEAN), tmp_path / "absent", scale="small")
