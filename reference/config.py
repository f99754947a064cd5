"""Configuration: one dataclass for each component, one line of prose for each field, checked when built.

A configuration file is TOML with one table for each dataclass; `load("pr612")` finds the file shipped in `configs/`,
`load("path/to/file.toml")` reads another one. `overrides` are `key=value` texts with dotted keys, values in TOML syntax
(`model.heads=4`, `quant.clip_search="per_row"`; quotes may be left out for plain words).
Fields whose strict value differs from what the seed submissions did are marked "legacy".
"""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reference.config_eval import ArtifactConfig, EvalConfig, QuantConfig, TTTConfig
from reference.config_fields import at_least, require
from reference.errors import ConfigError

CONFIG_FOLDER = Path(__file__).parent / "configs"


@dataclass(kw_only=True)
class DataConfig:
    """Shards, tokenizer and batch shape."""

    dataset: str = "fineweb10B_sp1024"
    """Name of the data set, logged only."""
    train_glob: str = "fineweb_train_*.bin"
    """Training shards inside the data folder; sorted by name."""
    val_glob: str = "fineweb_val_*.bin"
    """Validation shards inside the data folder; names with `_bytes_` are sidecars and are left out."""
    tokenizer: str = "fineweb_1024_bpe.model"
    """SentencePiece model (a path, or a name inside the data folder), or `byte260` for the byte vocabulary."""
    tokenizer_sha256: str = ""
    """Expected digest of the tokenizer file; empty accepts any."""
    vocab_size: int = 1024
    """Number of token ids V; a tokenizer of another size is refused."""
    seq_len: int = 2048
    """Training row length T in tokens."""
    batch_tokens: int = 786_432
    """Tokens of one optimiser step over all ranks; each of the 8 spans is batch_tokens/8 tokens."""
    val_batch_tokens: int = 524_288
    """Tokens of one standard-evaluation step over all ranks and accumulation steps (524,288 = 32 rows a rank of 8)."""
    val_tokens: int = 0
    """Expected number of validation targets; 0 accepts any. A difference stops the run."""
    val_bytes: int = 0
    """Expected bytes of the validation targets; 0 accepts any."""
    spans_per_step: int = 8
    """Spans of a step; accumulation steps are spans_per_step / ranks."""

    def __post_init__(self) -> None:
        at_least(self, 1, "vocab_size", "seq_len", "batch_tokens", "val_batch_tokens", "spans_per_step")
        require(self.vocab_size <= 65_536, "data.vocab_size", "token ids are uint16", self.vocab_size)
        require(
            self.batch_tokens % self.spans_per_step == 0,
            "data.batch_tokens",
            f"must be divisible by data.spans_per_step={self.spans_per_step}",
            self.batch_tokens,
        )
        require(
            self.span_tokens % self.seq_len == 0,
            "data.batch_tokens",
            f"a span of batch_tokens/{self.spans_per_step} tokens must hold whole rows of {self.seq_len}",
            self.batch_tokens,
        )

    @property
    def span_tokens(self) -> int:
        """Tokens of one span (n of specification 1.5)."""
        return self.batch_tokens // self.spans_per_step


@dataclass(kw_only=True)
class SmearConfig:
    """SmearGate: every position is mixed with the one before it."""

    kind: Literal["none", "per_channel"] = "per_channel"
    """`per_channel`: one gate for each channel."""
    init: float = 0.0
    """Initial gate before the logistic function; 0 mixes half and half."""
    mask_bos: bool = False
    """Strict at document starts: a BOS token is not mixed with the last token of the document before it."""


@dataclass(kw_only=True)
class BigramConfig:
    """Hashed embedding of (previous token, token)."""

    hash: Literal["none", "xor", "poly"] = "poly"
    """`xor`: (36313 u_t XOR 27191 u_{t-1}) mod (buckets-1), `poly`: (1009 u_{t-1} + u_t) mod buckets."""
    buckets: int = 2048
    """Rows of the table."""
    dim: int = 128
    """Width of the table before its projection."""
    scale_init: float | None = None
    """Scalar factor of the branch; left out when None."""
    scale_trainable: bool = False
    """Whether an optimiser owns the factor (#598: none did)."""
    embed_init_std: float = 0.01
    """Standard deviation of the table at the start."""


