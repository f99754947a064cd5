"""Which weights were scored: those that were written to the artifact and read back, or those in memory."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.findings import Status
from auditor.static.verdicts import Verdict
from auditor.timeline import Load, Report, Score, Serialize, Split, Timeline

RULE = "PG-B-from-artifact"


def origin_verdicts(timeline: Timeline) -> Iterator[Verdict]:
    """A warning when an artifact is written and none of the claimed scores was computed with weights read from it.

    A proof to the contrary is not given: a state can be read back and then be replaced.
    """
    scores = [e for e in timeline.events() if isinstance(e, Score) and e.counted and e.span.split is Split.VAL]
    written = [e for e in timeline.events() if isinstance(e, Serialize)]
    if not scores or not written or any(score.from_artifact is not False for score in scores):
        return
    # A state that is read into a model somewhere may be the scored one in a way that was not followed.
    if any(isinstance(e, Load) and e.artifact for e in timeline.events()):
        return
    report = next((e for e in timeline.events() if isinstance(e, Report) and e.headline), None)
    chain = [
        (written[-1].place, "writes the artifact"),
        (scores[-1].place, "scores weights that were not read from it"),
    ]
    if report is not None:
        chain.append((report.place, "reports this score"))
    yield Verdict(RULE, Status.WARN, "the claimed number is not seen to come from the artifact", tuple(chain))
