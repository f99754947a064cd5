"""Submissions from mappings and folders: roles, main script, track, date, bad input."""

from __future__ import annotations

import datetime as dt
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.errors import MissingBlob, SubmissionNotFound
from auditor.submission import Submission, Track
from auditor.text import decode

FOLDER = "records/track_10min_16mb/2026-04-01_Small"
SCRIPT = "def main():\n    print('val_bpb:1.2')\n\nif __name__ == '__main__':\n    main()\n"


def make(files: dict[str, str | bytes], folder: str = FOLDER, **known: object) -> Submission:
    return Submission.from_files({f"{folder}/{name}": data for name, data in files.items()}, **known)


def test_roles_of_a_complete_folder():
    names = ["train_gpt.py", "ngram.py", "README.md", "submission.json", "requirements.txt", "train_seed42.log",
             "train_v0.txt", "logs/seed7.txt", "logs/run", "final_model.int8.ptz", "tokenizer.model",
             "notes.md"]  # fmt: skip
    s = make(dict.fromkeys(names, "x"))
    short = [[p.removeprefix(FOLDER + "/") for p in paths] for paths in (s.logs, s.artifacts, s.modules, s.metadata)]
    assert sorted(short[0]) == ["logs/run", "logs/seed7.txt", "train_seed42.log", "train_v0.txt"]
    assert sorted(short[1]) == ["final_model.int8.ptz", "tokenizer.model"]
    assert short[2:] == [["ngram.py"], ["submission.json"]]
    assert s.main_script == f"{FOLDER}/train_gpt.py"
    assert s.readme == f"{FOLDER}/README.md"
    assert (s.track, s.date) == (Track.RECORD, dt.date(2026, 4, 1))
    assert s.problems == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"train_gpt.py": "x", "train_gpt_v9.py": SCRIPT * 9}, "train_gpt.py"),
        ({"prepare_data.py": SCRIPT * 9, "train_jepa.py": "x = 1\n"}, "train_jepa.py"),
        (
            {"train_a.py": SCRIPT, "train_b.py": SCRIPT, "README.md": "`torchrun --nproc_per_node=8 train_a.py`"},
            "train_a.py",
        ),
        ({"eval_ttt.py": SCRIPT, "model.py": "x = 1\n" * 500}, "eval_ttt.py"),
        ({"sweep.py": SCRIPT * 3, "solve.py": SCRIPT, "layers.py": "x = 1\n" * 99}, "solve.py"),
        ({"src/train_gpt.py": SCRIPT, "plot.py": SCRIPT}, "src/train_gpt.py"),
        ({"lossless_train_gpt.md": "", "train.log": "x"}, None),
    ],
)
def test_main_script(files, expected):
    assert make(files).main_script == (f"{FOLDER}/{expected}" if expected else None)


@pytest.mark.parametrize(
    ("folder", "metadata", "readme", "expected"),
    [
        ("records/track_10min_16mb/a", {}, "", Track.RECORD),
        ("records/track_10min_16mb/a", {"track": "non-record-16mb"}, "", Track.RECORD),
        ("records/track_non_record_16mb/a", {}, "One run of 10 minutes.", Track.NON_RECORD),
        ("records/track_non_record_16mb/a", {"track": "unlimited"}, "", Track.UNLIMITED),
        ("records/track_non_record_16mb/a", {}, "Submitted to the unlimited compute track.", Track.UNLIMITED),
        ("records/track_non_record_16mb/a", {}, "This is not an unlimited compute run.", Track.NON_RECORD),
        ("records/mine", {"track": "10min_16mb"}, "", Track.RECORD),
        ("records/mine", {}, "A non-record submission.", Track.NON_RECORD),
        ("records/mine", {}, "A transformer.", Track.UNKNOWN),
    ],
)
def test_track(folder, metadata, readme, expected):
    s = make({"train_gpt.py": SCRIPT, "submission.json": json.dumps(metadata), "README.md": readme}, folder)
    assert s.track is expected
    disagrees = metadata.get("track") == "non-record-16mb"
    assert any("names the track" in p for p in s.problems) == disagrees


def test_date_falls_back_to_metadata_then_head():
    head = dt.datetime(2026, 4, 9, 1, tzinfo=dt.UTC)
    plain = {"train_gpt.py": SCRIPT}
    dated = plain | {"submission.json": '{"date": "2026-03-22T10:00:00Z"}'}
    assert make(dated, "records/track_10min_16mb/x").date == dt.date(2026, 3, 22)
    assert make(plain, "records/track_10min_16mb/x", head_date=head).date == dt.date(2026, 4, 9)
    assert make(plain, "records/track_10min_16mb/2026-13-77_x").date is None


