"""Writes the bundled example submissions next to this file: run `python tests/submissions/build.py` after a change of
`rules/examples.py`. They are committed, so that they can be opened, and reviewed by `bin/review` without arguments."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from rules.example_program import program
from rules.examples import Run, overlaid, runs, variant
from rules.pg_c3_score_first import ADAPT, ADAPT_THEN_SCORE
from rules.pg_c3_slot import SLOT

HERE = Path(__file__).parent / "records"
RECORD = "records/track_10min_16mb"


def foreign(log: str) -> str:
    """A log with lines that the submitted program has no way to print, and with arithmetic that does not come out."""
    lines = []
    for line in log.splitlines():
        if "train_loss" in line:
            line = re.sub(r"step_avg:[\d.]+ms", "step_avg:85.10ms", line)
            line = re.sub(r"train_loss:([\d.]+)", r"train_loss:\g<1>00", line)
            if (step := re.match(r"step:(\d+)/", line)) and int(step[1]) % 1000 == 0:
                loss, off = 2.3 - int(step[1]) / 20_000, 1 + (-1) ** (int(step[1]) // 1000) / 200
                lines.append(f"step:{step[1]}/20000 val_loss:{loss:.4f} val_bpb:{off * loss / 1.6885:.4f}")
        if line.startswith("final_"):
            made = ((1, "1.3255"), (100, "1.2501"), (500, "1.2101"), (1000, "1.1801"), (1893, "1.0409"))
            lines += [f"ttt_chunk [{chunk}/1893] bpb={bpb} time={chunk * 0.09:.1f}s" for chunk, bpb in made]
        lines.append(line)
    return "\n".join(lines) + "\n"


def examples() -> dict[str, dict[str, str | bytes]]:
    """Folder -> files: one submission for each kind of answer a review can give."""
    made: dict[str, dict] = {
        "2026-05-01_SmallByTheBook": {},
        "2026-05-01_AdaptThenScore": variant(program(extra=ADAPT, score=ADAPT_THEN_SCORE)),
        "2026-05-01_OverTheCap": variant(done=runs(model_bytes=16_204_113)),
        "2026-05-01_OneSeedTooLong": variant(done=(Run(train_ms=1_386_512, step_ms=69.3),)),
        "2026-05-01_FittedToItsTargets": variant(program(evaluation=SLOT)),
        "2026-05-01_ForeignLog": {"train_seed1337.log": foreign(variant()["train_seed1337.log"])},
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
