"""A document as Markdown: a review comment, a job summary, and workflow annotations, within GitHub's limits.

Text of a submission can not mention people, link to other pull requests, open HTML or images, or leave its code fence.
Pull request numbers are written as code: a plain `#549` would leave a notice in that pull request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from auditor.report.board import headline, subject, unique_texts
from auditor.report.byte_count import markdown as byte_count
from auditor.report.reproduction import markdown as reproduction
from auditor.report.run import told as told_of_run
from auditor.report.text import clip, number, one_line, plural, safe_url, visible

COMMENT_LIMIT = 65_536  # characters of a comment; GitHub answers 422 above
SUMMARY_LIMIT = 1_048_576  # bytes of a job summary; the whole summary is dropped above
ANNOTATION_LIMIT = 50  # annotations of a job; the first come are shown
OPEN_IN_FULL = 3  # unknown findings told at length; more of them become a list
OPEN_LISTED = 80
EXCERPT_LINES = 8
EXCERPT_BLOCKS = 3
LEDGER_ROWS = 14

_ICON = {"fail": "❌", "warn": "⚠️", "unknown": "❔", "pass": "✅", "not applicable": "▫️"}
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~])")
_BLOCK_START = re.compile(r"^(?=[-+=:!])|(?<=^\d)(?=[.)])|(?<=^\d\d)(?=[.)])")


def text(value: Any, limit: int = 0) -> str:
    """Untrusted text for the running text or a table cell: one line, no markup, no mention, no auto link."""
    flat = one_line(str(value), limit)
    flat = flat.replace("&", "&amp;")
    flat = _MARKUP.sub(r"\\\1", flat)
    flat = _BLOCK_START.sub(r"\\", flat, count=1)  # no list, no heading, no quotation at the start of a paragraph
    flat = flat.replace("\\<", "&lt;").replace("\\>", "&gt;").replace("$", "&#36;")
    flat = re.sub(r"@(?=\w)", "@\u200b", flat)
    flat = re.sub(r"\\#(?=\d)", "\\#\u200b", flat)
    flat = re.sub(r"\b(GH)-(?=\d)", "\\1-\u200b", flat, flags=re.IGNORECASE)
    flat = re.sub(r"(?i)\b(https?|ftp):(?=//)", "\\1:\u200b", flat)
    flat = re.sub(r"(?i)\bwww\.", "www\u200b.", flat)
    return re.sub(r":(?=[\w+\\-]+:)", ":\u200b", flat)


def code(value: Any, limit: int = 120) -> str:
    """Untrusted text as inline code, its fence longer than any run of backticks in it; safe in a table cell."""
    flat = one_line(str(value), limit).replace("|", "¦")
    if not flat:
        return ""
    fence = "`" * (max((len(run) for run in re.findall("`+", flat)), default=0) + 1)
    pad = " " if flat.startswith("`") or flat.endswith("`") else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def fenced(lines: Sequence[str], language: str = "") -> str:
    """Lines as a code block that its content cannot close."""
    body = [visible(line) for line in lines]
    longest = max((len(run) for line in body for run in re.findall("`{3,}", line)), default=2)
    fence = "`" * (longest + 1)
    return "\n".join([f"{fence}{language}", *body, fence])


def comment(review: dict[str, Any], limit: int = COMMENT_LIMIT) -> str:
    """The review as a comment of at most `limit` characters; least severe findings are left out whole, and named."""
    return _fitted(review, limit, len)


def summary_markdown(review: dict[str, Any], limit: int = SUMMARY_LIMIT) -> str:
    """The review for a job summary of at most `limit` bytes (UTF-8)."""
    return _fitted(review, limit, lambda part: len(part.encode()))


def _fitted(review: dict[str, Any], limit: int, measure: Callable[[str], int]) -> str:
    head, tail = _head(review), _tail(review)
    told = [f for f in review["findings"] if f["status"] in ("fail", "warn")]
    opened = [f for f in review["findings"] if f["status"] == "unknown"]
    quiet = [f for f in review["findings"] if f["status"] in ("pass", "not applicable")]
    if len(opened) <= OPEN_IN_FULL:
        told, opened = told + opened, []
    blocks = [_finding(finding) for finding in told]
    blocks += ([_open(opened)] if opened else []) + ([_quiet(quiet)] if quiet else [])
    # Room for the longest note there can be, so that adding it never breaks the limit.
    room = limit - measure(head) - measure(tail) - measure(_left_out(len(blocks), bool(quiet)))
    kept = []
    for block in blocks:
        cost = measure(block) + 2
        if cost > room:
            break
        kept.append(block)
        room -= cost
    findings = max(len(told) - len(kept), 0)
    lists = len(blocks) - max(len(kept), len(told))
    note = [_left_out(findings, lists > 0)] if findings or lists else []
    return _cut("\n\n".join([head, *kept, *note, tail]) + "\n", limit, measure)


def _left_out(count: int, quiet: bool) -> str:
    parts = ([plural(count, "finding") + ", the least severe"] if count > 0 else []) + (
        ["the rules that passed or stay open"] if quiet else []
    )
    return f"*Left out to stay within the limit of this page: {' and '.join(parts)}. The full report has them.*"


def _cut(text: str, limit: int, measure: Callable[[str], int]) -> str:
    """Last resort for a head that alone is over the limit."""
    while measure(text) > limit:
        text = text[: max(int(len(text) * 0.9) - 1, 0)]
    return text


def _head(review: dict[str, Any]) -> str:
    s = review["submission"]
    name = f" {text(s['name'], 120)}" if s["name"] else ""
    which = code(f"#{s['pr']}" if s["pr"] is not None else s["label"])
    lines = [
        f"## {review['verdict']}: {text(review['reason'], 500)}",
        f"**Not checked:** {text(review['not_checked'] or 'nothing was left out', 700)}",
        "",
    ]
    facts = [f"{s['track']} track", s["date"], f"head {code(s['head'][:12])}" if s["head"] else None]
    lines.append(f"Submission {which}{name} ({', '.join(fact for fact in facts if fact)})")
    if review["error"]:
        return "\n".join([*lines, "", fenced(review["error"]["message"].split("\n")[:40])])
    lines += ["", "| condition | state | what decides it |", "|---|---|---|"]
    for row in review["board"]:
        key = f"{row['key']} " if row["key"].startswith("C") else ""
        lines.append(f"| {text(key + row['title'])} | **{row['state']}** | {text(row['summary'], 200)} |")
    told = byte_count(review.get("byte_count"), text)
    return "\n".join(
        lines + _claims(review["ledger"]) + reproduction(review.get("reproduction"), text) + _run(review) + told
    )


def _claims(ledger: list[dict[str, Any]]) -> list[str]:
    whole = headline([row for row in ledger if row["scope"] == "submission" or row["status"] == "conflicts"])
    if not whole:
        return []
    lines = ["", "| claim | claimed | evidence | computed | |", "|---|---:|---:|---:|---|"]
    for row in whole[:LEDGER_ROWS]:
        scope = "" if row["scope"] == "submission" else f", {text(row['scope'], 40)}"
        computed = number(row["computed"]) if row["computed"] is not None else "–"
        lines.append(
            f"| {text(subject(row), 70)}{scope} | {_quantities(row['claimed'])} "
            f"| {_quantities(row['evidence'])} | {computed} | {text(row['status'], 20)} |"
        )
    if len(whole) > LEDGER_ROWS:
        lines += ["", f"*and {plural(len(whole) - LEDGER_ROWS, 'further row')}*"]
    return lines


def _quantities(items: list[dict[str, Any]]) -> str:
    parts, found = [], unique_texts(items)
    for item, times in found[:3]:
        words, url = text(item["text"], 40), safe_url(item["place"]["url"])
        parts.append((f"[{words}]({_target(url)})" if url else words) + (f" ×{times}" if times > 1 else ""))
    return "<br>".join(parts + ([f"+{len(found) - 3}"] if len(found) > 3 else [])) or "–"


def _run(review: dict[str, Any]) -> list[str]:
    lines = [f"- {text(line, 400)}" for line in told_of_run(review)]
    return ["", "**CPU run** (the program at reduced scale, in a sandbox)", "", *lines] if lines else []


def _target(url: str) -> str:
    return url.replace("(", "%28").replace(")", "%29")


def _finding(finding: dict[str, Any]) -> str:
    icon = _ICON.get(finding["status"], "")
    lines = [
        f"### {icon} {text(finding['title'], 120)} ({code(finding['rule'])}, {text(finding['severity'])})",
        f"**{finding['status'].upper()}:** {text(finding['summary'], 600)}",
    ]
    if finding["explanation"]:
        lines += ["", text(finding["explanation"], 1500)]
    for block in finding["evidence"][:EXCERPT_BLOCKS]:
        lines += ["", *_excerpt(block)]
    more = len(finding["evidence"]) - EXCERPT_BLOCKS
    if more > 0:
        lines += ["", f"*and {plural(more, 'further place')} in the full report*"]
    if finding["remedy"]:
        lines += ["", f"**What would make it right:** {text(finding['remedy'], 800)}"]
    if finding["decided_by"]:
        lines += ["", f"Can be decided by: {text(', '.join(finding['decided_by']))}"]
    return "\n".join(lines + _rulings(finding))


def _rulings(finding: dict[str, Any]) -> list[str]:
    if finding["status"] == "unknown":
        return []
    lines = []
    against, legal = finding["precedents"]["illegal"][:6], finding["precedents"]["legal"][:6]
    if against or legal:
        sides = [
            f"ruled against {' '.join(code(f'#{n}') for n in against)}" if against else "",
            f"ruled legal {' '.join(code(f'#{n}') for n in legal)}" if legal else "",
        ]
        lines += ["", "Precedents: " + "; ".join(side for side in sides if side)]
    urls = [url for url in map(safe_url, finding["sources"][:4]) if url]
    if urls:
        since = f" (since {finding['since']})" if finding["since"] else ""
        lines.append(f"Rule{since}: " + ", ".join(code(url, 160) for url in urls))
    return lines


def _excerpt(block: dict[str, Any]) -> list[str]:
    marked = [line["number"] for line in block["lines"] if line["mark"] and line["number"]]
    where = block["path"].rsplit("/", 1)[-1] + (f":{marked[0]}" if marked else "")
    url = safe_url(block["url"])
    label = f"[{code(where)}]({_target(url)})" if url else code(where)
    lines = [label + (f": {text(block['note'], 200)}" if block["note"] else "")]
    shown = _around_marks(block["lines"])
    if shown:
        width = max(len(str(line["number"] or "")) for line in shown)
        rows = [
            f"{'>' if line['mark'] else ' '} {line['number'] or '':>{width}}  {line['text']}"
            + (f"   <- {one_line(line['note'], 80)}" if line["note"] else "")
            for line in shown
        ]
        lines.append(fenced(rows, "text"))
    return lines


def _around_marks(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `EXCERPT_LINES` lines, the marked ones first, in their order."""
    if len(lines) <= EXCERPT_LINES:
        return lines
    marked = [i for i, line in enumerate(lines) if line["mark"]]
    near = sorted(range(len(lines)), key=lambda i: min((abs(i - m) for m in marked), default=i))
    return [lines[i] for i in sorted(near[:EXCERPT_LINES])]


