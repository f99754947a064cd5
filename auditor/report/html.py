"""A document as one self-contained HTML page: no network, no markup from a submission, a policy that forbids both.

Templates, styles and the script are package data of `reports`. Autoescape is on and the page's content security policy
names the hash of its one script, so that text of a submission could not run even if an escape were missed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from auditor.report import plots, reproduction, run_plot
from auditor.report.board import headline, subject, unique_texts
from auditor.report.markdown import comment
from auditor.report.text import clean, number, one_line, safe_url

HEADLINE_ROWS = 8


def render(review: dict[str, Any]) -> str:
    """The page of one review document."""
    review = {"reproduction": None, **clean(review)}  # documents of older versions lack the section
    series = review["series"]
    drawn = (
        []
        if series is None
        else [
            plots.training_plot(series),
            plots.running_plot(series),
            plots.bytes_plot(series),
            plots.time_plot(series),
        ]
    )
    run = review["timelines"]["run"]
    script = asset("report.js")
    return (
        environment()
        .get_template("review.html")
        .render(
            review=review,
            css=Markup(asset("report.css")),
            js=Markup(script),
            script_hash=script_hash(script),
            markdown=comment(review),
            plots=[plot for plot in drawn if plot],
            reproduction_plots=reproduction.drawn(review["reproduction"]),
            reproduction_checks=reproduction.checks(review["reproduction"]) if review["reproduction"] else [],
            order=run_plot.order_plot(run) if run else Markup(""),
            headline=headline([r for r in review["ledger"] if r["scope"] == "submission"] or review["ledger"])[
                :HEADLINE_ROWS
            ],
            gravest=[f for f in review["findings"] if f["status"] in ("fail", "warn")][:6],
            conflicts=sum(row["status"] == "conflicts" for row in review["ledger"]),
            severities=sorted(Counter(f["severity"] for f in review["findings"]).items()),
            families=[
                (*key, count)
                for key, count in sorted(Counter((f["family"], f["family_name"]) for f in review["findings"]).items())
            ],
        )
    )


@cache
def asset(name: str) -> str:
    """Text of a style sheet or script of the package."""
    return (files("reports") / "assets" / name).read_text(encoding="utf-8").strip()


def script_hash(script: str) -> str:
    """Source expression of the content security policy for an inline script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@cache
def environment() -> Environment:
    """The jinja2 environment of all pages: autoescape always on, unknown names are errors."""
    env = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(
        slug=slug,
        number=number,
        one_line=one_line,
        safe_url=safe_url,
        breakable=breakable,
        file_name=lambda path: path.rsplit("/", 1)[-1],
        first_mark=first_mark,
        subject=subject,
        unique_texts=unique_texts,
        measured=reproduction.value,
        short_url=short_url,
    )
    return env


def slug(text: str) -> str:
    """A word fit for a class name: `NOT ELIGIBLE` as `not-eligible`."""
    return re.sub(r"[^a-z0-9]+", "-", str(text).lower()).strip("-")


def breakable(text: str) -> Markup:
    """Escaped text that may break after slashes and underscores."""
    return Markup(re.sub(r"([/_])(?=\w)", r"\1<wbr>", str(escape(text))))


def short_url(url: str) -> str:
    """An address as people cite it: `PR 549 comment`, `issue 1017`, `commit fc6332a`."""
    match = re.search(r"github\.com/openai/parameter-golf/(pull|issues|commit)/([0-9a-f]+)(#)?", url)
    if not match:
        return url.removeprefix("https://")
    kind = {"pull": "PR", "issues": "issue", "commit": "commit"}[match[1]]
    return f"{kind} {match[2][:9]}" + (" comment" if match[3] else "")


def first_mark(lines: list[dict[str, Any]]) -> str:
    """`10`, or `10-14` when several lines are marked."""
    marked = [line["number"] for line in lines if line["mark"] and line["number"] is not None]
    if not marked:
        return str(lines[0]["number"]) if lines and lines[0]["number"] is not None else ""
    return f"{marked[0]}" if marked[0] == marked[-1] else f"{marked[0]}-{marked[-1]}"
