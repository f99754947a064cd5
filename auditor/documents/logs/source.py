"""Where a log holds a copy of the program that wrote it: its f-strings look like results and must not be read so."""

from __future__ import annotations

import re
from collections.abc import Sequence

_IMPORT = re.compile(r"(?:import \w|from [\w.]+ import )")
_CODE = re.compile(
    r"\s*(?:import |from [\w.]+ import |def |class |async def |if .*:|elif .*:|else:|for .*:|"
    r"while .*:|try:|except|finally:|"
    r"with .*:|return\b|raise\b|assert\b|del |global |pass$|break$|continue$|@\w|#|\"\"\"|'''|[\])}]+[,:)]?\s*$|"
    r"[\w.\[\]\"', ]+(?:: ?[\w\[\]., |]+)? [-+*/|&@%]?= \S|[\w.]+\(.*[(,)]\s*$|\w+=\S.*;)"
)
_INDENTED = re.compile(r"(?: {4}|\t)\s*\S")
# Lines only a running program prints, at the first column or behind a time stamp. No `search`: code never begins so.
_LOG = re.compile(
    r"(?:\[?[\d:. T-]{5,30}\]?\s+)?(?:"
    r"step[: ]\s*\d+/\d+|\d+/\d+ (?:train|val)_loss|model_params: ?\d|world_size: ?\d|"
    r"(?:loop_)?warmup_step: ?\d|train_loader:dataset|"
    r"val_bpb:enabled|[WIE]\d{4} \d\d:|peak memory alloc|seed: ?\d+\s*$|Running P|"
    r"\| NVIDIA-SMI|\+-{20}|={60,}\s*$|-{60,}\s*$|"
    r"Hyperparameters:|train_batch_tokens: ?\d|stopping_early|Serialized model|Code size|gptq:|attention_mode|"
    r"final_\w+ val_loss|Traceback \(most|train_shards: ?\d|val_tokens: ?\d|logs/\S+\.txt\s*$|"
    r"\w{3} \w{3} +\d+ \d\d:\d\d:\d\d)"
)
_PACKED = 2000
_WINDOW = 60
_SEARCH_LIMIT = 200_000


def find_source(lines: Sequence[str], start: int = 0) -> tuple[int, int] | None:
    """Half-open 0-based line range of the next program printed at or after `start`, None when there is none.

    A program begins with an import that more code follows (with the comments and docstring before it), or in the
    middle when the log's own beginning was cut. It ends before the first line that only a running program prints.
    """
    for i in range(start, len(lines)):
        line = lines[i]
        if line[:5] in ("impor", "from ") and _IMPORT.match(line) and _is_code(lines, i):
            return _before(lines, i, start), _end(lines, i)
        if line[:4] in ("def ", "clas", "@tor", "if _") and _starts_inside(lines, i):
            return _back_to_log(lines, i, start), _end(lines, i)
        if i == start == 0 and _starts_inside(lines, 0):
            return 0, _end(lines, 0)
    return None


def _is_code(lines: Sequence[str], i: int) -> bool:
    window = [line for line in lines[i : i + _WINDOW] if line.strip()]
    if any(len(line) >= _PACKED for line in window[:12]):
        return True
    code = 0
    for line in window:
        if _LOG.match(line):
            break
        code += bool(_CODE.match(line) or _INDENTED.match(line))
    return code >= 8


def _starts_inside(lines: Sequence[str], i: int) -> bool:
    """A program whose beginning was cut (by a terminal or a filter): dense code from its middle on."""
    window = [line for line in lines[i : i + _WINDOW] if line.strip()]
    if len(window) < 20 or any(_LOG.match(line) for line in window[:20]):
        return False
    code = sum(bool(_CODE.match(line) or _INDENTED.match(line)) for line in window)
    definitions = sum(line.lstrip().startswith(("def ", "class ", "return ")) for line in window)
    return code >= 0.7 * len(window) and definitions >= 2


def _back_to_log(lines: Sequence[str], i: int, floor: int) -> int:
    """First line of the code around a definition in the middle of a program."""
    first = i
    for k in range(i - 1, floor - 1, -1):
        line = lines[k]
        if line.strip() and (_LOG.match(line) or not (_CODE.match(line) or _INDENTED.match(line))):
            break
        first = k if line.strip() else first
    return first


def _before(lines: Sequence[str], i: int, floor: int) -> int:
    """First line of the comments and the docstring that stand before the first import."""
    first = i
    k = i - 1
    quote = ""
    for k in range(i - 1, max(floor, i - 80) - 1, -1):
        text = lines[k].strip()
        marks = [q for q in ('"""', "'''") if q in text]
        if quote:
            if quote in text:
                quote, first = "", k
            continue
        if marks:
            quote = "" if text.count(marks[0]) >= 2 else marks[0]
            first = k if not quote else first
        elif text.startswith("#"):
            first = k
        elif text:
            break
    return first


def _end(lines: Sequence[str], i: int) -> int:
    stop = len(lines)
    for k in range(i + 1, len(lines)):
        line = lines[k]
        if line and line[0] not in " \t" and _LOG.match(line):
            stop = k
            break
    while stop > i + 1 and not _belongs(lines[stop - 1]):
        stop -= 1
    return stop


def _belongs(line: str) -> bool:
    """Whether a program can end with this line: lines of an unknown format after it are the log's."""
    return len(line) >= _PACKED or bool(_CODE.match(line) or _INDENTED.match(line))
