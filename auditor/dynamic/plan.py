"""Scale-down: settings that make a run small enough for a minute on one core and still let every phase happen.

Settings are found by static reading (`auditor.static.settings`); which quantity a setting is follows from its name in
the vocabulary the field shares. The name only picks a size, never a verdict. Values keep the programs' constraints:
heads divide the width, key heads divide the heads, batches and chunks are whole sequences, the stream holds at least
eight chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Scale:
    """Sizes of one run.

    Attributes:
        width, heads, kv_heads: model width and head counts; a head is width / heads wide.
        seq: sequence length, tokens; batch: sequences a training step; chunk: tokens of a TTT chunk; stride: of windows.
        steps: training steps; warmup: compile warm-up steps.
        val_tokens, train_tokens: stream lengths.
        seconds: wall-clock cap handed to the program; generous, because the step count is what ends training here.
        never: period of validation during training; nothing where programs understand it as never.
        whole: the model has the sizes it was submitted with; only what it reads and how often is small.
    """

    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    seq: int = 128
    batch: int = 8
    chunk: int = 512
    stride: int = 64
    steps: int = 6
    warmup: int = 1
    val_tokens: int = 8 * 512 + 1
    train_tokens: int = 160_000
    seconds: int = 600
    never: int = 0
    whole: bool = False


NEVER = 1_000_000  # a period that no run of this scale reaches
TIMED = 8  # seconds of training where only the clock ends it
# Tried in order: the second keeps the program's own head counts, the third is longer for programs with long documents.
SCALES = (
    Scale(),
    Scale(width=128, heads=8, kv_heads=4, never=1_000_000),
    Scale(width=64, heads=2, kv_heads=1, seq=256, stride=128, chunk=1024, val_tokens=8 * 1024 + 1),
)


@dataclass
class Plan:
    """What a run is given.

    Attributes:
        environment: variable -> value.
        attributes: class attribute or module constant -> value, for settings no variable overrides.
        scale: the sizes; vocab_size, byte_vocab, sidecar: the data set to make.
        notes: what was changed, for the report: name -> (full-scale value, value of this run).
        wanted: lower-case setting name -> value in force at full scale.
        writable: run from a copy of the folder that may be written to.
        conditions: what differs from a run as documented, in words. documented: settings of the documents are in force.
        ranked: variables that `torchrun` sets are there. extra: files of the pull request laid beside the folder, by path.
        roots: absolute paths written into the program under which it looks for the data.
        data: paths at which it looked for shards or a tokenizer in vain before.
        without: packages that are not here and can be imported in name only.
    """

    environment: dict[str, str]
    scale: Scale
    vocab_size: int = 1024
    byte_vocab: bool = False
    sidecar: bool = False
    attributes: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, tuple[str, str]] = field(default_factory=dict)
    wanted: dict[str, str] = field(default_factory=dict)
    writable: bool = False
    conditions: str = ""
    documented: bool = True
    ranked: bool = True
    extra: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


_PERIOD = r"^(val|eval)_loss_every$|^(val|eval)_every(_steps)?$|^(val|eval)_(interval|freq)$"
_COUNT = r"^(num_)?(iterations|train_steps|max_steps|total_steps|num_steps|max_iters?|n_iters|max_iterations)$"
_CLOCK = r"^max_wallclock|^wallclock_(cap|limit)|^max_seconds$|^max_train_seconds$"
# (pattern over the lower-case name, value as a function of the scale). First match wins; anchors keep them apart.
# The first ones are what the model is made of: they stay where a run is to have the model as submitted.
_STRUCTURE: tuple[tuple[str, Any], ...] = (
    (r"^embedding_dim$|^embed_dim$|^emb_dim$", lambda s: s.width),
    (r"(model_dim|^d_model|^n_embd|hidden_dim|^dim|model_width)$", lambda s: s.width),
    # A second model beside the first (a teacher, a draft) has a width of its own, found by the line above.
    (r"^(teacher_|student_|draft_)?(num_heads|n_heads?|n_head|heads)$", lambda s: s.heads),
    (r"^(teacher_|student_|draft_)?(num_kv_heads|n_kv_heads?|kv_heads)$", lambda s: s.kv_heads),
    (r"^head_dim$", lambda s: s.width // s.heads),
    (r"(mlp_hidden|ffn?_hidden|mlp_dim|ffn?_dim|intermediate_size)$", lambda s: s.width * 2),
    (r"rope_dims?$|rotary_dims?$", lambda s: min(8, s.width // s.heads)),
    (r"(bigram|trigram|ngram|hash).*(buckets|vocab_size|size|rows)$", lambda s: 64),
    (r"(bigram|trigram|ve|value|embed|engram|hash).*_dim$", lambda s: 16),
    (r"^ve_dim$", lambda s: 16),
)
_SIZES: tuple[tuple[str, Any], ...] = (
    (_COUNT, lambda s: s.steps),
    (r"^(phase|stage)_?\d+_(steps|iters|iterations)$", lambda s: s.steps),
    (r"(compile|autotune)?_?warmup_steps$|^warmup_iters$", lambda s: s.warmup),
    (r"momentum_warmup_steps$", lambda s: s.steps),
    (r"(warmdown|cooldown|decay)_(iters|steps)$", lambda s: max(s.steps // 2, 1)),
    (_PERIOD, lambda s: s.never),
    (r"^train_log_every$|^log_every$", lambda s: max(s.steps // 2, 1)),
    (_CLOCK, lambda s: s.seconds),
    (r"^(swa|lawa|ema|save|checkpoint|ckpt)_(every|freq|interval)$", lambda s: 2),
    *_STRUCTURE,
    (r"^(train|eval|val|ttt|max)?_?(seq|ctx|context|block)_?(len|length|size)$", lambda s: s.seq),
    (r"^(train_)?batch_tokens$|^train_batch_size$|^total_batch_size$|^batch_tokens", lambda s: s.seq * s.batch),
    (r"^(val|eval)_batch_(tokens|size)$", lambda s: s.seq * s.batch),
    (r"^(local|micro|device|rank|gpu|per_\w+)_(train_)?batch_tokens$", lambda s: s.seq),
    (r"_batch_tokens$", lambda s: s.seq * s.batch),
    (r"^eval_stride$|^(sliding_)?(window_)?stride$|^val_stride$", lambda s: s.stride),
    (r"(eval|val|ttt|sliding|gptq|calib)\w*_batch_(seqs|size|windows)$|^eval_batch$", lambda s: 4),
    (r"ttt_chunk(_tokens|_len)?$", lambda s: s.chunk),
    (r"(^|_)(n_?gram|eval|cache|mixer|scor(e|ing))\w*_chunk(_tokens|_len|_size)?$", lambda s: s.chunk),
    (r"ttt_(eval_|train_)?seq_len$", lambda s: s.seq),
    (r"ttt_(lora_)?(eval_)?batch_size$|ttt_batch_docs$", lambda s: 4),
    (r"^ttt_(lora_)?(min_doc_len|min_tokens)$", lambda s: 32),
    (r"(gptq|calib|calibration|hessian|ar_selfgen)\w*_(batches|samples|seqs|steps|num_seqs)$", lambda s: 2),
    (r"(gptq|calib|ar)\w*_(seq_?len|length)$", lambda s: s.seq),
    (r"(gptq_)?reserve_(seconds|ms|s)$|reserve_ms$", lambda s: 0),
    (r"(phased_ttt_)?prefix_docs$", lambda s: 4),
)
# Counts that only shrink: a run that has several keeps two, a run that has one keeps one.
_CAPS: tuple[tuple[str, int], ...] = (
    (r"epochs$", 2),
    (r"(slot|ttt|prequant|adapt|distill|tune|delta|etlb|lbfgs)\w*_(steps|iters|max_steps)$", 2),
    (r"(lora|tt|low)_rank$", 4),
    (r"(max_train_chunks|max_chunks)$", 64),
    (r"^kv_eval_(max_tokens|context_len)$", 96),
    (r"(calib|gptq|hessian|search|score)\w*_(steps|rows|tensors|tokens|samples|batches)$", 64),
    (r"^(grad_accum(ulation)?(_steps)?)$", 2),
)
# Rounds of something that is no training step and has a name of its own (a simulation, a search): as few as those.
_ROUNDS = re.compile(r"_(steps|iters|iterations)$")
_MANY = 500
# Lists of lengths or batches over the course of training, as in "0:512,0.35:1024": the largest becomes this run's size.
_COURSES: tuple[tuple[str, Any], ...] = (
    (r"(seq|ctx|context|block)\w*(schedule|curriculum|stages|phases|lens|lengths)$", lambda s: s.seq),
    (r"batch\w*(schedule|curriculum|stages|phases)$", lambda s: s.seq * s.batch),
)
_LENGTH = re.compile(r"(?<![\d.])[1-9]\d+(?![\d.])")
# A batch size without a unit: sequences when it is small, tokens when it is large.
_BATCH = re.compile(r"^(micro_?|device_?|per_device_|local_)?batch(_size)?$")
_SEQUENCES = 2048
# A chunk without a unit: a part of a document when it is small, of the stream when it is large.
_CHUNK = re.compile(r"ttt_\w*chunk_size$")
_PART = 512
_CHUNKED = re.compile(r"ttt_\w*chunk(_size|_tokens|_len)?$")
_SEQUENCE = re.compile(r"^(train|eval|val|ttt)?_?(seq|ctx|context)_?(len|length|size)$")
# How many tokens of the validation stream are scored.
_PART_OF_STREAM = re.compile(r"^(max_)?(val|validation)_(max_)?tokens(_limit|_max)?$")
# Kernels written in Triton are interpreted here, element by element; the path without them computes the same.
_SLOW = re.compile(
    r"^(use_)?(fused|triton)_(softcap(ped)?_)?(ce|cross_entropy|loss|kernels?)(_enabled)?$|^use_triton$|^use_fused_\w+$"
    r"|^(use_)?(mega_?kernels?)(_enabled)?$"
)
# Tables of counts, addressed by hashes. What counts is how many tokens share a row, so rows shrink with the stream.
_TABLE = re.compile(
    r"(^|_)(n|num)?_?(buckets?|slots|hash_?(size|slots|mod|rows)|table_size|cache_size)(_size|_count)?$"
)
_TABLE_BITS = re.compile(r"(bucket|hash|table|cache|slot)s?_?bits$|^log2_(buckets|slots)$")
# Tokens a cache has to have seen before it is asked.
_PATIENCE = re.compile(r"(^|_)(min|warmup|warm_up|burn_?in|start)_(tokens|tokens_seen|seen|cache_tokens)$")
_LARGE_TABLE = 1 << 17  # rows; what a model learns for hashes is smaller
VAL_TOKENS = 62_021_846  # of the whole validation stream
_TRUTH = {"true": "1", "false": "0", "yes": "1", "no": "0", "on": "1", "off": "0"}
_PAIRS = {word: pair for pair in (("false", "true"), ("no", "yes"), ("off", "on")) for word in pair}
_PLACES = re.compile(
    r"path|dir$|file|run_id|tokenizer|device(_(id|type|name|index))?$|^((local|node|global)_)?rank$|world_size|folder"
    r"|pattern|(^|_)glob(_|$)|name$"
)
# Variables that belong to the machine of the submitted run, not to the program.
_MACHINE = re.compile(
    r"^(PATH|HOME|USER|TMP|OMP_|MKL_|NCCL_|TORCH|PYTORCH|CUDA|PYTHON|LD_|HF_|WANDB|TRITON|MASTER_|NPROC|LOCAL_)"
)
_VOCABULARY = re.compile(r"^vocab_?size$|^n_vocab$")
_SWITCH = re.compile(r"^(1|0|true|false|yes|no|on|off)$", re.I)


def make_plan(settings: Iterable[Any], effective: dict[str, str], scale: Scale, text: str = "") -> Plan:
    """Plan for a program.

    Args:
        settings: declared settings (`auditor.static.settings.Setting`).
        effective: setting or variable name (any case) -> value in force by run command and log; switches and
            non-size settings are taken from it, so that what the submitted run had switched on is on.
        scale: sizes to aim at.
        text: program source, searched for hints of the data set (byte vocabulary, byte sidecars).
    """
    settings = list(settings)
    scale = _fitted(settings, scale, text)
    wanted = {name.lower(): value for name, value in effective.items()}
    plan = Plan({}, scale, *_data(settings, wanted, text), wanted=wanted)
    for setting in settings:
        name = setting.environment or setting.name
        full, value = planned(name, setting.default, wanted, scale, setting.name)
        if value is None:
            continue
        plan.notes[setting.name] = (str(full), str(value))
        if setting.environment:
            plan.environment[setting.environment] = written(value, setting.default)
        elif _number(setting.default) is not None:  # what is computed from something else follows from it
            plan.attributes[f"{setting.owner}.{setting.name}"] = value
    _fit_chunks(settings, plan)
    _pass_on(effective, plan)
    return plan


def _fit_chunks(settings: list[Any], plan: Plan) -> None:
    """A chunk that is no longer than a sequence at full scale is none here either: programs insist on it."""
    lengths = [number for name, (full, _) in plan.notes.items()
               if _SEQUENCE.search(name.lower()) and (number := _number(full))]  # fmt: skip
    for setting in settings:
        full, value = (_number(text) for text in plan.notes.get(setting.name, ("", "")))
        if not lengths or full is None or value is None or not _CHUNKED.search(setting.name.lower()):
            continue
        if full <= max(lengths) and value > plan.scale.seq:
            plan.notes[setting.name] = (plan.notes[setting.name][0], str(plan.scale.seq))
            if setting.environment:
                plan.environment[setting.environment] = str(plan.scale.seq)
            elif f"{setting.owner}.{setting.name}" in plan.attributes:
                plan.attributes[f"{setting.owner}.{setting.name}"] = plan.scale.seq


def _pass_on(effective: dict[str, str], plan: Plan) -> None:
    """Variables of the documented command that reading found no setting for: a module beside the script may take them."""
    for name, value in effective.items():
        if not name.isupper() or name in plan.environment or _MACHINE.search(name) or "$" in value or "/" in value:
            continue
        if not (_VOCABULARY.search(name.lower()) or _PLACES.search(name.lower())):
            sized = planned(name, value, plan.wanted, plan.scale)[1]
            plan.environment[name] = value if sized is None else written(sized, value)


def _fitted(settings: list[Any], scale: Scale, text: str) -> Scale:
    """A scale for programs that divide by their period, and for those that only the clock ends."""
    names = {word.lower() for setting in settings for word in (setting.name, setting.environment) if word}
    for period in (name for name in names if re.search(_PERIOD, name) and not scale.never):
        divides = re.search(rf"%\s*[\w.]*\b{period}\b", text, re.I)
        if divides and not re.search(rf"\b{period}\s*(>|and\b|!=|or\b)|\bif\s+[\w.]*\b{period}\b", text, re.I):
            scale = replace(scale, never=NEVER)
    if any(re.search(_CLOCK, name) for name in names) and not any(re.search(_COUNT, name) for name in names):
        counted = re.search(
            r"\b(ITERATIONS|MAX_STEPS|NUM_STEPS|TRAIN_STEPS)\b|range\(\s*[\w.]*(steps|iters|iterations)\b", text
        )
        scale = scale if counted else replace(scale, seconds=TIMED)
    return scale


def is_clock(name: str) -> bool:
    """Whether a setting of that name limits the training time."""
    return bool(re.search(_CLOCK, name.lower()))


def options_of_run(options: dict[str, str], plan: Plan) -> dict[str, Any]:
    """Command line options of this run, as attributes without an owner: sizes made smaller, switches switched on.

    A path stands for a file of another run, which is not here; it is left out.
    """
    found: dict[str, Any] = {}
    for name, given in options.items():
        if "/" in given or given.startswith("$"):
            continue
        _, value = planned(name, given, plan.wanted, plan.scale) if given else ("", None)
        found[f".{name}"] = given if value is None else value
        plan.notes[f"--{name}"] = (given, str(found[f".{name}"]))
    return found


def planned(name: str, default: Any, wanted: dict[str, str], scale: Scale, alias: str = "") -> tuple[Any, Any]:
    """(value at full scale, value of this run or None to leave it alone) of one setting.

    Args:
        name: variable, option or attribute; `alias`: another name it may be logged under.
        default: what the program takes when nothing is given, None when it says nothing.
        wanted: lower-case name -> value in force. Used before the run for what static reading finds, and in the run for
            variables that a program asks for in ways only execution shows.
    """
    name = name.lower()
    if _VOCABULARY.search(name) or _PLACES.search(name):
        return default, None
    full = wanted.get(name, wanted.get(alias.lower(), default))
    return full, _value(name, full, default, scale)


def written(value: Any, default: Any = None) -> str:
    """A value as it stands in an environment variable: a switch in the form of the program's default."""
    word = str(value).lower()
    digit = _TRUTH.get(word, word if word in ("0", "1") else None)
    pair = _PAIRS.get(default.lower()) if isinstance(default, str) else None
    if pair and digit:
        return pair[int(digit)]
    if (isinstance(default, str) and _number(default) is None) or (default is None and word in ("on", "off")):
        return str(value)  # "off" may be the name of a mode
    return digit or str(value)


