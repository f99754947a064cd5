"""Small submissions through the sandbox: what their headline consists of, and what had shaped the model by then."""

from __future__ import annotations

import os
import shutil

import cpu_programs as parts
import pytest

pytest.importorskip("torch")

from auditor.casefile import Call, build_case
from auditor.dynamic import witness
from auditor.dynamic.plan import TIMED
from auditor.dynamic.run import run_submission
from auditor.dynamic.sandbox import available_layers
from auditor.dynamic.tries import SMALL
from auditor.findings import Status, Witness
from auditor.submission import Submission
from auditor.timeline import Calibrate, Clock, Load, Phase, Score, Serialize, Split, Unknown, Update, Via
from auditor.unpack import read_program
from rules.calibration import clocked_out
from rules.order import counted_once, score_before_update, untouched_before_export
from rules.pg_d_val_in_train import read as val_in_train

pytestmark = pytest.mark.skipif(bool(available_layers()[1]), reason="this machine cannot contain a program")
FOLDER = "records/track_10min_16mb/2026-04-01_Small"
TOKENS = 4096


def submission_of(*program: str) -> Submission:
    return Submission.from_files({f"{FOLDER}/train_gpt.py": parts.program(*program), f"{FOLDER}/README.md": "small"})


def said(*program: str) -> witness.Testimony:
    submission = submission_of(*program)
    made = witness.testify(submission, read_program(submission), seconds=40)
    assert made.run.status == "finished", made.run.reason
    return made


def events(made: witness.Testimony, kind: type) -> list:
    return [event for event in made.timeline.events() if isinstance(event, kind)]


def line_of(text: str, *program: str) -> int:
    return next(i for i, line in enumerate(parts.program(*program).splitlines(), 1) if text in line)


def test_plain_evaluation_of_the_artifact() -> None:
    made = said(parts.EXPORT, parts.SCORE)
    assert (made.counted, made.late, made.repeated, made.available) == (TOKENS, 0, 0, TOKENS)
    assert made.attribution.official_bpb == pytest.approx(made.headline.bpb, rel=1e-6)
    kinds = [type(event) for event in made.timeline.events()]
    assert kinds.index(Serialize) < kinds.index(Load) < kinds.index(Score)
    assert {event.phase for event in events(made, Score)} == {Phase.EVALUATION}


def test_tokens_scored_one_at_a_time_are_placed_by_what_went_in_before() -> None:
    made = said(parts.EXPORT, parts.ONE_BY_ONE)
    assert (made.counted, made.late, made.repeated) == (8 * 64, 0, 0)
    assert score_before_update(made.timeline).status.value == "pass"


@pytest.mark.parametrize("reserve,limit", [(0.0, 600.0), (8.0, 592.0)])
def test_seconds_after_which_training_ends_are_those_of_the_submitted_run(reserve: float, limit: float) -> None:
    """This run sets nothing aside; what the submitted one does is told all the same, and only a full clock accuses."""
    clocked = parts.CLOCKED.format(reserve=reserve)
    made = said(clocked, parts.EXPORT, parts.SCORE)
    limits = [(round(event.limit, 6), event.phase) for event in events(made, Clock)]
    assert limits == [(limit, Phase.TRAINING)]
    case = build_case(submission_of(clocked, parts.EXPORT, parts.SCORE), Call(static=False))
    case.timelines[Witness.RUN] = made.timeline
    assert bool(clocked_out(case)) is (reserve == 0.0)


def test_score_first_is_seen_chunk_by_chunk() -> None:
    made = said(parts.EXPORT, parts.SCORE_FIRST)
    assert (made.counted, made.late) == (TOKENS, 0)
    steps = [
        event for event in made.timeline.events() if isinstance(event, Score | Update) and event.span.split is Split.VAL
    ]
    assert len(steps) == 16  # eight chunks, each scored and then trained on
    assert all(isinstance(event, Score if i % 2 == 0 else Update) for i, event in enumerate(steps))
    assert steps[0].place.line == line_of(
        "return F.cross_entropy(model(x), y, reduction", parts.EXPORT, parts.SCORE_FIRST
    )


