"""Network contact: what is said of its phase, and that a line is named once."""

from __future__ import annotations

from auditor.findings import Status
from auditor.timeline import Extent, External, Phase, Place, Sequence, Span, Split, Timeline, Update, Via
from rules.pg_e_network import read

FETCH = External(Place("train_gpt.py", 12), "network", "urllib.request.urlopen", phase=Phase.SETUP)
LATE = External(Place("train_gpt.py", 90), "network", "datasets.load_dataset", phase=Phase.EVALUATION)
TRAINING = Update(
    Place("train_gpt.py", 40), Span(Split.TRAIN, Extent.ALL), "model", Via.OPTIMIZER, phase=Phase.TRAINING
)  # fmt: skip


def said(*events: object) -> object:
    return read(Timeline("static analysis", Sequence(events)))


def test_a_contact_before_training_is_one_of_the_set_up() -> None:
    finding = said(FETCH, FETCH, TRAINING)
    assert finding.status is Status.WARN
    assert "during set-up" in finding.summary
    assert len(finding.evidence) == 1


def test_a_reading_that_never_saw_the_training_does_not_know_the_phase() -> None:
    finding = said(FETCH)
    assert finding.status is Status.WARN
    assert "could not be told" in finding.summary
    assert "set-up" not in finding.summary


def test_a_contact_of_the_evaluation_is_a_breach_and_named_once() -> None:
    finding = said(FETCH, TRAINING, LATE, LATE)
    assert finding.status is Status.FAIL
    assert [item.line for item in finding.evidence] == [90]
    assert finding.summary.count("load_dataset") == 1