@dataclass(kw_only=True)
class ValueEmbedConfig:
    """Token embeddings added to the values of some layers."""

    layers: list[int] = field(default_factory=lambda: [9, 10])
    """Layers that receive them; empty switches the component off."""
    dim: int = 128
    """Width of the table before its projection."""
    scale_init: float = 0.1
    """Shared scalar factor at the start."""
    embed_init_std: float = 0.01
    """Standard deviation of the table at the start."""


@dataclass(kw_only=True)
class ModelConfig:
    """The transformer; equations in `reference/model/gpt.py`."""

    layers: int = 11
    """Blocks; the first layers//2 push skips, the others take them."""
    dim: int = 512
    """Model width D."""
    heads: int = 8
    """Query heads H."""
    kv_heads: int = 4
    """Key/value heads K; query head j reads head j // (H/K)."""
    mlp_hidden: int = 1536
    """Hidden width M of the MLP."""
    activation: Literal["relu2", "lrelu2", "swiglu"] = "relu2"
    """`relu2`: max(z,0)^2; `lrelu2`: leaky_relu(z)^2; `swiglu`: silu(gate) * up, with a gate matrix of its own."""
    lrelu_slope: float = 0.5
    """Slope of the negative side in `lrelu2`."""
    mlp_hidden_affine: bool = True
    """Factor and offset for every hidden channel after the activation; with `relu2` this is Star-ReLU."""
    tie_embeddings: bool = True
    """The head is the transposed token table."""
    embed_init_std: float = 0.005
    """Standard deviation of the token table at the start."""
    ortho_init: bool = True
    """Semi-orthogonal linear layers, projections scaled by 1/sqrt(2 layers)."""
    qk_gain_init: float = 1.5
    """Factor on each query head at the start, on top of 1/sqrt(head width)."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    rope_dims: int = 16
    """Rotated dimensions of each head; the others pass through."""
    rope_train_len: int = 2048
    """Row length the base was meant for; longer rows are scaled by rope_scaling."""
    rope_scaling: Literal["none", "ntk", "yarn"] = "ntk"
    """`ntk`: one larger base; `yarn`: frequencies interpolated by wavelength, and attention temperature."""
    ln_scale: bool = True
    """Inputs of the sub-layers of block l are multiplied by 1/sqrt(l+1)."""
    logit_softcap: float = 30.0
    """Logits z become cap*tanh(z/cap)."""
    logit_softcap_dtype: Literal["float32", "activation"] = "float32"
    """Precision of the soft cap; `activation` (legacy) keeps it in bf16."""
    rms_eps: float = 1.1920929e-07
    """Added to the mean square in every norm."""
    xsa_last_n: int = 4
    """Last layers whose heads lose their component along the value vector of the same position."""
    skip_mode: Literal["gated", "add"] = "gated"
    """How decoder blocks take skips: a convex mix by a learned gate, or an addition."""
    embed_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Storage of the token table under bf16 precision."""
    bigram_value_embed_dtype: Literal["bfloat16", "float32"] = "float32"
    """Storage of the bigram and value tables under bf16 precision."""
    smear: SmearConfig = field(default_factory=SmearConfig)
    bigram: BigramConfig = field(default_factory=BigramConfig)
    value_embed: ValueEmbedConfig = field(default_factory=ValueEmbedConfig)
    params: int = 0
    """Expected number of parameters; 0 accepts any. A difference stops the run."""

    def __post_init__(self) -> None:
        at_least(self, 1, "layers", "dim", "heads", "kv_heads", "mlp_hidden")
        require(self.dim % self.heads == 0, "model.heads", f"must divide model.dim={self.dim}", self.heads)
        require(
            self.heads % self.kv_heads == 0, "model.kv_heads", f"must divide model.heads={self.heads}", self.kv_heads
        )
        require(
            self.rope_dims % 2 == 0 and 0 <= self.rope_dims <= self.head_dim,
            "model.rope_dims",
            f"must be even and at most the head width {self.head_dim}",
            self.rope_dims,
        )
        require(0 <= self.xsa_last_n <= self.layers, "model.xsa_last_n", f"must be 0..{self.layers}", self.xsa_last_n)
        for layer in self.value_embed.layers:
            require(0 <= layer < self.layers, "model.value_embed.layers", f"must be 0..{self.layers - 1}", layer)
        require(
            self.bigram.hash != "xor" or self.bigram.buckets >= 2,
            "model.bigram.buckets",
            "the xor hash needs two buckets or more",
            self.bigram.buckets,
        )

    @property
    def head_dim(self) -> int:
        """Width h of one head."""
        return self.dim // self.heads


