"""The clean example submission, and how an example changes one fact of it.

`package()` is a complete, legal record submission as a mapping of paths to text: a program, three seed logs such as the
program prints them, metadata, README and requirements, all consistent with each other. A rule's example lays its own
files over it; `variant()` makes files for a changed program, changed runs or changed metadata that stay consistent in
everything else, so that an example shows one defect and not three.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import mean, stdev

from rules.example_program import program

FOLDER = "records/track_10min_16mb/2026-05-01_SmallByTheBook"
NON_RECORD_FOLDER = "records/track_non_record_16mb/2026-05-01_SmallByTheBook"

# Fingerprint of the sp1024 validation set since 2026-03-18 (rule book, section 1.1).
SP1024_TOKENS = 62_021_632
SP1024_BYTES = 151_080_363


@dataclass(frozen=True)
class Run:
    """One logged run. Times in milliseconds, sizes in bytes, `val_tokens` and `val_bytes` as the score counts them.

    `settings` are further `key:value` header lines; `before_export` and `after_score` are whole lines put at those
    places of the log; `label` names the headline result.
    """

    seed: int = 42
    bpb: float = 1.0412
    train_ms: int = 599_941
    step_ms: float = 84.537
    eval_ms: int = 61_204
    model_bytes: int = 15_611_207
    code_bytes: int | None = None
    total_bytes: int | None = None
    val_tokens: int = SP1024_TOKENS
    val_bytes: int = SP1024_BYTES
    dataset: str = "fineweb10B_sp1024"
    data_path: str = "./data/datasets/fineweb10B_sp1024"
    train_shards: int = 80
    world_size: int = 8
    gpu: str = "NVIDIA H100 80GB HBM3"
    label: str = "final_int8_zlib_roundtrip"
    settings: tuple[str, ...] = ()
    before_export: tuple[str, ...] = ()
    before_score: tuple[str, ...] = ()
    after_score: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Steps done when the clock stopped."""
        return round(self.train_ms / self.step_ms)

    @property
    def val_loss(self) -> float:
        """Nats per token that belong to this BPB, by the identity of the rule book (section 1.1)."""
        return self.bpb * math.log(2) * self.val_bytes / self.val_tokens


RUNS = (
    Run(seed=42, bpb=1.04118273, train_ms=599_941, model_bytes=15_611_207),
    Run(seed=1337, bpb=1.04093615, train_ms=599_987, model_bytes=15_609_884, eval_ms=61_377),
    Run(seed=2024, bpb=1.04151908, train_ms=599_918, model_bytes=15_612_430, eval_ms=60_990),
)


def runs(**changed: object) -> tuple[Run, ...]:
    """The three runs with the same facts changed in each."""
    return tuple(replace(run, **changed) for run in RUNS)


def log(run: Run, script: str) -> str:
    """The log that `script` (the text of `train_gpt.py`) writes for a run, stock format."""
    code = run.code_bytes if run.code_bytes is not None else len(script.encode())
    total = run.total_bytes if run.total_bytes is not None else run.model_bytes + code
    lines = [
        *_machine(run),
        "val_bpb:enabled tokenizer_kind=sentencepiece tokenizer_path=./data/tokenizers/fineweb_1024_bpe.model",
        f"train_loader:dataset:{run.dataset} train_shards:{run.train_shards}",
        f"val_loader:shards pattern={run.data_path}/fineweb_val_*.bin tokens:{run.val_tokens}",
        "model_params:19948032",
        f"world_size:{run.world_size} grad_accum_steps:1",
        f"seed:{run.seed}",
        *run.settings,
        *_progress(run),
        f"stopping_early: wallclock_cap train_time:{run.train_ms}ms step:{run.steps}/20000",
        "peak memory allocated: 10184 MiB",
        *run.before_export,
        f"Serialized model int8+zlib: {run.model_bytes} bytes",
        f"Code size: {code} bytes",
        f"Total submission size int8+zlib: {total} bytes",
        *run.before_score,
        f"{run.label} val_loss:{run.val_loss:.4f} val_bpb:{run.bpb:.4f} eval_time:{run.eval_ms}ms",
        f"{run.label}_exact val_loss:{run.val_loss:.8f} val_bpb:{run.bpb:.8f}",
        *run.after_score,
    ]
    return "\n".join(lines) + "\n"


def _machine(run: Run) -> list[str]:
    gpus = [
        f"|   {i}  {run.gpu:<22} On  |   00000000:{0x19 + 16 * i:02X}:00.0 Off |                    0 |"
        for i in range(run.world_size)
    ]
    return [
        "Running Python 3.12.3 (main, Mar  3 2026, 12:15:18) [GCC 13.3.0]",
        "Running PyTorch 2.9.1+cu128",
        "| NVIDIA-SMI 570.148.08    Driver Version: 570.148.08    CUDA Version: 12.8     |",
        *gpus,
        "=" * 100,
    ]


