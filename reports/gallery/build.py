"""Renders the gallery: `python -m reports.gallery.build [--check]` from the repository root.

`--check` compares instead of writing, so that the examples never fall behind the renderers.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from auditor import report
from auditor.report.index import render_index, row
from reports.gallery.examples import EXAMPLES

FOLDER = Path(__file__).parent
DATE = "2026-05-20"
# Every verdict as a page, one review in every other format.
COMPLETE = "violation"


def rendered() -> dict[str, str]:
    """File name -> content of the whole gallery."""
    files: dict[str, str] = {}
    rows = []
    for name, make in EXAMPLES.items():
        document = report.document(make(), generated=DATE)
        rows.append(row(document, f"{name}.html"))
        for kind, (suffix, render) in report.WRITERS.items():
            if kind == "html" or name == COMPLETE:
                files[f"{name}.{suffix}"] = render(document)
        if name == COMPLETE:
            files[f"{name}.txt"] = terminal(document)
    files["index.html"] = render_index(rows, "Gallery of invented reviews", DATE)
    return files


def terminal(document: dict, width: int = 100, verbose: bool = False) -> str:
    """What a terminal of this width shows, without colours."""
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    report.show(document, console, verbose=verbose)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def main() -> int:
    """Write or check the gallery; 1 when something is out of date."""
    stale = []
    for name, text in rendered().items():
        path = FOLDER / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    print("\n".join(stale) or "up to date")
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
