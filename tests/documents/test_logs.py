"""Train logs written from known values are read back; encodings, several runs, printed programs, hostile bytes."""

from __future__ import annotations

import io
import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_writer import PROGRAM, Result, Run, Step, classic, packed

from auditor.documents.logs import decode, final_candidates, read_log
from auditor.documents.model import LogRun

LABELS = ["final_int6_sliding_window", "quantized_ttt_phased", "legal_ttt", "final_int8_zlib_roundtrip", "q_sw"]
bpbs = st.floats(0.05, 4.0).map(lambda x: round(x, 8))
losses = st.floats(0.05, 9.0).map(lambda x: round(x, 8))


@st.composite
def runs(draw: st.DrawFn) -> Run:
    numbers = sorted(draw(st.sets(st.integers(1, 19_000), min_size=1, max_size=8)))
    steps = [Step(n, draw(losses), n * draw(st.integers(30, 90))) for n in numbers]
    labels = draw(st.lists(st.sampled_from(LABELS), unique=True, min_size=1, max_size=3))
    results = [Result(label, draw(losses), draw(bpbs), draw(st.integers(1, 10**7))) for label in labels]
    return Run(
        seed=draw(st.integers(0, 99_999)),
        params=draw(st.integers(10_000, 10**9)),
        shards=draw(st.integers(1, 1_499)),
        tokens=draw(st.integers(10_000, 10**9)),
        steps=steps,
        stop=(draw(st.integers(10, 19_999)), draw(st.integers(1_000, 10**8))),
        model=draw(st.integers(1_000_000, 17_000_000)),
        code=draw(st.integers(1_000, 200_000)),
        results=results,
        chunks=draw(st.lists(bpbs, max_size=4)),
        program=draw(st.booleans()),
    )


def one(text: str) -> LogRun:
    log = read_log("records/x/train.log", text.encode())
    assert len(log.runs) == 1
    return log.runs[0]


def check_common(run: Run, found: LogRun) -> None:
    assert found.seed == run.seed
    assert found.stop is not None and (found.stop.step, found.stop.total) == (run.stop[0], run.total)
    assert found.train_seconds is not None
    assert found.train_seconds.value == pytest.approx(run.stop[1] / 1000)
    assert [(s.step, s.train_loss) for s in found.steps] == [(s.number, round(s.loss, 4)) for s in run.steps]
    assert found.params is not None and found.params.value == run.params
    assert found.val_tokens is not None and found.val_tokens.value == run.tokens
    assert found.train_shards is not None and found.train_shards.value == run.shards
    assert [s.size for s in found.sizes if s.kind == "total"] == [run.model + run.code]
    assert [s.size for s in found.sizes if s.kind == "model"] == [run.model]
    assert [(p.index, p.total, p.bpb) for p in found.progress] == [
        (i, len(run.chunks), pytest.approx(b, abs=6e-5)) for i, b in enumerate(run.chunks, 1)
    ]


@settings(max_examples=60, deadline=None)
@given(runs())
def test_classic_style_reads_back(run: Run) -> None:
    found = one(classic(run))
    check_common(run, found)
    wanted = []
    for r in run.results:
        wanted.append((r.label, round(r.loss, 4), round(r.bpb, 4), pytest.approx(r.milliseconds / 1000), 4))
        wanted.append((f"{r.label}_exact", r.loss, r.bpb, None, 8))
    assert [(x.label, x.val_loss, x.val_bpb, x.seconds, x.digits) for x in found.results] == wanted
    assert (found.source_lines is not None) == run.program
    kinds = {s.kind: s.size for s in found.sizes}
    assert kinds["model raw"] == run.model * 5 and kinds["code"] == run.code
    assert kinds["total raw"] == run.model * 5 + run.code
    for step, line in zip(run.steps, found.steps, strict=True):
        assert line.train_seconds == pytest.approx(step.milliseconds / 1000)
    assert "ema:applying" in found.markers and "late_qat" in found.markers