def _progress(run: Run) -> list[str]:
    """Progress lines every thousand steps; the loss falls smoothly from about 6.9 nats and differs by seed."""
    lines = []
    for step in range(1000, run.steps, 1000):
        loss = run.val_loss + 4.2 * math.exp(-step / 900) + 0.03 * math.sin(step * 0.37 + run.seed)
        lines.append(
            f"step:{step}/20000 train_loss:{loss:.4f} train_time:{step * run.step_ms:.0f}ms "
            f"step_avg:{run.step_ms:.2f}ms"
        )
    return lines


def metadata(done: Sequence[Run], script: str, **changed: object) -> str:
    """submission.json of the given runs; keys set to None in `changed` are left out."""
    code = len(script.encode())
    total = {run.seed: run.total_bytes or run.model_bytes + (run.code_bytes or code) for run in done}
    value: dict[str, object] = {
        "author": "A. Participant",
        "github_id": "a-participant",
        "name": "Small by the book",
        "date": "2026-05-01",
        "track": "10min_16mb",
        "val_bpb": round(mean(run.bpb for run in done), 8),
        "val_loss": round(mean(run.val_loss for run in done), 8),
        "val_bpb_std": round(stdev(run.bpb for run in done), 8) if len(done) > 1 else None,
        "seeds": [run.seed for run in done],
        "seed_results": {
            str(run.seed): {
                "val_bpb": run.bpb,
                "val_loss": round(run.val_loss, 8),
                "steps": run.steps,
                "train_time_s": run.train_ms / 1000,
                "eval_time_s": run.eval_ms / 1000,
                "artifact_bytes": total[run.seed],
            }
            for run in done
        },
        "bytes_total": max(total.values()),
        "bytes_model": max(run.model_bytes for run in done),
        "bytes_code": code,
        "hardware": f"{done[0].world_size}xH100 80GB SXM",
    } | changed
    return json.dumps({key: item for key, item in value.items() if item is not None}, indent=2) + "\n"


def readme(done: Sequence[Run], script: str, more: str = "") -> str:
    """README with the run command and the result table; `more` is appended."""
    code = len(script.encode())
    rows = [
        f"| {run.seed} | {run.bpb:.8f} | {run.steps} | {run.train_ms / 1000:.1f} | {run.eval_ms / 1000:.1f} "
        f"| {run.total_bytes or run.model_bytes + (run.code_bytes or code):,} |"
        for run in done
    ]
    lines = [
        "# Small by the book",
        "",
        f"Nine layers, AdamW, int8 per row, zlib. Mean val_bpb {mean(run.bpb for run in done):.8f} over "
        f"{len(done)} seeds.",
        "",
        "| Seed | val_bpb | Steps | Train (s) | Eval (s) | Total bytes |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "## Run",
        "",
        "```bash",
        "pip install -r requirements.txt",
        "SEED=42 torchrun --standalone --nproc_per_node=8 train_gpt.py",
        "```",
        "",
        "One run for each of the seeds 42, 1337 and 2024 on 8xH100 80GB SXM.",
        "",
        more,
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def variant(
    script: str | None = None,
    done: Sequence[Run] = RUNS,
    readme_more: str = "",
    **changed: object,
) -> Mapping[str, str | None]:
    """Files of the submission for another program, other runs or other metadata (`changed`), consistent throughout.

    Logs of seeds that are no longer run are removed (None), so the mapping can be laid over `package()`.
    """
    text = script if script is not None else program()
    files: dict[str, str | None] = {f"train_seed{run.seed}.log": None for run in RUNS}
    files |= {f"train_seed{run.seed}.log": log(run, text) for run in done}
    files["train_gpt.py"] = text
    files["submission.json"] = metadata(done, text, **changed)
    files["README.md"] = readme(done, text, readme_more)
    return files


def without_loss(files: Mapping[str, str | None]) -> dict[str, str | None]:
    """The same submission, program and logs saying the BPB only: its bytes cannot be told from the logs."""
    printed = re.compile(r" val_loss:(?:[\d.]+|\{val_loss:\.\df\})")
    return {
        path: printed.sub("", text) if text and not path.endswith(".json") else text for path, text in files.items()
    }


@cache
def package() -> Mapping[str, str]:
    """The complete clean record submission, paths relative to the repository."""
    files = variant()
    files = {path: text for path, text in files.items() if text is not None}
    files["requirements.txt"] = "numpy\nsentencepiece\ntorch\n"
    return {f"{FOLDER}/{path}": text for path, text in files.items()}


def overlaid(changes: Mapping[str, str | bytes | None], folder: str = FOLDER) -> dict[str, str | bytes]:
    """`package()` with an example's files laid over it; a path without a slash lies in the record folder.

    Args:
        folder: record folder the package is placed in (an example for another track moves it).
    """
    files: dict[str, str | bytes] = {path.replace(FOLDER, folder, 1): text for path, text in package().items()}
    for path, text in changes.items():
        place = path if "/" in path else f"{folder}/{path}"
        if text is None:
            files.pop(place, None)
        else:
            files[place] = text
    return files
