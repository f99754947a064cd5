"""A submission's documents as typed data for the ledger tests: three consistent seeds that a test then bends."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace

from auditor.documents.ledger import build_ledger
from auditor.documents.model import (
    Claim,
    EvalResult,
    LogRun,
    Metadata,
    Quantity,
    Readme,
    SizeLine,
    Source,
    StepLine,
    TrainLog,
)
from auditor.submission import Submission, Track
from auditor.unpack import Layer, Program

FOLDER = "records/track_10min_16mb/2026-03-28_Example"
SCRIPT = b"import torch\nprint('train')\n" * 1000
RATIO = 62_021_632 / 151_080_363  # sp1024
SEEDS = {42: 1.11903512, 314: 1.11961277, 2025: 1.11874406}
MODEL_BYTES = {42: 15_810_001, 314: 15_812_345, 2025: 15_809_876}


def quantity(
    value: float, text: str = "", key: str = "", path: str = "submission.json", line: int | None = None
) -> Quantity:
    """A stated value; its text is its shortest decimal form."""
    return Quantity(value, Source(f"{FOLDER}/{path}", line, key=key), text or repr(value))


def loss_of(bpb: float) -> float:
    """Nats per token that give a BPB under the 1,024-piece tokenizer."""
    return bpb * math.log(2) / RATIO


def result(line: int, label: str, bpb: float, digits: int = 8, seconds: float | None = None) -> EvalResult:
    """A result line as a program prints it."""
    loss = loss_of(bpb)
    text = f"{label} val_loss:{loss:.{digits}f} val_bpb:{bpb:.{digits}f}"
    return EvalResult(line, label, round(loss, digits), round(bpb, digits), seconds, digits, text)


def step(line: int, index: int, bpb: float, ms: int) -> StepLine:
    """A validation line of training."""
    loss = round(loss_of(bpb), 4)
    text = f"step:{index}/20000 val_loss:{loss:.4f} val_bpb:{bpb:.4f} train_time:{ms}ms"
    return StepLine(line, index, 20_000, None, loss, round(bpb, 4), ms / 1000, text=text)


def run(seed: int, bpb: float | None = None, model: int | None = None, code: int = len(SCRIPT)) -> LogRun:
    """A complete run: settings, curve, stop line, float and quantised results, sizes."""
    bpb = SEEDS[seed] if bpb is None else bpb
    model = MODEL_BYTES[seed] if model is None else model
    path = f"{FOLDER}/train_seed{seed}.log"
    stop_text = "stopping_early: wallclock_cap train_time:600041ms step:6900/20000"
    return LogRun(
        path,
        1,
        60,
        seed=seed,
        settings={"seed": str(seed), "vocab_size": "1024", "num_layers": "11"},
        setting_lines={"seed": 5, "vocab_size": 6, "num_layers": 7},
        steps=[step(10, 0, 4.1044, 0), step(20, 6900, 1.1385, 600_041)],
        stop=StepLine(21, 6900, 20_000, train_seconds=600.041, text=stop_text),
        results=[
            result(30, "DIAGNOSTIC post_ema", 1.1379, 4, 2.1),
            result(40, "final_int6_sliding_window", bpb, 4, 74.2),
            result(41, "final_int6_sliding_window_exact", bpb, 8),
        ],
        sizes=[
            SizeLine(35, "model raw", 106_000_000, text="Serialized model: 106000000 bytes"),
            SizeLine(36, "code", code, text=f"Code size: {code} bytes"),
            SizeLine(37, "model", model, "int6+zstd", text=f"Serialized model int6+zstd: {model} bytes"),
            SizeLine(38, "total", model + code, "int6+zstd", text=f"Total submission size: {model + code} bytes"),
        ],
        environment={"gpu": "NVIDIA H100 80GB HBM3", "gpu_count": "8"},
        params=Quantity(26_993_756, Source(path, 8), "26993756"),
        val_tokens=Quantity(62_021_632, Source(path, 9), "62021632"),
    )


def logs(*runs: LogRun) -> list[TrainLog]:
    """One log file per run."""
    return [TrainLog(item.path, [f"log {item.path}"], [item]) for item in runs]


def metadata(**changes: object) -> Metadata:
    """A submission.json that agrees with the three runs."""
    mean = sum(SEEDS.values()) / 3
    per_seed = {
        str(seed): {
            "val_bpb": quantity(bpb, key=f"seed_results.{seed}.val_bpb"),
            "artifact_bytes": quantity(float(MODEL_BYTES[seed] + len(SCRIPT)), f"{MODEL_BYTES[seed] + len(SCRIPT)}"),
        }
        for seed, bpb in SEEDS.items()
    }
    data = Metadata(
        f"{FOLDER}/submission.json",
        raw={},
        hardware="8xH100 80GB SXM",
        val_bpb=quantity(round(mean, 4), key="val_bpb"),
        artifact_bytes=quantity(15_812_345.0 + len(SCRIPT), f"{15_812_345 + len(SCRIPT)}", "bytes_total"),
        seeds=per_seed,
    )
    return replace(data, **changes)


def ledger(
    data: Metadata | None = None, runs: list[LogRun] | None = None, readme: Readme | None = None, **files: bytes
) -> list[Claim]:
    """Ledger of the submission with these documents (defaults: the consistent ones)."""
    content = {f"{FOLDER}/train_gpt.py": SCRIPT} | {f"{FOLDER}/{name}": text for name, text in files.items()}
    known = {"folder": FOLDER, "main_script": f"{FOLDER}/train_gpt.py", "date": dt.date(2026, 3, 28)}
    submission = Submission.from_files(content, track=Track.RECORD, **known)
    layer = Layer(f"{FOLDER}/train_gpt.py", SCRIPT.decode(), SCRIPT)
    program = Program(layer, [layer], len(SCRIPT))
    runs = [run(seed) for seed in SEEDS] if runs is None else runs
    return build_ledger(submission, program, [data or metadata()], readme, logs(*runs))


def rows(claims: list[Claim], subject: str, scope: str = "") -> list[Claim]:
    """Rows of a subject (and scope)."""
    return [claim for claim in claims if claim.subject == subject and (not scope or claim.scope == scope)]


def conflicts(claims: list[Claim]) -> set[tuple[str, str]]:
    """(subject, scope) of every conflict."""
    return {(claim.subject, claim.scope) for claim in claims if claim.status == "conflicts"}
