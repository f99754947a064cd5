"""The byte count of a program for readers: which table, built where, what it gives for sample tokens, with lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from auditor.report.places import Places

_TITLES = {
    "correct": "the bytes of the decoded text",
    "wrong": "not the bytes of the decoded text",
    "undecided": "not decided by reading",
    "none": "no count found",
}


def byte_count(table: Any, places: Places) -> dict[str, Any] | None:
    """JSON of a `ByteTable`; None when static analysis was not asked.

    `samples` compare the count with the official look-up token by token, over a vocabulary of every kind of piece.
    """
    if table is None:
        return None
    right, known, printed = table.formulas
    return {
        "status": table.status,
        "title": _TITLES.get(table.status, table.status),
        "bug": table.bug,
        "reason": table.reason,
        "ratio": table.ratio,
        "minor": table.minor,
        "places": [_place(place, places) for place in table.places],
        "samples": [
            {
                "piece": sample.piece,
                "after": sample.after,
                "official": sample.official,
                "counted": sample.counted,
                "difference": None if sample.counted is None else sample.counted - sample.official,
            }
            for sample in table.samples
        ],
        "formulas": {"right": right, "known": known, "printed": printed},
        "faults": [
            {"bug": f.bug, "everywhere": f.everywhere, "places": [_place(place, places) for place in f.places]}
            for f in table.faults
        ],
        "sidecar": [_place(place, places) | {"state": state} for state, place in table.takings],
    }


def _place(place: Any, places: Places) -> dict[str, Any]:
    return {
        "path": place.path,
        "line": place.line,
        "url": places.url(place.path, place.line),
        "text": place.excerpt,
        "what": place.what,
    }


def markdown(count: dict[str, Any] | None, text: Callable[[str, int], str]) -> list[str]:
    """Lines for a Markdown comment where the count is wrong: what it gives beside the official look-up.

    Args:
        count: the section made by `byte_count`.
        text: escapes untrusted text and cuts it to a length.
    """
    if count is None or count["status"] != "wrong":
        return []
    lines = ["", f"**Byte count:** {text(count['reason'], 300)}."]
    lines += [
        f"- {text(place['path'], 160)}:{place['line']} {text(place['what'], 80)}" for place in count["places"][:4]
    ]
    rows = [row for row in count["samples"] if row["difference"]]
    if rows:
        lines += ["", "| token | after | official bytes | this program | difference |", "|---|---|---|---|---|"]
    for row in rows[:6]:
        cells = (text(row["piece"], 20), text(row["after"], 20), row["official"], row["counted"])
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} | {row['difference']:+d} |")
    return lines
