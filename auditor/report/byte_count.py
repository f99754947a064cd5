"""The byte count of a program for readers: which table, built where, what it gives for sample tokens, with lines."""

from __future__ import annotations

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
