"""`auditor review` from outside: bad input names the file, is never a traceback, and the rest is still reviewed."""

from __future__ import annotations

import json
import lzma
import shutil
import subprocess
from base64 import b85encode
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from auditor.cli import main
from auditor.findings import Verdict
from rules.examples import FOLDER, overlaid


def write(root: Path, changes: dict[str, str | bytes | None] | None = None) -> Path:
    """The clean example package on disk, changed; returns the record folder."""
    for path, text in overlaid(changes or {}).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root / FOLDER


def review(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner(env={"COLUMNS": "200", "XDG_CACHE_HOME": "/nonexistent"}).invoke(
        main, ["review", "--no-run", *map(str, arguments)]
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return result.exit_code, result.output


def document(folder: Path, out: Path) -> dict:
    review(folder, "--out", out, "--format", "json")
    return json.loads(next(out.glob("*.json")).read_text())


BOMB = "import lzma,base64\nexec(lzma.decompress(base64.b85decode({!r})))\n"

BAD = {
    "no submission.json": ({"submission.json": None}, "submission.json"),
    "three of them": ({"submission_a.json": "{}", "submission_b.json": "{}"}, "submission"),
    "malformed JSON": ({"submission.json": '{"val_bpb": 1.04,, "author"'}, "submission.json"),
    "empty script": ({"train_gpt.py": ""}, "train_gpt.py"),
    "syntax error": ({"train_gpt.py": "def main(:\n    pass\n"}, "train_gpt.py"),
    "binary garbage": ({"train_gpt.py": bytes(range(256)) * 40}, "train_gpt.py"),
    "garbage log": ({"train_seed42.log": Random(2).randbytes(4096)}, "train_seed42.log"),
}


@pytest.mark.parametrize(("changes", "name"), BAD.values(), ids=BAD)
def test_bad_file_is_named_and_the_rest_is_reviewed(tmp_path, changes, name):
    found = document(write(tmp_path / "in", changes), tmp_path / "out")
    assert found["verdict"] in {verdict.value for verdict in Verdict} - {"ERROR"}
    assert name in json.dumps([found["problems"], found["findings"]])
    assert found["verdict"] != "CLEAN" or name == "submission", "further metadata files alone are no defect"
    decided = [finding for finding in found["findings"] if finding["status"] == "pass"]
    assert len(decided) >= 5, "what the other files show is still decided"


def test_decompression_bomb_is_a_problem_not_a_crash(tmp_path):
    packed = b85encode(lzma.compress(b"x = 1\n" * (40 << 20))).decode()
    found = document(write(tmp_path / "in", {"train_gpt.py": BOMB.format(packed)}), tmp_path / "out")
    assert any("train_gpt.py" in problem for problem in found["problems"])
    assert any("expand" in problem or "bytes" in problem for problem in found["problems"]), found["problems"]


def test_log_of_200_megabytes_is_read_in_part_and_said(tmp_path):
    folder = write(tmp_path / "in")
    with (folder / "train_seed42.log").open("r+b") as file:
        file.truncate(200 << 20)
    found = document(folder, tmp_path / "out")
    assert any("train_seed42.log" in problem for problem in found["problems"])
    assert found["ledger"]


def test_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.log").write_text("seed:42\nsecret words\n")
    folder = write(tmp_path / "in")
    (folder / "train_seed7.log").symlink_to(tmp_path / "secret.log")
    found = document(folder, tmp_path / "out")
    assert any("train_seed7.log" in problem for problem in found["problems"])
    assert "secret words" not in json.dumps(found)


def test_one_bad_target_of_several_does_not_stop_the_others(tmp_path):
    good, bad = write(tmp_path / "good"), write(tmp_path / "bad", {"train_gpt.py": b"\xff\x00" * 99})
    code, _output = review(good, bad, good, "--jsonl", tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and rows[0]["verdict"] == rows[2]["verdict"]
    assert set(rows[0]) >= {"pr", "main_file", "verdict", "findings", "seconds"}
    assert code in (1, 3, 4)


def test_results_file_is_resumed_after_an_interruption(tmp_path):
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    results = tmp_path / "r.jsonl"
    review(one, "--jsonl", results)
    with results.open("a") as file:
        file.write('{"label": "cut sho')
    review(one, two, "--jsonl", results, "--resume")
    rows = [line for line in results.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["label"] for line in rows] == [str(one), str(two)]


def test_reports_are_written_and_their_place_is_printed(tmp_path):
    _, output = review(write(tmp_path / "in"), "--out", tmp_path / "out")
    written = sorted(path.suffix for path in (tmp_path / "out").iterdir())
    assert written == [".html", ".json", ".md", ".sarif"]
    assert str(tmp_path / "out") in output


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A small repository with a main branch and pull request 7, whose tree lacks one blob."""
    root = tmp_path_factory.mktemp("clone")

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    (root / "README.md").write_text("# challenge\n")
    git("add", "."), git("commit", "-qm", "start"), git("checkout", "-qb", "work")
    write(root)
    git("add", "."), git("commit", "-qm", "submission")
    git("update-ref", "refs/pull/7/head", "HEAD"), git("checkout", "-q", "main")
    blob = git("rev-parse", f"refs/pull/7/head:{FOLDER}/train_seed2024.log")
    shutil.rmtree(root / ".git/objects" / blob[:2] / blob[2:], ignore_errors=True)
    (root / ".git/objects" / blob[:2] / blob[2:]).unlink(missing_ok=True)
    return root


def test_pull_request_with_a_missing_blob(clone, tmp_path):
    _code, output = review("7", "--repo", clone, "--out", tmp_path, "--format", "json")
    found = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert any("train_seed2024.log" in problem for problem in found["problems"])
    assert "CLEAN" not in output.splitlines()[-1]


def test_pull_request_that_does_not_exist(clone):
    code, output = review("99999", "--repo", clone)
    assert code == 4 and "99999" in output


def test_unknown_names_say_what_to_do(clone, tmp_path):
    code, output = review("no/such/folder")
    assert code == 4 and "--repo" in output
    code, output = review("7", "--repo", tmp_path)
    assert code == 4 and str(tmp_path) in output.replace("\n", "")
    assert review()[0] == 2
    assert review("--list", tmp_path / "absent.txt")[0] == 4
