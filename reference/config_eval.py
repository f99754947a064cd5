"""Configuration of what happens after training: quantiser, artifact, evaluation, test-time training."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reference.config_fields import at_least, require

ROLES = ("attn", "mlp", "embed", "head", "bigram", "value", "proj", "control", "affine")
"""Roles of parameters (see `reference.model.roles`); quantiser rules match on them."""

Role = Literal["attn", "mlp", "embed", "head", "bigram", "value", "proj", "control", "affine"]


@dataclass(kw_only=True)
class QuantRule:
    """How tensors of some roles are quantised; the first rule that lists a role is used."""

    roles: list[Role] = field(default_factory=lambda: list(ROLES))
    """Roles the rule is for."""
    scheme: Literal["int_row", "int_tensor", "keep"] = "int_row"
    """One scale for each row, one for the tensor, or kept in passthrough_dtype."""
    gptq: bool = False
    """Second-order rounding with Hessians of the layer's inputs; needs a [quant.gptq] table."""
    lo: int = -31
    """Lowest integer."""
    hi: int = 31
    """Highest integer."""
    qmax: int = 31
    """Integer the clip is mapped to."""
    percentiles: list[float] = field(default_factory=lambda: [1.0])
    """Candidate clips as quantiles of |w| within a row; 1.0 is the maximum."""

    @property
    def bits(self) -> int:
        """Width of the integers."""
        return (self.hi - self.lo).bit_length()

    def __post_init__(self) -> None:
        require(
            -128 <= self.lo < self.hi <= 127, "quant.rules.lo/hi", "must be a range inside int8", (self.lo, self.hi)
        )
        require(1 <= self.qmax <= self.hi, "quant.rules.qmax", f"must be 1..{self.hi}", self.qmax)
        require(bool(self.percentiles), "quant.rules.percentiles", "must not be empty", self.percentiles)
        for p in self.percentiles:
            require(0 < p <= 1, "quant.rules.percentiles", "must be in (0, 1]", p)


@dataclass(kw_only=True)
class GPTQConfig:
    """Full GPTQ; equations in `reference/quantize/gptq.py`."""

    variant: Literal["cholesky", "raw_inverse"] = "cholesky"
    """The published algorithm, or (legacy, #610) the full inverse in place of its Cholesky factor."""
    actorder: bool = True
    """Columns in order of falling Hessian diagonal."""
    block: int = 128
    """Columns updated together."""
    damp: float = 0.01
    """Fraction of the mean diagonal added to the diagonal; times 10 after a failure."""
    refit_scale: bool = False
    """Least-squares scale for each row afterwards, where it lowers the plain error (#610)."""
    nsamples: int = 256
    """Calibration rows, consecutive, from the start of the first training shard."""
    batch: int = 16
    """Rows in one calibration forward pass."""

    def __post_init__(self) -> None:
        at_least(self, 1, "block", "nsamples", "batch")
        require(self.damp > 0, "quant.gptq.damp", "must be above 0", self.damp)


@dataclass(kw_only=True)
class QuantConfig:
    """From float weights to integers."""

    passthrough_max_numel: int = 65_536
    """Tensors with at most this many elements are stored as floats."""
    passthrough_dtype: Literal["float16", "float32"] = "float16"
    """Storage of small tensors."""
    control_dtype: Literal["float16", "float32"] = "float32"
    """Storage of small control tensors (gains, scales, gates, mixes) and of the small projections beside them."""
    control_roles: list[Role] = field(default_factory=lambda: ["control", "proj"])
    """Roles stored in control_dtype."""
    scale_floor: Literal["tiny", "absolute"] = "tiny"
    """Least step: 1e-10, or (legacy) 1/qmax."""
    clip_search: Literal["per_row", "per_tensor"] = "per_row"
    """Best candidate for each row, or (legacy) one percentile for the whole tensor."""
    clip_metric: Literal["output", "weights"] = "output"
    """Squared errors weighted by the mean square of their inputs where a Hessian is known, or (legacy) all alike."""
    error_scale_dtype: Literal["float32", "float16"] = "float16"
    """Precision of the scale while errors are measured and integers rounded; float16 is what is stored."""
    prune_pct: float = 0.0
    """Fraction of the smallest weights of each large matrix set to zero before quantising."""
    rules: list[QuantRule] = field(default_factory=lambda: [QuantRule()])
    """Tried in order."""
    gptq: GPTQConfig | None = None
    """Settings of the rules with gptq = true."""

    def __post_init__(self) -> None:
        require(0 <= self.prune_pct < 1, "quant.prune_pct", "must be in [0, 1)", self.prune_pct)
        needs = any(rule.gptq for rule in self.rules)
        require(not needs or self.gptq is not None, "quant.gptq", "a rule has gptq = true, so give this table", None)