@pytest.mark.parametrize(
    "program",
    [
        (parts.EXPORT, parts.ADAPT, parts.SCORE),
        (parts.ADAPT, parts.EXPORT, parts.SCORE),
        (parts.EXPORT, parts.LAST_EPOCH),
    ],
    ids=["adapt, then score", "adapt before export", "last of two epochs"],
)
def test_scores_after_training_on_the_same_tokens(program: tuple[str, ...]) -> None:
    made = said(*program)
    assert made.late == made.counted == TOKENS
    assert score_before_update(made.timeline).status.value == "fail"


def test_updates_before_export_are_of_their_phase() -> None:
    made = said(parts.ADAPT, parts.EXPORT, parts.SCORE)
    assert untouched_before_export(made.timeline).status.value == "fail"


def test_a_second_program_behind_the_headline_is_no_part_of_it() -> None:
    """Its training would make a pre-quantisation pass of the first one's score-first evaluation."""
    submission = submission_of(parts.EXPORT, parts.SCORE_FIRST, parts.ANOTHER)
    label = "final_int8_zlib_roundtrip_exact"
    made = witness.testify(submission, read_program(submission), claimed_label=label, seconds=40)
    assert made.headline.label == label and made.late == 0
    adapted = [event for event in events(made, Update) if event.span.split is Split.VAL]
    assert adapted and {event.phase for event in adapted} == {Phase.EVALUATION}
    assert score_before_update(made.timeline).status.value == "pass"
    assert untouched_before_export(made.timeline).status.value != "fail"
    later = [event for event in events(made, Update) if event.phase is Phase.EVALUATION]
    assert all(event.span.split is Split.VAL for event in later), "nor is it training behind the artifact"


def test_best_of_two_passes() -> None:
    made = said(parts.EXPORT, parts.BEST_PASS)
    assert made.attribution is not None
    assert made.late > TOKENS // 2  # the second pass wins where training helped


def test_mixture_computed_in_numpy_is_explained_and_told() -> None:
    made = said(parts.EXPORT, parts.CACHE)
    assert made.counted == TOKENS
    assert made.attribution.derived


def test_manual_log_softmax() -> None:
    assert said(parts.EXPORT, parts.MANUAL).counted == TOKENS


@pytest.mark.parametrize("logs", ["True", "False"], ids=["logarithms", "probabilities"])
def test_mixture_of_experts_stays_traced(logs: str) -> None:
    made = said(parts.EXPORT, parts.EXPERTS.replace("LOGS", logs))
    assert made.counted == TOKENS
    assert made.attribution.derived


@pytest.mark.parametrize("how", [how for how in parts.FILLED_FIRST if how != "dict"])
def test_tables_tell_which_tokens_they_have_counted(how: str) -> None:
    """Each chunk is counted behind its scores here, which the sum over the chunk comes behind."""
    made = said(parts.EXPORT, parts.FILLED_FIRST[how])
    updates = [event for event in events(made, Update) if event.via is Via.TABLE]
    assert {event.span.split for event in updates} == {Split.VAL}
    assert {event.phase for event in updates} == {Phase.EVALUATION}
    counted = {low for event in updates for pair in event.span.positions for low in range(*pair)}
    assert counted == set(range(TOKENS + 1))
    lines = parts.program(parts.EXPORT, parts.FILLED_FIRST[how]).splitlines()
    assert all(how in lines[event.place.line - 1] for event in updates)
    order = [type(event) for event in made.timeline.events() if isinstance(event, Score) or event in updates]
    assert order == [Score, Update] * 8
    # Which counts take part in a score the positions do not say; nobody is accused by them.
    assert score_before_update(made.timeline).status is Status.PASS


def test_part_of_the_stream() -> None:
    made = said(parts.EXPORT, parts.PARTIAL)
    assert made.counted == 3 * 512 < made.available
    assert counted_once(made.timeline).status.value == "pass"


