"""Terminal: fits its width, ends with the verdict, hides passes, and shows control codes instead of obeying them."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from auditor import report
from reports.gallery.examples import EXAMPLES


def shown(document: dict, width: int = 100, verbose: bool = False, colour: bool = False) -> str:
    console = Console(
        width=width, file=io.StringIO(), force_terminal=colour, color_system="truecolor" if colour else None
    )
    report.show(document, console, verbose=verbose)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [100, 80, 60, 40, 200])
@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_fits_its_width_and_never_over_a_hundred(name, width, documents):
    lines = shown(documents[name], width, verbose=True).split("\n")
    assert max(cell_len(line.rstrip()) for line in lines) <= min(width, 100)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_verdict_is_last_and_not_checked_before_it(name, documents):
    document = documents[name]
    lines = shown(document, 100).rstrip().split("\n")
    start = max(i for i, line in enumerate(lines) if line.startswith(document["verdict"] + ": "))
    assert " ".join(" ".join(lines[start:]).split()) == f"{document['verdict']}: {document['reason']}"
    assert any(line.startswith("Not checked: ") for line in lines[:start])


def test_passes_are_hidden_until_asked_for(documents):
    brief, full = shown(documents["clean"]), shown(documents["clean"], verbose=True)
    assert "PG-S-cap" not in brief and "11 rules passed, 1 not applicable" in brief
    assert "PG-S-cap" in full and "--verbose" not in full


def test_failure_shows_the_marked_lines(documents):
    text = shown(documents["violation"])
    assert "optimizer.step()  ◂ weights change: the chunk has been seen" in text
    assert "to make it right: Score each chunk first" in text


@pytest.mark.parametrize("colour", [False, True])
def test_hostile_text_moves_nothing(hostile, colour):
    text = shown(hostile, colour=colour)
    assert "\x07" not in text and "\x1b]" not in text and "\u202e" not in text
    assert "\\x1b]0;owned\\x07" in text.replace("\n", "")
    assert "[bold red]rich[/]" in " ".join(text.split()), "rich markup is not interpreted"


def test_plain_is_one_harmless_line():
    assert report.plain("a\nb\x1b[2J") == "a b\\x1b[2J"
