"""A small submission and honest logs of it, to be bent by the tests."""

from __future__ import annotations

import math
import random

from auditor.documents.model import TrainLog
from auditor.submission import Submission
from auditor.unpack import Program, read_program

FOLDER = "records/track_10min_16mb/2026-04-01_example/"
RATIO = math.log(2.0) * 2.436  # loss / BPB of this imaginary validation set

PROGRAM = """
import math, os, subprocess, sys, time
class Hyperparameters:
    iterations = int(os.environ.get("ITERATIONS", 2000))
    warmdown_iters = int(os.environ.get("WARMDOWN_ITERS", 600))
    max_wallclock_seconds = float(os.environ.get("MAX_WALLCLOCK_SECONDS", 600.0))
    matrix_lr = float(os.environ.get("MATRIX_LR", 0.02))
    seed = int(os.environ.get("SEED", 1337))
    model_dim = 512
    num_heads = 8
    num_layers = 11
    vocab_size = 1024
    train_seq_len = 2048
def main():
    code = open(__file__).read()
    args = Hyperparameters()
    def log0(msg, console=True):
        print(msg)
    log0(code, console=False)
    log0("Hyperparameters:")
    for k, v in sorted(vars(type(args)).items()):
        if not k.startswith("_"):
            log0(f"  {k}: {v}")
    max_wallclock_ms = 1000.0 * args.max_wallclock_seconds if args.max_wallclock_seconds > 0 else None
    def lr_mul(step, elapsed_ms):
        if args.warmdown_iters <= 0:
            return 1.0
        if max_wallclock_ms is None:
            return max((args.iterations - step) / args.warmdown_iters, 0.0)
        step_ms = elapsed_ms / max(step, 1)
        warmdown_ms = args.warmdown_iters * step_ms
        remaining_ms = max(max_wallclock_ms - elapsed_ms, 0.0)
        return remaining_ms / max(warmdown_ms, 1e-9) if remaining_ms <= warmdown_ms else 1.0
    while True:
        if step % 100 == 0:
            log0(f"step:{step}/{args.iterations} val_loss:{val_loss:.4f} val_bpb:{val_bpb:.4f} "
                 f"train_time:{training_time_ms:.0f}ms step_avg:{training_time_ms / max(step, 1):.2f}ms")
        step += 1
        if step <= 10 or step % 50 == 0:
            log0(f"step:{step}/{args.iterations} train_loss:{train_loss:.4f} train_time:{t:.0f}ms")
    log0(f"Code size: {code_bytes} bytes")
    for ci in range(num_chunks):
        if ci % 10 == 0 or ci == num_chunks - 1:
            log0(f"  ttt_chunk [{ci+1}/{num_chunks}] bpb={running:.6f} time={elapsed:.1f}s")
    log0(f"final_ttt_exact val_loss:{val_loss:.8f} val_bpb:{val_bpb:.8f}")
main()
"""


def submission(**more: str) -> tuple[Submission, Program]:
    """The example with further files of the folder (name with `__` for dots), read."""
    files = {FOLDER + "train_gpt.py": PROGRAM.encode()}
    files |= {FOLDER + name.replace("__", "."): text.encode() for name, text in more.items()}
    found = Submission.from_files(files, folder=FOLDER.rstrip("/"))
    return found, read_program(found)


def honest_log(seed: int = 1, cap: float = 190.0, dump: bool = True) -> list[str]:
    """Lines the program prints: 2,000 steps of 95 ms, validation every 100, 1,893 chunks."""
    noise = random.Random(seed)
    lines = []
    if dump:
        lines.append("Hyperparameters:")
        lines += [f"  {name}: {value}" for name, value in sorted(settings(cap, seed).items())]
    clock = 0.0
    for step in range(2001):
        if step % 100 == 0:
            loss = 6.93 if step == 0 else 1.9 + 3.0 * math.exp(-step / 400) + noise.uniform(0, 0.004)
            lines.append(
                f"step:{step}/2000 val_loss:{loss:.4f} val_bpb:{loss / RATIO:.4f} "
                f"train_time:{clock:.0f}ms step_avg:{clock / max(step, 1):.2f}ms"
            )
        if 0 < step <= 10 or (step and step % 50 == 0):
            lines.append(f"step:{step}/2000 train_loss:{noise.uniform(2, 3):.4f} train_time:{clock:.0f}ms")
        clock += noise.uniform(94.5, 95.5)
    lines.append(f"Code size: {len(PROGRAM.encode())} bytes")
    total = 0.0
    for chunk in range(1893):
        total += 1.13 + noise.gauss(0, 0.05)
        if chunk % 10 == 0 or chunk == 1892:
            lines.append(f"  ttt_chunk [{chunk + 1}/1893] bpb={total / (chunk + 1):.6f} time={chunk * 0.1:.1f}s")
    bpb = total / 1893
    lines.append(f"final_ttt_exact val_loss:{bpb * RATIO:.8f} val_bpb:{bpb:.8f}")
    return lines


def settings(cap: float, seed: int) -> dict[str, object]:
    """What the settings listing shows."""
    return {
        "iterations": 2000,
        "warmdown_iters": 600,
        "max_wallclock_seconds": cap,
        "matrix_lr": 0.02,
        "seed": seed,
        "model_dim": 512,
        "num_heads": 8,
        "num_layers": 11,
        "vocab_size": 1024,
        "train_seq_len": 2048,
    }


def log_of(lines: list[str], name: str = "train_seed1.log") -> TrainLog:
    """The lines as a log of the example."""
    return TrainLog(FOLDER + name, lines)
