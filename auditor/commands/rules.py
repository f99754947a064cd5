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
    table = Table("rule", "title", "severity", "tracks", "since", "witnesses", box=box.SIMPLE)
    for rule in rules.all_rules():
        row = _row(rule)
        table.add_row(
            rule.id, rule.title, row["severity"], ", ".join(row["tracks"]), row["since"], ", ".join(row["witnesses"])
        )
    Console().print(table)


def _row(rule: Rule) -> dict:
    return {
        "id": rule.id,
        "title": rule.title,
        "severity": rule.severity.value,
        "tracks": sorted(track.value for track in rule.tracks),
        "since": rule.since.isoformat(),
        "witnesses": [witness.value for witness in rule.witnesses],
    }
