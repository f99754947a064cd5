"""The document as JSON text, and the schema it keeps."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from auditor.errors import AuditorError
from auditor.report.model import FORMAT, document
from auditor.report.text import clean

to_json = document


class NotAReview(AuditorError):
    """A file that should hold a review does not; the message says what is wrong with it."""


def render(review: dict[str, Any]) -> str:
    """JSON text of a document, keys in the document's order, one trailing line end; UTF-8 safe."""
    return json.dumps(clean(review), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def load(text: str, name: str = "the file") -> dict[str, Any]:
    """A document from JSON text.

    Raises:
        NotAReview: the text is not JSON, not a review, or of a format this version does not know.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise NotAReview(f"{name} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        kind = found.get("format") if isinstance(found, dict) else type(found).__name__
        raise NotAReview(f"{name} is not a review of format {FORMAT!r} (it says {kind!r}); make it again")
    return found


@cache
def schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of the document."""
    return json.loads((files("reports") / "schema" / "review.schema.json").read_text(encoding="utf-8"))