@dataclass(kw_only=True)
class OptimConfig:
    """Muon for the matrices of the blocks, AdamW for everything else."""

    tok_lr: float = 0.035
    """Learning rate of the token table."""
    head_lr: float = 0.008
    """Learning rate of an untied head."""
    matrix_lr: float = 0.025
    """Learning rate of Muon."""
    scalar_lr: float = 0.025
    """Learning rate of gains, scales, gates and, unless listed elsewhere, embeddings' scalars."""
    decoder_lr_mult: float = 1.0
    """Factor on both rates for the blocks layers//2 and later."""
    ns_steps: int = 5
    """Newton-Schulz iterations."""
    momentum_start: float = 0.92
    """Muon momentum at step 0."""
    momentum_end: float = 0.99
    """Muon momentum from momentum_warmup_steps on."""
    momentum_warmup_steps: int = 1500
    """Steps of the linear momentum warm-up."""
    muon_weight_decay: float = 0.04
    """Decoupled decay of Muon."""
    wd_order: Literal["before", "after"] = "before"
    """Decay before the update or, as #861, after it."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW moments."""
    eps: float = 1e-8
    """AdamW denominator offset."""
    adam_weight_decay: float = 0.04
    """Decoupled decay of AdamW, scalars included."""
    grad_clip: float = 0.3
    """Global L2 norm the averaged gradient is clipped to; 0 switches clipping off."""
    value_proj_group: Literal["adamw_scalar", "muon"] = "adamw_scalar"
    """Owner of the projection of the value embeddings."""
    bigram_proj_group: Literal["muon", "adamw_scalar"] = "muon"
    """Owner of the projection of the bigram embedding."""
    bigram_and_value_embed_group: Literal["adamw_scalar", "adamw_tok"] = "adamw_scalar"
    """Owner of the bigram and value tables."""
    orphans: Literal["frozen", "accumulate"] = "frozen"
    """Parameters without an optimiser: frozen, or (legacy) their gradient piles up and enters the clip norm."""

    def __post_init__(self) -> None:
        at_least(self, 0, "tok_lr", "matrix_lr", "scalar_lr", "ns_steps", "grad_clip", "momentum_warmup_steps")


