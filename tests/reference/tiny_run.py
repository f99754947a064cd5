"""The tiny configuration of the tests."""

from __future__ import annotations

from reference.config import Config, load

TINY = [
    "name=tiny",
    "data.seq_len=32",
    "data.batch_tokens=512",
    "data.val_batch_tokens=1024",
    "data.spans_per_step=8",
    "model.layers=4",
    "model.dim=32",
    "model.heads=4",
    "model.kv_heads=2",
    "model.mlp_hidden=48",
    "model.rope_train_len=16",
    "model.value_embed.layers=[2,3]",
    "eval.seq_len=32",
    "eval.stride=8",
    "eval.batch_tokens=256",
    "ttt.chunk_tokens=64",
    "ttt.batch_rows=4",
    "schedule.iterations=24",
    "schedule.warmdown=12",
    "schedule.compile_warmup_steps=1",
    "schedule.log_every=8",
    "schedule.val_every=12",
    "quant.gptq.nsamples=8",
    "quant.gptq.batch=4",
]


def tiny(*overrides: str) -> Config:
    """The tiny configuration with changes."""
    return load("smoke", [*TINY, *overrides])
