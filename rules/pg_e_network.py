"""PG-E-network: No network during training and evaluation."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from auditor.timeline import External, Phase, Timeline
from rules.base import Example, Rule
from rules.events import blind_spots, place
from rules.example_program import IMPORTS, program
from rules.examples import variant
from rules.package_facts import imported_modules, network_contacts
from rules.support import failed, listed, passed, warned
from rules.testimony import from_timelines

DOWNLOADS = IMPORTS.rstrip("\n") + "\nimport urllib.request\n"
FETCH = """
    urllib.request.urlretrieve("https://example.org/table.bin", "table.bin")
    val_loss, val_bpb = evaluate(scored, val_tokens, tables, rank, world_size, device)
"""


def decide(case: Case) -> Finding:
    """Network clients among the imports are a hint; what is called is for the other witnesses."""
    heard = from_timelines(case, "whether the executed path talks to a network", read)
    if heard.status is not Status.UNKNOWN:
        return heard
    clients = network_contacts(case)
    if clients:
        return warned(
            f"the program can talk to a network: {listed(item.name for item in clients)}",
            [item.evidence for item in clients],
        )
    if imported_modules(case) is None:
        return heard
    return passed("nothing the program reaches can talk to a network")


def read(timeline: Timeline) -> Finding | None:
    """Network contact is the breach in any phase after set-up."""
    calls = [event for event in timeline.events() if isinstance(event, External) and event.kind == "network"]
    late = [event for event in calls if event.phase is not Phase.SETUP]
    if late:
        return failed(
            f"network access: {listed(dict.fromkeys(event.detail or 'a call' for event in late))}",
            [place(event, event.detail) for event in _once(late)],
        )
    if calls:
        # A witness that never saw the training begin cannot tell what comes before it.
        known = any(event.phase not in (Phase.SETUP, Phase.UNKNOWN) for event in timeline.events())
        when = "during set-up" if known else "; when training and evaluation begin could not be told"
        return warned(f"network access{' ' if known else ''}{when}", [place(e, e.detail) for e in _once(calls)])
    if any(blind_spots(timeline)):
        return None
    return passed("no network access on the executed path")


def _once(calls: list[External]) -> list[External]:
    """The first contact of every line."""
    return list({event.place: event for event in reversed(calls)}.values())[::-1]


RULE = Rule(
    id="PG-E-network",
    title="No network during training and evaluation",
    statement=(
        "No downloads or network calls during evaluation; the artifact is self-contained. (README names "
        "evaluation; community check-lists extend it to training.)"
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=("requests/urllib/socket/huggingface_hub/datasets/wandb/git/pip/apt in the executed path at eval",),
    allowed=("NCCL/torchrun rendez-vous on localhost; separate data-download scripts run before the clock",),
    history="",
    legal_precedents=(),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Remove every download and network client from the executed path; fetch data in a separate script "
        "before the clock starts."
    ),
    legal=(Example("no network client imported"),),
    illegal=(
        Example("a table is downloaded before scoring", variant(program(imports=DOWNLOADS, score=FETCH)), Status.FAIL),
    ),
    decide=decide,
)
