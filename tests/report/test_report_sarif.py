"""SARIF: valid by the standard, within GitHub's limits, stable under edits elsewhere in the file."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import jsonschema
import pytest

from auditor.report import sarif

SCHEMA = json.loads((Path(__file__).parent / "sarif_subset.schema.json").read_text(encoding="utf-8"))


def check(log: dict) -> dict:
    """The single run of a valid log."""
    jsonschema.Draft202012Validator(SCHEMA).validate(log)
    (run,) = log["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


@pytest.mark.parametrize("name", ["clean", "violation", "not-eligible", "needs-review", "error"])
def test_valid_for_every_verdict(name, documents):
    run = check(json.loads(sarif.render(documents[name])))
    assert len(run["results"]) == len(documents[name]["findings"])


def test_levels_and_kinds(documents):
    run = check(sarif.sarif([documents["not-eligible"]]))
    seen = {result["ruleId"]: (result["kind"], result["level"]) for result in run["results"]}
    assert seen["PG-S-cap"] == ("fail", "error")
    assert seen["PG-P-log-provenance"] == ("review", "none")
    assert seen["PG-C3-score-first"] == ("open", "none"), "unknown is open, not passed"
    assert seen["PG-T-eval"] == ("pass", "none")


def test_evidence_chain_is_a_code_flow(documents):
    run = check(sarif.sarif([documents["violation"]]))
    result = run["results"][0]
    steps = [
        step["location"]["physicalLocation"]["region"]["startLine"]
        for step in result["codeFlows"][0]["threadFlows"][0]["locations"]
    ]
    assert len(steps) == 3 and steps == sorted(steps)
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("/train_gpt.py")
    assert len(result["relatedLocations"]) == 2


def test_fingerprint_ignores_line_numbers_but_not_text(violation):
    moved, changed = copy.deepcopy(violation), copy.deepcopy(violation)
    for line in moved["findings"][0]["evidence"][0]["lines"]:
        line["number"] += 40
    for line in changed["findings"][0]["evidence"][0]["lines"]:
        line["text"] = line["text"].replace("optimizer", "sgd")
    marks = [
        sarif.sarif([document])["runs"][0]["results"][0]["partialFingerprints"]
        for document in (violation, moved, changed)
    ]
    assert marks[0] == marks[1] != marks[2]


def test_results_at_the_limit(large):
    many = [large] * 10
    (exact,) = sarif.sarif(many)["runs"]
    assert len(exact["results"]) == sarif.RESULT_LIMIT and "left out" not in json.dumps(exact["invocations"])
    log = sarif.sarif([*many, {**large, "findings": large["findings"][:1]}])
    (run,) = log["runs"]
    assert len(run["results"]) == sarif.RESULT_LIMIT
    assert "1 result left out" in json.dumps(run["invocations"])
    run["results"] = run["results"][:200]  # the standard asks the same of each; 5,000 take half a minute to check
    check(log)


def test_locations_at_the_limit(violation):
    block = violation["findings"][0]["evidence"][0]
    violation["findings"][0]["evidence"] = [
        {**block, "lines": [{"number": i, "text": f"line {i}", "mark": True, "note": ""}]} for i in range(1, 1502)
    ]
    result = check(sarif.sarif([violation]))["results"][0]
    assert 1 + len(result["relatedLocations"]) == sarif.LOCATION_LIMIT
    assert len(result["codeFlows"][0]["threadFlows"][0]["locations"]) == sarif.FLOW_LIMIT


def test_decoded_layer_names_the_shipped_file_and_no_line_of_it(violation):
    violation["findings"][0]["evidence"][0]["path"] += "!b85!lzma"
    location = check(sarif.sarif([violation]))["results"][0]["locations"][0]
    assert "region" not in location["physicalLocation"], "the line is one of the decoded layer"
    assert "decoded layer b85!lzma" in location["message"]["text"]
    assert location["physicalLocation"]["artifactLocation"]["uri"].endswith("train_gpt.py")


def test_hostile_text_is_plain(hostile):
    text = sarif.render(hostile)
    check(json.loads(text))
    assert "\x1b" not in text and "\u202e" not in text


def test_no_reviews_is_an_empty_log():
    assert check(sarif.sarif([]))["results"] == []