def test_invented_number_is_not_explained() -> None:
    made = said(parts.EXPORT, parts.SCORE.replace("report(", "print("), parts.FORGED)
    assert made.headline.bpb == pytest.approx(1.10561234)
    assert made.attribution is None
    assert "1.10561234" in events(made, Unknown)[0].reason


@pytest.mark.parametrize("spoiled", [parts.WARM_UP, parts.RESTORED], ids=["another model", "restored weights"])
def test_training_whose_result_is_thrown_away(spoiled: str) -> None:
    made = said(parts.EXPORT, spoiled, parts.SCORE)
    assert made.late == 0
    assert score_before_update(made.timeline).status.value == "pass"
    assert any("discarded" in event.state for event in events(made, Update) if event.span.split is Split.VAL)


def test_calibration_behind_a_headline_is_told_by_its_own_tokens() -> None:
    """The headline is that of the weights before export, and its evaluation is not what the quantiser was given."""
    made = said(parts.SCORE, parts.CALIBRATE.replace("val", "train"), parts.EXPORT)
    calibrated = events(made, Calibrate)
    assert calibrated and {event.span.split for event in calibrated} == {Split.TRAIN}
    made = said(parts.SCORE, parts.CALIBRATE, parts.EXPORT)
    assert Split.VAL in {event.span.split for event in events(made, Calibrate)}


def test_calibration_on_validation_tokens() -> None:
    made = said(parts.CALIBRATE, parts.EXPORT, parts.SCORE)
    found = events(made, Calibrate)
    assert {event.span.split for event in found} == {Split.VAL}
    assert found[0].phase is Phase.AFTER_TRAINING
    # On every track: the rule on when to calibrate binds records only.
    assert val_in_train(made.timeline).status is Status.FAIL
    assert val_in_train(said(parts.EXPORT, parts.CALIBRATE, parts.SCORE).timeline).status is Status.PASS


def test_text_that_meets_pairs_of_the_stream_by_chance_was_not_read_from_it() -> None:
    import numpy as np

    from auditor.dynamic.account import read_on

    windows = np.concatenate([np.arange(start, start + 64) for start in (640, 64, 2048)])
    assert np.array_equal(read_on(windows), windows), "windows of the stream, in any order"
    for made in (np.tile([77, 1024], 40), np.full(100, 9), np.random.default_rng(1).permutation(4096)[:60]):
        assert not len(read_on(made)), "a model that repeats itself, or meets pairs here and there"
    assert not len(read_on(np.array([5]))) and not len(read_on(np.empty(0, np.int64)))


def test_headline_of_the_weights_before_export_has_no_load_before_it() -> None:
    made = said(parts.SCORE, parts.EXPORT)
    kinds = [type(event) for event in made.timeline.events()]
    assert kinds.index(Score) < kinds.index(Load)


def test_weights_loaded_into_a_freshly_filled_model_keep_their_history() -> None:
    fill = "for p in model.parameters():\n    nn.init.normal_(p)\nmodel.load_state_dict("
    made = said(parts.ADAPT, parts.EXPORT.replace("model.load_state_dict(", fill), parts.SCORE)
    assert made.late == made.counted == TOKENS


def test_a_bias_fitted_in_between_does_not_hide_what_the_weights_have_seen() -> None:
    fitted = """
nats = tokens = size = 0
for x, y in chunks():
    with torch.no_grad():
        logits = model(x)
    bias = torch.zeros(args.vocab_size, requires_grad=True)
    F.cross_entropy(logits[:64] + bias, y[:64]).backward()
    with torch.no_grad():
        nats += F.cross_entropy(logits + 0.1 * bias, y, reduction="none").double().sum().item()
    tokens += y.numel()
    size += byte_count(x, y)
report(nats, tokens, size)
"""
    assert said(parts.ADAPT, parts.EXPORT, fitted).late == TOKENS


def test_settings_asked_for_in_ways_only_execution_shows() -> None:
    asked = """
fetch = os.environ.get
print("slots", int(fetch("_".join(["NUM", "HEADS"]), 8)), fetch("NOT_A_SETTING"), flush=True)
"""
    made = said(asked, parts.EXPORT, parts.SCORE)
    assert "slots 4 None" in made.run.stdout
    assert made.run.plan.notes["NUM_HEADS"] == ("8", "4")