def _value(name: str, full: Any, default: Any, scale: Scale) -> Any:
    """Value of one setting in this run, None to leave it alone."""
    if _SLOW.search(name) and _SWITCH.match(str(full)):
        return 0
    table = table_rows(name, _number(full), scale)
    if table is not None:
        return table
    size = _size(name, scale)
    if size is not None:
        off = str(full) in ("0", "-1", "", "0.0", "None", "False") and full is not None
        # A size that is switched off by being nothing stays off; a period of nothing means never.
        return None if off else size
    number = _number(full)
    if number is None and isinstance(full, str) and (course := _course(name, full, scale)):
        return course
    if _BATCH.search(name) and number is not None:
        return scale.seq * scale.batch if number > _SEQUENCES else min(int(number), scale.batch)
    if _CHUNK.search(name) and number:
        return scale.chunk if number > _PART else scale.seq // 2
    if _PART_OF_STREAM.search(name) and number and number > scale.val_tokens:
        return _part_of_stream(number, scale)
    for pattern, cap in _CAPS:
        if re.search(pattern, name) and number is not None:
            return min(int(number), cap)
    if number is not None and number >= _MANY and _ROUNDS.search(name):
        return scale.steps
    if full is default or str(full) == str(default):
        return None
    return _fitting(full, default)


