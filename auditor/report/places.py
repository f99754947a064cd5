"""Places a reader can look at: excerpts with line numbers and permalinks at the head commit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from auditor.case import Case
from auditor.errors import AuditorError
from auditor.findings import Evidence
from auditor.report.text import clip, visible

REPOSITORY = "https://github.com/openai/parameter-golf"
CONTEXT = 2  # lines shown above and below a marked line: with the line itself the 3-8 lines a reviewer wants
JOIN = 6  # marked lines at most this far apart share one excerpt
MAX_LINES = 14
MAX_WIDTH = 220  # characters of one line; a packed payload is one line of 60,000
MAX_FILE = 4_000_000  # bytes read for an excerpt


def permalink(head: str, path: str, start: int | None = None, end: int | None = None) -> str | None:
    """Address of `path` (lines `start`-`end`) at commit `head`, None when there is no commit.

    A decoded layer (`train_gpt.py!lzma`) has no address of its own: the shipped file is linked, without lines.
    """
    if not head or not path:
        return None
    shipped, _, layer = path.partition("!")
    url = f"{REPOSITORY}/blob/{quote(head, safe='')}/{quote(shipped)}"
    if start is None or layer:
        return url
    return f"{url}#L{start}" + (f"-L{end}" if end and end != start else "")


class Places:
    """Excerpts of one submission's files, each file read once.

    Text comes from where the witnesses read it (decoded layers, logs, README), else from the submission itself; a file
    that cannot be read yields the evidence's own excerpt.
    """

    def __init__(self, case: Case | None, head: str = "") -> None:
        self._case = case
        self._head = head
        self._lines: dict[str, list[str]] = {}
        if case is not None:
            self._lines |= {log.path: log.lines for log in case.logs}
            if case.readme is not None and case.readme.text:
                self._lines[case.readme.path] = case.readme.text.split("\n")
            for layer in case.program.layers:
                self._lines[layer.name] = layer.text.split("\n")

    def url(self, path: str, start: int | None = None, end: int | None = None) -> str | None:
        """Permalink of a place in this submission."""
        return permalink(self._head, path, start, end)

    def place(self, path: str, line: int | None, excerpt: str = "") -> dict[str, Any]:
        """One line: path, line, url, text."""
        text = excerpt or self._line(path, line)
        return {"path": path, "line": line, "url": self.url(path, line), "text": clip(text.strip("\n"), MAX_WIDTH)}

    def excerpts(self, evidence: Iterable[Evidence]) -> list[dict[str, Any]]:
        """Evidence as excerpt blocks, in order; neighbouring lines of one file share a block."""
        blocks: list[dict[str, Any]] = []
        marks: list[list[Evidence]] = []
        for item in evidence:
            if marks and _neighbours(marks[-1], item):
                marks[-1].append(item)
            else:
                marks.append([item])
        for group in marks:
            blocks.append(self._block(group))
        return blocks

    def _line(self, path: str, line: int | None) -> str:
        lines = self._file(path)
        return lines[line - 1] if line and line <= len(lines) else ""

    def _file(self, path: str) -> list[str]:
        if path not in self._lines:
            self._lines[path] = self._read(path)
        return self._lines[path]

    def _read(self, path: str) -> list[str]:
        if self._case is None:
            return []
        entry = self._case.submission.files.get(path)
        if entry is None or (entry.size or 0) > MAX_FILE:
            return []
        try:
            data = self._case.submission.read(path)
        except (AuditorError, KeyError, OSError):
            return []
        if b"\0" in data[:8192]:
            return []
        return data.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")

    def _block(self, group: list[Evidence]) -> dict[str, Any]:
        first = group[0]
        if first.line is None:
            return {
                "path": first.path,
                "start": None,
                "end": None,
                "url": self.url(first.path),
                "note": first.note,
                "lines": _bare(first.excerpt, None),
            }
        own = {item.line: item for item in group}
        lines = self._context(first.path, own)
        start, end = lines[0]["number"], lines[-1]["number"]
        marked = sorted(own)
        note = group[0].note if len(group) == 1 else ""
        return {
            "path": first.path,
            "start": start,
            "end": end,
            "note": note,
            "lines": lines,
            "url": self.url(first.path, marked[0], marked[-1]),
        }

    def _context(self, path: str, own: dict[int, Evidence]) -> list[dict[str, Any]]:
        file = self._file(path)
        marked = sorted(own)
        if not all(_agrees(file, line, own[line].excerpt) for line in marked):
            # The file is not at hand, or the witness counted lines of another text: show what it saw, nothing else.
            notes = {line: own[line].note if len(own) > 1 else "" for line in marked}
            return [row for line in marked for row in _bare(own[line].excerpt, line, notes[line])]
        start, end = max(marked[0] - CONTEXT, 1), min(marked[-1] + CONTEXT, len(file))
        rows = [_row(number, file[number - 1], number in own) for number in range(start, end + 1)]
        for row in rows:
            if row["mark"]:
                row["note"] = own[row["number"]].note if len(own) > 1 else ""
        return rows[:MAX_LINES]


def _neighbours(group: list[Evidence], item: Evidence) -> bool:
    last = group[-1]
    if item.line is None or last.line is None or item.path != last.path:
        return False
    lines = [one.line for one in group] + [item.line]
    return item.line not in lines[:-1] and max(lines) - min(lines) <= JOIN


def _agrees(file: list[str], line: int, excerpt: str) -> bool:
    if not 1 <= line <= len(file):
        return False
    seen = excerpt.strip().split("\n")[0].rstrip("…").strip()
    return not seen or visible(seen)[:60] in visible(file[line - 1])


def _bare(excerpt: str, line: int | None, note: str = "") -> list[dict[str, Any]]:
    texts = excerpt.strip("\n").split("\n")[:MAX_LINES] if excerpt.strip() else []
    if not texts and line is not None:
        texts = [""]
    rows = [_row(None if line is None else line + i, text, line is not None and i == 0) for i, text in enumerate(texts)]
    if rows and note:
        rows[0]["note"] = note
    return rows


def _row(number: int | None, text: str, mark: bool) -> dict[str, Any]:
    return {"number": number, "text": clip(visible(text), MAX_WIDTH), "mark": mark, "note": ""}
