"""When quantiser calibration ran, how long it took and on what data, as far as logs tell.

A log shows the training clock at its stop, a reserve if one was set, and the collection of Hessians with its seconds;
sometimes it also names the source of the batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.case import Case
from auditor.documents.model import LogRun
from auditor.findings import Evidence, Witness
from auditor.timeline import Calibrate, Clock, Phase, Place, Serialize, Split, Timeline
from rules.measures import as_number, at_log, reported_runs, setting, train_seconds
from rules.support import at_line
from rules.testimony import source_line

_COLLECTS = re.compile(r"(?i)(hessian|calibrat)")
_NOT_CALIBRATION = re.compile(
    r"(?i)(temperature|warmdown|gptq_calib\w*\s*[:=]|calib\w*_batches\s*[:=]|hessian_\w+\s*[:=])"
)
_GENERATED = re.compile(r"(?i)(autoregressive|self[- ]?gen|\bar[ _-]calib|generated? (?:calib|\d+ seq)|synthetic)")
_RANDOM = re.compile(r"(?i)random[- ](?:token|calib|ids|input)")
_VALIDATION = re.compile(
    r"(?i)calib\w*[^|]{0,40}\b(?:from|on|using|with|source[=: ])\s*(?:the )?val(?:idation)?\b(?!_loss)"
)
_TRAIN = re.compile(r"(?i)\btrain(?:ing)?[ _](?:data|tokens|shards?|loader|batches|set|seqs?)")
_SECONDS = re.compile(r"\b(?:in|time[=:]?|took|elapsed[=:]?)\s*([\d.]+)\s*s\b")
# The training clock of the record track, seconds.
CAP = 600.0
_EFFECTIVE = re.compile(r"effective\s*=\s*(\d+)\s*ms")
_RESERVE = re.compile(r"(?i)gptq:?\s*reserv\w*\s+([\d.]+)\s*(ms|s)\b")


def calibrated_on_validation(timeline: Timeline) -> list[Calibrate]:
    """Collections of activations of validation tokens before the last export.

    Those after it shape no quantiser; a timeline without an export is taken as it is.
    """
    order = [event for event in timeline.events() if isinstance(event, Calibrate | Serialize)]
    last = max((index for index, event in enumerate(order) if isinstance(event, Serialize)), default=len(order))
    return [event for event in order[:last] if isinstance(event, Calibrate) and event.span.split is Split.VAL]


@dataclass(frozen=True)
class Calibration:
    """Calibration of one run.

    Attributes:
        trained: training clock at the stop, seconds. `seconds`: of the collection itself, None when not logged.
        reserve: seconds set aside for it by the training clock, None when none is stated.
        source: "generated", "random", "validation", "training" or "unstated".
        after_stop: the collection is logged after the clock stopped.
    """

    run: LogRun
    trained: float
    seconds: float | None
    reserve: float | None
    source: str
    after_stop: bool
    evidence: tuple[Evidence, ...]

    @property
    def end(self) -> float:
        """Seconds of training and calibration together."""
        return self.trained + (self.seconds or 0.0)


def calibrations(case: Case) -> list[Calibration]:
    """Calibration of every reported run that logs one; run by run, in order."""
    return [found for run in reported_runs(case) if (found := _of_run(case, run))]


def behind_the_clock(case: Case) -> list[Evidence]:
    """Calibration on training data that the code places behind a training clock of the full 600 s.

    Only for programs without any log of a training clock: a log shows its seconds, and then the seconds decide. The
    clock is the declared cap; a reserve among the settings leaves the question open. Empty when there is none.
    """
    timeline = case.timelines.get(Witness.STATIC)
    if timeline is None or any(train_seconds(case, run) for log in case.logs for run in log.runs):
        return []
    events = list(timeline.events())
    late = [e for e in events if isinstance(e, Calibrate) and e.span.split is Split.TRAIN and e.phase in _BEHIND]
    variables = case.facts.get("environment") or []
    caps = [seen for seen in variables if "WALLCLOCK" in seen.name.upper() and as_number(seen.detail) is not None]
    reserved = any("RESERVE" in seen.name.upper() for seen in variables)
    if not late or reserved or not caps or any((as_number(seen.detail) or 0.0) < CAP for seen in caps):
        return []
    line = source_line(case, Place(caps[0].path, caps[0].line))
    clock = at_line(caps[0].path, caps[0].line, line, f"the training clock: {caps[0].detail} s, nothing is set aside")
    return [clock, *(at_line(e.place.path, e.place.line, source_line(case, e.place), _LATE) for e in late[:2])]


def clocked_out(case: Case) -> list[Evidence]:
    """Calibration on training data after a training loop whose clock was seen to run the full 600 s, in the CPU run.

    The program compares its clock with nothing earlier: nothing is set aside. Only without any log of a training clock, as
    above; empty when there is none, and where the program's clock could not be followed.
    """
    timeline = case.timelines.get(Witness.RUN)
    if timeline is None or any(train_seconds(case, run) for log in case.logs for run in log.runs):
        return []
    events = list(timeline.events())
    late = [e for e in events if isinstance(e, Calibrate) and e.span.split is Split.TRAIN and e.phase in _BEHIND]
    limits = [
        e for e in events if isinstance(e, Clock) and e.phase is Phase.TRAINING and _SHORTEST <= e.limit <= _LONGEST
    ]
    if not late or not limits or min(e.limit for e in limits) < CAP - _ROUNDING:
        return []
    first = limits[0].place
    clock = at_line(first.path, first.line, source_line(case, first), f"training ends by its clock at {CAP:.0f} s")
    return [clock, *(at_line(e.place.path, e.place.line, source_line(case, e.place), _LATE) for e in late[:2])]


# Limits of a training clock, seconds: what is shorter times something else, what is longer is another track's.
_SHORTEST, _LONGEST, _ROUNDING = 60.0, 660.0, 0.1
_LATE = "calibrates on training data after the training loop"
_BEHIND = (Phase.AFTER_TRAINING, Phase.EVALUATION)


def _of_run(case: Case, run: LogRun) -> Calibration | None:
    lines = _own_lines(case, run)
    trained = train_seconds(case, run)
    hits = [
        (number, text)
        for number, text in lines
        if _COLLECTS.search(text) and not _NOT_CALIBRATION.search(text) and not _RESERVE.search(text)
    ]
    if not hits or trained is None:
        return None
    timed = [(number, float(m[1])) for number, text in hits if (m := _SECONDS.search(text))]
    stop = trained.evidence.line or 0
    shown = [trained.evidence, *(at_log(case, run, number, "calibration as logged") for number, _ in hits[:3])]
    return Calibration(
        run=run,
        trained=trained.value,
        seconds=timed[-1][1] if timed else None,
        reserve=_reserve(run, lines),
        source=_source(text for _, text in lines),
        after_stop=hits[0][0] > stop,
        evidence=tuple(shown),
    )


def _own_lines(case: Case, run: LogRun) -> list[tuple[int, str]]:
    """Numbered lines of the run without an embedded copy of the program."""
    lines = next((log.lines for log in case.logs if log.path == run.path), [])
    skip = range(*run.source_lines) if run.source_lines else range(0)
    last = min(run.last_line, len(lines))
    return [(number, lines[number - 1]) for number in range(run.first_line, last + 1) if number not in skip]


def _reserve(run: LogRun, lines: list[tuple[int, str]]) -> float | None:
    """Seconds set aside: as a setting, as the effective cap, or as printed (0.5 s is printed as 0 by some)."""
    seconds = as_number(setting(run, "gptq_reserve_seconds", "calib_reserve_seconds"))
    milliseconds = as_number(setting(run, "gptq_reserve_ms"))
    if seconds is not None or milliseconds is not None:
        return seconds if seconds is not None else (milliseconds or 0.0) / 1000.0
    for _, text in lines:
        found = _RESERVE.search(text)
        if found:
            effective = _EFFECTIVE.search(text)
            printed = float(found[1]) / (1000.0 if found[2].lower() == "ms" else 1.0)
            return max(printed, CAP - float(effective[1]) / 1000.0) if effective else printed
    return None


def _source(texts) -> str:
    stated = "unstated"
    for text in texts:
        if _GENERATED.search(text):
            return "generated"
        if not _COLLECTS.search(text):
            continue
        if _VALIDATION.search(text):
            return "validation"
        if _RANDOM.search(text):
            stated = "random"
        elif stated == "unstated" and _TRAIN.search(text):
            stated = "training"
    return stated
