"""Forensics on honest, old, foreign and made-up logs of one small program."""

from __future__ import annotations

import re

import pytest
from forensic_parts import FOLDER, PROGRAM, RATIO, honest_log, log_of, submission
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.documents.copies import LogIndex, Place
from auditor.documents.forensics import forensics
from auditor.documents.logs import read_log
from auditor.documents.model import ForensicFact

README = {"README__md": "Run: MAX_WALLCLOCK_SECONDS=190 torchrun train_gpt.py\n"}


def examine(lines: list[str], **files: str) -> list[ForensicFact]:
    found, program = submission(**(files or README))
    return forensics(found, program, [log_of(lines)])


def kinds(facts: list[ForensicFact], strength: str = "") -> set[str]:
    return {item.kind for item in facts if not strength or item.strength == strength}


def replaced(lines: list[str], pattern: str, by: str, count: int = 0) -> list[str]:
    out, done = [], 0
    for line in lines:
        new = re.sub(pattern, by, line)
        if new != line and count and done >= count:
            new = line
        done += new != line
        out.append(new)
    assert done, "the test bends nothing"
    return out


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_honest_logs_raise_nothing(seed: int) -> None:
    assert examine(honest_log(seed)) == []


def test_honest_log_with_source_launcher_and_stamps() -> None:
    lines = ["W0321 23:58:21.049000 21 torch/distributed/run.py:852] ***", *PROGRAM.splitlines(), "=" * 100]
    lines += [f"[12:00:{i % 60:02d}] {line}" for i, line in enumerate(honest_log(dump=False))]
    assert kinds(examine(lines)) == set()


def test_made_up_log_is_a_contradiction_on_several_grounds() -> None:
    lines = [line for line in honest_log() if "ttt_chunk" not in line and "train_loss" not in line]
    for index, line in enumerate(lines):
        found = re.search(r"step:(\d+)/2000 val_loss:([\d.]+)", line)
        if found and int(found[1]) >= 200:
            bpb = float(found[2]) / (1.0004 * 1.6885)
            lines[index] = re.sub(r"val_bpb:[\d.]+", f"val_bpb:{bpb:.4f}", line)
    lines += ["quant:saving int5 model...", "quant:int5 artifact size: 16265723 bytes (15.51 MB)"]
    rows = ((1, "1.3255"), (100, "1.2501"), (500, "1.2101"), (1000, "1.1801"), (1500, "1.1501"), (1893, "1.1326"))
    lines += [f"ttt_chunk [{i}/1893] bpb={bpb} time={i / 10:.1f}s" for i, bpb in rows]
    facts = examine(lines)
    assert {"line-without-template", "impossible-digits", "cadence", "quotient"} <= kinds(facts, "contradiction")
    assert {"missing-lines", "running-mean", "round-sequence"} <= kinds(facts)
    quotient = next(item for item in facts if item.kind == "quotient")
    assert "18 of 21" in quotient.summary or "19 of 21" in quotient.summary
    cadence = next(item for item in facts if item.kind == "cadence")
    assert [source.excerpt.split()[1] for source in cadence.sources] == [
        "[100/1893]",
        "[500/1893]",
        "[1000/1893]",
        "[1500/1893]",
    ]


def test_reworded_lines_alone_are_not_a_contradiction() -> None:
    lines = replaced(honest_log(), r"train_loss:", "loss:")
    facts = examine(lines)
    assert kinds(facts, "contradiction") == set()
    assert "line-without-template" in kinds(facts, "suspicious")


def test_log_of_another_revision_is_one_fact() -> None:
    older = PROGRAM.replace('f"Code size: {code_bytes} bytes"', 'f"code_bytes {code_bytes:d}"')
    lines = [
        *older.strip("\n").splitlines(),
        "=" * 100,
        *replaced(honest_log(), r"Code size: (\d+) bytes", r"code_bytes \1"),
    ]
    facts = examine(lines)
    assert kinds(facts) == {"source-differs"}
    fact = facts[0]
    assert fact.strength == "suspicious"
    assert "1 code lines only in the printed program, 1 only in" in fact.summary


def test_comments_make_no_other_revision() -> None:
    older = PROGRAM.replace("    code = open", "    # read it\n    code = open").replace(
        "step += 1", "step += 1  # next"
    )
    facts = examine([*older.strip("\n").splitlines(), "=" * 100, *honest_log()])
    assert kinds(facts) <= {"source-differs"} and kinds(facts, "suspicious") == set()