def _open(findings: list[dict[str, Any]]) -> str:
    rows = [
        f"- ❔ {text(f['title'], 100)} ({code(f['rule'])}): {text(f['summary'], 200)}" for f in findings[:OPEN_LISTED]
    ]
    if len(findings) > OPEN_LISTED:
        rows.append(f"- and {len(findings) - OPEN_LISTED:,} more in the full report")
    title = f"{plural(len(findings), 'rule')} that nobody could decide (not passed, not failed)"
    return "\n".join([f"<details><summary>{title}</summary>", "", *rows, "", "</details>"])


def _quiet(findings: list[dict[str, Any]]) -> str:
    passed = [f for f in findings if f["status"] == "pass"]
    rows = [f"- ✅ {text(f['title'], 100)} ({code(f['rule'])}): {text(f['summary'], 200)}" for f in passed]
    bound = len(findings) - len(passed)
    rest = [f"- {plural(bound, 'rule')} not applicable to this track or date"] if bound else []
    return "\n".join(
        ["<details><summary>" + plural(len(passed), "rule") + " passed</summary>", "", *rows, *rest, "", "</details>"]
    )


def _tail(review: dict[str, Any]) -> str:
    absent = [
        f"{text(w['name'])} ({text(w['absent_because'], 160)})" for w in review["witnesses"] if not w["testified"]
    ]
    tool = f"{text(review['tool']['name'])} {text(review['tool']['version'])}"
    lines = ["---"]
    if absent:
        lines.append(f"Witnesses that did not testify: {'; '.join(absent)}.")
    lines += [
        "",
        f"This is a reading of the evidence named above by {tool}, not a ruling; the organisers decide. "
        "**If a finding is wrong**, please answer with the line or log entry that shows it, or push a fix: "
        "the review can be repeated on the new head. Thank you for the work in this submission.",
    ]
    return "\n".join(lines)


