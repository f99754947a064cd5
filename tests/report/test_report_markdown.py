"""Comment, job summary and annotations: within GitHub's limits to the character, polite, and inert."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_pages import HOSTILE

from auditor.report import markdown

ZERO = "\u200b"


def fences(text: str) -> list[tuple[str, list[str]]]:
    """Code blocks of a text as (fence, lines), by the rules of CommonMark."""
    blocks, fence, lines = [], "", []
    for line in text.split("\n"):
        opened = re.match(r"^(`{3,})([^`]*)$", line)
        if fence and re.fullmatch("`{" + str(len(fence)) + ",} *", line):
            blocks.append((fence, lines))
            fence, lines = "", []
        elif fence:
            lines.append(line)
        elif opened:
            fence = opened[1]
    assert not fence, "a code block is never closed"
    return blocks


def prose(text: str) -> str:
    """A text without its code blocks and inline code."""
    text = re.sub(r"(?ms)^(`{3,})[^`\n]*\n.*?^\1`* *$", "", text)
    return re.sub(r"(?<![\\`])(`+)(?!`).*?(?<!`)\1(?!`)", "", text)


def test_verdict_and_what_was_not_checked_come_first(documents):
    for document in documents.values():
        first, second = markdown.comment(document).split("\n")[:2]
        assert first.startswith(f"## {document['verdict']}: ")
        assert second.startswith("**Not checked:** ")


def test_comment_says_how_to_appeal(documents):
    assert all("If a finding is wrong" in markdown.comment(document) for document in documents.values())


def test_evidence_is_a_permalink_with_three_to_eight_lines(documents):
    text = markdown.comment(documents["violation"])
    assert re.search(r"\[`train_gpt\.py:\d+`\]\(https://github\.com/openai/parameter-golf/blob/[0-9a-f]{40}/", text)
    blocks = fences(text)
    assert blocks and all(3 <= len(lines) <= 8 for _, lines in blocks)
    assert sum(line.startswith(">") for _, lines in blocks for line in lines) == 3


@pytest.mark.parametrize("limit", [65_536, 20_000, 9_000])
def test_comment_is_cut_by_whole_findings(large, limit):
    text = markdown.comment(large, limit)
    assert len(text) <= limit
    shown = re.findall(r"`PG-C3-made-up-(\d+)`", text)
    assert shown == [f"{i:03}" for i in range(len(shown))], "in order, the gravest kept"
    missing = int(re.search(r"Left out .*?: ([\d,]+) finding", text)[1].replace(",", ""))
    assert len(shown) + missing == 500
    assert fences(text) and text.count("Sentence") % 40 == 0, "no finding is cut in the middle"
    assert "If a finding is wrong" in text


def test_comment_exactly_at_the_limit_is_whole(violation):
    whole = markdown.comment(violation, 10**9)
    size = len(whole)
    assert markdown.comment(violation, size + 200) == whole
    violation["findings"][0]["explanation"] += "x" * 700
    assert len(markdown.comment(violation, size)) <= size
    assert "Left out" in markdown.comment(violation, size)


@given(st.integers(min_value=300, max_value=12_000))
def test_no_limit_is_ever_broken(limit):
    from auditor import report
    from reports.gallery.examples import not_eligible

    document = report.document(not_eligible())
    assert len(markdown.comment(document, limit)) <= limit
    assert len(markdown.summary_markdown(document, limit).encode()) <= limit


def test_job_summary_counts_bytes_not_characters(large):
    for finding in large["findings"]:
        finding["explanation"] = "é€😀 " * 400
    text = markdown.summary_markdown(large)
    assert markdown.SUMMARY_LIMIT * 0.9 < len(text.encode()) <= markdown.SUMMARY_LIMIT
    assert len(markdown.comment(large)) <= markdown.COMMENT_LIMIT


def test_hostile_text_is_inert(hostile):
    text = markdown.comment(hostile)
    outside = prose(text)
    assert "@octocat" not in outside and f"@{ZERO}octocat" in outside
    assert not re.search(r"(?<![\\&])#\d", outside) and "\\#123" not in outside
    assert "<script" not in outside and "<img" not in outside
    assert not re.search(r"(?<!\\)!\[", outside) and not re.search(r"(?<!\\)\]\((?!https://github\.com/)", outside)
    assert "https://evil" not in outside
    assert "\x1b" not in text and "\u202e" not in text
    assert not re.search(r"\bGH-\d", outside) and "$e" not in outside and ":smile:" not in outside


def test_hostile_text_cannot_add_table_cells(hostile):
    rows = [line for line in markdown.comment(hostile).split("\n") if line.startswith("| ")]
    cells = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert rows and cells <= {4, 6}


@given(st.lists(st.text(alphabet="`~ a\n", max_size=12), max_size=6))
def test_no_content_closes_its_fence(lines):
    lines = [line.replace("\n", " ") for line in lines]
    assert fences(markdown.fenced(lines, "text")) == [(markdown.fenced(lines).split("\n")[0], lines)]


@given(st.text(min_size=1))
def test_inline_code_is_one_run(raw):
    code = markdown.code(raw)
    if code:
        fence = re.match("`+", code)[0]
        inside = code[len(fence) : -len(fence)]
        assert code.endswith(fence) and all(len(run) != len(fence) for run in re.findall("`+", inside))
        assert "|" not in code and "\n" not in code


@pytest.mark.parametrize("start", ["- item", "+ item", "1. item", "12) item", "=====", "# head", "> quote", "* item"])
def test_prose_never_starts_a_block(start):
    assert re.match(r"\\|\d+\\|&gt;", markdown.text(start)), markdown.text(start)


def test_annotations_at_the_limit(large):
    for count, expected in ((49, 49), (50, 50), (51, 50), (500, 50)):
        part = {**large, "findings": large["findings"][:count]}
        lines = markdown.annotations(part)
        assert len(lines) == expected
        assert all(line.startswith("::error ") for line in lines[:49])
    assert "451 further findings" in markdown.annotations(large)[-1]


def test_annotations_are_escaped(violation):
    finding = violation["findings"][0]
    finding["summary"] = f"100%\nnext {HOSTILE}"
    finding["title"] = "a: b, c::error::d"
    finding["evidence"][0]["path"] = "records/a,b:c.py"
    (line,) = markdown.annotations(violation)
    assert "\n" not in line and "\x1b" not in line and "100%25%0Anext" in line
    properties = line.split("::")[1]
    assert "file=records/a%2Cb%3Ac.py" in properties and "a%3A b%2C c%3A%3Aerror%3A%3Ad" in properties


def test_unknown_is_a_notice_never_silence(documents):
    lines = markdown.annotations(documents["not-eligible"])
    assert sum(line.startswith("::notice") for line in lines) == documents["not-eligible"]["counts"]["unknown"] == 5


def test_many_open_rules_are_a_list_that_says_they_did_not_pass(documents):
    text = markdown.comment(documents["not-eligible"])
    assert "5 rules that nobody could decide (not passed, not failed)" in text
    assert all(f"`{rule}`" in text for rule in ("PG-C1-causality", "PG-D-val-in-train"))
