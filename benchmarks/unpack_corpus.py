"""Packed scripts of a clone: which pull requests pack their script, how, and whether each decodes.

    python benchmarks/unpack_corpus.py --repo DIR [--json FILE] [--limit N]

Prints the packed pull requests with the form of packing, scripts that are not Python, the problems, and the times.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

import click

from auditor.errors import AuditorError
from auditor.git import Repository
from auditor.submission import Submission
from auditor.unpack import parses, read_program, suspicious


def examine(git: Repository, number: int) -> dict[str, object] | None:
    """One row for a pull request: form of packing, success, seconds; None when it holds no script."""
    start = time.perf_counter()
    submissions = Submission.from_git(git, number)
    listed = time.perf_counter() - start
    if not submissions or submissions[0].main_script is None:
        return None
    submission = submissions[0]
    program = read_program(submission)
    main = program.main
    shipped = next((layer for layer in program.layers if layer.name == submission.main_script), None)
    # A wrapper is at most some lines long but wide: what must decode even if we failed to see it as packed.
    wide = shipped is not None and suspicious(shipped.text) and _looks_packed(shipped.text)
    return {
        "pr": number,
        "script": submission.main_script,
        "packed": program.packed,
        "looks_packed": wide,
        "form": "+".join(main.codecs) if main and program.packed else "",
        "decoded": bool(main and program.packed and parses(main)),
        "runs": main.name if main and main.name != submission.main_script else "",
        "not_python": [p for p in program.problems if "not Python in any version" in p],
        "problems": program.problems,
        "list_seconds": listed,
        "seconds": time.perf_counter() - start,
    }


def _looks_packed(text: str) -> bool:
    """Independent of the unpacker: more than half of the characters are in lines longer than 2,000."""
    wide = sum(len(line) for line in text.split("\n") if len(line) > 2000 and " " not in line[1000:1400])
    return len(text) > 2000 and wide * 2 > len(text)


@click.command()
@click.option(
    "--repo", type=click.Path(path_type=Path, exists=True), required=True, help="Clone of the public repository."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write one JSON line per pull request.")
@click.option("--limit", type=int, default=0, help="Only the last N pull requests.")
def main(repo: Path, json_file: Path | None, limit: int) -> None:
    """Measure unpacking on every pull request of a clone."""
    rows = []
    with Repository(repo) as git:
        for number in git.pull_requests()[-limit:]:
            try:
                row = examine(git, number)
            except AuditorError as error:
                row = None
                print(f"{number}: {error}", file=sys.stderr)
            if row:
                rows.append(row)
    if json_file:
        json_file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _report(rows)


def _report(rows: list[dict]) -> None:
    packed = [row for row in rows if row["packed"]]
    missed = [row for row in rows if row["looks_packed"] and not row["decoded"]]
    print(
        f"pull requests with a script: {len(rows)}; packed: {len(packed)}; decoded: {sum(r['decoded'] for r in packed)}"
    )
    for form, count in Counter(row["form"] for row in packed).most_common():
        print(f"  {count:4} {form:24} {' '.join(str(r['pr']) for r in packed if r['form'] == form)}")
    print(f"look packed but did not decode: {[row['pr'] for row in missed]}")
    others = [(row["pr"], row["runs"].rsplit("/", 1)[-1]) for row in rows if row["runs"] and not row["packed"]]
    print(f"run another file: {others}")
    print("not Python in any version:")
    for row in rows:
        for problem in row["not_python"]:
            print(f"  {row['pr']}: {problem}")
    for name in ("list_seconds", "seconds"):
        times = sorted(row[name] for row in rows) or [0.0]
        high = times[int(0.99 * (len(times) - 1))]
        print(f"{name}: median {statistics.median(times):.3f}, 99 % {high:.3f}, most {times[-1]:.3f}")


if __name__ == "__main__":
    main()
