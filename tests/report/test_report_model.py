"""The document: complete, deterministic, as its schema says, for every verdict."""

from __future__ import annotations

import copy
import json

import jsonschema
import pytest

from auditor import report
from auditor.findings import Evidence, Finding, Severity, Status, Verdict, Witness
from auditor.report import as_json, board
from auditor.report.model import document
from auditor.review import Review
from reports.gallery import examples

NAMES = sorted(examples.EXAMPLES)


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(as_json.schema())
    return jsonschema.Draft202012Validator(as_json.schema())


@pytest.mark.parametrize("name", NAMES)
def test_document_keeps_its_schema(name, documents, validator):
    document = json.loads(as_json.render(documents[name]))
    assert [f"{list(error.path)}: {error.message}" for error in validator.iter_errors(document)] == []
    assert document == documents[name], "what is written is what the renderers see"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "FINE"),
        (("findings", 0, "status"), "ok"),
        (("findings", 0, "evidence", 0, "url"), "javascript:alert(1)"),
        (("submission", "pr"), "861"),
        (("series", "training", 0, "val_bpb", 0), [1.0, 2.0]),
        (("timelines", "static", "root"), {"type": "loop"}),
        (("surprise",), 1),
    ],
)
def test_schema_refuses_what_is_no_review(path, value, violation, validator):
    broken = copy.deepcopy(violation)
    spot = broken
    for step in path[:-1]:
        spot = spot[step]
    spot[path[-1]] = value
    assert list(validator.iter_errors(broken)), f"{path} = {value!r} went unnoticed"


def test_same_review_same_bytes():
    first, second = (as_json.render(document(examples.violation(), "2026-05-20")) for _ in range(2))
    assert first == second


def test_findings_come_gravest_first(documents):
    order = [(f["status"], f["severity"]) for f in documents["not-eligible"]["findings"]]
    assert order[0] == ("fail", "not record-eligible")
    statuses = [status for status, _ in order]
    assert statuses == sorted(statuses, key=["fail", "warn", "unknown", "pass", "not applicable"].index)


def test_rule_metadata_reaches_the_finding(documents):
    finding = documents["violation"]["findings"][0]
    assert finding["rule"] == "PG-C3-score-first"
    assert finding["title"] != finding["rule"] and finding["statement"]
    assert 549 in finding["precedents"]["legal"] and finding["precedents"]["illegal"]
    assert all(url.startswith("https://") for url in finding["sources"])


def test_unknown_rule_is_reported_under_its_own_name():
    review = Review("x", Verdict.NEEDS_REVIEW, "r", findings=[Finding("PG-ZZ-nowhere", Status.WARN, "odd")])
    finding = document(review)["findings"][0]
    assert (finding["title"], finding["sources"], finding["family"]) == ("PG-ZZ-nowhere", [], "ZZ")


def test_error_review_has_every_part(documents, validator):
    error = documents["error"]
    assert error["exit_code"] == 4 and error["error"]["message"] == error["reason"]
    assert {row["state"] for row in error["board"]} == {"NOT PROVEN"}, "nothing read is nothing proven"
    assert not any(witness["testified"] for witness in error["witnesses"])


def test_permalinks_name_the_head_and_the_marked_lines(documents):
    block = documents["violation"]["findings"][0]["evidence"][0]
    first = examples.FIRST + 8
    assert block["url"] == (
        f"https://github.com/openai/parameter-golf/blob/{examples.HEAD}/{examples.SCRIPT}#L{first}-L{first + 3}"
    )
    assert [line["number"] for line in block["lines"] if line["mark"]] == [first, first + 2, first + 3]
    assert block["lines"][0]["number"] == first - 2, "context above"
    assert "optimizer.step()" in next(line["text"] for line in block["lines"] if line["mark"])


def test_folder_without_commit_has_no_permalinks():
    review = examples.clean()
    review.submission.head, review.submission.pr = "", None
    made = document(review)
    assert made["submission"]["url"] is None
    assert all(block["url"] is None for finding in made["findings"] for block in finding["evidence"])


