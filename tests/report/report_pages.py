"""Reader of HTML for the tests, and text written by somebody who wishes the reader no good."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> @octocat see #123 and owner/repo#7 GH-9 "
    "![pic](https://evil.example/x.png) [a](javascript:alert(3)) `tick` ```fence``` | pipe | https://evil.example "
    "\x1b]0;owned\x07\x1b[31mred\x1b[0m \u202eesrever\u202c [bold red]rich[/] {{ 7*7 }} "
    "::error::x%0A $e^x$ :smile: &lt;"
)
VOID = {"meta", "link", "br", "input", "img", "hr", "wbr"}


class Page(HTMLParser):
    """Elements of a page with attributes; complains about tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.stack and self.stack[-1] == tag, f"</{tag}> closes {self.stack[-3:]} at {self.getpos()}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts.append(data)
        elif not (self.stack and self.stack[-1] == "style"):
            self.text.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Attributes of every element with this tag, class (`cls`) and attributes."""
        cls = wanted.pop("cls", None)
        return [
            a
            for name, a in self.elements
            if name == tag
            and (cls is None or cls in (a.get("class") or "").split())
            and all(a.get(k) == v for k, v in wanted.items())
        ]

    @property
    def words(self) -> str:
        """Text of the page with single spaces."""
        return " ".join(" ".join(self.text).split())


def poison(value: Any, text: str = HOSTILE, key: str = "") -> Any:
    """A document in which every free text is hostile; enumerations, dates, addresses and classes stay."""
    keep = {
        "format", "status", "severity", "family", "verdict", "state", "track", "witness", "role", "type", "kind",
        "strength", "url", "rule", "name_", "generated", "since", "date", "head", "testified", "version",
        "phase", "key",
    }  # fmt: skip
    if isinstance(value, dict):
        return {k: poison(v, text, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v, text, key) for v in value]
    if isinstance(value, str) and key not in keep and key not in ("decided_by", "findings"):
        return text
    return value
