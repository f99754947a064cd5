"""The reference's evaluation against a submission's own loops: host side of `reference_eval.py --repo --pr`.

The submission's script runs in the auditor's sandbox, behind the stand-in GPU where there is none. Sizes come from the
reference's configuration of the same submission and reach the script through its environment variables, so both sides
have one model. `reference_inside.py` stops the script at its first evaluation and times both there, in one process.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auditor.casefile import Call, build_case
from auditor.dynamic.dataset import build
from auditor.reproduce.contained import FILES, MIB, Job, contain, read_events
from auditor.reproduce.plan import inside
from auditor.reproduce.rerun import bindable, materialise
from auditor.submission import Submission
from reference.config import Config
from reference.data import write_shard

ROOT = Path(__file__).resolve().parents[1]
START = f"import sys; sys.path[:0] = [{str(ROOT)!r}, '/bench']; from reference_inside import main; main()"
REPORT = "throughput.json"

#: Variable of the scripts -> value in the reference's configuration. The names are those of the challenge's baseline
#: and of the stacks built on it.
SETTINGS: dict[str, Any] = {
    "VOCAB_SIZE": lambda c: c.data.vocab_size,
    "NUM_LAYERS": lambda c: c.model.layers,
    "MODEL_DIM": lambda c: c.model.dim,
    "NUM_HEADS": lambda c: c.model.heads,
    "NUM_KV_HEADS": lambda c: c.model.kv_heads,
    "MLP_HIDDEN": lambda c: c.model.mlp_hidden,
    "ROPE_DIMS": lambda c: c.model.rope_dims,
    "ROPE_TRAIN_SEQ_LEN": lambda c: c.model.rope_train_len,
    "LN_SCALE": lambda c: int(c.model.ln_scale),
    "ORTHO_INIT": lambda c: int(c.model.ortho_init),
    "BIGRAM_BUCKETS": lambda c: c.model.bigram.buckets,
    "BIGRAM_EMBED_DIM": lambda c: c.model.bigram.dim,
    "BIGRAM_XOR_HASH": lambda c: int(c.model.bigram.hash == "xor"),
    "VE_ENABLED": lambda c: int(bool(c.model.value_embed.layers)),
    "VE_DIM": lambda c: c.model.value_embed.dim,
    "VE_LAYERS": lambda c: ",".join(map(str, c.model.value_embed.layers)),
    "XSA_LAYERS": lambda c: c.model.xsa_last_n,
    "XSA_LAST_N": lambda c: c.model.xsa_last_n,
    "TRAIN_SEQ_LEN": lambda c: c.eval.seq_len,
    "EVAL_SEQ_LEN": lambda c: c.eval.seq_len,
    "EVAL_STRIDE": lambda c: c.eval.stride,
    "TTT_ENABLED": lambda c: 1,
    "TTT_LR": lambda c: c.ttt.lr,
    "TTT_EPOCHS": lambda c: c.ttt.epochs,
    "TTT_MOMENTUM": lambda c: c.ttt.momentum,
    "TTT_OPTIMIZER": lambda c: c.ttt.optimizer,
    "TTT_ADAM_WD": lambda c: c.ttt.weight_decay,
    "TTT_USE_ADAMW": lambda c: int(c.ttt.optimizer == "adamw"),
    "TTT_ADAMW_LR": lambda c: c.ttt.lr,
    "TTT_ADAMW_WD": lambda c: c.ttt.weight_decay,
    "TTT_MLP_ONLY": lambda c: int(bool(c.ttt.select.only_names)),
    "TTT_GRAD_CLIP": lambda c: c.ttt.grad_clip,
    "TTT_BATCH_SEQS": lambda c: c.ttt.batch_rows,
    "TTT_CHUNK_TOKENS": lambda c: c.ttt.chunk_tokens,
    "TTT_FREEZE_BLOCKS": lambda c: c.ttt.select.freeze_blocks,
    # One row for each micro-step: the script is stopped before it trains. 32 rows in a batch of its evaluations.
    "TRAIN_BATCH_TOKENS": lambda c: 8 * c.eval.seq_len,
    "VAL_BATCH_SIZE": lambda c: 8 * 32 * c.eval.seq_len,
    "ITERATIONS": lambda c: 1,
    "WARMUP_STEPS": lambda c: 0,
    "VAL_LOSS_EVERY": lambda c: 1,
    "MAX_WALLCLOCK_SECONDS": lambda c: 0,
}


class NotTimed(RuntimeError):
    """The submission's loops could not be timed; the message says why."""


