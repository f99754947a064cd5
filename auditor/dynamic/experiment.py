"""The probe run as part of the testimony: made when the first run left time for it, and put into words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from auditor.dynamic.attribution import Attribution, explain
from auditor.dynamic.probes import Causal, Fair, causal, fair
from auditor.dynamic.run import RunResult, run_again
from auditor.dynamic.streams import Future
from auditor.submission import Submission
from auditor.timeline import Place, Probed
from auditor.unpack import Program

if TYPE_CHECKING:
    from auditor.dynamic.account import Account

# A first run that took longer than this (CPU seconds) is not repeated: the review has to end.
LONGEST = 40.0


@dataclass(frozen=True)
class Experiment:
    """What the probe run showed.

    Attributes:
        absent: why there is no result, "" when there is one.
        seconds: wall time of the second run. start: first altered position.
        causal, fair: see `auditor.dynamic.probes`.
        late: counted tokens of the first run that had shaped the model before they were scored; they beat chance too.
        derived: the program changed losses after the model. picked: it kept the smallest of several losses.
    """

    absent: str = ""
    seconds: float = 0.0
    start: int = 0
    causal: Causal | None = None
    fair: Fair | None = None
    late: int = 0
    derived: bool = False
    picked: bool = False
    tables: bool = False


def experiment(
    submission: Submission, program: Program, first: RunResult, attribution: Attribution | None, seconds: float
) -> Experiment:
    """Run a submission again on a stream with another future and compare.

    Args:
        first: the finished run. attribution: of its headline.
        seconds: CPU time of the second run.
    """
    if attribution is None:
        return Experiment("the headline of the first run could not be attributed to recorded losses")
    took = first.cpu_seconds or first.seconds
    if took > LONGEST:
        return Experiment(f"the first run took {took:.0f} s, which leaves no time for a second one")
    future = Future(seed=len(program.main.text) if program.main else 0)
    again = run_again(submission, program, first.plan, future.apply, seconds=seconds)
    return compare(first, attribution, again, future)


def compare(first: RunResult, attribution: Attribution, again: RunResult, future: Future) -> Experiment:
    """Compare a run with its repetition on an altered stream."""
    if again.status != "finished":
        return Experiment(f"the second run {again.status}: {again.reason[:120]}", again.seconds)
    second = explain(again.events, again.dataset_bytes, attribution.printed.label).claim
    if second is None or second[1] is None:
        return Experiment("the headline of the second run could not be attributed", again.seconds)
    return Experiment(
        seconds=again.seconds,
        start=future.start,
        causal=causal(first.events, attribution, again.events, second[1], future.start),
        fair=fair(again.events, second[1], future, len(again.dataset_bytes)),
        derived=attribution.derived or second[1].derived,
        picked="min" in (attribution.how, second[1].how),
        tables=any(event["kind"] == "table" for event in first.events),
    )


# -- in words ----------------------------------------------------------------------------------------------------------


def probed(made: Experiment, account: Account) -> list[Probed]:
    """The results as events, placed at the line that computes the losses."""
    if made.causal is None or made.fair is None:
        return []
    scored = next((event for event in account.events if event.get("n") in account.counted), None)
    default = account.place(scored) if scored else Place(account.main, 1)
    return [_causality(made, account, default), _normalisation(made, default), _repeatability(made.causal, default)]


def _causality(made: Experiment, account: Account, default: Place) -> Probed:
    found = made.causal
    question = "causality"
    if not found.compared:
        return Probed(default, question, None, "the two runs did not count the same tokens before the altered ones")
    if found.repeats is False:
        text = "two runs with the same seed differ before any validation token is scored"
        return Probed(default, question, None, text)
    if not found.moved:
        what = "sums of losses" if made.derived else "losses"
        text = (
            f"all {found.compared:,} {what} before token {found.start:,} stayed the same when every later one was new"
        )
        if made.fair is not None and made.fair.holds is False:
            text += "; reading the target itself would move none of them, and normalisation shows that it may be read"
            return Probed(default, question, None, text)
        return Probed(default, question, True, text)
    text = (
        f"{found.moved:,} of {found.compared:,} losses before token {found.start:,} moved, by up to "
        f"{found.largest:.3g} nats, when only later tokens were new"
    )
    if found.event is not None:
        scored = next((event for event in account.events if event.get("n") == found.event), None)
        return Probed(account.place(scored) if scored else default, question, False, text)
    if found.after_future:
        return Probed(default, question, None, f"{text}; some of those had been scored before", doubt=not made.late)
    return Probed(default, question, None, f"{text}; other weights scored them", doubt=not made.late)


def _normalisation(made: Experiment, place: Place) -> Probed:
    found, question = made.fair, "normalisation"
    if found.holds is None:
        return Probed(place, question, None, f"only {found.tokens} of the replaced tokens count")
    numbers = (
        f"{found.tokens:,} random tokens cost {found.loss / found.tokens:.3f} nats each, chance allows no less than "
        f"{found.chance / found.tokens:.3f}"
    )
    if found.mass is not None:
        numbers += f"; the ids that could have stood there are given {found.mass:.3g} ± {found.error:.2g} together"
    if not found.holds:
        if made.late:
            return Probed(place, question, None, f"{numbers}: the scored tokens had shaped the model before")
        return Probed(place, question, False, f"{numbers}: no distribution fixed before a token is known does that")
    if made.derived or made.picked or made.tables:
        why = "chosen or changed after the model" if made.derived or made.picked else "beside tables of counts"
        return Probed(place, question, None, f"{numbers}; the counted losses are {why}, which this stream hardly uses")
    text = f"each counted loss is a cross entropy over the whole vocabulary, added up unchanged; {numbers}"
    return Probed(place, question, True, text)


def _repeatability(found: Causal, place: Place) -> Probed:
    question = "repeatability"
    if found.repeats is False:
        return Probed(place, question, False, "losses of training tokens differ between two runs with the same seed")
    if found.compared and not found.moved:
        text = f"{found.compared:,} counted losses and those of training agree between two runs with the same seed"
        return Probed(place, question, True, text)
    if found.repeats:
        text = "losses of training tokens agree between two runs with the same seed; counted ones follow the new tokens"
        return Probed(place, question, None, text)
    return Probed(place, question, None, "the losses of the two runs cannot be compared")
