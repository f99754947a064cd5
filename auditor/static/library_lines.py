"""Lines that launchers, libraries and shells print into any log, from the table `auditor/data/library_lines.toml`."""

from __future__ import annotations

import functools
import re
import tomllib
from importlib import resources


@functools.cache
def _table() -> re.Pattern[str]:
    text = resources.files("auditor.data").joinpath("library_lines.toml").read_text(encoding="utf-8")
    patterns = [pattern for entry in tomllib.loads(text)["line"] for pattern in entry["patterns"]]
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns))


def is_library_line(text: str) -> bool:
    """True when a stripped line may come from the launcher, a library, the shell or the system."""
    return bool(_table().match(text))