def measure(repo: Path, number: int, config: Config, options: Any) -> dict[str, Any]:
    """Seconds and bits per byte of both sides for every mode.

    Args:
        config: sizes and settings of both sides.
        options: `config`, `overrides` (as given to `load`), `chunks`, `repeat`, `threads`, `modes`, `loop` and
            `attribute` of the command line.

    Raises:
        NotTimed: the script ended before its first evaluation, or its model or loops do not fit.
        SandboxUnavailable: this machine cannot contain an untrusted program.
    """
    case = build_case(Submission.from_git(repo, number)[0], Call(static=False))
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="reference-eval-", dir=bindable(Path())) as name:
        stage = Path(name)
        stage.chmod(0o755)
        materialise(case, stage / "submission")
        tokenizer = _data(stage / "data", config, options.chunks)
        script = "/submission/" + inside(case.submission.main_script or "", case.submission.folder)
        job = _job(stage, script, tokenizer, config, options, gpu)
        ran = contain(job, stage / "run")
        report = stage / "run" / FILES / REPORT
        if not report.is_file():
            said = [e.get("text", "") for e in read_events(stage / "run") if e.get("kind") == "line"]
            why = ran.reason or " | ".join(line for line in said[-6:] if line.strip())
            raise NotTimed(f"PR {number}: the script ended before anything was timed: {why or ran.codes}")
        found: dict[str, Any] = json.loads(report.read_text("utf-8"))
    if found.get("problem"):
        raise NotTimed(f"PR {number}: {found['problem']}")
    return found


def _data(folder: Path, config: Config, chunks: int) -> str:
    """Random validation tokens of `chunks` chunks in the official format; returns the tokenizer's file name."""
    made = build(folder, vocab_size=config.data.vocab_size, train_tokens=160_000, val_tokens=4097)
    targets = chunks * config.ttt.chunk_tokens
    tokens = np.random.default_rng(0).integers(260, config.data.vocab_size, targets + 1)
    tokens[:: 4 * config.eval.seq_len // 3] = 1
    write_shard(folder / "fineweb_val_000000.bin", tokens)
    return made.tokenizer.name


def _job(stage: Path, script: str, tokenizer: str, config: Config, options: Any, gpu: bool) -> Job:
    request = {
        "script": script,
        "standin": not gpu,
        "config": options.config,
        "overrides": options.overrides,
        "shards": "/data",
        "tokenizer": f"/data/{tokenizer}",
        "report": f"/scratch/{REPORT}",
        "repeat": options.repeat,
        "threads": options.threads,
        "modes": options.modes,
        "loops": dict(item.split("=", 1) for item in options.loop),
        "attributes": dict(item.split("=", 1) for item in options.attribute),
        "values": {"stride": config.eval.stride, "batch_seqs": 32, "eval_seq_len": config.eval.seq_len},
    }
    environment = {name: str(value(config)) for name, value in SETTINGS.items()}
    environment |= {
        "DATA_PATH": "/data",
        "DATA_DIR": "/data",
        "TOKENIZER_PATH": request["tokenizer"],
        "RUN_ID": "throughput",
        "HOME": "/scratch",
        "TMPDIR": "/scratch",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin")),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "OMP_NUM_THREADS": str(options.threads or 1),
        "MKL_NUM_THREADS": str(options.threads or 1),
        "REFERENCE_THROUGHPUT": json.dumps(request),
    }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if gpu else 8192 * MIB
    return Job(
        commands=(((sys.executable, "-I", "-u", "-c", START), {}),),
        environment=environment,
        binds=(
            (str((stage / "data").resolve()), "/data"),
            (str(stage / "submission"), "/submission"),
            (str(Path(__file__).resolve().parent), "/bench"),
        ),
        gpu=gpu,
        wall_seconds=60.0 * options.minutes,
        memory_bytes=memory,
        scratch_bytes=(32_768 if gpu else 1024) * MIB,
    )
