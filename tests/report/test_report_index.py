"""The index over many reviews."""

from __future__ import annotations

import time

import pytest
from report_pages import HOSTILE, Page, poison

from auditor.report import html, index


@pytest.fixture(scope="module")
def rows(documents):
    found = []
    for i in range(2000):
        name = sorted(documents)[i % 5]
        found.append({**index.row(documents[name], f"pr/{i}.html", f"code {i // 4}"), "label": f"#{i}"})
    return found


def test_two_thousand_rows_quickly(rows):
    index.render_index(rows[:2])
    start = time.perf_counter()
    text = index.render_index(rows)
    assert time.perf_counter() - start < 3
    assert len(text.encode()) < 1_940_000, "the page that this one has to beat weighs 1.94 MB"
    page = Page(text)
    assert len([1 for tag, a in page.elements if tag == "tr" and "data-t" in a]) == 2000


def test_what_needs_a_person_comes_first(rows):
    page = Page(index.render_index(rows))
    verdicts = [a["class"] for a in page.all("tr") if "data-t" in a]
    order = ["v-error", "v-needs-review", "v-violation", "v-not-eligible", "v-clean"]
    assert verdicts == sorted(verdicts, key=order.index)


def test_counts_and_groups(rows, documents):
    page = Page(index.render_index(rows))
    assert {a["value"] for a in page.all("input", name="verdict")} == {
        html.slug(document["verdict"]) for document in documents.values()
    }
    assert "CLEAN 400" in page.words and "PG-S-cap (400)" in page.words


def test_failed_rules_can_be_filtered(rows):
    page = Page(index.render_index(rows))
    marked = [a for a in page.all("tr") if "PG-C3-score-first" in (a.get("data-r") or "").split()]
    assert len(marked) == 400 and {a["class"] for a in marked} == {"v-violation"}


@pytest.mark.parametrize("href", ["javascript:alert(1)", "/etc/passwd", "https://evil.example", "\\\\host\\x", "a:b"])
def test_rows_lead_nowhere_outside(href, documents):
    page = Page(index.render_index([index.row(documents["clean"], href)]))
    assert [a for a in page.all("a") if not a["href"].startswith("#")] == []


def test_hostile_rows_stay_text(documents):
    page = Page(index.render_index([index.row(poison(documents["violation"]), "a b.html")], title=HOSTILE))
    assert len(page.scripts) == 1 and "alert(1)" not in page.scripts[0] and not page.all("img")
    assert page.all("a", href="a%20b.html")


def test_no_rows_is_a_page():
    assert "0 submissions" in Page(index.render_index([])).words
