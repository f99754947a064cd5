"""The CPU run in the report: its section, the picture of its order, both witnesses side by side, in every format."""

from __future__ import annotations

import io
import json
from importlib.resources import files

import numpy as np
import pytest
from report_pages import Page
from rich.console import Console

from auditor import report
from auditor.dynamic import witness
from auditor.dynamic.attribution import Attribution, Explained, Printed
from auditor.dynamic.experiment import Experiment
from auditor.dynamic.plan import Plan, Scale
from auditor.dynamic.run import RunResult
from auditor.report import run_plot
from reports.gallery import examples

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def made_run(late: int = 0, label: str = "final_exact") -> witness.Testimony:
    printed = Printed(9, label, 2.5, 1.4, 8, f"{label} val_bpb:1.4")
    counted = Attribution(
        printed, "all", np.arange(1, 4097), np.ones(4096), np.ones(4096, int), 0, 2.5, 1.4, 9820, False, 0.0
    )
    other = Printed(5, "DIAGNOSTIC", 2.6, 1.5, 4, "DIAGNOSTIC val_bpb:1.5")
    plan = Plan({}, Scale(), notes={"iterations": ("20000", "6"), "kept": ("4", "4")})
    run = RunResult("finished", seconds=12.3, peak_bytes=400 << 20, attempts=1, plan=plan, dataset_bytes=np.ones(4097))
    return witness.Testimony(
        run, Explained([(other, None), (printed, counted)], 1), None, "", late, 4096, 4096, 0, Experiment(seconds=11.0)
    )


@pytest.fixture(params=["clean", "violation"])
def document(request):
    review = examples.EXAMPLES[request.param]()
    review.case.facts["run"] = made_run(4096 if request.param == "violation" else 0)
    return report.document(review)


def test_document_follows_the_schema(document):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("reports") / "schema" / "review.schema.json").read_text())
    jsonschema.validate(document, schema)
    assert document["run"]["scale"] == [{"name": "iterations", "full": "20000", "used": "6"}]
    assert [result["consists_of"] is None for result in document["run"]["results"]] == [True, False]


def test_page_shows_results_and_what_they_consist_of(document):
    page = Page(report.WRITERS["html"][1](document))
    assert "CPU run" in page.words and "no combination of recorded losses gives it" in page.words
    assert "every recorded score" in page.words and "1.400000" in page.words
    late = "4,096 had shaped the model" if document["run"]["late"] else "none had shaped the model"
    assert late in " ".join(page.words.split())


def test_other_formats_tell_the_run(document):
    markdown = report.WRITERS["markdown"][1](document)
    assert "**CPU run**" in markdown and "4,096 of 4,096 tokens count" in markdown
    console = Console(file=io.StringIO(), width=120)
    report.show(document, console)
    assert "CPU run  4,096 of 4,096 tokens count" in console.file.getvalue()


def test_both_witnesses_stand_side_by_side(document):
    questions = [point["question"] for point in document["agreement"]]
    assert len(questions) == len(set(questions)) == 7
    page = Page(report.WRITERS["html"][1](document))
    assert all(question in page.words for question in questions)


def test_run_that_was_not_made_is_not_told_as_one():
    document = report.document(examples.EXAMPLES["clean"]())
    assert document["run"] is None
    assert "**CPU run**" not in report.WRITERS["markdown"][1](document)


def test_stopped_run_says_why():
    review = examples.EXAMPLES["clean"]()
    review.case.facts["run"] = witness.Testimony(RunResult("stopped", "CPU time over 60 s"), absent="stopped")
    document = report.document(review)
    assert "CPU time over 60 s" in Page(report.WRITERS["html"][1](document)).words


def test_text_of_a_submission_stays_text():
    review = examples.EXAMPLES["violation"]()
    review.case.facts["run"] = made_run(label=HOSTILE)
    document = report.document(review)
    html = report.WRITERS["html"][1](document)
    assert "<script>alert(1)" not in html and "\x1b" not in html
    assert "\x1b" not in report.WRITERS["markdown"][1](document)


# -- the picture ---------------------------------------------------------------------------------------------------------


def mark(order: int, kind: str, *positions: tuple[int, int], counted=None, late=False, phase="evaluation"):
    found = [list(part) for part in positions]
    return {
        "order": order, "kind": kind, "phase": phase, "positions": found, "late": late, "counted": counted, "line": order
    }  # fmt: skip


def test_steps_phases_and_stops_are_drawn():
    marks = [
        mark(1, "Update", phase="training"),
        mark(2, "Score", (1, 101), counted=False, phase="after training"),
        mark(5, "Score", (1, 51), counted=True),
        mark(6, "Update", (1, 51)),
        mark(6, "Table", (1, 51)),
        mark(7, "Score", (51, 101), counted=True, late=True),
    ]
    stops = [
        {"order": 3, "kind": "Serialize", "text": "artifact written", "line": 3},
        {"order": 4, "kind": "Load", "text": "artifact read back", "line": 4},
    ]
    page = Page(run_plot.order_plot({"marks": marks, "marks_total": 10, "stops": stops}))
    for kind in ("train", "uncounted", "score", "update", "table", "late"):
        assert len(page.all("rect", cls=f"o-{kind}")) == 1 + 1, f"{kind}: one mark and the key of the legend"
    assert "training" in page.words and "evaluation" in page.words
    assert "artifact written" in page.words and "4 later steps are left out" in page.words


def test_timeline_without_positions_has_no_picture():
    assert not run_plot.order_plot({"marks": [mark(1, "Update", phase="training")], "marks_total": 1, "stops": []})
