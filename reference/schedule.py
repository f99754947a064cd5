"""Factor on the learning rates and Muon's momentum, by steps, by seconds, or replayed (specification 3.3)."""

from __future__ import annotations

import json
import math
from pathlib import Path

from reference.config import OptimConfig, ScheduleConfig
from reference.errors import ConfigError


class Schedule:
    """Factor `scale` for each step; there is no learning-rate warm-up in any seed."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self.replayed = read_scales(Path(config.replay_file)) if config.mode == "replay" else {}

    @property
    def budget(self) -> float:
        """Seconds of the training loop, the reserve taken off; infinite without a cap."""
        if self.config.max_wallclock_seconds <= 0:
            return math.inf
        return self.config.max_wallclock_seconds - self.config.reserve_seconds

    def scale(self, step: int, elapsed: float) -> float:
        """Factor for the update number `step` (from 0) after `elapsed` seconds of training.

        Raises:
            ConfigError: replay mode, and the file has no such step.
        """
        if self.config.mode == "replay":
            if step not in self.replayed:
                raise ConfigError(f"schedule.replay_file: {self.config.replay_file} has no scale for step {step}")
            return self.replayed[step]
        return self._shaped(self._remaining_fraction(step, elapsed))

    def _remaining_fraction(self, step: int, elapsed: float) -> float:
        """What is left of the warmdown, 1 before it begins."""
        warmdown = self.config.warmdown
        if self.config.mode == "steps":
            left = self.config.iterations - step
            return 1.0 if left > warmdown else max(left, 0) / max(warmdown, 1)
        remaining = max(self.budget - elapsed, 0.0)
        length = warmdown * elapsed / max(step, 1)
        return remaining / max(length, 1e-9) if remaining <= length else 1.0

    def _shaped(self, fraction: float) -> float:
        return fraction if self.config.shape == "linear" else 0.5 * (1 - math.cos(math.pi * fraction))


def momentum(step: int, config: OptimConfig) -> float:
    """Muon momentum of update number `step`: linear from start to end over the warm-up."""
    fraction = min(step / config.momentum_warmup_steps, 1.0) if config.momentum_warmup_steps else 1.0
    return (1 - fraction) * config.momentum_start + fraction * config.momentum_end


def read_scales(path: Path) -> dict[int, float]:
    """Factors by step from the JSON lines of an earlier run (`{"event": "scale", "step": k, "scale": s}`).

    Raises:
        ConfigError: the file cannot be read or a line is not JSON.
    """
    scales = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("event") in ("scale", "step"):
                scales[int(record["step"])] = float(record["scale"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"schedule.replay_file: {path}: {error}") from error
    return scales
