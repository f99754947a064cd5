"""Standard and sliding-window evaluation; test-time training is in `ttt.py`.

Ranks take contiguous slices of the windows of each segment. After a segment the state is saved, so that an interrupted
evaluation goes on where it stopped and gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from reference import container, windows
from reference.compiling import compiled, wanted
from reference.config import Config
from reference.errors import ArtifactError, ScoringError
from reference.ledger import Ledger
from reference.model import GPT
from reference.ranks import Ranks
from reference.runlog import Meter, RunLog
from reference.scoring import Accumulator, Score, Scorer
from reference.validation import ValidationStream


@dataclass
class Evaluation:
    """What every evaluation needs.

    Attributes:
        model: on `ranks.device`; weights are not changed by `standard` and `sliding`.
        ledger: receives the events.
        state_folder: where resumable state is kept (one file for each rank); None keeps none.
        keep_losses: also return the loss of every position.
        log: draws the progress.
    """

    config: Config
    model: GPT
    stream: ValidationStream
    ranks: Ranks = field(default_factory=Ranks)
    ledger: Ledger = field(default_factory=Ledger)
    state_folder: Path | None = None
    keep_losses: bool = False
    log: RunLog = field(default_factory=lambda: RunLog(None, ""))

    def __post_init__(self) -> None:
        self.scorer = Scorer(self.model, self.stream, self.ranks.device, row_length=self.config.eval.seq_len)
        if wanted(self.config.run, self.ranks.device):
            self.scorer.compiled = compiled(self.model.token_losses, self.config.run, self.ranks.device)

    def accumulator(self, *, allow_repeats: bool = False) -> Accumulator:
        """Empty sums for this stream."""
        return Accumulator(self.stream, self.ranks.device, allow_repeats=allow_repeats, keep_losses=self.keep_losses)

    def state_path(self, mode: str) -> Path | None:
        """File with this rank's state of one mode."""
        return None if self.state_folder is None else self.state_folder / f"eval_{mode}.rank{self.ranks.rank}.state"


def standard(evaluation: Evaluation) -> Score:
    """Non-overlapping rows of the whole stream, each position once (specification 5.2)."""
    data = evaluation.config.data
    plan = windows.rows(evaluation.stream.positions, evaluation.stream.seq_len)
    first, last = evaluation.ranks.slice(len(plan))
    own = plan.take(slice(first, last))
    accumulator = evaluation.accumulator()
    meter = Meter(evaluation.log, "standard: rows", len(own))
    evaluation.scorer.score(own, accumulator, max(data.val_batch_tokens // data.spans_per_step, 1), meter)
    evaluation.ledger.score(own, "standard")
    return accumulator.finish(evaluation.ranks)


def sliding(evaluation: Evaluation) -> Score:
    """Sliding windows (specification 5.3), resumable by segments.

    Raises:
        ScoringError: the counts differ from the configured ones.
    """
    settings = evaluation.config.eval
    plan = windows.sliding(evaluation.stream.positions, settings.seq_len, settings.stride, settings.tail)
    accumulator = evaluation.accumulator(allow_repeats=settings.tail == "legacy_dup")
    path = evaluation.state_path("sliding")
    begin = _resume(path, "sliding", evaluation, accumulator)
    meter = Meter(evaluation.log, "sliding: windows", max(len(plan) - begin, 0) // evaluation.ranks.world)
    for first in range(begin, len(plan), settings.segment_windows):
        segment = plan.take(slice(first, first + settings.segment_windows))
        low, high = evaluation.ranks.slice(len(segment))
        own = segment.take(slice(low, high))
        evaluation.scorer.score(own, accumulator, settings.batch_tokens, meter)
        evaluation.ledger.score(own, "sliding")
        save_state(path, "sliding", first + settings.segment_windows, evaluation, accumulator)
    score = accumulator.finish(evaluation.ranks)
    check_counts(score, evaluation.config)
    drop_state(path)
    return score


def check_counts(score: Score, config: Config) -> None:
    """Compares with `eval.scored_tokens` and `eval.scored_bytes` where these are given.

    Raises:
        ScoringError: naming both numbers.
    """
    for key, expected, found in (
        ("scored_tokens", config.eval.scored_tokens, score.tokens),
        ("scored_bytes", config.eval.scored_bytes, score.bytes),
    ):
        if expected and expected != found:
            raise ScoringError(f"counted {found}, but eval.{key} is {expected}; set it to 0 for other data")


def save_state(
    path: Path | None,
    mode: str,
    following: int,
    evaluation: Evaluation,
    accumulator: Accumulator,
    extra: dict[str, torch.Tensor] | None = None,
) -> None:
    """Writes what is needed to go on at item `following`."""
    if path is None:
        return
    meta, tensors = accumulator.state()
    meta |= {
        "mode": mode,
        "next": following,
        "world": evaluation.ranks.world,
        "events": evaluation.ledger.events,
        "positions": evaluation.stream.positions,
        "config": evaluation.config.to_dict(),
    }
    container.write(path, meta, {**tensors, **(extra or {})})


def load_state(path: Path | None, mode: str, evaluation: Evaluation) -> tuple[dict, dict[str, torch.Tensor]] | None:
    """State written by `save_state`, None when there is none.

    Raises:
        ArtifactError: it belongs to another mode, configuration, stream or number of ranks.
    """
    if path is None or not path.is_file():
        return None
    meta, tensors = container.read(path)
    expected = {
        "mode": mode,
        "world": evaluation.ranks.world,
        "positions": evaluation.stream.positions,
        "config": _plain(evaluation.config),
    }
    for key, value in expected.items():
        if meta.get(key) != value:
            raise ArtifactError(f"{path}: saved by a run with another {key}; delete the file to begin again")
    return meta, tensors


def _plain(config: Config) -> dict:
    """The configuration as it looks after a round trip through JSON (tuples become lists)."""
    import json

    plain: dict = json.loads(json.dumps(config.to_dict()))
    return plain


def _resume(path: Path | None, mode: str, evaluation: Evaluation, accumulator: Accumulator) -> int:
    state = load_state(path, mode, evaluation)
    if state is None:
        return 0
    meta, tensors = state
    accumulator.restore(meta, tensors)
    evaluation.ledger.events[:] = meta["events"]
    return int(meta["next"])


def drop_state(path: Path | None) -> None:
    """Deletes the state of a finished evaluation."""
    if path is not None:
        path.unlink(missing_ok=True)
