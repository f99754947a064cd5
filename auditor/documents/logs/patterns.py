"""One line of a log to typed facts. Patterns are searched anywhere in a line: logs carry stamps and rank prefixes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from auditor.documents.model import EvalResult, ProgressLine, SizeLine, StepLine

#: Characters of a line that are looked at: result lines are short, packed programs are not.
MAX_LINE = 1500

_NUM = r"[-+]?(?:\d[\d,]*)?\.?\d+(?:[eE][-+]?\d+)?"
#: `key:value`, `key: value`, `key=value`, with unit, and the spaced form for the few keys that use it.
PAIR = re.compile(
    rf"(?:(?<![\w.])(?P<key>[A-Za-z_][\w./+@-]*?)\"?\s?[:=~]\s*|"
    rf"(?<![\w.])(?P<spaced>(?:val_|train_)?(?:loss|bpb)|Loss|BPB|Time)\s+)"
    rf"(?P<num>{_NUM})(?![\w.,]*\d)\s?(?P<unit>ms|s|m|min|h)?(?![\w/])"
)
# The same without an end condition: lines written twice without a line end (`elapsed=273.8sttt_sliding:done`).
_PAIR_LOOSE = re.compile(rf"(?<![\w.])(?P<key>[A-Za-z_][\w./+@-]*?)(?P<spaced>)[:=]\s*(?P<num>{_NUM})(?P<unit>ms|s)?")
STAMP = re.compile(
    r"^\s*(?:\d{9,10}(?:\.\d+)?\s+|\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|"
    r"[+-]\d\d:?\d\d)?\]?\s*(?:-\s*)?|"
    r"\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?\s+|\[?(?:default|rank) ?\d+\]?:\s*|\[\w{2,9}\]\s+|"
    r"(?:INFO|DEBUG|WARNING)[: ]+(?:root:)?)+"
)
_STEP = re.compile(r"(?:^|[\s\]|>(])(?:(?i:step)[: ]\s*|s:(?=\d+/\d))(\d+)(?:\s*/\s*(\d+))?(?!\d*[.:]\d)")
_FRACTION_STEP = re.compile(r"^\W*(\d+)\s*/\s*(\d+)\s+(?=(?:val|train)_(?:loss|bpb))")
_STOP = re.compile(
    r"(?i:stopping[_ ]early|^stop tt:|"
    r"early[_ ]stop|wallclock[_ ]cap|wall-?clock (?:limit|cap|budget) reached|time limit reached)"
)
# `step 100/7000 | loss 5.1 | ... | 27s`: the clock stands last, without a name.
_LAST_CLOCK = re.compile(r"\|\s*(\d+(?:\.\d+)?)\s?(s|m|min)\s*$")
_LOSS_NEXT = re.compile(r"\s+(?:train|val)_loss")
_LABELLED_STEP = re.compile(r"(?i:[a-z_]\w*[: ]\w*\s*step[: ]\s*\d)")
_FRACTION = re.compile(r"(?<![\w.])[a-zA-Z]{0,6}(\d[\d,]*)\s*/\s*(\d[\d,]*)(?![\w.]*\.\d)")
_PERCENT = re.compile(r"\[\s*(\d{1,3}(?:\.\d+)?)%\]")
_BPB_KEY = re.compile(r"(?i)(?:^|_|\b)(bpb|bb|rb)$")
_NOT_RESULT = re.compile(
    r"(?i)(?:^|_)(?:train|delta|gain|baseline|target|improv\w*|best|p1|threshold|std|probe|"
    r"claimed|expected|record|diff)_?(?:val_)?bpb"
)
_LOSS_KEYS = ("val_loss", "vl", "loss", "valloss", "val_ce")
_TOKEN_KEYS = ("scored_tokens", "tokens_scored", "val_tokens", "eval_tokens", "tokens")
_TIME_KEYS = ("eval_time", "elapsed", "eval", "time", "t", "eval_seconds", "eval_time_s", "seconds", "wall")
_RUNNING_BPB = ("running_bpb", "rb", "bpb", "val_bpb", "mix_bpb", "cum_bpb", "avg_bpb", "bb")
_RUNNING_LOSS = ("running_loss", "rl", "loss", "val_loss", "vl", "avg_loss", "avg", "bl")

_BYTES = r"([\d][\d,_]*)\s*(?:bytes|B)\b"
_BARE = r"([\d][\d,_]{4,})\b(?!\.)"
_SIZES = tuple(
    (kind, re.compile("(?i)" + pattern))
    for kind, pattern in (
        (
            "total",
            r"total (?:\w+ )?(?:submission|artifact|compressed|size|"
            rf"model\s*\+\s*code)(?: size)?\s*(?P<codec>[^:=]*?)\s*[:=]\s*{_BYTES}",
        ),
        (
            "total",
            r"(?:submission[_ ]size|total[_ ](?:submission[_ ]|artifact[_ ])?bytes|bytes[_ ]total|"
            r"artifact[_ ]total)(?P<codec>)\w*\s*[:=]\s*([\d][\d,_]*)\b(?!\.)",
        ),
        ("total", rf"\|\s*total(?P<codec>)\s*[:=]\s*{_BYTES}"),
        ("total", rf"\bsize[_ ]?check\b[^\d]{{0,12}}(?P<codec>){_BARE}\s*/\s*16[,_]?000[,_]?000"),
        ("total", rf"(?:total size|submission)(?P<codec>)\s*[:=]?\s*{_BARE}\s*(?:bytes )?exceeds"),
        ("model", rf"serialized (?:\w+ )?model(?P<codec>[^:=(]*?(?:export:[\w+.-]+)?)(?:\([^)]*\))?\s*[:=]\s*{_BYTES}"),
        ("model", rf"serialized (?:\w+ )?model(?P<codec>[^:=(]*?):\S*\s+bytes[:=]{_BARE}"),
        ("total", rf"^\s*total(?P<codec>):\s*{_BYTES}"),
        ("model raw", rf"^\s*model(?P<codec>):\s*{_BYTES}"),
        ("model", rf"^\s*q(?P<codec>):\s*{_BYTES}"),
        ("model raw", rf"\braw model(?P<codec>)\s*[:=]\s*{_BYTES}"),
        (
            "model",
            r"(?:compressed model|model compressed|quantized model|"
            rf"saved compressed model)(?P<codec>[^:=]*?)\s*[:=]\s*{_BYTES}",
        ),
        ("model", rf"\bq_?size(?P<codec>)\s*[:=]\s*{_BYTES}"),
        (
            "artifact",
            r"(?:^|[\s\]])(?:final )?artifact(?:[_ ](?:size|"
            r"bytes))?(?P<codec>)\s*[:=]\s*([\d][\d,_]{5,})\b(?!\.)",
        ),
    )
)
_TRIPLE = re.compile(
    r"(?i)\bmodel\s?[:=]\s?([\d,]{5,})\D{0,12}\bcode\s?[:=]\s?([\d,]{3,})\D{0,12}\btotal\s?[:=]\s?([\d,]{5,})"
)
_CODE = re.compile(
    r"(?i)\bcode(?:[_ ](?:size|bytes))?\s*(?P<how>\([^)]*\))?\s*[:=]\s*([\d][\d,_]*)\s*(?:bytes|B\b|$)(?P<rest>[^|]*)"
)

_SECONDS = re.compile(
    r"(?i)(?:\bin\s+|\btook\s+|\bdone\s*\(|\belapsed\s*[:=]?\s*|(?:^|"
    r"[\s(_])(?:total_)?(?:\w+_)?(?:time|elapsed|seconds|t)\s*[:=]\s*)"
    r"~?([\d,]*\.?\d+)\s?(ms|seconds|secs|sec|s|minutes|min|m)?(?![\w%])"
)
_RESERVE = re.compile(r"(?i)reserv(?:e|ing)[ :=]+(\d+(?:\.\d+)?)\s?(ms|s)\b")


def numbers(text: str) -> tuple[dict[str, tuple[float, str, str]], int]:
    """`key -> (value, unit, digits as written)`, first occurrence counts, and where the first pair begins."""
    found: dict[str, tuple[float, str, str]] = {}
    first = len(text)
    for pattern in (PAIR, _PAIR_LOOSE):
        for match in pattern.finditer(text):
            key = (match["key"] or match["spaced"]).lower().rstrip("-./+@")
            if key not in found:
                value = to_number(match["num"])
                if value is not None:
                    found[key] = (value, match["unit"] or "", match["num"])
                    first = min(first, match.start())
        if "bpb" in found or "val_bpb" in found or "bpb" not in text.lower():
            break
    return found, first


def to_number(text: str) -> float | None:
    """A number as logged; thousands separators dropped, None for what is none."""
    try:
        value = float(text.replace(",", "").replace("_", ""))
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None


def to_seconds(value: float, unit: str, bare: float = 1.0) -> float:
    """Seconds of a printed time; `bare` is the factor of a number without unit."""
    if unit.startswith("ms"):
        return value / 1e3
    if unit in ("m", "min", "minutes"):
        return value * 60
    return value * 3600 if unit == "h" else value * (1.0 if unit else bare)


@dataclass(frozen=True)
class StepFact:
    """A step line, or the line that stops training."""

    line: StepLine
    stops: bool = False


def step_fact(text: str, number: int) -> StepFact | None:
    """Progress of training in either style; None for lines that only mention a step."""
    found = _FRACTION_STEP.match(text)
    if found is None:
        found = _STEP.search(text)
        if found is None:
            return None
    stops = _STOP.search(text) is not None
    # `late_qat:enabled step:6316 scale:0.15` and `warmup_step` speak of a step, they do not report one.
    if not stops and _LABELLED_STEP.search(text[: found.end()]) and not _LOSS_NEXT.match(text, found.end()):
        return None
    pairs, _ = numbers(text)
    step, total = int(found[1]), int(found[2]) if found[2] else None
    fact = StepLine(
        number,
        min(step, 10**12),
        total,
        _value(pairs, "train_loss", "loss", "lm_loss", "tl"),
        _value(pairs, "val_loss", "vl"),
        _value(pairs, "val_bpb", "bpb"),
        _clock(pairs, text),
        _step_ms(pairs),
        text.strip()[:300],
    )
    empty = fact.train_loss is None and fact.val_loss is None and fact.val_bpb is None
    if empty and not stops and (fact.train_seconds is None or total is None):
        return None
    return StepFact(fact, stops)


def stop_fact(text: str, number: int, step: int) -> StepLine | None:
    """The line that stops training where it names no step: `stopping_early: wallclock_cap train_time:599224ms`."""
    if not _STOP.search(text):
        return None
    seconds = _clock(numbers(text)[0], text)
    return None if seconds is None else StepLine(number, step, train_seconds=seconds, text=text.strip()[:300])


def _value(pairs: dict[str, tuple[float, str, str]], *keys: str) -> float | None:
    return next((pairs[key][0] for key in keys if key in pairs), None)


def _clock(pairs: dict[str, tuple[float, str, str]], text: str) -> float | None:
    """Seconds; a large `train_time` without unit is milliseconds, as the baseline counts."""
    for key in ("train_time", "elapsed", "time", "t", "tt", "wallclock", "wall"):
        if key in pairs:
            value, unit, _ = pairs[key]
            return to_seconds(value, unit, 1e-3 if key == "train_time" and value > 21_600 else 1.0)
    last = _LAST_CLOCK.search(text)
    return to_seconds(float(last[1]), last[2]) if last else None


def _step_ms(pairs: dict[str, tuple[float, str, str]]) -> float | None:
    for key in ("step_avg", "sa", "ms/step", "step_ms", "avg_step", "step_time", "dt"):
        if key in pairs:
            value, unit, _ = pairs[key]
            return value * 1e3 if unit == "s" else value
    return None


def progress_fact(text: str, number: int) -> ProgressLine | None:
    """A running value of an evaluation: position of how many (or per cent) with a BPB, a loss or a clock."""
    found, percent = _FRACTION.search(text), _PERCENT.search(text)
    if found is None and percent is None:
        return None
    pairs, first = numbers(text)
    bpb = _value(pairs, *_RUNNING_BPB)
    loss = _value(pairs, *_RUNNING_LOSS)
    if bpb is None and (loss is None or "ttt" not in text.lower()) and not _TTT_COUNTER.search(text):
        return None
    mark = found or percent
    assert mark is not None
    if found is not None:
        index, total = int(found[1].replace(",", "")), int(found[2].replace(",", ""))
    else:
        index, total = round(float(percent[1])), 100  # type: ignore[index]
    if total == 0 or index > 10**12 or total > 10**12:
        return None
    seconds = next((to_seconds(pairs[k][0], pairs[k][1]) for k in ("elapsed", "time", "t") if k in pairs), None)
    begins = [item.start() for item in (found, percent) if item is not None]
    label = label_of(text[: min(first, *begins)]) or label_of(text[: min(begins)])
    return ProgressLine(number, label, index, total, bpb, loss, seconds, text.strip()[:300])


_TTT_COUNTER = re.compile(r"(?i)\btt\w*:.*\bt:\d")


def label_of(text: str) -> str:
    """Words before the first number of a line as a label: `final_int6_roundtrip`, `DIAGNOSTIC post_ema`."""
    words = re.sub(r"\s+", " ", text).strip(' \t:|-=,[(>*"').strip()
    # A launcher may put the name of the run before every line: `run7: final_ttt val_loss:...`.
    return words.rsplit(": ", 1)[-1][-80:]


_QUALIFIED = re.compile(r"(?i)\b((?:val_)?bpb)\s*\(([^()\d]{0,30}(?:\d\w*)?[^()]{0,20})\)\s*(?=[:=])")


def result_facts(text: str, number: int) -> list[EvalResult]:
    """Results a line reports: one for each BPB that is no difference, target or training value."""
    shown = text.strip()[:300]
    # `EMA BPB (no XSA): 1.0015`: the qualifier belongs to the label.
    text = _QUALIFIED.sub(r"(\2) \1", text) if "(" in text else text
    pairs, first = numbers(text)
    keys = [key for key in pairs if _BPB_KEY.search(key) and not _NOT_RESULT.search(key) and key not in ("bb", "rb")]
    if not keys:
        return []
    label = label_of(text[:first])
    seconds = next((to_seconds(*pairs[k][:2]) for k in _TIME_KEYS if k in pairs), None)
    found = []
    for key in keys:
        value, _, written = pairs[key]
        if not 0 <= value < 100:
            continue
        prefix = re.sub(r"_?(?:val_)?bpb$", "", key)
        loss = _value(pairs, f"{prefix}_loss", f"{prefix}_val_loss") if prefix else _value(pairs, *_LOSS_KEYS)
        if not prefix and loss is None and len(keys) > 1 and key != keys[0]:
            continue
        digits = len(written.partition(".")[2].partition("e")[0])
        name = f"{label} {prefix}".strip() if prefix else label
        found.append(EvalResult(number, name or key, loss, value, seconds, digits, shown, _scored_tokens(pairs)))
    return found


def _scored_tokens(pairs: dict) -> int | None:
    """Number of targets a result line states, a whole number without a unit."""
    for key in _TOKEN_KEYS:
        if key in pairs and not pairs[key][1] and re.fullmatch(r"\d[\d,]*", pairs[key][2]):
            return int(pairs[key][0])
    return None


def size_facts(text: str, number: int) -> list[SizeLine]:
    """Sizes a line states, bytes. "artifact" and totals without a codec are settled by the run (`runs.settle`)."""
    shown = text.strip()[:300]
    found: list[SizeLine] = []
    triple = _TRIPLE.search(text)
    if triple and "raw" not in text.lower():
        names = ("model", "code", "total")
        return [
            SizeLine(number, k, int(v.replace(",", "")), "", shown) for k, v in zip(names, triple.groups(), strict=True)
        ]
    for kind, pattern in _SIZES:
        match = pattern.search(text)
        if match and not any(item.kind.startswith(kind[:5]) for item in found):
            value = int(re.sub(r"[,_]", "", match[match.lastindex or 1]))
            found.append(SizeLine(number, kind, value, _codec(match["codec"]), shown))
    match = _CODE.search(text)
    if match:
        value = int(re.sub(r"[,_]", "", match[2]))
        note = f"{match['how'] or ''} {match['rest'] or ''}".lower()
        packed = re.search(r"(?<!un)compressed|lzma|packed|minif|zlib|brotli", note) is not None
        found.append(SizeLine(number, "code packed" if packed else "code", value, "", shown))
        raw = re.search(r"(?:raw|uncompressed|source)\D{0,3}([\d,]{4,})", note)
        if packed and raw:
            found.append(SizeLine(number, "code", int(raw[1].replace(",", "")), "", shown))
    return [item for item in found if item.size < 10**13]


def _codec(text: str | None) -> str:
    words = re.sub(r"(?i)\b(?:size|submission|total|bytes|compressed|the|of|model)\b", " ", text or "")
    return re.sub(r"\s+", " ", words).strip(" ()[]-:|,")[:40]


def phase_fact(text: str, number: int) -> tuple[str, int, float] | None:
    """A timed phase: `GPTQ:collected 67 Hessians in 4.1s` becomes ("GPTQ:collected Hessians", line, 4.1)."""
    reserved = _RESERVE.search(text)
    if reserved is not None and (value := to_number(reserved[1])) is not None:
        return f"{label_of(text[: reserved.start()])}:reserving".lstrip(":"), number, to_seconds(value, reserved[2])
    match = _SECONDS.search(text)
    if match is None:
        return None
    value = to_number(match[1])
    if value is None or (not match[2] and "time" not in match[0].lower() and "elapsed" not in match[0].lower()):
        return None
    name = re.sub(r"(?<![A-Za-z_])[-+]?\d[\d,.]*%?", " ", text[: match.start()] if match.start() > 2 else text)
    name = re.sub(r"\b\w+[=:](?=\s|$)|\(\s*\)", " ", name)
    if match.start() <= 2 or not re.search(r"[A-Za-z]{2}", name):
        name = re.split(r"[:=]", text.strip(), maxsplit=1)[0]
    name = label_of(name)
    return (name, number, to_seconds(value, match[2] or "")) if name else None