@settings(max_examples=60, deadline=None)
@given(runs())
def test_packed_style_reads_back(run: Run) -> None:
    found = one(packed(run))
    check_common(run, found)
    assert found.settings["vocab_size"] == "8192"
    assert found.setting_lines["vocab_size"] == 6
    assert ("code packed", run.code) in [(s.kind, s.size) for s in found.sizes]
    assert [(x.label, x.val_bpb) for x in found.results] == [(r.label, r.bpb) for r in run.results]
    phases = {name: seconds for name, _, seconds in found.phases}
    assert phases["GPTQ:collected Hessians"] == 4.1
    assert any("reserving" in name and seconds == 4.0 for name, seconds in phases.items())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_read(data: bytes) -> None:
    log = read_log("x.log", data)
    assert all("\n" not in line for line in log.lines)


WORDS = st.sampled_from(
    [
        "step:",
        "step ",
        "9" * 30,
        "1/0",
        "0/0",
        "val_bpb:",
        "val_loss=",
        "nan",
        "1e999",
        "seed:",
        "bytes",
        "Code size:",
        "(",
        "[",
        "]",
        "%]",
        "Total submission size",
        "Traceback (most recent call last):",
        "Hyperparameters:",
        "import os",
        "\n",
        "\r",
        " ",
        "|",
        "train_time:",
        "ms",
        "elapsed=",
        "model:",
        "12,345,678",
        "total:",
        "code:",
        "bpb",
        "=",
        ":",
        "\x1b[1m",
        "\0",
        "ttp: b1/2",
        "stopping_early:",
        "Serialized model",
        "1.1.1.1",
        "-",
        "+",
        "e5",
        "٣",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, max_size=60).map("".join))
def test_any_mixture_of_log_words_is_read(text: str) -> None:
    log = read_log("x.log", text.encode())
    for run in log.runs:
        assert 1 <= run.first_line <= run.last_line <= len(log.lines)
        for item in (*run.steps, *run.results, *run.sizes, *run.progress):
            assert run.first_line <= item.line <= run.last_line


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings_give_the_same_run(encoding: str) -> None:
    text = "große Änderung: épée\n" + classic(Run(seed=7))
    log = read_log("x.log", text.encode(encoding))
    assert log.lines[0] == "große Änderung: épée"
    assert log.runs[0].seed == 7 and log.runs[0].results[-1].digits == 8


@given(st.integers(0, 2**32))
def test_random_bytes_are_no_log_whatever_stands_in_them(seed: int) -> None:
    """Among thousands of random bytes there is often a "name: value"; it is no setting."""
    log = read_log("train.log", Random(seed).randbytes(4096) + b"\nseed: 42\nname: value\n")
    assert log.runs == []
    assert any("not a text file" in problem for problem in log.problems)


def test_nul_bytes_and_colours_vanish_and_lines_keep_their_numbers() -> None:
    text = classic(Run()).replace("seed:1337", "\x1b[32mseed:1337\x1b[0m\0\0")
    log = read_log("x.log", b"\0" + text.encode())
    assert "seed:1337" in log.lines
    assert log.lines.index("seed:1337") == text.split("\n").index("\x1b[32mseed:1337\x1b[0m\0\0")


def test_windows_line_ends() -> None:
    assert one(classic(Run()).replace("\n", "\r\n")).results == one(classic(Run())).results


def test_progress_bar_is_one_line_and_its_parts_are_read() -> None:
    text = "seed:5\n  1%| | 1/100 [00:01]\r 50%| | 50/100\rfinal_ttt val_loss:1.9 val_bpb:1.12345678\rbye\nend\n"
    run = one(text)
    assert [(r.line, r.val_bpb) for r in run.results] == [(2, 1.12345678)]
    assert run.seed == 5


@pytest.mark.parametrize(
    "stamp", ["1776144156.999 ", "[05:07:20] ", "rank0: ", "[rank0]: ", "2026-04-01 12:00:01,123 - ", "   "]
)
def test_prefixed_lines_are_read(stamp: str) -> None:
    text = "".join(stamp + line + "\n" for line in packed(Run(seed=3)).splitlines())
    run = one(text)
    assert run.seed == 3 and run.settings["vocab_size"] == "8192"
    assert [s.step for s in run.steps] == [1, 200] and run.stop is not None
    assert run.results[-1].val_bpb == 1.143


