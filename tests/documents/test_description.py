"""Claims made only in the pull request's own text are compared with the logs like those of the README."""

from __future__ import annotations

import pytest

from auditor.casefile import Call, build_case
from auditor.documents.description import PATH, with_description
from auditor.documents.readme import read_readme
from auditor.submission import Submission
from rules.examples import overlaid

MARKDOWN = b"""# Small by the book - val_bpb 1.0412

| Seed | val_bpb | Total bytes |
|---|---|---|
| 42 | 1.04118273 | 15,618,207 |
| 1337 | 1.04093615 | 15,616,884 |
| 7 | 1.04000000 | 15,616,884 |
"""
PAGE = b"Small by the book\n\nSeed val_bpb Artifact\n42 (submitted) 1.04118273 15.62 MB\n\n7 1.04000000 15.61 MB\nMean 1.0406\n"


@pytest.mark.parametrize("text", [MARKDOWN, PAGE], ids=["markdown", "page saved as text"])
def test_seed_that_only_the_description_names_lacks_a_log(text):
    files = overlaid(
        {
            "submission.json": '{"author": "A", "github_id": "a", "val_bpb": 1.04118273}',
            "README.md": "# Small by the book\n",
        }
    )
    case = build_case(Submission.from_files(files, label="x"), Call(static=False, description=text))
    seeds = next(claim for claim in case.ledger if claim.subject == "seeds")
    assert seeds.status == "conflicts"
    assert "seed 7" in seeds.note and "seed 42" not in seeds.note
    assert any(quantity.source.path == PATH for quantity in seeds.claimed)


def test_readme_and_description_keep_their_own_sources():
    readme = read_readme("README.md", b"# R\n\n| Seed | val_bpb |\n|---|---|\n| 42 | 1.1000 |\n")
    both = with_description(readme, MARKDOWN)
    assert both.seeds["42"]["val_bpb"].source.path == "README.md"
    assert both.seeds["7"]["val_bpb"].source.path == PATH
    assert both.title == "R"


def test_unreadable_description_changes_nothing():
    files = overlaid({})
    plain = build_case(Submission.from_files(files, label="x"), Call(static=False))
    bent = build_case(Submission.from_files(files, label="x"), Call(static=False, description=b"\xff\xfe\x00\x01\x02"))
    assert [claim.status for claim in bent.ledger] == [claim.status for claim in plain.ledger]
