"""What the documents of a submission say, as data. Readers fill these; the ledger, forensics and rules read them.

Units: bytes, seconds, nats per token for losses, bits per byte for BPB. Every value carries where it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """Where a value was read: file (repository-relative), 1-based line, the text, and a JSON key path if any."""

    path: str
    line: int | None = None
    excerpt: str = ""
    key: str = ""


@dataclass(frozen=True)
class Quantity:
    """One value with its source. `text` is the value as written (digits matter: 15.51 is not 15.510640)."""

    value: float
    source: Source
    text: str = ""


def written(environment: Mapping[str, Quantity | str]) -> dict[str, str]:
    """Variables as text, numbers as they were written."""
    return {
        name: (value.text or str(value.value)) if isinstance(value, Quantity) else value
        for name, value in environment.items()
    }


@dataclass
class Metadata:
    """One submission.json (or its like), read tolerantly; `raw` is the parsed object, None when unreadable.

    Attributes:
        val_bpb, val_loss: headline claim (bits per byte, nats per token), wherever the file keeps them.
        artifact_bytes: largest claimed total (model + code), bytes; `model_bytes`, `code_bytes` if given apart.
        train_seconds, eval_seconds: claimed times.
        seeds: seed -> {metric name -> Quantity} for per-seed results ("val_bpb", "val_loss", "artifact_bytes",
            "steps", "train_seconds", "eval_seconds").
        mean_bpb, std_bpb: claimed statistics over seeds.
        settings: claimed hyper-parameters (vocab_size, num_layers, ...), as text.
        problems: what could not be read, in words, with the place.
    """

    path: str
    raw: dict | None = None
    author: str | None = None
    github_id: str | None = None
    name: str | None = None
    date: str | None = None
    track: str | None = None
    hardware: str | None = None
    val_bpb: Quantity | None = None
    val_loss: Quantity | None = None
    artifact_bytes: Quantity | None = None
    model_bytes: Quantity | None = None
    code_bytes: Quantity | None = None
    train_seconds: Quantity | None = None
    eval_seconds: Quantity | None = None
    mean_bpb: Quantity | None = None
    std_bpb: Quantity | None = None
    seeds: dict[str, dict[str, Quantity]] = field(default_factory=dict)
    settings: dict[str, Quantity | str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass
class Readme:
    """Numbers and commands of a README.

    Attributes:
        title: first heading.
        values: claims found in prose and tables: kind ("val_bpb", "val_loss", "bytes", "mib", "mb", "seconds",
            "steps", "std", "p_value", ...) -> quantities in order.
        seeds: seed -> {metric -> Quantity} from result tables.
        commands: run commands (shell text) with their line; `environment`: variables those commands set.
        statements: notable sentences by kind ("track", "hardware", "apt", "network", "unlimited", ...) -> sources.
    """

    path: str
    text: str = ""
    title: str = ""
    values: dict[str, list[Quantity]] = field(default_factory=dict)
    seeds: dict[str, dict[str, Quantity]] = field(default_factory=dict)
    commands: list[Source] = field(default_factory=list)
    environment: dict[str, Quantity | str] = field(default_factory=dict)
    statements: dict[str, list[Source]] = field(default_factory=dict)


@dataclass(frozen=True)
class StepLine:
    """A progress line of training: step, of how many, train or validation loss, BPB, clock (seconds), step avg (ms)."""

    line: int
    step: int
    total: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    train_seconds: float | None = None
    step_ms: float | None = None
    text: str = ""


@dataclass(frozen=True)
class EvalResult:
    """A result line of an evaluation: label as printed (`final_int8_zlib_roundtrip_exact`, `legal_ttt`, ...).

    `tokens`: number of scored targets where the line states one.
    """

    line: int
    label: str
    val_loss: float | None = None
    val_bpb: float | None = None
    seconds: float | None = None
    digits: int = 4
    text: str = ""
    tokens: int | None = None


@dataclass(frozen=True)
class SizeLine:
    """A size line: kind "code", "code packed", "model", "model raw", "total", "total raw"; codec as printed."""

    line: int
    kind: str
    size: int
    codec: str = ""
    text: str = ""


@dataclass(frozen=True)
class ProgressLine:
    """A running value during evaluation (`ttt_chunk [i/n] bpb=`, `ttp: bN/M`): position, total, running BPB, seconds."""

    line: int
    label: str
    index: int
    total: int | None
    bpb: float | None = None
    loss: float | None = None
    seconds: float | None = None
    text: str = ""


@dataclass
class LogRun:
    """One run inside a log (a log can hold several). Lines are 1-based in the log file.

    Attributes:
        first_line, last_line: extent in the file.
        seed: as logged.
        settings: hyper-parameters the log says were in force (dump, `key:value` header lines), name -> text.
        setting_lines: name -> line.
        steps, results, sizes, progress: typed lines in order.
        stop: the wall-clock stop line (`stopping_early`) as a step line, if any.
        train_seconds: training clock at the end of training, seconds.
        phases: other timed phases (name -> (line, seconds)), e.g. Hessian collection, calibration, compile, pack,
            deserialise, hint precomputation.
        environment: python, torch, cuda, gpu name, gpu count (from nvidia-smi or world_size), hostname-free.
        params: model parameter count as logged.
        val_tokens, train_shards: as logged.
        source_lines: half-open line range of an embedded copy of the program, or None.
        markers: other recognised lines by name -> list of lines (`ema`, `swa`, `late_qat`, `legal_ttt:start`, ...).
        crashed: text of a traceback's last line, if the run died.
    """

    path: str
    first_line: int
    last_line: int
    seed: int | None = None
    settings: dict[str, str] = field(default_factory=dict)
    setting_lines: dict[str, int] = field(default_factory=dict)
    steps: list[StepLine] = field(default_factory=list)
    results: list[EvalResult] = field(default_factory=list)
    sizes: list[SizeLine] = field(default_factory=list)
    progress: list[ProgressLine] = field(default_factory=list)
    stop: StepLine | None = None
    train_seconds: Quantity | None = None
    phases: list[tuple[str, int, float]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    params: Quantity | None = None
    val_tokens: Quantity | None = None
    train_shards: Quantity | None = None
    source_lines: tuple[int, int] | None = None
    markers: dict[str, list[int]] = field(default_factory=dict)
    crashed: str = ""


@dataclass
class TrainLog:
    """A log file: decoded lines (without line ends) and the runs found in it."""

    path: str
    lines: list[str] = field(default_factory=list)
    runs: list[LogRun] = field(default_factory=list)
    encoding: str = "utf-8"
    truncated: bool = False
    blob: str = ""
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Claim:
    """One row of the ledger: what is claimed, what the primary evidence says, what we compute.

    Attributes:
        subject: e.g. "val_bpb", "artifact bytes", "train seconds", "eval seconds", "seeds", "vocabulary", "steps".
        scope: "submission" or "seed 42".
        claimed: every place that states it.
        evidence: primary evidence (log lines, files).
        computed: our own value with how it was computed in `how`; unit in `unit`.
        status: "agrees", "conflicts", "no evidence", "not claimed".
        note: the conflict in one sentence, with numbers.
    """

    subject: str
    scope: str
    claimed: tuple[Quantity, ...] = ()
    evidence: tuple[Quantity, ...] = ()
    computed: float | None = None
    how: str = ""
    unit: str = ""
    status: str = "no evidence"
    note: str = ""


@dataclass(frozen=True)
class ForensicFact:
    """One observation on a log: kind (see `auditor.documents.forensics`), strength and the lines that show it.

    `strength`: "contradiction" (cannot be, given this program), "suspicious", "notable".
    """

    kind: str
    strength: str
    summary: str
    sources: tuple[Source, ...] = ()
    explanation: str = ""
