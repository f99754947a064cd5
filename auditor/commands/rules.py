"""`auditor rules`: the list of rules."""

from __future__ import annotations

import json

from rich import box
from rich.console import Console
from rich.table import Table

import rules
from rules.base import Rule


def run(as_json: bool) -> None:
    """Print all rules, as a table or as JSON lines."""
    if as_json:
        for rule in rules.all_rules():
            print(json.dumps(_row(rule)))
        return
    console = Console()
    wide = console.width >= 110
    table = Table(box=box.SIMPLE)
    table.add_column("rule", no_wrap=True)
    for name in ("title", "severity", "tracks", "since", "decided by") if wide else ("title", "severity"):
        table.add_column(name, no_wrap=name == "since")
    for rule in rules.all_rules():
        row = _row(rule)
        tracks = "all" if len(row["tracks"]) > 2 else ", ".join(row["tracks"])
        cells = (rule.id, rule.title, row["severity"], tracks, row["since"], ", ".join(row["witnesses"]))
        table.add_row(*cells[: 6 if wide else 3])
    console.print(table)


def _row(rule: Rule) -> dict:
    return {
        "id": rule.id,
        "title": rule.title,
        "severity": rule.severity.value,
        "tracks": sorted(track.value for track in rule.tracks),
        "since": rule.since.isoformat(),
        "reaches_back": rule.reaches_back,
        "witnesses": [witness.value for witness in rule.witnesses],
    }
