"""Whether the headline is the score of what was written: the artifact read back before the first counted score."""

from __future__ import annotations

from auditor.findings import Finding
from auditor.timeline import Load, Score, Serialize, Split, Timeline, Unknown
from rules.events import place
from rules.support import passed, warned


def artifact_before_headline(timeline: Timeline) -> Finding | None:
    """Order of writing, reading back and scoring in an executed timeline; None when no counted score was seen.

    A file that is written and never read back before the scores that count leaves the weights of before the export to score.
    That is warned of, not failed: a program may unpack the same bytes from memory.
    """
    written: Serialize | None = None
    loaded: Load | None = None
    for event in timeline.events():
        if isinstance(event, Unknown):
            return None
        if isinstance(event, Serialize):
            written = event
        elif isinstance(event, Load) and written is not None:
            loaded = event
        elif isinstance(event, Score) and event.counted and event.span.split is Split.VAL:
            return _judged(event, written, loaded)
    return None


def _judged(score: Score, written: Serialize | None, loaded: Load | None) -> Finding:
    if loaded is not None:
        return passed(
            f"{loaded.artifact or 'the artifact'} is written and read back before the first score that counts",
            [place(loaded, "reads the artifact back"), place(score, "scores what counts")],
        )
    if written is not None:
        words = "the artifact is written but not read back before the first score that counts"
        return warned(words, [place(written, "writes the artifact"), place(score, "scores what counts")])
    words = "no artifact was written before the first score that counts"
    return warned(words, [place(score, "scores what counts")])
