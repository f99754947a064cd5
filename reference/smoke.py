"""The whole chain on real text in under a minute on two CPU cores, and what must hold afterwards.

Text to shards (a SentencePiece model is trained when sentencepiece is installed, else bytes), training with warm-up,
accumulation, EMA and QAT, pruning, GPTQ, artifact, standard and sliding evaluation, score-first test-time training.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from reference import config as configs
from reference import pipeline
from reference.config import Config
from reference.data import documents_of, make_shards
from reference.errors import DataError
from reference.evaluate import Evaluation, standard
from reference.model import GPT
from reference.ranks import Ranks
from reference.runlog import RunLog
from reference.texts import standard_library_documents
from reference.tokenizer import BYTE260_SIZE, load_tokenizer, train_sentencepiece

PIECES = 384
CHARACTERS = 420_000
SHARD_TOKENS = 60_000
VALIDATION_TOKENS = 20_000


@dataclass(frozen=True)
class Check:
    """One fact that must hold."""

    what: str
    holds: bool


@dataclass(frozen=True)
class SmokeResult:
    """Bits per byte at every stage, seconds of every stage, and the checks."""

    bpb: dict[str, float]
    seconds: dict[str, float]
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)


class _Clock:
    """Seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, action: Callable[[], object]) -> object:
        began = time.perf_counter()
        result = action()
        self.seconds[name] = time.perf_counter() - began
        return result


def make_data(folder: Path, texts: Sequence[Path], tokenizer: str = "auto") -> tuple[str, int]:
    """Writes shards and, with sentencepiece, a tokenizer; returns the tokenizer's name and vocabulary size.

    Raises:
        DataError: the text is too short, or sentencepiece was asked for and is missing.
    """
    documents = list(documents_of(texts)) if texts else standard_library_documents(CHARACTERS)
    if tokenizer not in ("auto", "byte260", "sentencepiece"):
        raise DataError(f"--tokenizer {tokenizer}: use auto, sentencepiece or byte260")
    if sum(map(len, documents)) < 100_000 or len(documents) < 10:
        raise DataError("the text is too short: give at least 100,000 characters in ten or more paragraphs")
    present = importlib.util.find_spec("sentencepiece") is not None
    folder.mkdir(parents=True, exist_ok=True)
    name, size = "byte260", BYTE260_SIZE
    if tokenizer == "sentencepiece" or (tokenizer == "auto" and present):
        path = folder / f"smoke_{PIECES}_bpe.model"
        try:
            train_sentencepiece([line for d in documents for line in d.splitlines() if line.strip()], path, PIECES)
            name, size = str(path), PIECES
        except DataError:
            if tokenizer == "sentencepiece":
                raise
    encoder = load_tokenizer(name, size)
    encoded = [encoder.encode(document) for document in documents]
    count, tokens = 0, 0
    while tokens < VALIDATION_TOKENS and count < len(encoded) - 1:
        tokens += encoded[count].size
        count += 1
    make_shards(encoded, folder, val_documents=count, shard_tokens=SHARD_TOKENS)
    return name, size


def run(
    out: Path,
    *,
    texts: Sequence[Path] = (),
    tokenizer: str = "auto",
    overrides: Sequence[str] = (),
    ranks: Ranks | None = None,
    console: bool = True,
) -> SmokeResult:
    """Runs everything in `out` (data, logs, artifact, ledgers); nothing is skipped."""
    clock, ranks = _Clock(), ranks or Ranks()
    torch.set_num_threads(1)  # hand-over between threads costs more than these small products
    data = out / "data"
    if ranks.first:
        clock("data", lambda: make_data(data, texts, tokenizer))
    ranks.barrier()
    config = smoke_config(data, overrides)
    log = RunLog(out / "logs" if ranks.first else None, "smoke", console=console)
    work = pipeline.Workspace(config, data, out, ranks, log)
    untrained = standard(Evaluation(config, GPT(config), work.validation(), ranks))
    log.line(f"untrained val_loss:{untrained.loss:.4f} val_bpb:{untrained.bpb:.4f}")
    clock("train and quantise", lambda: pipeline.train(work))
    scores = {}
    floats = pipeline.evaluate(work, out / pipeline.WEIGHTS_FILE, ("standard",))
    before = (out / pipeline.ARTIFACT_FILE).read_bytes()
    for mode in pipeline.MODES:
        clock(mode, lambda mode=mode: scores.update(pipeline.evaluate(work, out / pipeline.ARTIFACT_FILE, (mode,))))
    bpb = {"untrained": untrained.bpb, "float standard": floats["standard"].bpb}
    bpb |= {f"quantised {mode}": score.bpb for mode, score in scores.items()}
    positions = work.validation().positions
    checks = [
        Check("training lowers bpb well below the untrained model", bpb["float standard"] < 0.7 * untrained.bpb),
        Check("quantisation costs less than 0.05 bpb", bpb["quantised standard"] < bpb["float standard"] + 0.05),
        Check("sliding windows lower it further", bpb["quantised sliding"] < bpb["quantised standard"]),
        Check("score-first test-time training lowers it further", bpb["quantised ttt"] < bpb["quantised sliding"]),
        Check("every position counted exactly once", all(s.tokens == positions for s in scores.values())),
        Check("the artifact is unchanged by evaluation", (out / pipeline.ARTIFACT_FILE).read_bytes() == before),
    ]
    return SmokeResult(bpb, clock.seconds, checks)


def smoke_config(data: Path, overrides: Sequence[str] = ()) -> Config:
    """The smoke configuration for the shards and tokenizer in a folder."""
    model = next(iter(sorted(data.glob("*.model"))), None)
    name, size = (str(model), PIECES) if model is not None else ("byte260", BYTE260_SIZE)
    return configs.load("smoke", [f"data.tokenizer='{name}'", f"data.vocab_size={size}", *overrides])
