"""Documents of the invented reviews, a hostile one and a large one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from report_pages import poison

from auditor import report
from reports.gallery.examples import EXAMPLES


@pytest.fixture(scope="session")
def documents() -> dict[str, dict[str, Any]]:
    """Name -> document of every example of the gallery."""
    return {name: report.document(make(), generated="2026-05-20") for name, make in EXAMPLES.items()}


@pytest.fixture
def violation(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A document of one's own to change."""
    return copy.deepcopy(documents["violation"])


@pytest.fixture
def hostile(violation: dict[str, Any]) -> dict[str, Any]:
    """The violation with hostile text in every free field."""
    return poison(violation)


@pytest.fixture
def large(violation: dict[str, Any]) -> dict[str, Any]:
    """500 findings, failures to the most part, with long explanations."""
    pattern = violation["findings"][0]
    violation["findings"] = [
        {**copy.deepcopy(pattern), "rule": f"PG-C3-made-up-{i:03}", "explanation": f"Sentence {i}. " * 40}
        for i in range(500)
    ]
    violation["counts"] = {**violation["counts"], "fail": 500, "pass": 0, "not applicable": 0}
    return violation
