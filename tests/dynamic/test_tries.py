"""What is tried next when a run came to no score."""

from __future__ import annotations

import pytest

from auditor.dynamic.plan import NEVER, SCALES, make_plan, options_of_run
from auditor.dynamic.tries import (
    LONG,
    MOST,
    SMALL,
    WHOLE,
    Ended,
    Try,
    data_root,
    elsewhere,
    following,
    launchers,
    missing_data,
)
from auditor.static.settings import declared_settings
from auditor.submission import Submission

FOLDER = "records/track_10min_16mb/2026-04-01_Small"


def submission(**files: str) -> Submission:
    return Submission.from_files({f"{FOLDER}/train_gpt.py": "import torch", **files}, folder=FOLDER)


def after(
    reason: str, *tried: Try, made: Submission | None = None, options: dict | None = None, **ended: bool
) -> Try | None:
    state = {"finished": False, "scored": False, **ended}
    return following(list(tried) or [Try()], Ended(reason=reason, **state), made or submission(), options)


def test_a_score_ends_it_and_so_does_a_missing_package() -> None:
    assert after("", finished=True, scored=True) is None
    assert (
        after("needs the package somewhere, which is neither in the submission nor here, and has no stand-in") is None
    )
    assert after("NotOnCpu: CUDA graphs: no stand-in on a CPU") is None
    assert after("needs the network, which the sandbox does not give (URLError: name resolution)") is None


def test_a_program_that_printed_nothing_gets_its_options_and_a_longer_stream() -> None:
    first = after("", finished=True, options={"train": ""})
    assert first.options
    assert first.words == "with the documented command line options"
    second = after("", Try(), first, finished=True, options={"train": ""})
    assert second.scale == LONG
    assert after("", Try(), first, second, finished=True, options={"train": ""}) is None


def test_division_by_a_period_of_nothing() -> None:
    assert after("ZeroDivisionError: integer modulo by zero").scale.never == NEVER


@pytest.mark.parametrize("reason", ["CPU time over 60 s, in forward, line 3", "memory over 4,294,967,296 bytes"])
def test_slow_and_large_programs_are_tried_once_more(reason: str) -> None:
    small = after(reason)
    assert small.scale == SMALL
    assert after(reason, Try(), small) is None
    # What was missing at first says nothing of how long it takes.
    supplied = Try(data=("/mnt/golf/fineweb_val_*.bin",))
    assert after(reason, Try(), supplied) == supplied.but("at the smallest scale", scale=SMALL)
    assert SMALL.width % SMALL.heads == SMALL.chunk % SMALL.seq == 0
    assert (SMALL.val_tokens - 1) // SMALL.chunk >= 8


def test_errors_walk_through_other_conditions_and_end() -> None:
    tried = [Try()]
    while (item := after("RuntimeError: shapes cannot be multiplied", *tried)) is not None:
        assert item not in tried
        tried.append(item)
    assert {item.scale for item in tried} >= {*SCALES, WHOLE}
    assert any(not item.documented for item in tried)
    assert any(not item.ranked for item in tried)
    assert len(tried) <= MOST


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("needs the package shared_parts, which is neither here nor there", ("lib/shared_parts/__init__.py", "lib/shared_parts/eval.py")),
        ("needs the package helper.deep, which is neither here nor there", ("helper/deep.py",)),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/repo/train_gpt.py'", ("train_gpt.py",)),
        ("needs the package borrowed, which is neither here nor there", ()),
        ("needs the package nowhere, which is neither here nor there", ()),
    ],
)  # fmt: skip
def test_files_of_the_pull_request_outside_the_folder(reason: str, found: tuple[str, ...]) -> None:
    made = submission(**{
        "lib/shared_parts/__init__.py": "", "lib/shared_parts/eval.py": "", "helper/deep.py": "", "train_gpt.py": "",
        "records/track_10min_16mb/2026-03-01_Other/borrowed.py": "",
    })  # fmt: skip
    assert elsewhere(reason, made) == found
    item = after(reason, made=made)
    assert (item.extra if item else ()) == found


def test_packages_of_the_field_may_be_imported_and_not_needed() -> None:
    reason = "needs the package requests.adapters, which is neither in the submission nor here, and has no stand-in"
    bare = after(reason)
    assert bare.without == ("requests",)
    assert bare.supplies(Try())
    assert after(reason, Try(), bare) is None
    # The submission's own module is missing: nothing takes its place.
    assert after("needs the package my_mixer, which is neither here nor there") is None


