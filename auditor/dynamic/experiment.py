"""The probe run as part of the testimony: made when the first run left time for it (in words: `probe_words`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from auditor.dynamic.attribution import SPLIT_BITS, Attribution, Printed, explain, printed_results
from auditor.dynamic.probes import DECISIVE, Causal, Fair, causal, fair
from auditor.dynamic.run import RunResult, run_again
from auditor.dynamic.streams import Few, Future, Longer, Repeated
from auditor.submission import Submission
from auditor.unpack import Program

# A first run that took longer than this (CPU seconds) is not repeated: the review has to end.
LONGEST = 40.0
# CPU seconds of the second and all further runs, by the time of the first: few submissions need more than the second, but
# for those nothing else tells.
FURTHER = 60.0
# Evidence at which a longer stream is worth its time: odds of 20 to one.
WORTH_MORE = math.log(20.0)
# How a run is repeated: the variable that the recorder reads.
How = Literal["", "AUDITOR_SHARP", "AUDITOR_AHEAD"]
PLAIN: How = ""
SHARP: How = "AUDITOR_SHARP"
AHEAD: How = "AUDITOR_AHEAD"


@dataclass(frozen=True)
class Experiment:
    """What the probe run showed.

    Attributes:
        absent: why there is no result, "" when there is one.
        seconds: wall time of the second run and of further ones. start: first altered position.
        causal, fair: see `auditor.dynamic.probes`.
        late: counted tokens of the first run that had shaped the model before they were scored; they beat chance too.
        derived: the program changed losses after the model. picked: it kept the smallest of several losses.
        chance: nats that all tokens of the stream can be expected to cost at least; total: what the printed headline of
            the second run makes of them, if it counts every token of the stream once; printed: that headline. Only where
            it could not be attributed.
        few: tokens of the stream of few ids these numbers are from, 0 when they are from the second run. sound: printed
            nats and bits per byte together mean all tokens with their official bytes, so that nothing was left out, or
            the bits per byte are too low for any part of the stream.
        ahead: rows of logits looked at where the stream is scored, and how many depend on inputs behind them; looked at in a
            third run, where rows of training do.
        apart: the bits per byte printed with the headline are not its losses over any whole number of bytes.
        where: what was special in the further run that `fair` is from, in words; "" for the second run.
    """

    absent: str = ""
    seconds: float = 0.0
    start: int = 0
    causal: Causal | None = None
    fair: Fair | None = None
    late: int = 0
    derived: bool = False
    picked: bool = False
    chance: float = 0.0
    total: float = 0.0
    few: int = 0
    sound: bool = False
    where: str = ""
    apart: bool = False
    printed: Printed | None = None
    ahead: tuple[int, int] = (0, 0)

    @property
    def wants_few_ids(self) -> bool:
        """Whether only the printed result can tell, on a stream where all that is honest costs as much."""
        return self.printed is not None or self.apart


def experiment(
    submission: Submission,
    program: Program,
    first: RunResult,
    claim: tuple[Printed, Attribution | None] | None,
    seconds: float,
    late: int = 0,
) -> Experiment:
    """Run a submission again on a stream with another future and compare.

    Args:
        first: the finished run. claim: its headline with what it consists of.
        seconds: CPU time of each further run. late: see `Experiment`.
    """
    obstacle = obstacle_to(first, claim)
    if obstacle:
        return Experiment(obstacle, late=late)

    def again(future: Future, how: How) -> RunResult:
        return repeat(submission, program, first, future, seconds, how)

    return experiment_with(again, first, claim, program, late)


def experiment_with(
    again: Callable[[Future, How], RunResult],
    first: RunResult,
    claim: tuple[Printed, Attribution | None],
    program: Program,
    late: int = 0,
) -> Experiment:
    """Compare a run with a second one, and with further ones where that leaves open what they can tell.

    Args:
        again: gives the run repeated with a future in one of the ways of `repeat`.
    """
    future = _future_of(Future, first, program)
    made = replace(compare(first, claim, again(future, PLAIN), future), late=late)
    spent = first.cpu_seconds
    for wanted, kind, how, read in _FURTHER:
        takes = first.cpu_seconds * kind.takes
        if wanted(made, first) and spent + takes <= FURTHER:
            future = _future_of(kind, first, program)
            run = again(future, how)
            made = replace(read(made, claim, run, future), seconds=made.seconds + run.seconds)
            spent += takes
    return made


def obstacle_to(first: RunResult, claim: tuple[Printed, Attribution | None] | None) -> str:
    """Why a run is not repeated, "" when nothing stands against it."""
    if claim is None:
        return "the first run printed no result"
    took = first.cpu_seconds or first.seconds
    return f"the first run took {took:.0f} s, which leaves no time for a second one" if took > LONGEST else ""


def _future_of(kind: type[Future], first: RunResult, program: Program) -> Future:
    """What a run is repeated with."""
    return kind(first.plan.vocab_size, seed=len(program.main.text) if program.main else 0)


def repeat(
    submission: Submission,
    program: Program,
    first: RunResult,
    future: Future,
    seconds: float = 60.0,
    how: How = PLAIN,
) -> RunResult:
    """Run a submission again on a stream with another future.

    Args:
        how: SHARP: with a model that is made sure of what it says. AHEAD: with gradients where it scores, which tell
            whether a row of logits depends on inputs behind it; the run may end there.
    """
    given = {} if how == PLAIN else {how: "1"}
    scale = replace(first.plan.scale, val_tokens=future.times * (first.plan.scale.val_tokens - 1) + 1)
    plan = replace(first.plan, environment={**first.plan.environment, **given}, scale=scale)
    return run_again(submission, program, plan, future.apply, seconds=seconds)


def _looks_ahead(made: Experiment, first: RunResult) -> bool:
    """Whether rows of logits depended on later inputs in training."""
    return bool(gradients(first.events)[1]) and not (made.causal is not None and made.causal.moved)


def _nearly_won(made: Experiment, first: RunResult) -> bool:
    """Whether a bet won what chance seldom gives, and not enough."""
    return not made.late and made.fair is not None and WORTH_MORE <= made.fair.evidence < DECISIVE


def _counts_training(made: Experiment, first: RunResult) -> bool:
    """Whether tables hold counts of training tokens, which may wait for contexts that come twice."""
    counted = any(event["kind"] == "table" and (event["places"] < 1 << SPLIT_BITS).any() for event in first.events)
    return counted and _nothing_won(made)


def _mixed_after(made: Experiment, first: RunResult) -> bool:
    """Whether losses are mixed after the model, in ways that a model which is sure of nothing cannot show."""
    return made.derived and _nothing_won(made)


def _nothing_won(made: Experiment) -> bool:
    return not made.late and made.fair is not None and made.fair.holds is True


def _wants_few_ids(made: Experiment, first: RunResult) -> bool:
    return made.wants_few_ids


def _headline(run: RunResult, label: str) -> tuple[Printed, Attribution | None] | None:
    """The headline of a further run with what it consists of, None where it did not come to one."""
    return explain(run.events, run.dataset_bytes, label).claim if run.status == "finished" else None


def _compare_ahead(
    made: Experiment, claim: tuple[Printed, Attribution | None], third: RunResult, future: Future
) -> Experiment:
    """What gradients of the passes that score say."""
    return replace(made, ahead=gradients(third.events))


def _compare_fair(
    made: Experiment, claim: tuple[Printed, Attribution | None], third: RunResult, future: Future, where: str = ""
) -> Experiment:
    """What a run under other conditions adds, `where` in words: whatever they are, all tokens are given one at most."""
    found = _headline(third, claim[0].label)
    if found is None or found[1] is None or fair(found[1], future).holds is not False:
        return made
    return replace(made, fair=fair(found[1], future), where=where or future.where)


def _compare_longer(
    made: Experiment, claim: tuple[Printed, Attribution | None], third: RunResult, future: Future
) -> Experiment:
    """What a longer stream of other tokens adds: bets on both are bets on one after the other, and their odds multiply."""
    found = _headline(third, claim[0].label)
    if found is None or found[1] is None:
        return made
    one, other = made.fair, fair(found[1], future)
    sums = {name: getattr(one, name) + getattr(other, name) for name in ("tokens", "loss", "chance", "evidence")}
    return replace(made, fair=replace(other, **sums), where=future.where)


def _compare_sharp(
    made: Experiment, claim: tuple[Printed, Attribution | None], third: RunResult, future: Future
) -> Experiment:
    return _compare_fair(made, claim, third, future, "where the model is sure of what it says (its output scaled up)")


def compare(
    first: RunResult, claim: tuple[Printed, Attribution | None], again: RunResult, future: Future
) -> Experiment:
    """Compare a run with its repetition on an altered stream."""
    if again.status != "finished":
        return Experiment(f"the second run {again.status}: {again.reason[:120]}", again.seconds)
    printed, attribution = claim
    second = explain(again.events, again.dataset_bytes, printed.label).claim
    if second is None:
        return Experiment("the second run printed no result", again.seconds)
    made = Experiment(seconds=again.seconds, start=future.start)
    if second[1] is None:
        chance, total = float(future.cost.sum()), _total(second[0], again.dataset_bytes)
        # What tokens cost differs here, so that leaving some out could make a little of a difference, but not this much.
        sound = _of_all_tokens(second[0], again.dataset_bytes) and _WELL_BELOW * total < chance
        return replace(made, absent=_UNEXPLAINED, chance=chance, total=total, printed=second[0], sound=sound)
    made = replace(
        made,
        fair=fair(second[1], future),
        derived=second[1].derived or (attribution is not None and attribution.derived),
        picked="min" in (second[1].how, attribution.how if attribution else ""),
        apart=second[1].bits_apart or (attribution is not None and attribution.bits_apart),
    )
    if attribution is None:
        return replace(made, absent=_UNEXPLAINED)
    return replace(made, causal=causal(first.events, attribution, again.events, second[1], future.start))


def _compare_few(
    made: Experiment, claim: tuple[Printed, Attribution | None], third: RunResult, future: Future
) -> Experiment:
    """What a run on a stream of few ids adds where the headline could not be attributed."""
    found = _headline(third, claim[0].label)
    if found is None:
        return made
    if made.apart:
        return _compare_bits(made, claim[1], found, third, future)
    chance, total = float(future.cost.sum()), _total(found[0], third.dataset_bytes)
    made = replace(made, few=int((future.cost > 0).sum()))
    if found[1] is not None and not fair(found[1], future).holds:
        return replace(made, fair=fair(found[1], future), printed=None)
    sound = _of_all_tokens(found[0], third.dataset_bytes) or _whatever_was_counted(found[0], third, total, chance)
    return replace(made, chance=chance, total=total, printed=found[0], sound=sound)


def _compare_bits(
    made: Experiment,
    first: Attribution | None,
    found: tuple[Printed, Attribution | None],
    third: RunResult,
    future: Future,
) -> Experiment:
    """What bits per byte that are not made of the losses beside them come to on a stream of few ids.

    A wrong count of bytes scales them as much on every stream; what is below chance here and was not there is no count.
    """
    bits, again = replace(found[0], loss=None), found[1]
    chance, total = float(future.cost.sum()), _total(bits, third.dataset_bytes)
    if first is None or again is None or not (first.implied_bytes and again.implied_bytes):
        return made
    other = (again.implied_bytes / again.official_bytes) / (first.implied_bytes / first.official_bytes)
    if chance - total < DECISIVE or other < _FAR_BELOW:
        return made
    sound = _whatever_was_counted(bits, third, total, chance)
    return replace(made, few=int((future.cost > 0).sum()), chance=chance, total=total, printed=bits, sound=sound)


def _of_all_tokens(printed: Printed, token_bytes: np.ndarray) -> bool:
    """Whether a printed pair of numbers divides by the tokens and the official bytes of the whole stream."""
    if not printed.loss or not printed.bpb:
        return False
    implied = printed.loss * (len(token_bytes) - 1) / math.log(2) / printed.bpb
    return abs(implied / float(token_bytes.sum()) - 1) < 0.005


# How much less than any token of a stream of few ids can cost is impossible even where bytes are counted a little
# otherwise. Leaving tokens out changes nothing there: all of them have the same bytes and the same chance.
_FAR_BELOW = 1.5
_WELL_BELOW = 1.2


def _whatever_was_counted(printed: Printed, run: RunResult, total: float, chance: float) -> bool:
    """Whether bits per byte alone are far below what any part of the stream costs, in a program that counts bytes rightly
    where it prints both numbers."""
    if printed.loss or not printed.bpb or total * _FAR_BELOW > chance:
        return False
    others = printed_results(run.events)
    return any(other.bpb and _of_all_tokens(other, run.dataset_bytes) for other in others)


def _total(printed: Printed, token_bytes: np.ndarray) -> float:
    """Nats of the whole stream by a printed result that counts every token once."""
    if printed.loss is not None and printed.loss > 0:
        return printed.loss * (len(token_bytes) - 1)
    return printed.bpb * math.log(2) * float(token_bytes.sum()) if printed.bpb else math.inf


# Further runs in their order: for whom, with which stream, repeated how, and what reads them.
_FURTHER = (
    (_looks_ahead, Future, AHEAD, _compare_ahead),
    (_nearly_won, Longer, PLAIN, _compare_longer),
    (_counts_training, Repeated, PLAIN, _compare_fair),
    (_mixed_after, Future, SHARP, _compare_sharp),
    (_wants_few_ids, Few, PLAIN, _compare_few),
)
_UNEXPLAINED = "the headline could not be attributed to recorded losses"


def gradients(events: list[dict[str, Any]]) -> tuple[int, int]:
    """Rows of logits whose gradients were looked at, and how many of them depend on later inputs."""
    found = [event for event in events if event["kind"] == "lookahead"]
    return sum(event["rows"] for event in found), sum(event["ahead"] for event in found)
