"""The probe run in words: what further runs showed, as events of the timeline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from auditor.dynamic.experiment import Experiment, gradients
from auditor.dynamic.probes import DECISIVE, SUSPICIOUS, Causal, Fair
from auditor.timeline import Place, Probed

if TYPE_CHECKING:
    from auditor.dynamic.account import Account


def probed(made: Experiment, account: Account) -> list[Probed]:
    """The results as events, placed at the line that computes the losses."""
    if made.printed is not None and not made.apart:
        return _unexplained(made, account)
    scored = next((event for event in account.events if event.get("n") in account.counted), None)
    default = account.place(scored) if scored else _said(account)
    if made.printed is not None:
        found = _unexplained(made, account)
    else:
        found = [_normalisation(made, default)] if made.fair is not None else []
    if made.causal is not None:
        found += [_causality(made, account, default), _repeatability(made.causal, default)]
    return found


def _said(account: Account) -> Place:
    """The line that printed the headline."""
    claim = account.explained.claim
    said = next((event for event in account.events if claim and event.get("n") == claim[0].event), None)
    return account.place(said) if said else Place(account.main, 1)


def _unexplained(made: Experiment, account: Account) -> list[Probed]:
    """A headline nobody can take apart may still be lower than anything honest on a stream that is mostly random."""
    if made.chance - made.total < DECISIVE:
        return []
    stream = f"one of {round(math.exp(made.chance / made.few))} ids" if made.few else "a token"
    text = (
        f"the printed result {made.printed.text[:100]!r} amounts to {made.total:,.0f} nats for the whole stream; that "
        f"{stream} was drawn at random in each place costs any honest scorer {made.chance:,.0f} or more"
    )
    if made.sound and not made.late:
        return [Probed(_said(account), "normalisation", False, text)]
    text += (
        ", unless tokens were left out or bytes counted otherwise; of which recorded losses it consists is not known"
    )
    return [Probed(_said(account), "normalisation", None, text, doubt=True)]


def _causality(made: Experiment, account: Account, default: Place) -> Probed:
    found = made.causal
    question = "causality"
    rows, ahead = made.ahead
    if ahead:
        text = (
            f"{ahead} of {rows} rows of logits looked at where the stream is scored depend on input tokens behind them, the "
            "target among them (gradients of these forward passes)"
        )
        return Probed(default, question, False, text)
    rows, ahead = gradients(account.events)
    if ahead and not made.ahead[0]:
        text = (
            f"{ahead} of {rows} rows of logits looked at depend on input tokens behind them, the target among them "
            "(gradients of forward passes in training)"
        )
        return Probed(default, question, None, text, doubt=True)
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
    if found.holds is False:
        collected = next(event for event in account.events if event.get("n") == found.calibrated)
        text += "; weights scored them that were the same until activations of these later tokens had been collected"
        return Probed(account.place(collected), question, False, text)
    if found.after_future:
        return Probed(default, question, None, f"{text}; some of those had been scored before", doubt=not made.late)
    return Probed(default, question, None, f"{text}; other weights scored them", doubt=not made.late)


def _normalisation(made: Experiment, place: Place) -> Probed:
    found, question = made.fair, "normalisation"
    if found.holds is None:
        return Probed(place, question, None, f"only {found.tokens} of the replaced tokens count")
    numbers = _numbers(found)
    if not found.holds:
        numbers = f"{made.where}, {numbers}" if made.where else numbers
        if made.late:
            return Probed(place, question, None, f"{numbers}: the scored tokens had shaped the model before")
        return Probed(place, question, False, f"{numbers}: no distribution fixed before a token is known does that")
    if found.evidence >= SUSPICIOUS and not made.late:
        return Probed(place, question, None, f"{numbers}: too much to be chance, too little to be sure", doubt=True)
    if made.apart:
        text = f"{numbers}; the bits per byte printed beside are not these losses over any whole number of bytes"
        return Probed(place, question, None, text)
    if made.derived or made.picked:
        text = (
            f"{numbers}; the counted losses are chosen or changed after the model, and nothing here shows that they "
            "exceed what is allowed"
        )
        return Probed(place, question, None, text)
    text = f"each counted loss is a cross entropy over the whole vocabulary, added up unchanged; {numbers}"
    return Probed(place, question, True, text)


def _numbers(found: Fair) -> str:
    """The bet in words."""
    text = (
        f"{found.tokens:,} tokens drawn at random cost {found.loss / found.tokens:.3f} nats each, "
        f"{found.chance / found.tokens:.3f} for who knows how they were drawn"
    )
    if found.mass is not None:
        text += (
            f"; all ids that could have stood there get {found.mass:.3g} ± {found.error:.2g} together, from a "
            "distribution one at most"
        )
    if found.evidence >= SUSPICIOUS:
        text += f"; who bets that it is more wins 10^{found.evidence / math.log(10):.0f} to one"
    return text


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