@pytest.mark.parametrize(
    ("status", "severity", "evidence", "word"),
    [
        (Status.PASS, Severity.ILLEGAL, (), "PROVEN"),
        (Status.UNKNOWN, Severity.ILLEGAL, (), "NOT PROVEN"),
        (Status.WARN, Severity.ILLEGAL, (), "SUSPECT"),
        (Status.FAIL, Severity.ILLEGAL, (Evidence("train_gpt.py", 3),), "VIOLATION"),
        (Status.FAIL, Severity.NOT_RECORD_ELIGIBLE, (), "NOT MET"),
        (Status.NOT_APPLICABLE, Severity.ILLEGAL, (), "NOT APPLICABLE"),
    ],
)
def test_board_words(status, severity, evidence, word):
    finding = Finding("PG-C1-causality", status, "s", severity=severity, evidence=evidence)
    made = document(Review("x", Verdict.NEEDS_REVIEW, "r", findings=[finding]))
    assert made["board"][0]["state"] == word
    assert {row["state"] for row in made["board"][1:]} == {"NOT PROVEN"}, "silence is never a pass"


def test_one_open_rule_keeps_a_row_from_being_proven():
    findings = [
        Finding("PG-C1-causality", Status.PASS, "fine", severity=Severity.ILLEGAL),
        Finding("PG-C1-doc-boundary", Status.UNKNOWN, "could not see"),
    ]
    row = document(Review("x", Verdict.NEEDS_REVIEW, "r", findings=findings))["board"][0]
    assert (row["state"], row["summary"], row["decided"]) == ("NOT PROVEN", "could not see", 1)


def test_size_over_the_cap_is_not_met_but_no_violation():
    finding = Finding("PG-S-cap", Status.FAIL, "over", severity=Severity.ILLEGAL, evidence=(Evidence("log", 1),))
    rows = {row["key"]: row for row in document(Review("x", Verdict.NOT_ELIGIBLE, "r", findings=[finding]))["board"]}
    assert rows["size"]["state"] == "NOT MET"


def test_every_family_of_the_rule_book_has_a_name():
    import rules

    assert {board.family(rule.id) for rule in rules.all_rules()} <= set(board.FAMILIES)


def test_witness_that_decided_nothing_is_absent_with_a_reason(documents):
    rows = {row["name"]: row for row in documents["not-eligible"]["witnesses"]}
    assert rows["documents"]["testified"] and rows["documents"]["decided"] > 0
    assert "does not parse" in rows["static analysis"]["absent_because"]
    assert rows["CPU run"]["absent_because"] == "left out with --no-run"


def test_not_a_number_never_reaches_the_document():
    review = examples.clean()
    run = review.case.runs[0]
    run.results[-1] = (
        copy.replace(run.results[-1], val_bpb=float("nan")) if hasattr(copy, "replace") else run.results[-1]
    )
    review.case.statistics = {"p": float("nan"), "t": float("inf"), "who": Witness.RUN, "ok": True}
    made = document(review)
    assert made["statistics"] == {"p": None, "t": None, "who": "CPU run", "ok": True}
    as_json.render(made)  # allow_nan=False inside


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "review/9"}', "\x00"])
def test_load_names_what_is_wrong(text):
    with pytest.raises(as_json.NotAReview, match=r"some\.json"):
        as_json.load(text, "some.json")


def test_load_reads_what_render_wrote(documents):
    assert as_json.load(as_json.render(documents["clean"])) == documents["clean"]


@pytest.mark.parametrize("kind", sorted(report.WRITERS))
@pytest.mark.parametrize("name", NAMES)
def test_every_format_renders_every_verdict(kind, name, documents):
    suffix, render = report.WRITERS[kind]
    text = render(documents[name])
    assert documents[name]["verdict"] in text and suffix
    assert render(documents[name]) == text


def test_unknown_carries_no_remedy_that_reads_like_an_accusation():
    findings = [Finding("PG-C2-hashed-ngram-cache", status, "s") for status in (Status.UNKNOWN, Status.WARN)]
    made = document(Review("x", Verdict.NEEDS_REVIEW, "r", findings=findings))["findings"]
    assert {finding["status"]: bool(finding["remedy"]) for finding in made} == {"unknown": False, "warn": True}
