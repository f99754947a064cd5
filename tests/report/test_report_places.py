"""Excerpts and permalinks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.documents.model import TrainLog
from auditor.findings import Evidence
from auditor.report.places import MAX_LINES, MAX_WIDTH, Places, permalink
from reports.gallery.examples import FIRST, SCRIPT, clean


@pytest.fixture
def places() -> Places:
    case = clean().case
    case.logs.append(TrainLog("a.log", [f"line {i}" for i in range(1, 101)]))
    return Places(case, "abc123")


def numbers(block: dict) -> list[int]:
    return [line["number"] for line in block["lines"]]


def test_context_around_a_line(places):
    (block,) = places.excerpts([Evidence("a.log", 50, "line 50", "here")])
    assert numbers(block) == [48, 49, 50, 51, 52] and block["note"] == "here"
    assert [line["mark"] for line in block["lines"]] == [False, False, True, False, False]


@pytest.mark.parametrize(("line", "expected"), [(1, [1, 2, 3]), (100, [98, 99, 100])])
def test_context_stops_at_the_ends(places, line, expected):
    assert numbers(places.excerpts([Evidence("a.log", line)])[0]) == expected


def test_neighbours_share_a_block_and_strangers_do_not(places):
    blocks = places.excerpts(
        [Evidence("a.log", 10), Evidence("a.log", 14), Evidence("a.log", 60), Evidence(SCRIPT, 61)]
    )
    assert [len([1 for line in block["lines"] if line["mark"]]) for block in blocks[:2]] == [2, 1]
    assert blocks[0]["url"].endswith("#L10-L14")


def test_text_that_is_not_in_the_file_gets_no_false_context(places):
    (block,) = places.excerpts([Evidence("a.log", 50, "something else entirely")])
    assert [line["text"] for line in block["lines"]] == ["something else entirely"]


@pytest.mark.parametrize("line", [0, 101, 10_000])
def test_line_outside_the_file(places, line):
    (block,) = places.excerpts([Evidence("a.log", line, "as seen")])
    assert [text["text"] for text in block["lines"]] == ["as seen"]


def test_file_that_is_not_there(places):
    (block,) = places.excerpts([Evidence("nowhere.log", 3, "", "there is no log of seed 7")])
    assert block["lines"][0]["text"] == "" and block["note"] == "there is no log of seed 7"


def test_absence_as_evidence_has_no_lines(places):
    (block,) = places.excerpts([Evidence(f"{SCRIPT.rsplit('/', 1)[0]}", None, "", "no submission.json")])
    assert block["start"] is None and block["lines"] == [] and "#L" not in block["url"]


def test_packed_lines_are_cut(places):
    places._lines["wide.py"] = ["x" * 60_000]
    (block,) = places.excerpts([Evidence("wide.py", 1)])
    assert len(block["lines"][0]["text"]) == MAX_WIDTH


def test_source_comes_from_the_script(places):
    (block,) = places.excerpts([Evidence(SCRIPT, FIRST)])
    assert any("def evaluate_with_ttt" in line["text"] for line in block["lines"])


@given(st.lists(st.integers(min_value=-3, max_value=130), max_size=30))
def test_every_marked_line_is_shown(lines):
    case = clean().case
    case.logs.append(TrainLog("a.log", [f"line {i}" for i in range(1, 101)]))
    blocks = Places(case).excerpts([Evidence("a.log", line, "") for line in lines])
    shown = {line["number"] for block in blocks for line in block["lines"] if line["mark"]}
    assert {line for line in lines if 1 <= line <= 100} <= shown
    assert all(len(block["lines"]) <= MAX_LINES for block in blocks)


def test_permalinks_quote_names_and_know_layers():
    base = "https://github.com/openai/parameter-golf/blob/abc"
    assert permalink("abc", "records/a b#1/t.py", 3, 5) == f"{base}/records/a%20b%231/t.py#L3-L5"
    assert permalink("abc", "t.py!b85!lzma", 3) == f"{base}/t.py"
    assert permalink("", "t.py", 3) is None