def test_settings_of_another_program() -> None:
    lines = honest_log()
    lines[3:3] = ["  ttt_hash_buckets: 16384", "  ttt_hash_embed: True"]
    facts = examine(lines)
    fact = next(item for item in facts if item.kind == "foreign-setting")
    assert fact.strength == "contradiction" and "ttt_hash_buckets, ttt_hash_embed" in fact.summary
    assert [source.line for source in fact.sources] == [4, 5]


def test_settings_of_a_feature_that_is_off_are_milder() -> None:
    lines = honest_log()
    lines[3:3] = ["  hash_embed_enabled: False", "  hash_embed_size: 16384"]
    fact = next(item for item in examine(lines) if item.kind == "foreign-setting")
    assert fact.strength == "suspicious" and "dormant" in fact.explanation


def test_the_same_observation_on_several_logs_is_told_once() -> None:
    found, program = submission(**README)
    logs = [
        log_of(replaced(honest_log(seed), r"Code size: \d+", "Code size: 76429"), f"train_seed{seed}.log")
        for seed in (1, 2, 3)
    ]
    (fact,) = forensics(found, program, logs)
    assert "(in 3 logs)" in fact.summary and len({source.path for source in fact.sources}) == 3


def announced(seed: int, factor: float, tokens: int = 62_021_632) -> list[str]:
    """A log with two exact results whose BPB was multiplied."""
    *lines, last = honest_log(seed)
    final = float(last.rpartition("val_loss:")[2].split()[0])
    return [
        f"val_loader:shards pattern=./data/fineweb_val_*.bin tokens:{tokens}",
        *lines,
        *(
            f"{label} val_loss:{loss:.8f} val_bpb:{loss / RATIO * factor:.8f}"
            for label, loss in (("final_int8_zlib_roundtrip_exact", final + 0.01), ("final_ttt_exact", final))
        ),
    ]


@pytest.mark.parametrize(("factor", "tokens", "found"), [(0.9993, 0, True), (1.0, 0, False), (0.9993, 6144, False)])
def test_a_score_changed_in_one_log_contradicts_the_others(factor: float, tokens: int, found: bool) -> None:
    """A run that announces another number of tokens evaluates another export and may have another quotient."""
    files, program = submission(**README)
    logs = [
        read_log(FOLDER + f"train_seed{seed}.log", "\n".join(lines).encode())
        for seed, lines in enumerate((announced(0, 1.0), announced(1, factor, 62_021_632 + tokens), announced(2, 1.0)))
    ]
    facts = [item for item in forensics(files, program, logs) if item.kind == "quotient-between-logs"]
    assert [item.strength for item in facts] == ["contradiction"] * found
    assert all(source.path.endswith("seed1.log") for item in facts for source in item.sources)


def test_side_experiments_with_another_program_are_notable() -> None:
    found, program = submission(**README)
    older = PROGRAM.replace("num_layers = 11", "num_layers = 9")
    logs = [log_of(honest_log(1)), log_of([*older.splitlines(), "=" * 100, *honest_log(2)], "ablation.log")]
    assert [(f.kind, f.strength) for f in forensics(found, program, logs)] == [("source-differs", "notable")]


def test_settings_nobody_documents() -> None:
    facts = examine(replaced(honest_log(), r"matrix_lr: 0.02", "matrix_lr: 0.035"))
    assert [(item.kind, item.strength) for item in facts] == [("undocumented-setting", "notable")]
    assert "matrix_lr = 0.035 (default 0.02)" in facts[0].summary


def test_code_size_of_another_file() -> None:
    facts = examine(replaced(honest_log(), r"Code size: \d+", "Code size: 76429"))
    assert [(item.kind, item.strength) for item in facts] == [("code-size", "notable")]
    assert "76,429" in facts[0].summary


def test_wrong_average_is_found_and_rounding_is_not() -> None:
    lines = honest_log()
    index = next(i for i, line in enumerate(lines) if line.startswith("step:900/2000 val_loss"))
    average = float(re.search(r"step_avg:([\d.]+)", lines[index])[1])  # type: ignore[index]
    lines[index] = re.sub(r"step_avg:[\d.]+", f"step_avg:{average + 0.02:.2f}", lines[index])
    facts = examine(lines)
    assert kinds(facts, "contradiction") == {"step-average"}
    assert facts[0].sources[0].line == index + 1