@dataclass(kw_only=True)
class ScheduleConfig:
    """Length of the run and the factor on every learning rate."""

    iterations: int = 12_000
    """Optimiser steps at most."""
    warmdown: int = 5000
    """Steps over which the factor falls to zero at the end."""
    shape: Literal["linear", "cosine"] = "linear"
    """Fall of the factor; every seed is linear whatever its page says."""
    mode: Literal["steps", "wallclock", "replay"] = "steps"
    """What the warmdown counts: steps, measured seconds, or the factors listed in replay_file."""
    max_wallclock_seconds: float = 0.0
    """Budget of the training loop in seconds, evaluations excluded; 0 is no limit."""
    reserve_seconds: float = 0.0
    """Part of the budget kept for calibration and quantisation; the loop stops that much earlier."""
    replay_file: str = ""
    """JSON lines of an earlier run whose `scale` values are used again, so that a wall-clock run can be repeated."""
    compile_warmup_steps: int = 20
    """Full steps run and undone before the clock starts, so that everything is compiled."""
    val_every: int = 1000
    """Steps between standard evaluations; 0 evaluates only at the end."""
    log_every: int = 200
    """Steps between train lines; steps 1-10 are always logged."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 writes none."""
    seed: int = 42
    """Seed of weights (python, numpy, torch)."""

    def __post_init__(self) -> None:
        at_least(
            self,
            0,
            "iterations",
            "warmdown",
            "max_wallclock_seconds",
            "reserve_seconds",
            "compile_warmup_steps",
            "val_every",
            "checkpoint_every",
        )
        at_least(self, 1, "log_every")
        limited = self.max_wallclock_seconds > 0
        require(
            self.mode != "wallclock" or limited,
            "schedule.max_wallclock_seconds",
            'must be above 0 when schedule.mode = "wallclock"',
            self.max_wallclock_seconds,
        )
        require(
            not limited or self.reserve_seconds < self.max_wallclock_seconds,
            "schedule.reserve_seconds",
            f"must be below schedule.max_wallclock_seconds={self.max_wallclock_seconds}",
            self.reserve_seconds,
        )
        require(
            self.mode != "replay" or bool(self.replay_file),
            "schedule.replay_file",
            'must name a file when schedule.mode = "replay"',
            self.replay_file,
        )


@dataclass(kw_only=True)
class AveragingConfig:
    """Averages of the weights over the run."""

    ema_decay: float = 0.997
    """Decay of the exponential average, started at the initial weights; 0 switches it off."""
    swa_every: int = 0
    """Steps between samples of the plain average; 0 collects none."""
    swa_below_scale: float = 0.2
    """Samples are taken once the learning-rate factor is below this."""
    apply: Literal["ema", "swa", "none"] = "ema"
    """Which average replaces the weights at the end (#610 collects SWA and uses EMA)."""

    def __post_init__(self) -> None:
        require(0 <= self.ema_decay < 1, "averaging.ema_decay", "must be in [0, 1)", self.ema_decay)
        require(
            self.apply != "ema" or self.ema_decay > 0,
            "averaging.ema_decay",
            'must be above 0 when averaging.apply = "ema"',
            self.ema_decay,
        )
        require(
            self.apply != "swa" or self.swa_every > 0,
            "averaging.swa_every",
            'must be above 0 when averaging.apply = "swa"',
            self.swa_every,
        )


@dataclass(kw_only=True)
class QATConfig:
    """Quantisation-aware training by a straight-through estimator in every linear layer."""

    train: Literal["off", "effective"] = "off"
    """Late QAT in training. The flag of the seeds had no effect there, so their configurations say off."""
    ttt: Literal["off", "effective"] = "off"
    """QAT in the training phase of TTT (#598: effective)."""
    threshold: float = 0.15
    """QAT starts once the learning-rate factor is below this."""
    lo: int = -31
    """Lowest integer."""
    hi: int = 31
    """Highest integer."""
    qmax: int = 31
    """Integer the row maximum is mapped to."""
    scale_floor: Literal["tiny", "absolute"] = "tiny"
    """Least step: 1e-10, or (legacy) 1/qmax, which keeps every clip above 1.0."""

    def __post_init__(self) -> None:
        require(self.lo < self.hi, "qat.lo", f"must be below qat.hi={self.hi}", self.lo)


@dataclass(kw_only=True)
class RunConfig:
    """How the numbers are computed; none of it changes them beyond rounding."""

    precision: Literal["bf16", "fp32"] = "bf16"
    """Activations under autocast in bf16, or everything in fp32 (always on a CPU)."""
    compile: bool = True
    """torch.compile for the model and Newton-Schulz; never on a CPU."""
    cuda_graphs: bool = True
    """Replays forward and backward of the TTT step as a CUDA graph."""
    attention: Literal["auto", "sdpa", "flash3"] = "auto"
    """`auto`: FlashAttention-3 where it is installed on a Hopper GPU, else torch's own kernels (`sdpa`)."""
    deterministic: bool = False
    """Deterministic kernels only, without FlashAttention-3; for tests."""
    threads: int = 0
    """Intra-operation threads on a CPU; 0 keeps torch's choice."""
    loss_chunk: int = 0
    """Tokens of one chunk of the fused cross entropy, saves memory at large vocabularies; 0: all logits at once."""
    peak_tflops: float = 0.0
    """Dense peak of one device for MFU; 0 looks the device up."""