@dataclass(kw_only=True)
class ArtifactConfig:
    """The compressed file and what is counted."""

    cap_bytes: int = 16_000_000
    """Limit for code plus compressed model, decimal bytes."""
    compressor: Literal["zstd22", "zstd21_ldm", "brotli11", "lzma9", "zlib9", "none"] = "brotli11"
    """Compressor of the whole container. Smallest on weight-like data: brotli."""
    code_files: list[str] = field(default_factory=list)
    """Code that is counted, paths; empty counts the modules of this package."""


@dataclass(kw_only=True)
class EvalConfig:
    """Standard and sliding-window evaluation."""

    seq_len: int = 2048
    """Window length in tokens."""
    stride: int = 64
    """Positions scored by each window after the first."""
    tail: Literal["exact", "legacy_dup"] = "exact"
    """`exact` scores each position once; `legacy_dup` repeats the last stride positions as the seeds do."""
    batch_tokens: int = 131_072
    """Tokens of one scoring batch on one rank; 131,072 is 64 windows of 2,048."""
    segment_windows: int = 65_536
    """Windows between two saved states of a resumable evaluation."""
    segment_chunks: int = 100
    """Chunks between two saved states of a resumable test-time training."""
    scored_tokens: int = 0
    """Expected count of scored targets in the configured mode; 0 accepts any."""
    scored_bytes: int = 0
    """Expected bytes of these targets; 0 accepts any."""

    def __post_init__(self) -> None:
        at_least(self, 1, "seq_len", "stride", "batch_tokens", "segment_windows", "segment_chunks")
        require(self.stride <= self.seq_len, "eval.stride", f"must be at most eval.seq_len={self.seq_len}", self.stride)


@dataclass(kw_only=True)
class SelectConfig:
    """Which parameters test-time training may change."""

    freeze_blocks: int = 0
    """Parameters of the first blocks stay frozen."""
    only_names: list[str] = field(default_factory=list)
    """When given, only parameters whose name contains one of these texts are trained."""
    blocks_only: bool = False
    """Outside the blocks only parameters named in extra_names are trained (#610)."""
    extra_names: list[str] = field(default_factory=list)
    """Name parts used with blocks_only."""


@dataclass(kw_only=True)
class TTTConfig:
    """Score-first test-time training on chunks of the validation stream."""

    enabled: bool = True
    """Whether `evaluate --mode all` includes it."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser; its state lives through all chunks."""
    lr: float = 0.002
    """Base learning rate."""
    momentum: float = 0.9
    """Momentum of SGD."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Moments of AdamW."""
    weight_decay: float = 0.0
    """Decoupled (AdamW) or added to the gradient (SGD)."""
    epochs: int = 3
    """Passes over a chunk after it was scored."""
    chunk_tokens: int = 32_768
    """Positions of one chunk."""
    max_chunks: int = 0
    """Chunks trained on at most, 0 for all but the last; every position is scored in any case."""
    batch_rows: int = 32
    """Rows of one step over all ranks (a rank, when grad_sync is legacy)."""
    grad_clip: float = 1.0
    """Global L2 norm; 0 switches clipping off."""
    lr_schedule: Literal["constant", "cos", "warmcos"] = "cos"
    """Over chunks: constant, half a cosine, or 5 % linear warm-up and then the cosine."""
    grad_sync: Literal["row_weighted", "rank_mean", "none"] = "row_weighted"
    """`row_weighted` is independent of the ranks; `rank_mean` and `none` are legacy (#610: none)."""
    select: SelectConfig = field(default_factory=SelectConfig)
    trainable_params: int = 0
    """Expected number of trained parameters; 0 accepts any."""

    def __post_init__(self) -> None:
        at_least(self, 0, "lr", "epochs", "max_chunks", "grad_clip", "momentum", "weight_decay")
        at_least(self, 1, "chunk_tokens", "batch_rows")