def _course(name: str, full: str, scale: Scale) -> str | None:
    """A list of lengths with all of them made smaller in proportion, None where a setting is nothing of the kind.

    They become powers of two, as the size they belong to is one: programs cut batches into whole sequences.
    """
    largest = max((int(found) for found in _LENGTH.findall(full)), default=0)
    size = next((value(scale) for pattern, value in _COURSES if re.search(pattern, name)), largest)
    if largest <= size:
        return None
    return _LENGTH.sub(lambda found: str(1 << max(int(found[0]) * size // largest, 1).bit_length() - 1), full)


def table_rows(name: str, full: float | None, scale: Scale) -> int | None:
    """Rows (or the bits that number them) of a table of counts in this run, None where a setting is nothing of the kind.

    Powers of two stay powers of two, because programs take the low bits of a hash. How many tokens a table waits for
    shrinks like it.
    """
    name = name.lower()
    if full is None or full != int(full):
        return None
    if _PATIENCE.search(name) and full > scale.seq // 2:
        return scale.seq // 2
    if _TABLE_BITS.search(name) and 17 <= full <= 32:
        return int(full) - _halvings(scale)
    return scaled_rows(int(full), scale) if _TABLE.search(name) and full >= _LARGE_TABLE else None


def scaled_rows(full: int, scale: Scale) -> int:
    """Rows that hold as many tokens each as `full` rows do at full scale, at least 8."""
    rows = max(full >> _halvings(scale), 8)
    return rows if full & (full - 1) == 0 else rows | 1


def _halvings(scale: Scale) -> int:
    """How often the stream of this run goes into the whole one, as a power of two."""
    return (VAL_TOKENS // scale.val_tokens).bit_length() - 1


def _part_of_stream(full: float, scale: Scale) -> int:
    """Tokens that are as large a part of this run's stream as `full` are of the whole one, in whole batches."""
    batch, whole = scale.seq * scale.batch, scale.val_tokens - 1
    return min(max(round(full / VAL_TOKENS * whole / batch), 1) * batch, whole)


def _fitting(full: Any, default: Any) -> Any:
    """A value in force, where it is of the kind the program's default is; None where it is not."""
    if str(full)[:1] in "[({<":
        return None  # a log prints what was made of a setting, not how it was written
    if isinstance(default, bool) or default is None or (isinstance(default, str) and _number(default) is None):
        return full if len(str(full)) < 80 and (not isinstance(default, bool) or _SWITCH.match(str(full))) else None
    number = _number(_TRUTH.get(str(full).lower(), full))
    if number is None:
        return None
    whole = "." not in str(default) and abs(number) < 1e15 and number == int(number)
    return int(number) if whole else number


def _number(value: Any) -> float | None:
    try:
        return float(str(value).replace("_", "").replace(",", ""))
    except ValueError:
        return None


def _size(name: str, scale: Scale) -> Any:
    for pattern, value in _SIZES:
        if re.search(pattern, name):
            return None if scale.whole and (pattern, value) in _STRUCTURE else value(scale)
    return None


def _data(settings: Iterable[Any], wanted: dict[str, str], text: str) -> tuple[int, bool, bool]:
    vocab = 1024
    for setting in settings:
        if _VOCABULARY.search(setting.name.lower()) and str(setting.default).isdigit():
            vocab = int(setting.default)
    given = next((value for name, value in wanted.items() if _VOCABULARY.search(name) and value.isdigit()), None)
    vocab = int(given) if given else vocab
    vocab = vocab if 64 <= vocab < 65_536 else 1024
    return vocab, vocab <= 320, "fineweb_val_bytes" in text or "val_bytes" in text
