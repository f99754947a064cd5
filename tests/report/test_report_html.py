"""The page: well formed, self-contained, safe, small, with the answer on top and everything reachable."""

from __future__ import annotations

import re

import pytest
from report_pages import Page

from auditor.report import html
from reports.gallery.examples import EXAMPLES

ASSETS = ("report.css", "report.js", "index.js")


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_page_is_well_formed_and_complete(name, documents):
    document = documents[name]
    page = Page(html.render(document))
    assert page.all("body", cls=f"v-{html.slug(document['verdict'])}")
    assert len(page.all("details", cls="finding")) == len(document["findings"])
    assert len([1 for tag, a in page.elements if tag == "tr" and "s-" in (a.get("class") or "")]) == 9, "the board"
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    for attributes in page.all("a"):
        target = attributes["href"]
        assert target.startswith("https://") or target[1:] in ids, f"dead link {target}"


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_verdict_first_and_not_checked_second(name, documents):
    document = documents[name]
    words = Page(html.render(document)).words
    verdict, second = words.index(document["reason"]), words.index("Not checked:")
    assert verdict < second < words.index("What was asked")


def test_page_loads_nothing(documents):
    for document in documents.values():
        page = Page(html.render(document))
        for tag, attributes in page.elements:
            assert tag not in {"link", "iframe", "img", "object", "embed", "base"}
            assert not {"src", "srcset", "action", "background", "poster"} & set(attributes), (tag, attributes)
            assert not any(key.startswith("on") for key in attributes), "no inline handlers"
        styles = html.asset("report.css")
        assert "url(" not in styles and "@import" not in styles


def test_policy_allows_the_one_script_of_the_page(documents):
    page = Page(html.render(documents["clean"]))
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert len(page.scripts) == 1
    assert html.script_hash(page.scripts[0]) in policy and "default-src 'none'" in policy


def test_hostile_text_stays_text(hostile):
    page = Page(html.render(hostile))
    assert len(page.scripts) == 1 and "alert" not in page.scripts[0]
    assert not page.all("img") and not page.all("b", onerror="")
    assert "<script>alert(1)</script>" in page.words, "shown as it stands"
    assert all(a["href"].startswith(("https://github.com/openai/", "#")) for a in page.all("a"))
    assert "\x1b" not in html.render(hostile) and "\u202e" not in html.render(hostile)
    assert "{{ 7*7 }}" in page.words and "49" not in {w for w in page.words.split() if w == "49"}


def test_address_that_is_no_https_is_not_linked(violation):
    violation["findings"][0]["evidence"][0]["url"] = "javascript:alert(1)"
    violation["submission"]["url"] = "data:text/html,x"
    assert not [a for a in Page(html.render(violation)).all("a") if not a["href"].startswith(("https:", "#"))]


def test_failures_are_open_and_passes_are_folded(documents):
    page = Page(html.render(documents["not-eligible"]))
    for attributes in page.all("details", cls="finding"):
        assert ("open" in attributes) == (attributes["data-status"] in ("fail", "warn")), attributes["id"]
    assert "open" not in page.all("details", cls="g-pass")[0]


def test_filters_count_what_is_there(documents):
    document = documents["not-eligible"]
    page = Page(html.render(document))
    offered = {a["value"] for a in page.all("input", name="status")}
    assert offered == {html.slug(status) for status, count in document["counts"].items() if count}
    assert f"fail {document['counts']['fail']}" in page.words


def test_size_limits(documents, large):
    for name, document in documents.items():
        assert len(html.render(document).encode()) < 200_000, name
    assert sum(len(html.asset(name).encode()) for name in ASSETS) <= 41_000
    assert len(Page(html.render(large)).all("details", cls="finding")) == 500


def test_board_rows_lead_to_their_finding(documents):
    page = Page(html.render(documents["violation"]))
    assert any(a["href"] == "#PG-C3-score-first" for a in page.all("a"))
    assert page.all("details", id="PG-C3-score-first", cls="s-fail")


def test_timelines_are_drawn_side_by_side(documents):
    page = Page(html.render(documents["violation"]))
    assert len(page.all("section", cls="loop")) == 3, "training steps, chunks, epochs"
    score = re.findall(r"k-score\b", html.render(documents["violation"]).split("</style>")[1])
    assert len(score) == 1 + 16, "one symbolic score, sixteen executed ones"
    assert "late" in page.words or page.all("rect", cls="o-late")


def test_plots_have_axes_units_and_the_claim(documents):
    words = Page(html.render(documents["clean"])).words
    for label in ("training step", "bits per byte", "share of the stream scored, %", "seconds", "cap 16,000,000",
                  "600 s each", "claimed 1.0953"):  # fmt: skip
        assert label in words, label


def test_copy_text_is_the_comment(documents):
    from auditor.report.markdown import comment

    page = html.render(documents["clean"])
    area = re.search(r'<textarea id="markdown"[^>]*>(.*?)</textarea>', page, re.DOTALL)[1]
    import html as stdlib_html

    assert stdlib_html.unescape(area) == comment(documents["clean"])


def test_short_addresses():
    base = "https://github.com/openai/parameter-golf"
    assert html.short_url(f"{base}/pull/549#issuecomment-1") == "PR 549 comment"
    assert html.short_url(f"{base}/issues/1017") == "issue 1017"
    assert html.short_url("https://example.org/x") == "example.org/x"