def test_no_three_and_broken_metadata():
    assert make({"train_gpt.py": SCRIPT}).metadata == []
    three = make(
        {"train_gpt.py": SCRIPT, "submission.json": "{}", "submission_v2.json": "{}", "old/submission.json": "{}"}
    )
    assert [p.removeprefix(FOLDER + "/") for p in three.metadata] == [
        "submission.json", "old/submission.json", "submission_v2.json"]  # fmt: skip
    broken = make({"train_gpt.py": SCRIPT, "submission.json": '{"track": "non-record", "date": '}, "records/mine")
    assert broken.track is Track.NON_RECORD


def test_empty_script_missing_script_and_script_in_a_subfolder_are_named():
    assert any("empty (0 bytes)" in p for p in make({"train_gpt.py": ""}).problems)
    assert any("no Python script" in p for p in make({"train.log": "x"}).problems)
    assert any("sub-folder" in p for p in make({"code/train_gpt.py": SCRIPT}).problems)


def test_no_files_at_all():
    s = Submission.from_files({})
    assert s.main_script is None and s.files == {} and s.problems


def test_files_outside_the_folder_are_neighbours_not_files():
    s = Submission.from_files({f"{FOLDER}/train_gpt.py": SCRIPT, "train_gpt.py": "root = 1"})
    assert list(s.files) == [f"{FOLDER}/train_gpt.py"]
    assert s.neighbours == ["train_gpt.py"] and s.read("train_gpt.py") == b"root = 1"


def test_unknown_attribute_is_refused():
    with pytest.raises(TypeError, match="no attribute 'trak'"):
        make({"train_gpt.py": SCRIPT}, trak="record")


# ---------------------------------------------------------------------- folders


def on_disk(tmp_path, files: dict[str, str], folder: str = FOLDER):
    root = tmp_path / folder
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(data)
    return root


def test_folder_reads_like_the_mapping(tmp_path):
    files = {"train_gpt.py": SCRIPT, "README.md": "hello", "logs/a.txt": "step:1"}
    disk, memory = Submission.from_folder(on_disk(tmp_path, files)), make(files)
    assert disk.folder == memory.folder and set(disk.files) == set(memory.files)
    assert (disk.main_script, disk.logs, disk.readme, disk.track) == (
        memory.main_script, memory.logs, memory.readme, memory.track)  # fmt: skip
    assert all(disk.read(p) == memory.read(p) for p in disk.files)


def test_folder_name_with_spaces(tmp_path):
    s = Submission.from_folder(on_disk(tmp_path, {"train.log": "x"}, "records/track_10min_16mb/2026-03-19_a b _c"))
    assert s.folder.endswith("2026-03-19_a b _c") and len(s.logs) == 1


def test_links_out_of_the_folder_are_reported_and_not_read(tmp_path):
    root = on_disk(tmp_path, {"train_gpt.py": SCRIPT})
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.py").write_text("x = 1")
    os.symlink(secret, root / "train.log")
    os.symlink(tmp_path / "elsewhere", root / "code")
    s = Submission.from_folder(root)
    assert s.logs == [] and s.modules == []
    assert sum("out of the folder" in p for p in s.problems) == 2
    with pytest.raises(KeyError):
        s.read(f"{FOLDER}/train.log")


def test_file_replaced_by_a_link_after_listing_is_refused(tmp_path):
    root = on_disk(tmp_path, {"train_gpt.py": SCRIPT, "logs/a.txt": "x"})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("secret")
    s = Submission.from_folder(root)
    (root / "logs" / "a.txt").unlink()
    (root / "logs").rmdir()
    os.symlink(tmp_path / "out", root / "logs")
    with pytest.raises(MissingBlob):
        s.read(f"{FOLDER}/logs/a.txt")


def test_huge_log_is_read_within_bounds(tmp_path):
    root = on_disk(tmp_path, {"train_gpt.py": SCRIPT})
    with (root / "train.log").open("wb") as file:
        file.write(b"step:1\n")
        file.truncate(200 * 2**20)
    s = Submission.from_folder(root)
    assert s.files[f"{FOLDER}/train.log"].size == 200 * 2**20
    assert s.read(f"{FOLDER}/train.log", 7) == b"step:1\n"
    assert len(s.read(f"{FOLDER}/train.log")) == 64 * 2**20


def test_pipe_in_the_folder_does_not_hang(tmp_path):
    root = on_disk(tmp_path, {"train_gpt.py": SCRIPT})
    os.mkfifo(root / "train.log")
    s = Submission.from_folder(root)
    assert s.logs == [] and any("pipe" in p for p in s.problems)


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(SubmissionNotFound, match="nowhere"):
        Submission.from_folder(tmp_path / "nowhere")


@given(st.binary(max_size=400))
def test_any_bytes_decode_to_text(data):
    assert "\r" not in decode(data)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff\0"), min_size=8), st.sampled_from(
    ["utf-8", "utf-8-sig", "utf-16", "utf-32"]))  # fmt: skip
def test_encodings_with_marks_round_trip(text, encoding):
    assert decode(text.encode(encoding)) == text