@dataclass(kw_only=True)
class Config:
    """One reproducible run."""

    name: str = "unnamed"
    """Short name, part of log lines and file names."""
    notes: list[str] = field(default_factory=list)
    """What could not be established, and which source was followed where page, code and log contradict one another."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    qat: QATConfig = field(default_factory=QATConfig)
    quant: QuantConfig = field(default_factory=QuantConfig)
    artifact: ArtifactConfig = field(default_factory=ArtifactConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    ttt: TTTConfig = field(default_factory=TTTConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        length = max(self.data.seq_len, self.eval.seq_len)
        require(
            not self.ttt.enabled or self.ttt.chunk_tokens >= self.eval.seq_len,
            "ttt.chunk_tokens",
            f"must be at least eval.seq_len={self.eval.seq_len}",
            self.ttt.chunk_tokens,
        )
        require(
            not self.ttt.enabled or self.ttt.chunk_tokens % self.eval.stride == 0,
            "ttt.chunk_tokens",
            f"must be a multiple of eval.stride={self.eval.stride}",
            self.ttt.chunk_tokens,
        )
        require(
            self.model.bigram.hash != "xor" or self.data.vocab_size <= 59_137,
            "data.vocab_size",
            "the xor hash overflows int32 above 59,137",
            self.data.vocab_size,
        )
        require(
            length % self.eval.stride == 0 or self.eval.tail == "exact",
            "eval.stride",
            f"the legacy tail needs a divisor of {length}",
            self.eval.stride,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, for the log and the artifact header."""
        return dataclasses.asdict(self)


def load(name_or_path: str, overrides: typing.Sequence[str] = ()) -> Config:
    """Reads a shipped configuration by name or a TOML file by path, applies overrides, checks everything.

    Raises:
        ConfigError: naming the key, the value received and what is allowed.
    """
    path = CONFIG_FOLDER / f"{name_or_path}.toml"
    if not path.is_file():
        path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIG_FOLDER.glob("*.toml")))
        raise ConfigError(f"no configuration '{name_or_path}': give one of {known}, or the path of a TOML file")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: not valid TOML: {error}") from error
    for text in overrides:
        _override(table, text)
    return from_dict(table)


def from_dict(table: dict[str, Any]) -> Config:
    """Builds a checked `Config`; unknown keys and wrong types are refused by name."""
    return _build(Config, table, "")


def _override(table: dict[str, Any], text: str) -> None:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {text}: write key=value, for example --set schedule.iterations=100")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {text}: '{parent}' is a value, not a table")
    try:
        table[last] = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        table[last] = value.strip()


def _build(cls: type, table: Any, prefix: str) -> Any:
    if not isinstance(table, dict):
        raise ConfigError(f"{prefix.rstrip('.')}: expected a table, got {table!r}")
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for key in table:
        if key not in names:
            raise ConfigError(f"{prefix}{key}: unknown key; known here: {', '.join(names)}")
    values = {key: _convert(hints[key], value, prefix + key) for key, value in table.items()}
    return cls(**values)


def _convert(hint: Any, value: Any, key: str) -> Any:
    """Checks one TOML value against a type annotation; ints are accepted where floats are meant."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, key + ".")
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None or (value == "none" and type(None) in arguments):
            return None
        return _convert(next(a for a in arguments if a is not type(None)), value, key)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key}: expected a list, got {value!r}")
        inner = arguments[0]
        return origin(_convert(inner, item, f"{key}[{i}]") for i, item in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise ConfigError(f"{key}: expected {hint.__name__}, got {value!r}")
    return value