def test_source_in_a_newer_grammar() -> None:
    newer = 'names = {"a": 1}\nexec(\'print(f"packed {"\\\\n".join(names)} end")\')\nprint(f"plain {names["a"]} end")\n'
    made = said(newer, parts.EXPORT, parts.SCORE)
    assert "packed a end" in made.run.stdout
    assert "plain 1 end" in made.run.stdout


def test_program_that_writes_beside_itself() -> None:
    beside = """
from pathlib import Path
logs = Path(__file__).resolve().parent.parent / "logs"
logs.mkdir(exist_ok=True)
(logs / "run.txt").write_text("started")
"""
    made = said(beside, parts.EXPORT, parts.SCORE)
    assert made.counted == TOKENS
    assert {event.place.path for event in events(made, Score)} == {f"{FOLDER}/train_gpt.py"}


def test_helpers_and_switches_that_change_no_number() -> None:
    helpers = """
from dotenv import load_dotenv
from tqdm import tqdm, trange
load_dotenv()
bar = tqdm([3, 4], desc="training")
bar.set_postfix(loss=1.0)
print("bars", list(bar), list(trange(2)), torch.__version__.startswith("2."))
torch.backends.cuda.enable_math_sdp(False)
torch.backends.cuda.enable_flash_sdp(False)
heads = torch.ones(1, 2, 4, 8)
print("attention", F.scaled_dot_product_attention(heads, heads, heads, is_causal=True).sum().item())
"""
    made = said(helpers, parts.EXPORT, parts.SCORE)
    assert "bars [3, 4] [0, 1] True" in made.run.stdout
    assert "attention 64.0" in made.run.stdout


def test_a_module_elsewhere_in_the_pull_request_and_options_of_the_command() -> None:
    needs = "import argparse, sys\nfrom shared_parts import NAME\n"
    options = """
parser = argparse.ArgumentParser()
parser.add_argument("--train", action="store_true")
parser.add_argument("--iterations", type=int, default=9000)
given = parser.parse_args()
if not given.train:
    sys.exit(0)
print(NAME, given.iterations)
"""
    text = parts.program(needs + options, parts.EXPORT, parts.SCORE)
    files = {f"{FOLDER}/train_gpt.py": text, "lib/shared_parts/__init__.py": "from shared_parts.names import NAME",
             "lib/shared_parts/names.py": "NAME = 'found'"}  # fmt: skip
    submission = Submission.from_files(files, folder=FOLDER)
    made = witness.testify(
        submission, read_program(submission), seconds=40, options={"train": "", "iterations": "20000"}
    )
    assert made.run.status == "finished", made.run.reason
    assert "found 6" in made.run.stdout
    assert made.counted == TOKENS
    assert made.run.attempts == 3
    assert "lib/shared_parts/__init__.py" in made.run.plan.conditions
    assert "documented command line options" in made.run.plan.conditions


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no compiler here")
def test_program_that_compiles_beside_itself() -> None:
    compiled = r"""
import ctypes, subprocess
from pathlib import Path
here = Path(__file__).resolve().parent
(source, library) = (Path("/tmp/twice.c"), here / "libtwice.so")
source.write_text("long twice(long x) { return 2 * x; }")
subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
print("twice", ctypes.CDLL(str(library)).twice(21))
"""
    assert "twice 42" in said(compiled, parts.EXPORT, parts.SCORE).run.stdout


def test_nobody_is_judged_by_defaults_that_were_not_submitted() -> None:
    picky = 'if os.environ.get("MODE", "plain") != "plain":\n    raise RuntimeError("this mode is not supported")\n'
    submission = Submission.from_files({f"{FOLDER}/train_gpt.py": parts.program(picky, parts.EXPORT, parts.LAST_EPOCH)})
    made = witness.testify(submission, read_program(submission), {"MODE": "fancy"}, seconds=40)
    assert made.run.status == "finished", made.run.reason
    assert "own defaults" in made.absent
    assert made.timeline is None


