"""Untrusted text: nothing acts on a screen or a page, nothing is lost."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.report import text


@given(st.text())
def test_visible_is_idempotent_and_encodable(raw):
    once = text.visible(raw)
    assert text.visible(once) == once
    once.encode("utf-8")
    assert not {c for c in once if unicodedata.category(c) == "Cc"} - {"\n", "\t"}


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_visible_leaves_ordinary_text_alone(raw):
    assert text.visible(raw) == raw


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31m", "\\x1b[31m"),
        ("a\u202eb", "a\\u202eb"),
        ("a\r\nb\rc", "a\nb\\x0dc"),
        ("\ud800", "\\ud800"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("\x9b2J", "\\x9b2J"),
        ("tag\U000e0041", "tag\\U000e0041"),
    ],
)
def test_dangerous_characters_are_spelled_out(raw, shown):
    assert text.visible(raw) == shown


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_one_line_is_one_line_of_limited_length(raw, limit):
    line = text.one_line(raw, limit)
    assert len(line) <= limit and "\n" not in line and "\t" not in line


def test_clean_walks_everything():
    assert text.clean({"a\x07": ["\x1b", {"b": "\u202e"}, 1, None]}) == {"a\\x07": ["\\x1b", {"b": "\\u202e"}, 1, None]}


@pytest.mark.parametrize(
    "url",
    ["javascript:alert(1)", "http://plain.example", "https://a b", 'https://a"onclick=', "//x", "", None, "HTTPS:evil",
     "data:text/html,x", " https://x", "https://x\n"],
)  # fmt: skip
def test_only_https_addresses_become_links(url):
    assert text.safe_url(url) == ""


def test_numbers_as_people_read_them():
    assert [text.number(v) for v in (16_000_000, 1.13256182, 0.5, None, -3.0)] == [
        "16,000,000", "1.132562", "0.5", "–", "-3"]  # fmt: skip