@pytest.mark.parametrize(
    ("reason", "root"),
    [
        ('RuntimeError: NOT_FOUND: "/mnt/golf/data/tokenizers/fineweb_1024_bpe.model": No such file', "/mnt/golf/data"),
        ("FileNotFoundError: No files found for pattern: /mnt/shards/fineweb_val_*.bin", "/mnt/shards"),
        (
            "ValueError: no files for /mnt/a/datasets/caps/datasets/fineweb10B/fineweb_train_*.bin",
            "/mnt/a/datasets/caps",
        ),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/data/tokenizers/own.model'", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'final_model.bin'", ""),
        ("ValueError: /mnt/golf/fineweb_val_000000.bin has a bad header", ""),
    ],
)
def test_the_data_set_is_laid_where_it_was_missed(reason: str, root: str) -> None:
    path = missing_data(reason)
    assert (data_root(path) if path else "") == root
    if root:
        item = after(reason)
        assert item.data == (path,)
        assert root in item.words
        again = after(reason, Try(), item)
        assert again is None or again.data == item.data


@pytest.mark.parametrize(
    ("reason", "width"),
    [
        ("ValueError: in_features=64 must be divisible by _BLOCK_SIZE=128", 256),
        ("AssertionError: hidden size is not a multiple of 96", 192),
        ("AssertionError: width must be divisible by 16", SCALES[1].width),
        ("ValueError: size must be divisible by 65536", SCALES[1].width),
    ],
)
def test_heads_as_wide_as_blocks_written_into_the_program(reason: str, width: int) -> None:
    item = after(reason)
    assert item.scale.width == width
    assert item.scale.width % item.scale.heads == item.scale.heads % item.scale.kv_heads == 0


def test_scripts_that_start_the_program_are_asked_for_variables() -> None:
    made = submission(**{
        f"{FOLDER}/run.sh": "export DEPTH=9 WIDTH=8\ntorchrun train_gpt.py\n", f"{FOLDER}/setup.sh": "pip install torch\n",
    })  # fmt: skip
    assert launchers(made) == [f"{FOLDER}/run.sh"]
    assert after("ValueError: invalid literal for int()", made=made).shell == f"{FOLDER}/run.sh"


def test_options_are_made_smaller_and_paths_left_out() -> None:
    plan = make_plan([], {}, SCALES[0], "")
    given = {"train": "", "iterations": "10000", "lr": "0.1", "checkpoint": "runs/best/model.pt"}
    assert options_of_run(given, plan) == {".train": "", ".iterations": 6, ".lr": "0.1"}


PERIOD = "import os\nval_loss_every = int(os.environ.get('VAL_LOSS_EVERY', 500))\n{}"


@pytest.mark.parametrize(
    ("use", "never"),
    [
        ("if step % args.val_loss_every == 0: pass", NEVER),
        ("if args.val_loss_every > 0 and step % args.val_loss_every == 0: pass", 0),
        ("if val_loss_every and step % val_loss_every == 0: pass", 0),
    ],
)
def test_a_period_that_is_divided_by_is_never_nothing(use: str, never: int) -> None:
    text = PERIOD.format(use)
    assert make_plan(declared_settings(text, "train_gpt.py"), {}, SCALES[0], text).scale.never == never


def test_training_that_only_the_clock_ends_is_short() -> None:
    text = "import os\nlimit = float(os.environ.get('MAX_WALLCLOCK_SECONDS', 600))\nwhile True: pass"
    plan = make_plan(declared_settings(text, "train_gpt.py"), {}, SCALES[0], text)
    assert float(plan.environment["MAX_WALLCLOCK_SECONDS"]) < 20
    counted = "import os\nsteps = int(os.environ.get('ITERATIONS', 600))\n" + text
    plan = make_plan(declared_settings(counted, "train_gpt.py"), {}, SCALES[0], counted)
    assert float(plan.environment["MAX_WALLCLOCK_SECONDS"]) > 300


@pytest.mark.parametrize(("full", "value"), [("48", 64), ("2048", 512), ("32768", 512)])
def test_a_chunk_of_a_document_or_of_the_stream(full: str, value: int) -> None:
    text = f"import os\nsize = int(os.environ.get('TTT_CHUNK_SIZE', {full}))"
    plan = make_plan(declared_settings(text, "train_gpt.py"), {}, SCALES[0], text)
    assert plan.environment["TTT_CHUNK_SIZE"] == str(value)
