"""Lines to runs: where a run begins, what belongs to it, and what only the whole run can settle."""

from __future__ import annotations

import dataclasses
import re

from auditor.documents.logs import patterns
from auditor.documents.model import LogRun, Quantity, SizeLine, Source, StepLine

#: Lines remembered per marker.
MAX_MARKS = 200
_OPENERS = re.compile(
    r"(?:Hyperparameters:|logs/\S+\.txt\s*$|Running Python|val_bpb:enabled|"
    r"train_loader:dataset|model_params: ?\d|world_size: ?\d|"
    r"seed: ?\d|={2,} ?Seed \d|Setting OMP_NUM_THREADS|"
    r"train_batch_tokens: ?\d|attention_mode:|.{0,70}torch/distributed/run\.py)"
)
_FIRST_STEP = re.compile(r"(?:\s*[Ss]tep[: ]\s*)?[01]\s*/\s*\d+\s+\W*(?:\[\w+\] )?(?:train|val)?_?[Ll]oss")
_ENDS_IN_BYTES = re.compile(r"\d ?B\s*$|bytes")
_TRAINED = re.compile(r"(?i)train(?:ing)?[ _]?(?:complete|completed|done|finished|took|time)\b|(?:total|final) train")
_DIGIT = re.compile(r"\d")
_SETTING = re.compile(r"[\"']?([A-Za-z_][\w.]*)[\"']?\s*(?::|=)\s*(.+?),?\s*$")
# `"packed_tables": true,`: a switch of a dump in JSON, which has no number.
_SWITCH = re.compile(r"\s*[\"']?([A-Za-z_]\w*)[\"']?\s*[:=]\s*(true|false)\s*,?\s*", re.I)
_UNSET = re.compile(r"[A-Za-z_][\w.]*\s?[:=]")  # a setting that holds an empty text: the listing goes on behind it
_HEADER_PAIR = re.compile(r"([A-Za-z_][\w]*)[:=](\S+)")
_MARKER = re.compile(r"\s*([A-Za-z][\w-]{1,40})[:=](?:([a-z_]\w{0,40})(?![\w/]))?")
# What follows a label without being the value of a setting: `swa:start step:6150`.
_STATES = {
    "start",
    "starting",
    "enabled",
    "disabled",
    "done",
    "applying",
    "shards",
    "params",
    "dataset",
    "progress",
    "loaded",
    "reserving",
    "init",
}
_NO_SETTING = re.compile(r"(?:\w+_)?(?:loader|step|val_loss|val_bpb|train_loss|train_time|step_avg)$|tokens$|pattern$")
_SEED = re.compile(r"(?<![\w.])(?i:seed)\s?[:=]\s?(\d{1,10})(?![\d.])|[=#-]{2,} ?(?i:seed) (\d{1,10})\b")
_PARAMS = re.compile(
    r"(?<![\w])(?:model_params|num_params|total_params|n_params|Total parameters|"
    r"Model parameters|params)\s?[:=]\s?([\d,_]{4,})",
    re.I,
)
_VAL_TOKENS = re.compile(
    r"(?:val_loader:.*?tokens|val_tokens|validation tokens|val tokens)\s?[:=]\s?([\d,_]{4,})", re.I
)
_TRAIN_SHARDS = re.compile(r"train_shards\s?[:=]\s?(\d+)|[Tt]rain(?:ing)? shards?\s?[:=]\s?(\d+)")
_ENVIRONMENT = (
    ("python", re.compile(r"Running Python (\d[\w.+]*)|\bpython(?:_version)?\s?[:=]\s?(\d\.\d[\w.+]*)", re.I)),
    ("torch", re.compile(r"Running PyTorch (\d[\w.+]*)|\b(?:py)?torch(?:_version)?\s?[:=]?\s?v?(\d\.\d[\w.+]*)", re.I)),
    ("cuda", re.compile(r"CUDA Version: (\d[\d.]*)|\bcuda(?:_version)?\s?[:=]\s?(\d\d\.\d)", re.I)),
    ("driver", re.compile(r"Driver Version: (\d[\d.]*)")),
    ("world_size", re.compile(r"\bworld[_ ]size\s?[:=]\s?(\d+)", re.I)),
)
_GPU_ROW = re.compile(
    r"\|\s+(\d{1,2})\s+(NVIDIA [^|]*?|Tesla [^|]*?|[A-Z][\w -]*GPU[^|]*?|AMD [^|]*?)\s+(?:On|Off)\s*\|"
)
_GPU_NAME = re.compile(
    r"(?:gpu(?:_name| name)?|device(?:_name)?)\s?[:=]\s?((?:NVIDIA |Tesla )?[AHBVLRTG][\w-]*\d[\w -]{2,40})", re.I
)
_DIED = re.compile(r"((?:[A-Za-z_][\w.]*\.)?[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Failure)\b.{0,200})")
_BLANK_RESULT_WORDS = re.compile(
    r"^(?:best|target|baseline|sota|record|improvement|gain|delta|expected|previous|prior|vs)\b", re.I
)