def test_program_printed_in_the_log_yields_no_values() -> None:
    run = one(PROGRAM + "=" * 100 + "\nRunning Python 3.12.3\nseed:5\n")
    assert run.source_lines == (1, PROGRAM.rstrip("\n").count("\n") + 2)
    assert run.results == [] and run.sizes == [] and run.steps == []
    assert run.seed == 5 and run.environment["python"] == "3.12.3"


def test_program_whose_imports_were_cut_is_recognised() -> None:
    body = PROGRAM.split("\n\n\n", 1)[1]
    text = "seed:5\nmodel_params:100000\n" + body * 2 + "step:1/10 train_loss:3.5 train_time:5ms\n"
    run = one(text)
    assert run.source_lines is not None
    first, last = run.source_lines
    assert 3 <= first <= 4 and last >= text.count("\n") - 4
    assert [s.train_loss for s in run.steps] == [3.5]


def test_output_that_stands_twice_in_a_file_is_one_run() -> None:
    steps = [Step(n, 2.5 - n / 100, n * 80) for n in range(1, 6)]
    console = classic(Run(seed=42, steps=steps))
    log = read_log("x.log", (console + console).encode())
    assert [run.seed for run in log.runs] == [42]
    assert log.runs[0].markers["printed twice"] == [console.count("\n") + 1]
    assert len(log.runs[0].results) == 2


def test_the_copy_that_tells_more_stays() -> None:
    steps = [Step(n, 2.5, n * 80) for n in range(1, 6)]
    full = classic(Run(seed=42, steps=steps))
    bare = full.split("step:", 1)[1]
    log = read_log("x.log", ("step:" + bare + full).encode())
    assert len(log.runs) == 1 and log.runs[0].seed == 42
    assert log.runs[0].first_line == bare.count("\n") + 1


def test_a_second_run_of_one_seed_is_a_run_of_its_own() -> None:
    first, second = (classic(Run(seed=42, steps=[Step(n, 2.5, n * ms) for n in range(1, 6)])) for ms in (80, 81))
    log = read_log("x.log", (first + second).encode())
    assert [run.seed for run in log.runs] == [42, 42]
    assert log.runs[1].first_line == first.count("\n") + 1


def test_three_seeds_in_one_log() -> None:
    log = read_log("x.log", "".join(packed(Run(seed=s)) for s in (1, 2, 3)).encode())
    assert [run.seed for run in log.runs] == [1, 2, 3]


def test_evaluation_by_a_second_process_belongs_to_the_run_before() -> None:
    text = (
        packed(Run(seed=9))
        + "Hyperparameters:\n  seed: 9\nquantized_ttt val_loss:2.7 val_bpb:1.05 eval_time:400000ms\n"
    )
    run = one(text)
    assert [r.label for r in run.results] == ["final_int6_roundtrip", "quantized_ttt"]
    assert run.results[-1].seconds == 400.0


def test_evaluation_of_another_seed_is_another_run() -> None:
    text = packed(Run(seed=9)) + "Hyperparameters:\n  seed: 8\nquantized_ttt val_loss:2.7 val_bpb:1.05\n"
    assert [run.seed for run in read_log("x.log", text.encode()).runs] == [9, 8]


def test_crash_is_reported_and_a_survived_warning_is_not() -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 3, in <module>\nRuntimeError: CUDA out of memory\n'
    assert "CUDA out of memory" in one(classic(Run()) + trace).crashed
    assert one(trace + classic(Run())).crashed == ""


def test_results_of_many_labels() -> None:
    text = (
        "DIAGNOSTIC post_ema val_loss:1.9254 val_bpb:1.1404 eval_time:1985ms\n"
        "ttt_sliding:done val_loss=2.778134 val_bpb=1.07550237 elapsed=334.2s\n"
        "ttt:vl=0.704339 bpb=0.417149 t=46.9s\n"
        "final_ngram_blended_exact neural_loss:2.5383 blended_loss:0.1527 neural_bpb:1.5033 blended_bpb:0.0904\n"
        "EMA BPB (no XSA): 1.001464\n"
        "ttt_gain: 0.2278 BPB gain over int8 (int8:1.17 ttt:0.94)\n"
        "baseline_bpb: 1.2244\n"
        "late_qat:enabled step:100 scale:0.5\n"
    )
    found = [(r.label, r.val_loss, r.val_bpb, r.seconds) for r in one(text).results]
    assert found == [
        ("DIAGNOSTIC post_ema", 1.9254, 1.1404, 1.985),
        ("ttt_sliding:done", 2.778134, 1.07550237, 334.2),
        ("ttt", 0.704339, 0.417149, 46.9),
        ("final_ngram_blended_exact neural", 2.5383, 1.5033, None),
        ("final_ngram_blended_exact blended", 0.1527, 0.0904, None),
        ("EMA (no XSA)", None, 1.001464, None),
    ]


