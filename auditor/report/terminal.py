"""A document on a terminal: fits 100 columns, reads at 60, the verdict on the last line where the eye is.

Text of a submission never reaches rich's markup and never carries control codes to the terminal.
"""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from auditor.report import reproduction, run
from auditor.report.board import headline, subject, unique_texts
from auditor.report.text import clip, number, one_line, plural, visible

MAX_WIDTH = 100
EXCERPT_BLOCKS = 2
LEDGER_ROWS = 10
OPEN_IN_FULL = 3  # unknown findings told at length; more of them become a list of ids

_STYLES = {
    "VIOLATION": "bold red",
    "NOT ELIGIBLE": "bold yellow",
    "NEEDS REVIEW": "bold magenta",
    "CLEAN": "bold green",
    "ERROR": "bold red",
    "PROVEN": "green",
    "NOT PROVEN": "magenta",
    "SUSPECT": "yellow",
    "NOT MET": "red",
    "NOT APPLICABLE": "dim",
    "fail": "bold red",
    "warn": "yellow",
    "unknown": "magenta",
    "pass": "green",
    "not applicable": "dim",
    "conflicts": "red",
    "agrees": "green",
    "no evidence": "magenta",
    "not claimed": "dim",
}


def show(review: dict[str, Any], console: Console, verbose: bool = False) -> None:
    """Print a review; `verbose` shows passed and inapplicable rules too."""
    width = min(console.width, MAX_WIDTH)
    wide = width >= 80
    told = [f for f in review["findings"] if verbose or f["status"] in ("fail", "warn")]
    opened = [f for f in review["findings"] if f["status"] == "unknown" and not verbose]
    parts = [_title(review), _board(review, wide)]
    if review["ledger"]:
        parts.append(_ledger(review, wide))
    if review.get("reproduction"):
        parts.append(_say("re-run " + one_line(reproduction.told(review["reproduction"]), 400)))
    parts += [_say(f"CPU run  {one_line(line, 300)}") for line in run.told(review)]
    parts += [_finding(finding, wide) for finding in told]
    parts += [_finding(finding, wide) for finding in opened] if len(opened) <= OPEN_IN_FULL else [_open(opened)]
    parts += [_hidden(review)] if not verbose and len(told) + len(opened) < len(review["findings"]) else []
    parts += _end(review)
    for part in parts:
        console.print(part, width=width, highlight=False)


def plain(text: str) -> str:
    """One line of untrusted text for a terminal: no control codes, no line ends."""
    return one_line(text)


def _say(text: str, style: str = "") -> Text:
    """Untrusted text: rich markup in it is not interpreted, control codes are visible."""
    return Text(visible(str(text)).replace("\t", "    "), style=_STYLES.get(style, style))


def _title(review: dict[str, Any]) -> Text:
    s = review["submission"]
    words = Text.assemble((plain(f"#{s['pr']}" if s["pr"] is not None else s["label"]), "bold"))
    facts = [
        s["name"],
        f"by {s['author']}" if s["author"] else None,
        f"{s['track']} track",
        s["date"],
        f"head {s['head'][:12]}" if s["head"] else None,
        "packed" if s["packed"] else None,
    ]
    return words.append("  ").append(plain(" · ".join(clip(fact, 80) for fact in facts if fact)), style="dim")


def _board(review: dict[str, Any], wide: bool) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1), expand=wide)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    if wide:
        table.add_column(ratio=1)
    for row in review["board"]:
        key = row["key"] if row["key"].startswith("C") else "  "
        cells = [_say(f"{key} {row['title']}"), _say(row["state"], row["state"])]
        table.add_row(*cells, *([_say(one_line(row["summary"], 140), "dim")] if wide else []))
    return table


def _ledger(review: dict[str, Any], wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=False)
    table.add_column("claim")
    for name in ("claimed", "evidence", *(["computed"] if wide else [])):
        table.add_column(name, justify="right")
    table.add_column("")
    whole = [row for row in review["ledger"] if row["scope"] == "submission"] or review["ledger"]
    for row in headline(whole)[:LEDGER_ROWS]:
        cells = [_say(one_line(subject(row), 32)), _values(row["claimed"]), _values(row["evidence"])]
        table.add_row(*cells, *([_say(number(row["computed"]))] if wide else []), _say(row["status"], row["status"]))
    return table