class RunBuilder:
    """Collects one run. `feed` takes the lines outside embedded sources, in order."""

    def __init__(self, path: str, first_line: int) -> None:
        self.run = LogRun(path, first_line, first_line)
        self.seed_rank = 9
        self.in_dump = False
        self.traceback_line = 0
        self.gpus: set[str] = set()
        self.last_report = 0
        self.evaluation_from = 0

    @property
    def progressed(self) -> bool:
        """The run has produced something, so that another beginning is another run."""
        run = self.run
        return bool(run.steps or run.results or run.stop or any(s.kind.startswith("total") for s in run.sizes))

    def starts_again(self, text: str) -> bool:
        """Whether this line begins another run."""
        if not self.progressed:
            return False
        if _OPENERS.match(text):
            return True
        return bool(_FIRST_STEP.match(text) and self.run.steps and self.run.steps[-1].step >= 10)

    def feed(self, number: int, text: str) -> None:
        """Read one line."""
        self.run.last_line = number
        text = text[: patterns.MAX_LINE]
        if text.startswith("Hyperparameters:"):
            self.in_dump = True
            return
        if self.in_dump and self._dump_line(number, text):
            return
        if 'File "' in text:  # a frame of a traceback or of a compiler warning
            return
        lower = text.lower()
        self._died(number, text, lower)
        if _DIGIT.search(text) is None:
            if not self.run.steps and (switch := _SWITCH.fullmatch(text)):
                self._set(switch[1], switch[2], number)
            self._marker(number, text)
            return
        self._facts(number, text, lower)
        self._context(number, text, lower)

    # ------------------------------------------------------------------ what is reported

    def _facts(self, number: int, text: str, lower: str) -> None:
        run = self.run
        if ("step" in lower or "_loss" in lower or "_bpb" in lower or " tt:" in lower) and (
            fact := patterns.step_fact(text, number)
        ):
            self.last_report = number
            if not fact.stops:
                run.steps.append(fact.line)
                return
            run.stop = fact.line
        elif "stop" in lower and (stop := patterns.stop_fact(text, number, run.steps[-1].step if run.steps else 0)):
            run.stop = stop
        elif self._is_progress(number, text, lower):
            return
        elif "bpb" in lower and (results := patterns.result_facts(text, number)):
            results = [item for item in results if not _BLANK_RESULT_WORDS.match(item.label)]
            run.results += results
            self.last_report = number
            if results and not any(item.seconds for item in results):
                self._phase(number, text)
        elif ("size" in lower or "serialized" in lower or "total" in lower or _ENDS_IN_BYTES.search(text)) and (
            sizes := patterns.size_facts(text, number)
        ):
            run.sizes += sizes
            self.last_report = number
        else:
            self._phase(number, text)
        self._marker(number, text)

    def _is_progress(self, number: int, text: str, lower: str) -> bool:
        if ("/" not in text and "%]" not in text) or ("bpb" not in lower and "tt" not in lower and "bb:" not in lower):
            return False
        progress = patterns.progress_fact(text, number)
        if progress is None:
            return False
        self.run.progress.append(progress)
        self._marker(number, text)
        return True

    def _phase(self, number: int, text: str) -> None:
        phase = patterns.phase_fact(text, number)
        if phase is not None and len(self.run.phases) < 2000:
            self.run.phases.append(phase)

    def _marker(self, number: int, text: str) -> None:
        """`legal_ttt:start` counts under its full name and under `legal_ttt`."""
        found = _MARKER.match(text)
        if found is None:
            return
        markers = self.run.markers
        if len(markers) > 500 and found[1] not in markers:
            return
        for name in (found[1], f"{found[1]}:{found[2]}") if found[2] else (found[1],):
            lines = markers.setdefault(name, [])
            if len(lines) < MAX_MARKS:
                lines.append(number)

    # ------------------------------------------------------------------ what the run is

    def _dump_line(self, number: int, text: str) -> bool:
        found = _SETTING.match(text.strip())
        indented = text[:1] in (" ", "\t") or patterns.STAMP.match(text)
        if not text.strip() or (indented and _UNSET.fullmatch(text.strip())):
            return True
        if found is None or not indented:
            self.in_dump = False
            return False
        self._set(found[1], found[2].strip("\"'"), number)
        if found[1].lower() == "seed":
            self._seed(found[2], 0)
        return True

    def _set(self, name: str, value: str, number: int) -> None:
        if len(self.run.settings) < 3000 and name not in self.run.settings:
            self.run.settings[name] = value[:300]
            self.run.setting_lines[name] = number

    def _seed(self, text: str, rank: int) -> None:
        """Lower ranks are surer: 0 a dump or a line of its own, 1 anywhere in a header, 2 in other lines."""
        if rank < self.seed_rank and re.fullmatch(r"[0-9]{1,18}", text.strip()):
            self.run.seed, self.seed_rank = int(text), rank

    def _context(self, number: int, text: str, lower: str) -> None:
        run = self.run
        if "seed" in lower and (found := _SEED.search(text)):
            self._seed(found[1] or found[2], 0 if text.lower().startswith("seed") else 1 if not self.progressed else 2)
        if "param" in lower and run.params is None and (found := _PARAMS.search(text)):
            run.params = self._count(number, found[1], text)
        if "tokens" in lower and run.val_tokens is None and (found := _VAL_TOKENS.search(text)):
            run.val_tokens = self._count(number, found[1], text)
        if "shards" in lower and run.train_shards is None and (found := _TRAIN_SHARDS.search(text)):
            run.train_shards = self._count(number, found[1] or found[2], text)
        if not run.steps or ":start" in text:
            self._header(number, text)
        if not run.results:
            self._environment(text, lower)

    def _count(self, number: int, digits: str, text: str) -> Quantity:
        return Quantity(
            float(re.sub(r"[,_]", "", digits) or 0), Source(self.run.path, number, text.strip()[:300]), digits
        )

    def _header(self, number: int, text: str) -> None:
        """`train_batch_tokens:524288 train_seq_len:1024`: pairs of names and values that fill the line.

        Behind a label (`ttt_sliding:start chunks=1893 ttt_lr=0.002`) names get it as prefix: `ttt_sliding_chunks`.
        """
        words = text.split()
        pairs = [_HEADER_PAIR.fullmatch(word.strip("(),;|")) for word in words]
        if sum(pair is not None for pair in pairs) * 2 < len(words) or len(words) > 60:
            if len(words) == 2 and (found := _SETTING.match(text.strip())) and not _NO_SETTING.match(found[1]):
                self._set(found[1], found[2].strip("\"'"), number)
            return
        label = ""
        for pair in pairs:
            if pair is None:
                continue
            name, value = pair[1], pair[2]
            if value in _STATES or (name + ":").lower() in ("train_loader:", "val_loader:"):
                label = name if name not in ("train_loader", "val_loader", "val_bpb") else ""
                continue
            if label and not name.startswith(label.split("_", 1)[0]):
                name = f"{label}_{name}"
            if not _NO_SETTING.match(name):
                self._set(name, value, number)

    def _environment(self, text: str, lower: str) -> None:
        table = self.run.environment
        if text.startswith("|") and (row := _GPU_ROW.match(text)):
            self.gpus.add(row[1])
            table.setdefault("gpu", row[2].strip())
            table["gpu_count"] = str(len(self.gpus))
            return
        if not ("python" in lower or "torch" in lower or "cuda" in lower or "world" in lower or "gpu" in lower):
            return
        for name, pattern in _ENVIRONMENT:
            if name not in table and (found := pattern.search(text)):
                table[name] = next(item for item in found.groups() if item)
        if "gpu" not in table and (found := _GPU_NAME.search(text)):
            table["gpu"] = found[1].strip()

    def _died(self, number: int, text: str, lower: str) -> None:
        if "traceback (most recent call last)" in lower:
            self.traceback_line = number
        elif self.traceback_line and (
            "error" in lower or "exception" in lower or "interrupt" in lower or "exit" in lower
        ):
            found = _DIED.search(text)
            if found and not text.startswith((" ", "\t")):
                self.run.crashed = found[1].strip()[:300]

    # ------------------------------------------------------------------ at the end

    def finish(self) -> LogRun:
        """The run with what only its whole tells: training clock, kinds of sizes, whether it really died."""
        run = self.run
        if self.traceback_line and self.last_report > self.traceback_line:
            run.crashed = ""
        settle(run)
        run.train_seconds = training_clock(run)
        return run


