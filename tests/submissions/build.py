"""Writes the bundled example submissions next to this file: run `python tests/submissions/build.py` after a change of
`rules/examples.py`. They are committed, so that they can be opened, and reviewed by `bin/review` without arguments."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rules.example_program import program
from rules.examples import RUNS, Run, overlaid, runs, variant
from rules.pg_c3_score_first import ADAPT, ADAPT_THEN_SCORE

HERE = Path(__file__).parent / "records"
RECORD = "records/track_10min_16mb"


def examples() -> dict[str, dict[str, str | bytes]]:
    """Folder -> files: one submission for each kind of answer a review can give."""
    other_log = {
        "train_seed1337.log": variant(done=(RUNS[0], replace(RUNS[1], settings=("ttt_hash_embed:1",)), RUNS[2]))[
            "train_seed1337.log"
        ]
    }
    made: dict[str, dict] = {
        "2026-05-01_SmallByTheBook": {},
        "2026-05-01_AdaptThenScore": variant(program(extra=ADAPT, score=ADAPT_THEN_SCORE)),
        "2026-05-01_OverTheCap": variant(done=runs(model_bytes=16_204_113)),
        "2026-05-01_OneSeedTooLong": variant(done=(Run(train_ms=1_386_512, step_ms=69.3),)),
        "2026-05-01_ForeignLog": other_log,
    }
    return {name: overlaid(files, f"{RECORD}/{name}") for name, files in made.items()}


def main() -> None:
    """Replace the folders beside this file."""
    shutil.rmtree(HERE, ignore_errors=True)
    for files in examples().values():
        for path, text in files.items():
            target = HERE.parent / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text if isinstance(text, bytes) else text.encode())


if __name__ == "__main__":
    main()