def test_sizes_of_many_shapes() -> None:
    text = (
        "model:13926222 code:73961 total:14000183 (14.00 MB)\n"
        "Code size: 16740 bytes (lzma compressed; raw 72788 bytes)\n"
        "Size check PASSED: 15435524 / 16,000,000 (96.5%)\n"
        "Serialized model export:int8+zstd: 15085258 bytes (payload:16951140 raw_torch:17008132 payload_ratio:3.81x)\n"
        "Size OK: 14.00 MB\n"
    )
    found = {(s.kind, s.size) for s in one(text).sizes}
    assert found == {
        ("model", 13_926_222),
        ("code", 73_961),
        ("total", 14_000_183),
        ("code packed", 16_740),
        ("code", 72_788),
        ("total", 15_435_524),
        ("model", 15_085_258),
    }


def test_gpu_table_gives_name_and_count() -> None:
    row = "|   {}  NVIDIA H100 80GB HBM3          On  |   00000000:18:00.0 Off |                    0 |\n"
    head = "| NVIDIA-SMI 580.126.09             Driver Version: 580.126.09     CUDA Version: 13.0     |\n"
    run = one(head + "".join(row.format(i) for i in range(8)) + "Running PyTorch 2.9.1+cu128\nworld_size:8\n")
    assert run.environment == {
        "gpu": "NVIDIA H100 80GB HBM3",
        "gpu_count": "8",
        "cuda": "13.0",
        "driver": "580.126.09",
        "torch": "2.9.1+cu128",
        "world_size": "8",
    }


def test_labels_are_no_settings_and_ttt_settings_keep_their_label() -> None:
    text = (
        "swa:start step:10\nttt:start lr=0.0005 epochs=10\nttt_sliding:start chunks=1893 ttt_lr=0.002\n"
        "tie_embeddings:True embed_lr:0.05\n"
    )
    run = one(text)
    assert run.settings == {
        "ttt_lr": "0.0005",
        "ttt_epochs": "10",
        "ttt_sliding_chunks": "1893",
        "tie_embeddings": "True",
        "embed_lr": "0.05",
    }
    assert run.markers["ttt:start"] == [2]


