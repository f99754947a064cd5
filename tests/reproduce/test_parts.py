"""State files, plans, measurement of recorded events and verdicts, without running anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from programs import CLEAN

from auditor.cli import main
from auditor.reproduce import state as states
from auditor.reproduce.checks import AGREES, DIFFERS, NOISE, UNSEEN, seed_checks
from auditor.reproduce.claims import bpb_check
from auditor.reproduce.compare import Outcome, decide
from auditor.reproduce.contained import Record, read_events
from auditor.reproduce.measure import Artifact, Clocks, Measured, measure
from auditor.reproduce.plan import PlanError, RerunPlan, find_data, make_rerun_plan
from tests.reproduce.conftest import case_of

PLAN = RerunPlan("x", "d", "small", ("1",), 1, 0, "/submission/train_gpt.py")
TRUSTED = {
    "status": "scored",
    "scores": [{"windows": "rows of 8", "bpb": 1.2}],
    "causality": {"largest_change": 0.0},
    "updates_after_load": 0,
}
GOOD = Measured(
    "1",
    True,
    (0,),
    clocks=Clocks(1, 2, 600, 590, 610, 611, 700, 701),
    printed={"val_bpb": 1.2, "digits": 8, "model_bytes": 100, "code_bytes": 50, "eval_seconds": 80.0},
    clock_pairs=[(300.0, 300.1), (299.9, 300.0)],
    artifact=Artifact("m.ptz", 100),
    code_bytes=50,
    local_code_bytes=50,
    trusted=TRUSTED,
    inotify=True,
)


def status(seed: Measured, subject: str, means: tuple[str, ...] = ()) -> str:
    return next(check.status for check in seed_checks(seed, PLAN, means) if check.subject == subject)


def test_checks_of_an_honest_run_all_agree() -> None:
    assert {check.status for check in seed_checks(GOOD, PLAN)} == {AGREES}


@pytest.mark.parametrize(
    ("change", "subject", "expected"),
    [
        ({"artifact": Artifact("m.ptz", 101)}, "artifact bytes", DIFFERS),
        ({"artifact": Artifact("m.ptz", 16_000_000)}, "total bytes", DIFFERS),
        ({"artifact": Artifact("m.ptz", 15_999_950)}, "total bytes", AGREES),
        ({"artifact": Artifact("m.ptz", 101, alone=False)}, "artifact bytes", UNSEEN),
        ({"artifact": Artifact("m.ptz", 15_999_945), "code_bytes": 60}, "total bytes", NOISE),
        ({"code_bytes": 60, "local_code_bytes": 60}, "code bytes", NOISE),
        ({"code_bytes": 40, "local_code_bytes": 50}, "code bytes", AGREES),
        ({"clock_pairs": [(300.0, 300.1), (299.0, 330.0)]}, "training clock", DIFFERS),
        ({"clock_pairs": [(300.0, 300.1), (300.0, 300.4)]}, "training seconds", NOISE),
        ({"clock_pairs": [(300.0, 300.1), (302.0, 302.0)]}, "training seconds", DIFFERS),
        ({"clock_pairs": []}, "training clock", UNSEEN),
        ({"clock_pairs": [(200.0, 200.0), (200.0, 200.0), (190.0, 220.0)]}, "training clock", NOISE),
        ({"clock_pairs": [(200.0, 200.0), (200.0, 200.0), (190.0, 220.0)]}, "training seconds", NOISE),
        ({"clock_pairs": [(200.0, 200.0), (215.0, 215.0), (190.0, 220.0)]}, "training seconds", DIFFERS),
        ({"clocks": replace(GOOD.clocks, result=1300)}, "evaluation seconds", NOISE),
        ({"shard_reads": [(611.5, "/data/fineweb_train_000000.bin", "open")]}, "training data at evaluation", DIFFERS),
        ({"inotify": False}, "training data at evaluation", UNSEEN),
        ({"trusted": None}, "val_bpb", UNSEEN),
        ({"trusted": {**TRUSTED, "causality": {"largest_change": 0.5}}}, "causality", DIFFERS),
        ({"trusted": {**TRUSTED, "scores": [{"windows": "w", "bpb": 1.25}]}}, "val_bpb", DIFFERS),
        ({"trusted": {**TRUSTED, "scores": [{"windows": "w", "bpb": 1.15}]}}, "val_bpb", UNSEEN),
        ({"trusted": {**TRUSTED, "scores": [{"windows": "w", "bpb": 1.201}]}}, "val_bpb", NOISE),
        (
            {"trusted": {**TRUSTED, "scores": [{"windows": "w", "bpb": 1.25}], "parameters_changed": True}},
            "val_bpb",
            UNSEEN,
        ),
    ],
)
def test_each_number_is_judged_by_its_own_tolerance(change: dict, subject: str, expected: str) -> None:
    assert status(replace(GOOD, **change), subject) == expected


def test_a_run_that_broke_off_is_not_judged_by_what_it_printed() -> None:
    assert list(seed_checks(replace(GOOD, codes=(1,), artifact=Artifact("m.ptz", 999)), PLAN)) == []


def test_counts_of_tokens_may_explain_a_better_score() -> None:
    seed = replace(GOOD, trusted={**TRUSTED, "scores": [{"windows": "w", "bpb": 1.25}]})
    assert status(seed, "val_bpb", ("counts of tokens",)) == UNSEEN


@given(st.floats(0.5, 3.0), st.floats(-0.01, 0.01))
def test_bands_of_the_rule_book(claimed: float, worse: float) -> None:
    check = bpb_check("mean val_bpb", "3 seeds", claimed, claimed + worse)
    gap = (claimed + worse) - claimed
    assert check.status == (AGREES if gap <= 0.001 else NOISE if gap <= 0.0025 else DIFFERS)


def test_verdicts() -> None:
    band = bpb_check("mean val_bpb", "1 seed(s)", 1.2, 1.202)
    assert decide([band], [GOOD], True, "")[0] is Outcome.NOISE
    assert decide([replace(band, status=AGREES)], [GOOD], True, "")[0] is Outcome.REPRODUCED
    assert decide([replace(band, status=DIFFERS)], [GOOD], True, "")[0] is Outcome.NOT
    assert decide([], [GOOD], True, "")[0] is Outcome.COULD_NOT
    failed = Measured("2", True, (1,), reason="out of memory")
    verdict, reason = decide([], [failed], True, "")
    assert verdict is Outcome.COULD_NOT and "out of memory" in reason


def test_a_contradiction_outweighs_a_matching_mean() -> None:
    wrong = next(c for c in seed_checks(replace(GOOD, artifact=Artifact("m", 999)), PLAN) if c.status == DIFFERS)
    mean = bpb_check("mean val_bpb", "1 seed(s)", 1.2, 1.2)
    assert decide([mean, wrong], [GOOD], True, "")[0] is Outcome.NOT


def test_state_survives_and_belongs_to_one_plan(tmp_path: Path) -> None:
    state = states.load(tmp_path, "key", ("1", "2"))
    state.seeds["1"].stage, state.seeds["2"].stage = states.DONE, states.RUNNING
    state.save(tmp_path)
    again = states.load(tmp_path, "key", ("1", "2", "3"))
    assert [item.stage for item in again.seeds.values()] == [states.DONE, states.PENDING, states.PENDING]
    with pytest.raises(states.StateError, match="another"):
        states.load(tmp_path, "other", ("1",))
    (tmp_path / states.NAME).write_text('{"version": 1, "ke')
    with pytest.raises(states.StateError, match="cannot be read"):
        states.load(tmp_path, "key", ("1",))


def test_a_run_that_ended_unnoticed_is_not_run_again(tmp_path: Path) -> None:
    from auditor.reproduce.rerun import attempt_folder, recover

    seeds = {"1": states.SeedState(attempts=1), "2": states.SeedState(attempts=1), "3": states.SeedState()}
    for seed, last in (("1", {"kind": "end", "codes": [0, 0]}), ("2", {"kind": "line", "text": "step:1"})):
        folder = attempt_folder(tmp_path, seed, 1)
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text(json.dumps({"kind": "started"}) + "\n" + json.dumps(last) + "\n")
    state = states.State("key", seeds)
    recover(state, tmp_path)
    assert [item.stage for item in state.seeds.values()] == [states.RAN, states.PENDING, states.PENDING]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(1, 17))
def test_files_come_out_as_they_went_in_however_the_stream_is_cut(tmp_path_factory, parts, cut: int) -> None:
    import base64

    folder = tmp_path_factory.mktemp("record")
    lines = [{"kind": "content", "path": "a/b.bin", "data": base64.b64encode(part).decode()} for part in parts]
    lines += [{"kind": "content", "path": "../escape", "data": ""}, {"kind": "end", "codes": [0], "t": 1}]
    stream = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with Record(folder) as record:
        for at in range(0, len(stream), cut):
            record.feed(stream[at : at + cut])
    assert record.ended["codes"] == [0]
    assert not (folder.parent / "escape").exists() and not (folder / "escape").exists()
    kept = folder / "files/a/b.bin"
    assert (kept.read_bytes() if kept.exists() else b"") == b"".join(parts)
    assert [event["kind"] for event in read_events(folder)] == ["end"]


def test_a_run_cut_short_keeps_its_log_and_says_why(tmp_path: Path) -> None:
    events = [
        {"t": 0.0, "kind": "started", "wall": 0, "inotify": True},
        {"t": 1.0, "kind": "line", "process": 0, "stream": "out", "text": "step:1/9 train_loss:6.9 train_time:100ms"},
        {"t": 2.0, "kind": "line", "process": 0, "stream": "err", "text": "RuntimeError: no more memory"},
        {"kind": "sandbox", "layers": ["landlock"], "status": "killed", "reason": "wall time over 5 s"},
    ]
    text = "\n".join(map(json.dumps, events)) + '\n{"t": 3, "ki'
    (tmp_path / "events.jsonl").write_text(text)
    made = measure(tmp_path, "7")
    assert not made.complete and "wall time over 5 s" in made.reason and "no more memory" in made.reason
    assert (tmp_path / "stdout.log").read_text().startswith("step:1/9")
    assert list(seed_checks(made, PLAN)) == []


@pytest.mark.parametrize(
    "other",
    [
        ["Traceback (most recent call last):"],
        [
            "torch.distributed.DistBackendError: [0] is setting up a connection",
            "Exception raised from recvBytes at Utils.hpp:670 (most recent call first):",
            "frame #0: c10::Error::Error + 0x80 (0x7f in libc10.so)",
            "frame #45: _start + 0x21 (0x56 in python)",
        ],
        ["terminate called without an active exception"],
    ],
    ids=["cut off", "frames", "words"],
)
def test_the_error_counts_not_what_the_other_rank_says_when_it_is_ended(tmp_path: Path, other: list[str]) -> None:
    """Two ranks write at once, and the second one loses the first or is ended while it writes."""
    said = ["Traceback (most recent call last):", "  assert False", "AssertionError: seed two"]
    events = [{"kind": "line", "process": 0, "stream": "err", "text": text, "t": 1.0} for text in said]
    events += [{"kind": "line", "process": 1, "stream": "err", "text": text, "t": 1.0} for text in other]
    events += [{"kind": "end", "codes": [1, 1], "t": 2.0}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert measure(tmp_path, "2").reason.endswith("AssertionError: seed two")


def test_the_artifact_is_told_from_counters_and_checkpoints() -> None:
    from auditor.reproduce.measure import _artifact

    written = {"model.ptz": 5.0, "raw.pt": 4.0, "ttt_counter": 9.0, "other.ptz": 6.0}
    back = {"model.ptz": 9000, "ttt_counter": 600}
    assert _artifact(back, back, written, 8000) == Artifact("model.ptz", 9000, how="written, then read back")
    both = {"model.ptz": 9000, "other.ptz": 9500}
    assert _artifact(both, both, written, 9000).path == "model.ptz"
    unclear = _artifact(both, both, written, 8000)
    assert unclear.path == "other.ptz" and not unclear.alone
    unread = _artifact({}, {"raw.pt": 40_000, "model.ptz": 9000}, written, None)
    assert unread.path == "model.ptz" and not unread.alone
    assert _artifact({}, {}, written, 9000) is None


def test_data_is_found_in_the_usual_layouts_only(tmp_path: Path) -> None:
    for name in ("fineweb10B_sp1024", "fineweb10B_sp4096"):
        (tmp_path / "datasets" / name).mkdir(parents=True)
        (tmp_path / "datasets" / name / "fineweb_val_000000.bin").touch()
    (tmp_path / "tokenizers").mkdir()
    for size in (1024, 4096):
        (tmp_path / "tokenizers" / f"fineweb_{size}_bpe.model").touch()
    place = find_data(tmp_path, 4096)
    assert place.shards == "/data/datasets/fineweb10B_sp4096"
    assert place.tokenizer == "/data/tokenizers/fineweb_4096_bpe.model"
    with pytest.raises(PlanError, match="could be"):
        find_data(tmp_path, 260)
    with pytest.raises(PlanError, match="fineweb_val"):
        find_data(tmp_path / "tokenizers", 1024)


def test_plan_of_a_full_run_takes_the_documented_command(tmp_path: Path) -> None:
    case = case_of(CLEAN)
    with pytest.raises(PlanError, match="--data"):
        make_rerun_plan(case, ("1",), scale="full")
    plan = make_rerun_plan(case, ("1", "2"), scale="full", data=tmp_path, ranks=8)
    assert "torchrun" in plan.documented and plan.gpus == 8 and plan.seed_variable == "SEED"
    assert "SEED" not in plan.environment and "WORLD_SIZE" not in plan.environment
    assert plan.gpu_hours == pytest.approx(2 * 8 * plan.minutes_a_seed / 60, abs=0.05)
    assert plan.key == replace(plan, seeds=("1", "2", "3")).key != replace(plan, environment={"A": "1"}).key


def test_dry_run_starts_nothing(submissions: Path, tmp_path: Path) -> None:
    target = submissions / "records/track_10min_16mb/2026-05-01_SmallByTheBook"
    out = tmp_path / "out"
    arguments = ["reproduce", str(target), "--seeds", "1,2", "--scale", "small", "--dry-run", "--out", str(out)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "dry run" in done.output and "ITERATIONS=6" in done.output
    assert not out.exists()
