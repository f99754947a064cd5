"""The case file of one submission: everything the witnesses said, as the rules see it.

Rules never see source text or syntax trees; they see what the witnesses made of them (design, "The house").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from auditor.documents.model import Claim, ForensicFact, Metadata, Readme, TrainLog
from auditor.documents.shell import Shell
from auditor.findings import Witness
from auditor.submission import Submission
from auditor.timeline import Timeline
from auditor.unpack import Program


@dataclass
class Case:
    """What is known of one submission.

    Attributes:
        submission: files, track, date (`auditor.submission`).
        program: source layers of the main script and its companions (`auditor.unpack`).
        metadata: every submission.json found in the folder, the main one first.
        readme: the folder's README, or None.
        logs: every train log of the folder.
        ledger: claims beside evidence (`auditor.documents.ledger`).
        headline: the claimed BPB and the log line of each reported run (`auditor.documents.ledger.Headline`).
        forensics: observations on the logs (`auditor.documents.forensics`).
        statistics: the tests against the standing record (`auditor.documents.statistics`).
        facts: what reading the program yields without following control flow (imports, local files it
            runs, log templates), by name.
        timelines: witness -> timeline.
        absent: witness -> why it did not testify.
        scripts: shell scripts of the folder, in which the command of the claimed run may stand.
    """

    submission: Submission
    program: Program
    metadata: list[Metadata] = field(default_factory=list)
    readme: Readme | None = None
    logs: list[TrainLog] = field(default_factory=list)
    ledger: list[Claim] = field(default_factory=list)
    headline: Any = None
    forensics: list[ForensicFact] = field(default_factory=list)
    statistics: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    timelines: dict[Witness, Timeline] = field(default_factory=dict)
    absent: dict[Witness, str] = field(default_factory=dict)
    scripts: list[Shell] = field(default_factory=list)

    @property
    def runs(self) -> list:
        """Every run of every log, in file order."""
        return [run for log in self.logs for run in log.runs]