@pytest.mark.parametrize("stream", [False, True])
def test_a_long_log_keeps_its_ends_and_its_line_numbers(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setattr(decode, "HEAD_BYTES", 4_000)
    monkeypatch.setattr(decode, "TAIL_BYTES", 2_000)
    monkeypatch.setattr(decode, "_STEP", 500)
    start, end = classic(Run(seed=4)).split("stopping_early", 1)
    text = start + "noise noise noise\n" * 3_000 + "stopping_early" + end
    data = text.encode()
    log = read_log("x.log", io.BytesIO(data) if stream else data)
    assert log.truncated and any("not read" in problem for problem in log.problems)
    run = log.runs[0]
    assert run.seed == 4 and run.stop is not None and run.results[-1].digits == 8
    number = run.results[-1].line
    assert text.split("\n")[number - 1] == log.lines[number - 1]


def test_candidates_for_the_headline_are_the_latest_labels_with_most_digits() -> None:
    run = one(
        classic(Run(results=[Result("final_int6_roundtrip", 1.9, 1.14, 9), Result("legal_ttt", 1.8, 1.12345678, 9)]))
    )
    assert [(r.label, r.val_bpb) for r in final_candidates(run)] == [
        ("legal_ttt_exact", 1.12345678),
        ("final_int6_roundtrip_exact", 1.14),
    ]


def test_an_empty_log_has_no_runs() -> None:
    assert read_log("x.log", b"").runs == [] and read_log("x.log", b"\n \n").runs == []


def test_a_long_line_is_harmless() -> None:
    start = time.perf_counter()
    read_log("x.log", b"val_bpb:" + b"1" * 2_000_000 + b"\n" + b"a_" * 500_000 + b"=\n" + b"[ 1" * 300_000)
    assert time.perf_counter() - start < 30  # a pattern that backtracks would take hours


def test_short_style() -> None:
    text = (
        "s:0/20000 vl:6.9279 bpb:4.1031 tt:0ms sa:0.01ms\ns:500/20000 tl:2.3517 tt:42777ms sa:85.55ms\n"
        "stop tt:600048ms s:6976/20000\nmodel:106181533B\ncode:94053B\nq:15822128B\ntotal:15916181B\n"
        "q_sw vl:1.8945 bpb:1.1220 s:64 t:76214ms\n"
    )
    run = one(text)
    assert [(s.step, s.train_loss, s.val_bpb, s.train_seconds) for s in run.steps] == [
        (0, None, 4.1031, 0.0),
        (500, 2.3517, None, 42.777),
    ]
    assert run.train_seconds is not None and run.train_seconds.value == 600.048
    assert [(s.kind, s.size) for s in run.sizes] == [
        ("model raw", 106_181_533),
        ("code", 94_053),
        ("model", 15_822_128),
        ("total", 15_916_181),
    ]
    assert [(r.label, r.val_bpb, r.seconds) for r in run.results] == [("q_sw", 1.122, 76.214)]


def test_piped_style_and_a_stated_training_time() -> None:
    text = (
        "Seed: 314, Steps: 7000, Warmdown: 2100\nTotal params: 33,909,825\n"
        "step  2300/7000 | loss 3.2117 | lr_mul 1.0000 | 3.99 steps/s | 576s\n"
        "Stopping early at step 2398 (wallclock limit)\nTraining complete in 600s\n"
    )
    run = one(text)
    assert run.seed == 314 and run.params is not None and run.params.value == 33_909_825
    assert [(s.step, s.train_loss, s.train_seconds) for s in run.steps] == [(2300, 3.2117, 576.0)]
    assert run.stop is not None and run.stop.step == 2398
    assert run.train_seconds is not None and run.train_seconds.value == 600.0


def test_a_log_quoted_in_json_is_read() -> None:
    inner = classic(Run(seed=42)).replace("\n", "\\n")
    run = one(f'=== Seed 42 ===\n{{\n  "val_bpb": 1.14300000,\n  "log_tail": "{inner}"\n}}\n')
    assert run.seed == 42 and [s.step for s in run.steps] == [1, 200] and run.stop is not None
    assert {r.line for r in run.results} == {3, 4} and run.results[-1].val_bpb == 1.143


def test_a_run_name_before_every_line() -> None:
    text = "".join(f"wide_d704_w2200: {line}\n" for line in classic(Run()).splitlines())
    run = one(text)
    assert [s.step for s in run.steps] == [1, 200]
    assert [r.label for r in run.results] == ["final_int6_roundtrip", "final_int6_roundtrip_exact"]


def test_stop_line_without_a_step() -> None:
    text = "step:15000/20000 train_loss:2.8 train_time:579905ms\nstopping_early: wallclock_cap train_time:599224ms\n"
    run = one(text)
    assert run.stop is not None and (run.stop.step, run.stop.train_seconds) == (15_000, 599.224)
    assert run.train_seconds is not None and run.train_seconds.source.line == 2


def test_a_log_of_which_only_the_beginning_was_given_says_so() -> None:
    data = classic(Run()).encode()
    log = read_log("x.log", data[:-100], size=len(data))
    assert log.truncated and f"of {len(data):,} bytes were read" in log.problems[0]
    assert not read_log("x.log", data, size=len(data)).truncated


def test_a_setting_that_holds_nothing_does_not_end_the_listing() -> None:
    text = (
        "Hyperparameters:\n  adam_wd: 0.02\n  artifact_dir: \n  ttt_enabled: True\n  seed: 7\nstep:1/2 train_loss:3.0\n"
    )
    run = read_log("train.log", text.encode()).runs[0]
    assert run.settings == {"adam_wd": "0.02", "ttt_enabled": "True", "seed": "7"}