def annotations(review: dict[str, Any], limit: int = ANNOTATION_LIMIT) -> list[str]:
    """GitHub workflow commands, gravest first, at most `limit` (the last one then says how many are left)."""
    lines = [_annotation(finding) for finding in review["findings"] if finding["status"] in ("fail", "warn", "unknown")]
    if len(lines) <= limit:
        return lines
    rest = len(lines) - limit + 1
    return [
        *lines[: limit - 1],
        f"::notice title=auditor::{_data(plural(rest, 'further finding') + ' in the report')}",
    ]


def _annotation(finding: dict[str, Any]) -> str:
    level = "notice" if finding["status"] == "unknown" else "warning"
    if finding["status"] == "fail" and finding["severity"] not in ("advice", "disputed"):
        level = "error"
    properties = [("title", f"{finding['rule']}: {finding['title']}")]
    place = next((b for b in finding["evidence"] if b["start"] is not None and "!" not in b["path"]), None)
    if place:
        marked = [line["number"] for line in place["lines"] if line["mark"]] or [place["start"]]
        properties = [("file", place["path"]), ("line", str(marked[0])), ("endLine", str(marked[-1])), *properties]
    joined = ",".join(f"{key}={_property(value)}" for key, value in properties)
    return f"::{level} {joined}::{_data(clip(finding['summary'], 4000))}"


def _data(value: str) -> str:
    return visible(value).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")
