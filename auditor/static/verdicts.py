"""One answer of static analysis to one rule."""

from __future__ import annotations

from dataclasses import dataclass

from auditor.findings import Status
from auditor.timeline import Place


@dataclass(frozen=True)
class Verdict:
    """One answer: rule id, status, one line in words, and (place, what happens there) in order."""

    rule: str
    status: Status
    summary: str
    chain: tuple[tuple[Place, str], ...] = ()

    def __post_init__(self) -> None:
        # The same step reached on two ways is one step to a reader.
        object.__setattr__(self, "chain", tuple(dict.fromkeys(self.chain)))
