"""A re-run as a witness: the rule's answer, the document, and every rendering of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from auditor.casefile import Call, build_case
from auditor.commands.reproduce import write
from auditor.findings import Status, Witness
from auditor.judge import examine
from auditor.report import document
from auditor.report.as_json import schema
from auditor.report.html import render
from auditor.report.markdown import comment
from auditor.reproduce.compare import reproduce
from auditor.reproduce.measure import Artifact, Clocks, Measured
from auditor.reproduce.plan import make_rerun_plan
from auditor.reproduce.testimony import NotThisSubmission, default_folder, find_reproduction
from auditor.review import review_submission
from rules import rule
from rules.measures import headline
from tests.reproduce.conftest import case_of
from tests.reproduce.programs import BETTER_BPB, CLEAN

H100 = {"gpus": [{"name": "NVIDIA H100 80GB HBM3"}] * 8, "deciding_packages": {"torch": "2.9.1"}, "python": "3.12.3"}
RULE = "PG-P-reproducibility"


def seed(name: str, bpb: float, **change: Any) -> Measured:
    made = Measured(
        name,
        True,
        (0,),
        clocks=Clocks(1, 20, 600, 590, 640, 641, 900, 901),
        printed={"val_bpb": bpb, "digits": 8, "model_bytes": 9000, "train_seconds": 580.0, "steps": 100},
        curve=[(step, 7.0 - step / 20) for step in range(0, 100, 10)],
        clock_pairs=[(290.0, 290.1), (289.9, 290.0)],
        artifact=Artifact("final_model.int8.ptz", 9000, how="written, then read back"),
        code_bytes=5000,
        local_code_bytes=5000,
        trusted={
            "status": "scored",
            "adapter": "model(ids)",
            "scores": [{"windows": "rows of 1024", "bpb": bpb}],
            "causality": {"largest_change": 0.0},
        },
        inotify=True,
    )
    return replace(made, **change)


def rerun_of(folder: Path, worse: float = 0.0, scale: str = "full", environment: dict = H100, **change: Any) -> Path:
    """A folder as `auditor reproduce` leaves it, of a re-run whose mean is `worse` than the claim by so many BPB."""
    case = case_of(CLEAN)
    claim = headline(case).value
    data = folder if scale == "full" else None
    plan = make_rerun_plan(case, ("1", "2"), data=data, scale=scale, ranks=8 if scale == "full" else 1)
    seeds = [seed(name, round(claim + worse, 8), **change) for name in plan.seeds]
    write(reproduce(case, plan, seeds, environment), folder)
    return folder


def finding_of(folder: Path):
    case = build_case(case_of(CLEAN).submission, Call(static=False, reproduction=folder))
    return examine(rule(RULE), case), case


@pytest.mark.parametrize(
    ("worse", "expected"),
    [(0.0, Status.PASS), (0.0009, Status.PASS), (0.002, Status.WARN), (0.03, Status.FAIL), (-0.01, Status.PASS)],
)
def test_eight_h100_decide_by_the_bands_of_the_rule(tmp_path: Path, worse: float, expected: Status) -> None:
    found, case = finding_of(rerun_of(tmp_path, worse))
    assert found.status is expected and found.witness is Witness.REPRODUCTION
    assert Witness.REPRODUCTION not in case.absent
    assert expected is Status.PASS or found.evidence


def test_a_rehearsal_confirms_nothing_and_catches_a_misreport(tmp_path: Path) -> None:
    found, _ = finding_of(rerun_of(tmp_path / "a", scale="small", environment={}))
    assert found.status is Status.UNKNOWN and "rehearsal" in found.summary
    printed_less = {"artifact": Artifact("final_model.int8.ptz", 30_000)}
    found, _ = finding_of(rerun_of(tmp_path / "b", scale="small", environment={}, **printed_less))
    assert found.status is Status.WARN and any("30,000" in item.note for item in found.evidence)


def test_other_hardware_leaves_the_claim_open(tmp_path: Path) -> None:
    found, _ = finding_of(rerun_of(tmp_path, 0.03, environment={"gpus": [{"name": "NVIDIA A100"}] * 8}))
    assert found.status is Status.UNKNOWN and "eight H100" in found.explanation


def test_a_re_run_of_other_files_is_refused_and_said_so(tmp_path: Path) -> None:
    folder = rerun_of(tmp_path)
    other = case_of(BETTER_BPB).submission
    with pytest.raises(NotThisSubmission, match="other files"):
        find_reproduction(other, folder)
    case = build_case(other, Call(static=False, reproduction=folder))
    assert "other files" in case.absent[Witness.REPRODUCTION]
    assert examine(rule(RULE), case).status is Status.UNKNOWN


@pytest.mark.parametrize("content", ["", "{", "[]", '{"reproduction": {"verdict": "REPRODUCED"}}'])
def test_a_damaged_result_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "reproduction.json").write_text(content)
    with pytest.raises(NotThisSubmission, match=r"reproduction\.json"):
        find_reproduction(case_of(CLEAN).submission, tmp_path)


def test_a_re_run_is_found_where_the_command_puts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submission = case_of(CLEAN).submission
    monkeypatch.chdir(tmp_path)
    assert find_reproduction(submission) is None
    plan = make_rerun_plan(case_of(CLEAN), ("1",), scale="small")
    rerun_of(default_folder(plan.digest, "small"), scale="small", environment={})
    assert find_reproduction(submission)["scale"] == "small"
    (tmp_path / "data").mkdir()
    rerun_of(default_folder(plan.digest, "full"))
    assert find_reproduction(submission)["scale"] == "full"
    assert find_reproduction(case_of(BETTER_BPB).submission) is None


def test_document_and_renderings_show_every_number(tmp_path: Path) -> None:
    hostile = {"reason": "<script>alert(1)</script> @everyone"}
    folder = rerun_of(tmp_path, 0.03, **hostile)
    review = review_submission(case_of(CLEAN).submission, call=Call(static=False, reproduction=folder))
    made = document(review)
    errors = [error.message for error in jsonschema.Draft202012Validator(schema()).iter_errors(made)]
    assert errors == []
    assert made["reproduction"]["verdict"] == "NOT REPRODUCED" and made["reproduction"]["comparable"]
    assert any(row["name"] == "reproduction" and row["testified"] for row in made["witnesses"])
    page, told = render(made), comment(made)
    assert "Training loss: claimed logs and re-run" in page and "Wall clock measured from outside" in page
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "### Re-run: NOT REPRODUCED" in told and "@everyone" not in told
    for check in made["reproduction"]["checks"]:
        assert check["source"] and check["subject"] in page


def test_documents_without_the_section_are_rendered_too() -> None:
    made = document(review_submission(case_of(CLEAN).submission, call=Call(static=False)))
    assert made["reproduction"] is None
    old = json.loads(json.dumps({key: value for key, value in made.items() if key != "reproduction"}))
    assert 'id="reproduction"' not in render(old) and "Re-run:" not in comment(old)