def training_clock(run: LogRun) -> Quantity | None:
    """Training clock at the end of training: the stop line, else the last step line that shows one; seconds."""
    line: StepLine | None = run.stop if run.stop is not None and run.stop.train_seconds is not None else None
    if line is None:
        line = next((step for step in reversed(run.steps) if step.train_seconds is not None), None)
    stated = next((item for item in run.phases if _TRAINED.match(item[0])), None)
    # The last step line can be a minute before the end; a line that says how long training took is better.
    timed_stop = run.stop is not None and run.stop.train_seconds is not None
    if stated is not None and not timed_stop and (line is None or stated[2] >= (line.train_seconds or 0.0)):
        return Quantity(stated[2], Source(run.path, stated[1], stated[0]), f"{stated[2]:g} s")
    if line is None or line.train_seconds is None:
        return None
    found = re.search(r"(?i)(?:train_time|elapsed|time|\bt)\s?[:=]?\s*([\d.,]+\s?[a-z]*)", line.text)
    return Quantity(line.train_seconds, Source(run.path, line.line, line.text), found[1].strip() if found else "")


def settle(run: LogRun) -> None:
    """Decide kinds of sizes by arithmetic: a total without codec is raw when it is the raw model plus code."""
    codes = [item.size for item in run.sizes if item.kind.startswith("code")]
    settled: list[SizeLine] = []
    for item in run.sizes:
        kind = item.kind
        if kind == "model" and not item.codec:
            kind = "model raw" if _is_raw(item) else "model"
        settled.append(dataclasses.replace(item, kind=kind))
    models = [item.size for item in settled if item.kind == "model"]
    for i, item in enumerate(settled):
        if item.kind == "total" and not item.codec:
            settled[i] = dataclasses.replace(item, kind=_total_kind(item, settled, codes))
        elif item.kind == "artifact":
            total = any(item.size == model + code for model in models for code in codes)
            settled[i] = dataclasses.replace(item, kind="total" if total else "model", codec=item.codec or "artifact")
    run.sizes = settled


def _is_raw(item: SizeLine) -> bool:
    """`Serialized model: N` is the float state dict; under another name only when it is too large for an artifact."""
    return item.size > 20_000_000 or patterns.STAMP.sub("", item.text).startswith("Serialized model:")


def _total_kind(item: SizeLine, sizes: list[SizeLine], codes: list[int]) -> str:
    """A total without codec is raw when it is the float model plus code, or far larger than the packed totals."""
    models = [other.size for other in sizes if other.kind == "model"]
    raws = [other.size for other in sizes if other.kind == "model raw"]
    packed = [other.size for other in sizes if other.kind == "total" and other.codec]
    if any(item.size == model + code for model in models for code in codes):
        return "total"
    if any(item.size == raw + code for raw in raws for code in codes) or item.size > 40_000_000:
        return "total raw"
    return "total raw" if packed and item.size > 1.2 * max(packed) else "total"