def test_data_is_found_where_programs_look_for_it() -> None:
    looks = """
here = os.path.dirname(os.path.abspath(__file__))
rented = "/workspace/golf/data/datasets/fineweb10B_sp1024"
print("beside", len(glob.glob(f"{here}/data/datasets/fineweb10B_sp1024/fineweb_val_*.bin")))
print("rented", len(glob.glob(f"{rented}/fineweb_val_*.bin")))
"""
    out = said(looks, parts.EXPORT, parts.SCORE).run.stdout
    assert "beside 1" in out
    assert "rented 1" in out


def test_data_and_packages_that_only_the_run_misses() -> None:
    looks = """
from deepspeed.runtime import engine
import deepspeed
root = "/rented" + "/golf"
found = glob.glob(f"{root}/fineweb_val_*.bin")
if not found:
    raise FileNotFoundError(f"No files found for pattern: {root}/fineweb_val_*.bin")
print("rented", len(found), deepspeed.comm is not None)
"""
    made = said(looks, parts.EXPORT, parts.SCORE)
    assert "rented 1 True" in made.run.stdout
    assert made.run.attempts == 3
    assert "without the package deepspeed" in made.run.plan.conditions
    assert "the data set at /rented/golf" in made.run.plan.conditions


def test_a_path_that_climbs_is_no_place_for_the_data() -> None:
    climbs = (
        'outside = "/a/../../../../../tmp/auditor-climbed/datasets/fineweb10B_sp1024"\nprint(os.path.exists(outside))\n'
    )
    made = said(climbs, parts.EXPORT, parts.SCORE)
    assert made.run.plan.roots == ()
    assert not os.path.exists("/tmp/auditor-climbed")


def test_what_an_absent_package_computes_ends_the_run_with_its_name() -> None:
    submission = submission_of("import deepspeed\ndeepspeed.init_distributed(9)\n", parts.EXPORT, parts.SCORE)
    run = run_submission(submission, read_program(submission), {}, seconds=40)
    assert run.status == "stopped"
    assert "deepspeed.init_distributed: no stand-in on a CPU" in run.reason
    assert run.attempts == 2


def test_a_program_that_gets_nowhere_is_made_smaller_in_time() -> None:
    slow = "torch.manual_seed(1)\nwhile args.train_seq_len > 100:\n    pass\n"
    text = parts.program(parts.EXPORT, parts.SCORE).replace("torch.manual_seed(1)\n", slow)
    submission = Submission.from_files({f"{FOLDER}/train_gpt.py": text, f"{FOLDER}/README.md": "small"})
    run = run_submission(submission, read_program(submission), {}, seconds=24)
    assert (run.status, run.attempts) == ("finished", 2)
    assert run.plan.scale == SMALL
    assert run.cpu_total < 24


def test_training_that_only_the_clock_ends_is_given_less_time() -> None:
    endless = """
import time
began, step = time.perf_counter(), 0
while time.perf_counter() - began < 0.25 * float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600)):
    train_on(model, train[step:step + args.train_seq_len], train[step + 1:step + args.train_seq_len + 1], opt)
    step += 1
"""
    submission = submission_of(endless, parts.EXPORT, parts.SCORE)
    run = run_submission(submission, read_program(submission), {}, seconds=24)
    assert (run.status, run.attempts) == ("finished", 2), run.reason
    assert run.plan.scale.seconds == TIMED
    assert run.cpu_total < 24


def test_a_program_that_runs_nowhere_says_so() -> None:
    text = parts.program(parts.EXPORT).replace(
        "args = Hyperparameters()\n", "args = Hyperparameters()\nprint(bits_per_byte)\n"
    )
    submission = Submission.from_files({f"{FOLDER}/train_gpt.py": text, f"{FOLDER}/README.md": "small"})
    run = run_submission(submission, read_program(submission), {}, seconds=20)
    assert run.status == "stopped"
    assert "the name bits_per_byte" in run.nowhere
    assert "on no machine" in run.reason
