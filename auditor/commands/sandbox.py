"""`auditor sandbox --check`: try the escapes on this machine and print what held."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from auditor.dynamic.sandbox.check import ESCAPES, attempt, baited
from auditor.dynamic.sandbox.runner import available_layers


def check(console: Console) -> int:
    """Print the active layers and a table of escape attempts; 0 when all were held, 1 when not, 4 without a sandbox."""
    active, lacking = available_layers()
    console.print("active layers: " + (", ".join(sorted(active)) or "none"), highlight=False)
    if lacking:
        console.print(f"nothing protects {', '.join(lacking)}: untrusted programs are not run on this machine")
        return 4
    table = Table("attempt", "outcome", "ended by", "seconds", box=box.SIMPLE)
    failed = 0
    with baited() as bait:
        for escape in ESCAPES:
            held, outcome = attempt(escape, bait)
            failed += not held
            table.add_row(
                escape.name, "held" if held else "ESCAPED", outcome.reason or "itself", f"{outcome.seconds:.2f}"
            )
    console.print(table)
    console.print(f"{len(ESCAPES) - failed} of {len(ESCAPES)} escape attempts held", highlight=False)
    return 1 if failed else 0


def layers(console: Console) -> int:
    """Print the layers only; 0 when they suffice, 4 when not."""
    active, lacking = available_layers()
    for layer in sorted(active):
        console.print(f"  {layer}", highlight=False)
    if lacking:
        console.print(f"nothing protects {', '.join(lacking)}: untrusted programs are not run on this machine")
    return 4 if lacking else 0
