"""Two witnesses side by side: alike, one blind, contradicting each other with and without a reason."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from auditor.case import Case
from auditor.findings import Status, Witness
from auditor.static.machine_questions import machine_questions
from auditor.static.order import Verdict
from auditor.submission import Submission
from auditor.timeline import (
    Branch,
    Load,
    Phase,
    Place,
    Probed,
    Score,
    Sequence,
    Serialize,
    Span,
    Split,
    Timeline,
    Unknown,
    Update,
    Via,
)
from auditor.unpack import read_program
from rules import rule
from rules.agreement import AGREE, DISAGREE, ONLY_RUN, ONLY_STATIC, agreement

FOLDER = "records/track_10min_16mb/2026-04-01_Small"
MAIN = f"{FOLDER}/train_gpt.py"
SOURCE = """import os, torch
real = os.path.exists("/proc/driver/nvidia")
steps = int(os.environ.get("STEPS", "3"))

def adapt(model, val):
    if real:
        model.step(val)
    if steps > 2:
        model.step(val)
    return model.score(val)
"""
STEP, OTHER_STEP, SCORE = 7, 9, 10


def at(line: int) -> Place:
    return Place(MAIN, line)


def executed(*events, late: bool = False) -> Timeline:
    """Training, an export read back, an update before the score when `late`, the counted score, then `events`."""
    span = Span(Split.VAL, positions=((1, 100),))
    update = (Update(at(STEP), span, "parameters", phase=Phase.EVALUATION),) if late else ()
    files = (Serialize(at(1)), Load(at(1), "model.bin"))
    return Timeline("CPU run", Sequence((*files, *update, Score(at(SCORE), span, True), *events)))


def read(condition_line: int = 0, step: int = STEP) -> Timeline:
    """What reading sees: an update on validation tokens, under an undecided condition where a line is given."""
    update = Update(at(step), Span(Split.VAL), "model")
    inner = Sequence((update,))
    node = Branch(at(condition_line), "the condition", None, inner, Sequence(())) if condition_line else inner
    return Timeline("static analysis", Sequence((node, Score(at(SCORE), Span(Split.VAL), True, from_artifact=True))))


def case(static: Timeline, run: Timeline, *verdicts: Verdict) -> Case:
    submission = Submission.from_files({MAIN: SOURCE})
    made = Case(submission, read_program(submission))
    made.timelines = {Witness.STATIC: static, Witness.RUN: run}
    made.facts["static"] = SimpleNamespace(answers={v.rule: v for v in verdicts}, dead=[])
    return made


def verdict(status: Status, name: str = "PG-C3-score-first", line: int = STEP) -> Verdict:
    return Verdict(name, status, "by reading", ((at(line), "changes the model"), (at(SCORE), "scores")))


def first(made: Case):
    return agreement(made)[0]


@pytest.mark.parametrize(("status", "late"), [(Status.PASS, False), (Status.FAIL, True)])
def test_same_answer(status, late):
    point = first(case(read(), executed(late=late), verdict(status)))
    assert point.state == AGREE and not point.reason
    assert rule("PG-C3-score-first").decide(case(read(), executed(late=late), verdict(status))).status is status


def test_condition_on_the_machine_is_told():
    made = case(read(condition_line=6), executed(), verdict(Status.FAIL))
    point = first(made)
    assert (point.state, point.machine, point.explained) == (DISAGREE, True, True)
    assert "os.path.exists" in point.reason and "train_gpt.py:6" in point.reason
    finding = rule("PG-C3-score-first").decide(made)
    assert finding.status is Status.WARN and "what machine it runs on" in finding.summary
    assert "by reading" in finding.explanation and "os.path.exists" in finding.explanation


def test_other_undecided_condition():
    point = first(case(read(8, OTHER_STEP), executed(), verdict(Status.FAIL, line=OTHER_STEP)))
    assert point.state == DISAGREE and not point.machine
    assert "the condition" in point.reason


def test_contradiction_without_a_reason_says_so():
    made = case(read(), executed(late=True), verdict(Status.PASS))
    point = first(made)
    assert (point.state, point.reason, point.explained) == (DISAGREE, "", False)
    assert rule("PG-C3-score-first").decide(made).status is Status.WARN


def test_one_witness_blind():
    blind = Timeline("static analysis", Sequence((Unknown(at(3), "exec of a computed string"),)))
    point = first(case(blind, executed(late=True)))
    assert point.state == ONLY_RUN and "exec of a computed string" in point.reason
    dark = Timeline("CPU run", Sequence((Unknown(at(3), "no combination of recorded losses"),)))
    point = first(case(read(), dark, verdict(Status.PASS)))
    assert point.state == ONLY_STATIC and "no combination" in point.reason


def test_run_that_never_used_a_table_does_not_clear_it():
    seen = Probed(at(SCORE), "normalisation", True, "adds up unchanged")
    made = case(read(), executed(seen), verdict(Status.FAIL, "PG-C2-normalisation"))
    assert rule("PG-C2-normalisation").decide(made).status is Status.FAIL
    made = case(read(), executed(seen))
    assert rule("PG-C2-normalisation").decide(made).status is Status.PASS


def test_cache_that_may_have_been_idle_is_not_passed_by_the_run():
    seen = (
        Probed(at(SCORE), "normalisation", True, "unchanged"),
        Probed(at(SCORE), "causality", True, "no loss moved"),
    )
    table = Timeline("static analysis", Sequence((Update(at(3), Span(Split.VAL), "count table 1", Via.TABLE),)))
    compiled = Timeline("static analysis", Sequence((Unknown(at(3), "native code is loaded"),)))
    for static in (table, compiled):
        made = case(static, executed(*seen))
        assert rule("PG-C2-normalisation").decide(made).status is Status.UNKNOWN
        assert rule("PG-C1-causality").decide(made).status is Status.UNKNOWN
    assert rule("PG-C1-causality").decide(case(read(), executed(*seen))).status is Status.PASS


def test_score_below_chance_and_moved_past_are_failures():
    below = Probed(at(SCORE), "normalisation", False, "2,000 random tokens cost 2 nats each")
    finding = rule("PG-C2-normalisation").decide(case(read(), executed(below)))
    assert finding.status is Status.FAIL and finding.evidence[0].line == SCORE and finding.witness is Witness.RUN
    moved = Probed(at(SCORE), "causality", None, "other weights scored them", doubt=True)
    assert rule("PG-C1-causality").decide(case(read(), executed(moved))).status is Status.WARN
    open_ = Probed(at(SCORE), "causality", None, "cannot be told")
    assert rule("PG-C1-causality").decide(case(read(), executed(open_))).status is Status.UNKNOWN


def test_questions_about_the_machine():
    text = """
import torch, platform, socket
props = torch.cuda.get_device_properties(0)
def on_cluster():
    return socket.gethostname().startswith("node")
class Settings:
    fast = props.major >= 9
s = Settings()
if s.fast: a = 1
if on_cluster(): b = 1
if "+cpu" in torch.__version__: c = 1
if torch.zeros(1).device.type == "cpu": d = 1
if s.steps > 3: e = 1
if model(x).mean() > 0: f = 1
"""
    submission = Submission.from_files({MAIN: text})
    lines = {line for _, line in machine_questions(read_program(submission))}
    assert lines == {9, 10, 11, 12}
