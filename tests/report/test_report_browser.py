"""The pages in a real browser, where one is installed: no console error, filters and keys work, no sideways scroll."""

from __future__ import annotations

import html as stdlib_html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from auditor.report import html, index

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [pytest.mark.skipif(BROWSER is None, reason="no Chromium installed"), pytest.mark.slow]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--dump-dom",
         "--virtual-time-budget=4000"]  # fmt: skip
# Runs after the page's own script; the answers are read back from the dumped DOM.
PROBE = """
const out = {};
const key = (k) => dispatchEvent(new KeyboardEvent("keydown", { key: k, bubbles: true, cancelable: true }));
document.body.addEventListener("x", () => 0);
const press = (k) => (document.activeElement || document.body).dispatchEvent(
  new KeyboardEvent("keydown", { key: k, bubbles: true, cancelable: true }));
out.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
out.width = innerWidth;
%s
const pre = document.createElement("pre"); pre.id = "probe"; pre.textContent = JSON.stringify(out);
document.body.append(pre);
"""
REVIEW = """
press("j"); out.first = document.activeElement.closest(".finding")?.id;
press("j"); out.second = document.activeElement.closest(".finding")?.id;
press("k"); out.back = document.activeElement.closest(".finding")?.id;
press("f"); out.filter = document.activeElement.id;
const box = document.getElementById("filter"); box.value = "over the cap"; box.dispatchEvent(new Event("input"));
out.matching = [...document.querySelectorAll(".finding:not([hidden])")].map((f) => f.id);
out.shown = document.getElementById("shown").textContent;
box.value = "nothing has this"; box.dispatchEvent(new Event("input"));
out.none = !document.querySelector(".none").hidden; box.blur();
const before = getComputedStyle(document.body).backgroundColor; press("t"); press("t"); press("t");
out.theme = getComputedStyle(document.body).backgroundColor !== before || document.documentElement.dataset.theme;
press("?"); out.help = document.getElementById("keys").open;
"""
INDEX = """
out.rows = document.querySelectorAll("tbody tr:not([hidden])").length;
press("j"); out.first = document.activeElement.textContent;
document.querySelectorAll("th button")[3].click();
out.lowest = document.querySelector("tbody tr").cells[3].textContent;
document.querySelectorAll("th button")[3].click();
out.highest = document.querySelector("tbody tr").cells[3].textContent;
document.querySelector('input[value="clean"]').click();
out.without = document.querySelectorAll("tbody tr:not([hidden])").length;
"""


def probe(page: str, script: str, folder: Path, width: int = 1440) -> dict:
    """Answers of a script that runs inside the page; the page's policy is widened to let it."""
    own = html.script_hash(PROBE % script)
    page = page.replace("script-src '", f"script-src '{own}' '").replace(
        "</body>", f"<script>{PROBE % script}</script></body>"
    )
    frame = folder / "page.html"
    frame.write_text(page, encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", frame.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    found = re.search(r'<pre id="probe">(.*?)</pre>', dom, re.DOTALL)
    assert found, "the page's script stopped before the probe could answer"
    return json.loads(stdlib_html.unescape(found[1]))


def test_review_answers_to_keys_and_filters(documents, tmp_path):
    out = probe(html.render(documents["not-eligible"]), REVIEW, tmp_path)
    order = [finding["rule"] for finding in documents["not-eligible"]["findings"]]
    assert (out["first"], out["second"], out["back"]) == (order[0], order[1], order[0])
    assert out["filter"] == "filter" and out["matching"] == ["PG-S-cap"]
    assert out["shown"] == f"1 of {len(order)}" and out["none"] and out["theme"] and out["help"]


@pytest.mark.parametrize("width", [500, 1440])
def test_nothing_sticks_out_sideways(width, documents, hostile, tmp_path):
    for i, document in enumerate([documents["violation"], hostile]):
        folder = tmp_path / str(i)
        folder.mkdir()
        out = probe(html.render(document), "", folder, width)
        assert out["overflow"] <= 0, f"{out['overflow']} px too wide at {out['width']} px"


def test_index_sorts_and_filters(documents, tmp_path):
    rows = [{**index.row(documents[name], f"{name}.html"), "label": f"#{i}", "bpb": 1 + i / 100}
            for i, name in enumerate(sorted(documents))]  # fmt: skip
    out = probe(index.render_index(rows), INDEX, tmp_path)
    assert out["rows"] == 5 and out["without"] == 4 and out["overflow"] <= 0
    assert (out["lowest"], out["highest"]) == ("1.0000", "1.0400")
