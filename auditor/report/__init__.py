"""Reports: one JSON document per review (`document`), rendered to terminal, Markdown, HTML and SARIF.

Every renderer takes the document and nothing else; nothing heavy is imported before it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from auditor.report.model import document

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WRITERS", "document", "plain", "show"]


def _html(review: dict[str, Any]) -> str:
    from auditor.report.html import render

    return render(review)


def _json(review: dict[str, Any]) -> str:
    from auditor.report.as_json import render

    return render(review)


def _markdown(review: dict[str, Any]) -> str:
    from auditor.report.markdown import comment

    return comment(review)


def _sarif(review: dict[str, Any]) -> str:
    from auditor.report.sarif import render

    return render(review)


#: Format -> (file name ending, renderer from document to text).
WRITERS: Mapping[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "html": ("html", _html),
    "json": ("json", _json),
    "markdown": ("md", _markdown),
    "sarif": ("sarif", _sarif),
}


def plain(text: str) -> str:
    """One line of untrusted text, safe to print on a terminal."""
    from auditor.report.text import one_line

    return one_line(text)


def show(review: dict[str, Any], console: Console, verbose: bool = False) -> None:
    """Print a document on a terminal."""
    from auditor.report.terminal import show as show_on

    show_on(review, console, verbose=verbose)