def test_clock_that_goes_back() -> None:
    lines = honest_log()
    index = next(i for i, line in enumerate(lines) if line.startswith("step:900/2000 train_loss"))
    lines[index] = re.sub(r"train_time:\d+", "train_time:20000", lines[index])
    assert "not-monotone" in kinds(examine(lines))


def test_two_runs_in_one_file_are_no_clock_that_goes_back() -> None:
    assert "not-monotone" not in kinds(examine(honest_log(1, dump=False) + honest_log(2, dump=False)))


def test_whole_second_clocks() -> None:
    lines = [re.sub(r"train_time:(\d+)\d{3}ms", r"train_time:\g<1>000ms", line) for line in honest_log()]
    assert "round-sequence" in kinds(examine(lines))


def test_warmdown_that_never_begins() -> None:
    facts = examine(replaced(honest_log(), r"max_wallclock_seconds: 190.0", "max_wallclock_seconds: 600.0"))
    fact = next(item for item in facts if item.kind == "schedule")
    assert fact.strength == "notable" and "is still 1.000" in fact.summary


def test_first_loss_of_another_vocabulary() -> None:
    lines = replaced(
        honest_log(), r"step:0/2000 val_loss:6.9300 val_bpb:[\d.]+", "step:0/2000 val_loss:5.5452 val_bpb:3.2841"
    )
    assert "initial-loss" in kinds(examine(lines))


def test_program_with_unreadable_output_accuses_nobody() -> None:
    found, _ = submission()
    text = PROGRAM + "\nprint(tool_output())\n"
    found, program = submission(train_gpt__py=text)
    facts = forensics(found, program, [log_of([*honest_log(), "artifact size: 123456 bytes", "eval loss: 1.2345"])])
    assert all(item.strength == "notable" for item in facts)


@pytest.mark.parametrize("lines", [[], [""], ["\x00" * 50], ["step:"], ["[1/0] bpb=1.0"] * 5, ["(" * 3000]])
def test_strange_logs_are_answered(lines: list[str]) -> None:
    assert isinstance(examine(lines), list)


def test_shell_script_explains_its_own_lines() -> None:
    lines = ["=== seed 42: quantised loss: 1.2345 ===", *honest_log()]
    assert examine(lines, **README, run__sh='SEED=$1\necho "=== seed $SEED: quantised loss: 1.2345 ==="\n') == []
    assert kinds(examine(lines)) == {"line-without-template"}


def index_of(lines: list[str], place: Place, **more: str) -> LogIndex:
    blob = log_blob(lines)
    return LogIndex({blob: [place]}, {7: "Ann\nann@x.org", 9: more.get("author", "Bob\nbob@x.org")})


def log_blob(lines: list[str]) -> str:
    import hashlib

    data = "\n".join(lines).encode()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("pr", "author", "strength"),
    [
        (9, "Bob\nbob@x.org", ["contradiction"]),
        (9, "Ann\nother@x.org", ["notable"]),
        (9, "A.\nann@x.org", ["notable"]),
        (5, "Bob\nbob@x.org", []),
        (None, "", ["notable"]),
    ],
)
def test_copied_log(pr: int | None, author: str, strength: list[str]) -> None:
    lines = honest_log()
    found, program = submission(train_seed1__log="\n".join(lines))
    found.pr = pr
    index = index_of(lines, Place(7, "records/track_10min_16mb/2026-03-01_other/train.log"))
    index.authors |= {} if pr is None else {pr: author}
    facts = forensics(found, program, [log_of(lines)], index)
    assert [item.strength for item in facts if item.kind == "copied-log"] == strength


def test_same_file_in_the_same_folder_is_no_copy() -> None:
    lines = honest_log()
    found, program = submission(train_seed1__log="\n".join(lines))
    found.pr = 9
    facts = forensics(found, program, [log_of(lines)], index_of(lines, Place(7, FOLDER + "train_seed1.log")))
    assert "copied-log" not in kinds(facts)


def test_one_log_for_two_seeds() -> None:
    found, program = submission(**README)
    lines = honest_log()
    facts = forensics(found, program, [log_of(lines, "train_seed1.log"), log_of(lines, "train_seed2.log")])
    assert kinds(facts, "suspicious") == {"copied-log"}
