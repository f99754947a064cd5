"""An index page over many reviews: sort, filter, counts, keys; a row per submission, nothing loaded from elsewhere."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from auditor.report.html import asset, environment, script_hash
from auditor.report.text import clean

# What needs a person first. ERROR leads: nobody has looked at those at all.
_RANK = {"ERROR": 0, "NEEDS REVIEW": 1, "VIOLATION": 2, "NOT ELIGIBLE": 3, "CLEAN": 4}


def row(review: dict[str, Any], href: str = "", code: str = "") -> dict[str, Any]:
    """The index row of a review document.

    Args:
        review: a document of format review/1.
        href: address of the full report relative to the index page, "" for none.
        code: hash of the main script's source; equal hashes are grouped ("same code"), "" stands alone.
    """
    s, series = review["submission"], review["series"] or {}
    claimed = series.get("claimed_bpb")
    counts = review["counts"]
    return {
        "label": f"#{s['pr']}" if s["pr"] is not None else s["label"],
        "name": s["name"],
        "href": href,
        "verdict": review["verdict"],
        "reason": review["reason"],
        "bpb": claimed["value"] if claimed else None,
        "track": s["track"],
        "date": s["date"],
        "fail": counts["fail"],
        "warn": counts["warn"],
        "unknown": counts["unknown"],
        "rules": [f["rule"] for f in review["findings"] if f["status"] == "fail"],
        "code": code or hashlib.sha256(repr(s["label"]).encode("utf-8", "replace")).hexdigest(),
    }


def render_index(
    rows: Iterable[dict[str, Any]],
    title: str = "Parameter Golf reviews",
    generated: str | None = None,
    note: str = "Errors and open questions first.",
) -> str:
    """The page over `rows` (see `row`): what needs a person first, then by label."""
    rows = [dict(clean(one)) for one in rows]
    same = Counter(one["code"] for one in rows)
    for one in rows:
        one["rank"] = _RANK.get(one["verdict"], 0)
        one["same"] = same[one["code"]]
        one["href"] = _local(one["href"])
    rows.sort(key=lambda one: (one["rank"], _natural(one["label"])))
    script = asset("index.js")
    return (
        environment()
        .get_template("index.html")
        .render(
            rows=rows,
            title=title,
            generated=generated,
            note=note,
            css=Markup(asset("report.css")),
            js=Markup(script),
            script_hash=script_hash(script),
            verdicts=_counted((one["verdict"] for one in rows), _RANK),
            tracks=_counted(one["track"] for one in rows),
            rules=_counted(rule for one in rows for rule in one["rules"]),
        )
    )


def _counted(words: Iterable[str], order: dict[str, int] | None = None) -> list[tuple[str, int]]:
    found = Counter(words)
    return sorted(found.items(), key=lambda item: (order or {}).get(item[0], 0) if order else -item[1])


def _natural(label: str) -> Sequence[Any]:
    digits = label.lstrip("#")
    return (0, int(digits), "") if digits.isdecimal() else (1, 0, label)


def _local(href: str) -> str:
    """A relative address only: a row must not lead out of the site or run anything."""
    if not href or href.startswith(("/", "\\")) or ":" in href.split("/")[0]:
        return ""
    return quote(href, safe="/#.-_~")