def _values(items: list[dict[str, Any]]) -> Text:
    found = unique_texts(items)
    words = [one_line(item["text"], 22) + (f" ×{times}" if times > 1 else "") for item, times in found[:3]]
    words += [f"+{len(found) - 3}"] if len(found) > 3 else []
    return _say("\n".join(words) or "–")


def _finding(finding: dict[str, Any], wide: bool) -> Group:
    head = Text.assemble(
        (f"{finding['status'].upper():8}", _STYLES.get(finding["status"], "")),
        " ",
        (visible(finding["rule"]), "bold"),
    )
    if wide:
        head.append(f"  {one_line(finding['title'], 120)}", style="dim")
    body: list[Any] = [_say(one_line(finding["summary"], 600))]
    if finding["status"] in ("fail", "warn"):
        if finding["explanation"]:
            body.append(_say(one_line(finding["explanation"], 1200), "dim"))
        for block in finding["evidence"][:EXCERPT_BLOCKS]:
            body += _excerpt(block)
        if len(finding["evidence"]) > EXCERPT_BLOCKS:
            body.append(_say(f"and {plural(len(finding['evidence']) - EXCERPT_BLOCKS, 'further place')}", "dim"))
        if finding["remedy"]:
            body.append(_say(f"to make it right: {one_line(finding['remedy'], 600)}"))
    if finding["status"] == "unknown" and finding["decided_by"]:
        body.append(_say(f"decided by: {', '.join(finding['decided_by'])}", "dim"))
    return Group(head, *(Padding(part, (0, 0, 0, 2)) for part in body))


def _excerpt(block: dict[str, Any]) -> list[Text]:
    marked = [line for line in block["lines"] if line["mark"]]
    where = block["path"].rsplit("/", 1)[-1] + (f":{block['start']}" if block["start"] and not marked else "")
    lines = [_say(f"{where}  {one_line(block['note'], 120)}".rstrip(), "cyan")]
    for line in block["lines"]:
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(
            f"{'>' if line['mark'] else ' '}{line['number'] or '':>5} ", style="bold" if line["mark"] else "dim"
        )
        text.append(visible(line["text"]).replace("\t", "    ").replace("\n", " "))
        if line["note"]:
            text.append(f"  ◂ {one_line(line['note'], 70)}", style="yellow")
        lines.append(text)
    return lines


def _open(findings: list[dict[str, Any]]) -> Text:
    names = ", ".join(one_line(finding["rule"]).removeprefix("PG-") for finding in findings)
    words = Text.assemble(
        ("UNKNOWN  ", _STYLES["unknown"]), (f"{plural(len(findings), 'rule')} nobody could decide: ", "bold")
    )
    return words.append(names)


def _hidden(review: dict[str, Any]) -> Text:
    counts = review["counts"]
    return _say(
        f"{plural(counts['pass'], 'rule')} passed, {counts['not applicable']} not applicable (--verbose shows them)",
        "dim",
    )


def _end(review: dict[str, Any]) -> list[Text]:
    absent = [f"{w['name']} ({one_line(w['absent_because'], 90)})" for w in review["witnesses"] if not w["testified"]]
    lines = [_say(f"could not be read: {one_line(problem, 300)}", "yellow") for problem in review["problems"][:8]]
    if review["error"] and review["error"]["defect"]:
        lines.append(_say(review["error"]["defect"], "dim"))
    if absent:
        lines.append(_say("absent: " + "; ".join(absent), "dim"))
    lines.append(_say(f"Not checked: {one_line(review['not_checked']) or 'nothing was left out'}"))
    verdict = Text.assemble((review["verdict"], _STYLES.get(review["verdict"], "bold")), ": ")
    return [*lines, verdict.append(one_line(review["reason"]))]
