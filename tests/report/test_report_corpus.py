"""Real submissions through every renderer: valid, well formed, within size."""

from __future__ import annotations

import json

import jsonschema
import pytest
from report_pages import Page

from auditor import report
from auditor.report import as_json
from auditor.review import review_target
from auditor.targets import resolve


@pytest.mark.corpus
@pytest.mark.parametrize("number", ["598", "610", "612", "644", "861"])
def test_real_submission_renders(number, repo):
    (target,) = resolve([number], repo)
    document = report.document(review_target(target))
    written = {kind: render(document) for kind, (_, render) in report.WRITERS.items()}
    jsonschema.Draft202012Validator(as_json.schema()).validate(json.loads(written["json"]))
    page = Page(written["html"])
    assert len(page.all("details", cls="finding")) == len(document["findings"]) > 50
    assert len(written["html"].encode()) < 400_000 and len(written["markdown"]) <= 65_536
    assert document["submission"]["head"] in written["markdown"]
