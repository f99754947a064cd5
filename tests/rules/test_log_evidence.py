"""What rules read from log lines: calibration, gates, data builds."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.case import Case
from auditor.documents.model import EvalResult, LogRun, Quantity, Readme, Source, StepLine, TrainLog
from auditor.findings import Finding, Status
from auditor.submission import Submission, Track
from auditor.unpack import Program
from rules import rule
from rules.calibration import calibrations
from rules.data_builds import partial_evidence
from rules.gates import gate_findings

RESULT = "final_int6_roundtrip_exact val_loss:1.75870000 val_bpb:1.04160000"


def case_of(*lines: str, stop: float = 600.05, settings: dict[str, str] | None = None, readme: str = "") -> Case:
    """A case with one log: a stop line, the given lines, a result."""
    text = [f"stopping_early: wallclock_cap train_time:{stop * 1000:.0f}ms step:7000/20000", *lines, RESULT]
    run = LogRun("train.log", 1, len(text), seed=42, settings=settings or {})
    run.stop = StepLine(1, 7000, train_seconds=stop, text=text[0])
    run.results = [EvalResult(len(text), "final_int6_roundtrip_exact", 1.7587, 1.0416, digits=8, text=RESULT)]
    submission = Submission("a", "records/track_10min_16mb/a", {}, lambda path: b"", track=Track.RECORD,
                            date=dt.date(2026, 4, 20))  # fmt: skip
    case = Case(submission, Program(), logs=[TrainLog("train.log", text, [run])])
    case.readme = Readme("README.md", readme) if readme else None
    return case


def gptq(case: Case) -> Finding:
    return rule("PG-D-gptq-calibration").decide(case)


@pytest.mark.parametrize(
    ("lines", "source", "seconds"),
    [
        (("gptq:calibrating with training data...", "gptq:calibrated 68 layers in 4.6s"), "training", 4.6),
        (("gptq:calibrating with 256 batches...", "gptq:collected hessians for 68 layers"), "unstated", None),
        (("GPTQ:collecting Hessians from calibration data...", "GPTQ:collected 67 Hessians in 3.5s"), "unstated", 3.5),
        (("gptq:generating autoregressive calibration data (64 seqs x 2048 tokens, temp=0.8)...",
          "gptq:generated 64 sequences in 196.7s", "gptq:collected hessians for 68 layers (AR self-gen)"),
         "generated", None),
        (("gptq: calibrating on val tokens", "gptq:calibrated 68 layers in 2.1s"), "validation", 2.1),
        (("gptq:random-token calibration, 64 seqs", "gptq:collected hessians in 2.0s"), "random", 2.0),
    ],
)  # fmt: skip
def test_source_and_time_of_calibration(lines: tuple[str, ...], source: str, seconds: float | None) -> None:
    (found,) = calibrations(case_of(*lines))
    assert (found.source, found.seconds, found.after_stop) == (source, seconds, True)


def test_settings_and_reserve_lines_are_no_calibration() -> None:
    assert calibrations(case_of("  gptq_calibration_batches: 64", "gptq:reserving 12.0s, effective=588000ms")) == []
    assert calibrations(case_of("peak memory allocated: 20781 MiB reserved: 20826 MiB")) == []


@pytest.mark.parametrize(
    ("stop", "reserve", "seconds", "status"),
    [
        (600.08, None, 4.6, Status.FAIL),
        (588.0, 12.0, 10.0, Status.PASS),
        (599.56, 0.5, 3.5, Status.WARN),
        (599.56, 0.5, 46.0, Status.FAIL),
        (592.0, 8.0, 3.5, Status.PASS),
    ],
)
def test_calibration_against_the_clock(stop: float, reserve: float | None, seconds: float, status: Status) -> None:
    lines = ["GPTQ:collecting Hessians from calibration data...", f"GPTQ:collected 67 Hessians in {seconds}s"]
    if reserve is not None:
        lines.insert(0, f"gptq:reserving {reserve}s, effective={600000 - reserve * 1000:.0f}ms")
    finding = gptq(case_of(*lines, stop=stop))
    assert finding.status is status, finding.summary
    assert f"{stop:.1f} s" in finding.summary


@given(st.floats(580, 599.5), st.floats(0.1, 60), st.floats(0.1, 20))
def test_calibration_inside_the_cap_never_fails(stop: float, seconds: float, reserve: float) -> None:
    stop, seconds = round(stop, 3), round(seconds, 1)
    lines = (f"gptq:reserving {reserve:.1f}s, effective=590000ms", f"GPTQ:collected 67 Hessians in {seconds}s")
    finding = gptq(case_of(*lines, stop=stop))
    assert (finding.status is Status.PASS) == (stop + seconds <= 600.2)


COUNTERS = "ngram_tilt:hints total=47851520 gated=13023303 token_gate=628130 within_gate={} word_gate={} agree2plus={}"


@pytest.mark.parametrize(
    ("counts", "boosts", "active"),
    [
        ((9866847, 2891588, 303177), {"within_boost": "0.75", "word_boost": "0.75"}, True),
        ((9866847, 2891588, 303177), {}, True),
        ((9866847, 2891588, 303177), {"within_boost": "0.0", "word_boost": "0.0", "agree_add_boost": "0.0"}, False),
        ((0, 0, 0), {"within_boost": "0.75"}, False),
        ((0, 0, 12), {}, True),
    ],
)
def test_gates(counts: tuple[int, int, int], boosts: dict[str, str], active: bool) -> None:
    case = case_of(COUNTERS.format(*counts), settings=boosts)
    (gate,) = gate_findings(case)
    assert gate.off is not active
    assert gate.evidence.line == 2
    assert rule("PG-C1-ngram-target-gate").decide(case).status is (Status.FAIL if active else Status.PASS)
    assert (rule("PG-C1-causality").decide(case).status is Status.FAIL) == active


def shards(case: Case, count: int, path: str) -> Case:
    run = case.runs[0]
    run.train_shards = Quantity(count, Source("train.log", 1, f"train_shards: {count}"), str(count))
    run.settings["datasets_dir"] = path
    return case


def test_leaky_build_fails_two_rules_and_a_rebuilt_one_is_a_question() -> None:
    leaky = shards(case_of(), 1499, "data/datasets/datasets/x")
    assert rule("PG-D-val-overlap").decide(leaky).status is Status.FAIL
    assert rule("PG-D-val-in-train").decide(leaky).status is Status.FAIL
    rebuilt = shards(
        case_of(readme="python prepare_caseops_data.py --val-docs=50000"), 1499, "data/datasets/datasets/x"
    )
    assert rule("PG-D-val-overlap").decide(rebuilt).status is Status.WARN
    assert rule("PG-D-val-in-train").decide(rebuilt).status is not Status.FAIL


def test_a_doubled_path_alone_proves_nothing() -> None:
    canonical = shards(case_of(), 80, "data/datasets/datasets/x")
    assert rule("PG-D-val-overlap").decide(canonical).status is Status.PASS


@pytest.mark.parametrize(
    ("line", "partial"),
    [
        ("ppm_mixer subset=3000000 tokens", True),
        ("data: total_docs: 10000", True),
        ("quantized roundtrip, no such word", False),
    ],
)
def test_subset_lines(line: str, partial: bool) -> None:
    assert (partial_evidence(case_of(line)) is not None) == partial


@pytest.mark.parametrize(
    ("text", "partial"),
    [
        ("TTT coverage: 900/1893 chunks were scored.", True),
        ("All 1893/1893 chunks of the validation set were scored.", False),
        ("1893 of 1893 chunks", False),
        ("The cache evaluation was capped to 2048 tokens of the val split.", True),
        ("- Scored tokens: 32,736", True),
        ("- Scored tokens: 62,021,632", False),
    ],
)
def test_stated_coverage_counts_when_no_log_shows_the_whole(text: str, partial: bool) -> None:
    case = case_of(readme=text)
    case.metadata = []
    claim = Quantity(1.03, Source("submission.json", None, "1.03", "val_bpb"), "1.0300")
    from auditor.documents.model import Metadata

    case.metadata.append(Metadata("submission.json", {}, val_bpb=claim))
    found = partial_evidence(case)
    assert (found is not None) == partial
    if found:
        assert found[2] is True
