"""Markdown tables of results: columns recognised by the words of their header, rows by the seed they name."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from auditor.documents import amounts
from auditor.documents.model import Quantity, Source

#: metric -> words of a column header (lower case), first match counts; None drops the column.
_COLUMNS: tuple[tuple[str | None, re.Pattern[str]], ...] = (
    ("seed", re.compile(r"^\W*(?:seeds?|run ?/ ?seed|random seed)\b")),
    (None, re.compile(r"delta|Δ|\bdiff|\bvs\b|gain|improve|change|margin|%|baseline|sota|merged|status|note")),
    (
        "pre_bpb",
        re.compile(
            r"pre[- _]?(?:quant|ttt|gptq)\w*|post[- _]?ema|float|fp32|bf16|raw bpb|no ttt|w/o|without|"
            r"roundtrip|before|\bema\b|pass[ _-]?\d"
        ),
    ),
    ("steps", re.compile(r"^\W*(?:(?!ms)\w+[ _])?(?:steps?|iterations|iters)\b")),
    ("step_ms", re.compile(r"ms ?/ ?step|step[_ ](?:avg|time|ms)|ms per step|\bms\b.*step|avg step")),
    ("std", re.compile(r"^\W*(?:std|stdev|sd|σ)\b")),
    ("p_value", re.compile(r"^\W*p(?:-| |_)?val")),
    ("val_bpb", re.compile(r"bpb|score")),
    ("val_loss", re.compile(r"loss|nats")),
    ("code_bytes", re.compile(r"^\W*code")),
    ("model_bytes", re.compile(r"^\W*(?:model|weights|compressed)\b.*(?:bytes|size|mb|mib)?$")),
    ("artifact_bytes", re.compile(r"artifact|total|bytes|size|submission|\bmi?b\b")),
    (
        "eval_seconds",
        re.compile(
            r"(?:eval|ttt).*(?:time|s\b|sec|wall|ms)|(?:time|wall).*(?:eval|ttt)|^\W*(?:eval|"
            r"ttt)\W*(?:\(s\))?$"
        ),
    ),
    ("train_seconds", re.compile(r"train.*(?:time|s\b|sec|wall|ms)|wall|^\W*time|train_ms|^\W*train\W*$|stop")),
)
_KINDS = {
    "val_bpb": "val_bpb",
    "pre_bpb": "val_bpb",
    "val_loss": "val_loss",
    "steps": "steps",
    "train_seconds": "seconds",
    "eval_seconds": "seconds",
    "step_ms": "step_ms",
    "std": "std",
    "p_value": "p_value",
}
_SEED_CELL = re.compile(r"^\W*(?:seed|run|s)?[\s_=:#-]*(\d{1,10})\b(?!\.\d)", re.IGNORECASE)
_SUMMARY = re.compile(r"(?i)mean|average|avg|median|std|stdev|σ|total|delta|improvement")
_CELL_NUMBER = re.compile(r"(?<![\w.])[~≈]?(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*(?:e-?\d+)?)")


@dataclass
class Table:
    """Quantities of a table: `values` as (kind, quantity) in reading order, `seeds` for rows that name a seed."""

    values: list[tuple[str, Quantity]] = field(default_factory=list)
    seeds: dict[str, dict[str, Quantity]] = field(default_factory=dict)


def cells(line: str) -> list[str]:
    """Cells of a table row without emphasis and code marks."""
    inner = line.strip().removeprefix("|").removesuffix("|")
    return [re.sub(r"[*`]|</?\w+>", "", cell).strip() for cell in re.split(r"(?<!\\)\|", inner)]


def column(header: str) -> str | None:
    """Metric of a column header, None when it is no result."""
    lower = header.lower().strip()
    return next((metric for metric, pattern in _COLUMNS if pattern.search(lower)), None)


def read_table(path: str, lines: list[str], first: int) -> Table:
    """Read a table whose header is line `first` of the file (1-based); its second line is the rule."""
    found = Table()
    header = cells(lines[0])
    metrics = [column(cell) for cell in header]
    seeds_across = [_SEED_CELL.match(cell) if "seed" in cell.lower() else None for cell in header]
    for offset, line in enumerate(lines[2:], 2):
        row = cells(line)
        if sum(match is not None for match in seeds_across) >= 2:
            _across(path, first + offset, line, row, seeds_across, found)
        else:
            _row(path, first + offset, line, row, header, metrics, found)
    return found


def _row(
    path: str, number: int, line: str, row: list[str], header: list[str], metrics: list[str | None], found: Table
) -> None:
    seed = _seed(row, metrics)
    kept: dict[str, Quantity] = {}
    scored = False
    label = "" if seed is not None or not row else row[0].lower()
    for cell, head, metric in zip(row, header, metrics, strict=False):
        name = metric
        if name is None and label and not kept and len(metrics) <= 3:
            name = column(label)  # a table of two columns: the metric is named by the row
            if name == "pre_bpb" and "bpb" not in label:
                continue  # `EMA | decay 0.997` is a setting; as a column beside scores it would be a score
        if name is None or name == "seed":
            continue
        quantity = _quantity(path, number, line, cell, head if metric else label, name)
        if quantity is None:
            continue
        if name in _KINDS:
            found.values.append((_KINDS[name], quantity))
        elif name.endswith("bytes"):
            found.values.append((_size_kind(cell, head), quantity))
        # A column named val_bpb is the score; otherwise the last: tables read from before to after.
        plain = name == "val_bpb" and re.fullmatch(r"\W*(?:val[_ ])?bpb\W*", head.lower()) is not None
        if name not in kept or plain or (name == "val_bpb" and not scored):
            kept[name] = quantity
            scored = scored or plain
    if seed is not None:
        if "val_bpb" not in kept and "pre_bpb" in kept:
            kept["val_bpb"] = kept["pre_bpb"]
        kept.pop("pre_bpb", None)
        if kept:
            found.seeds.setdefault(seed, {}).update(kept)


def _seed(row: list[str], metrics: list[str | None]) -> str | None:
    for cell, metric in zip(row, metrics, strict=False):
        if metric == "seed":
            match = _SEED_CELL.match(cell)
            return None if match is None or _SUMMARY.search(cell) else str(int(match[1]))
    match = re.match(r"(?i)^\W*seed[\s_=:#-]*(\d{1,10})\b", row[0]) if row else None
    return str(int(match[1])) if match else None


def _across(path: str, number: int, line: str, row: list[str], seeds: list[re.Match[str] | None], found: Table) -> None:
    """A table with one column per seed: the row names the metric."""
    name = column(row[0]) if row else None
    if name in (None, "seed", "pre_bpb"):
        return
    assert name is not None
    for cell, seed in zip(row, seeds, strict=False):
        quantity = _quantity(path, number, line, cell, row[0], name) if seed else None
        if seed and quantity:
            found.seeds.setdefault(str(int(seed[1])), {}).setdefault(name, quantity)
            found.values.append((_KINDS.get(name, "bytes"), quantity))


def _quantity(path: str, number: int, line: str, cell: str, head: str, name: str) -> Quantity | None:
    match = _CELL_NUMBER.search(cell)
    if match is None or re.match(r"^\W*[-+−±]\s*\d", cell):
        return None
    value = amounts.to_float(match[1])
    text = match[1]
    if name.endswith("bytes"):
        amount = amounts.size(cell[match.start() :], name=re.sub(r"[^a-z]+", "_", head.lower()))
        value, text = (amount.value, cell) if amount else (None, "")
    elif name.endswith("seconds"):
        amount = amounts.seconds(cell[match.start() :], name=re.sub(r"[^a-z]+", "_", head.lower()))
        value, text = (amount.value, cell) if amount else (None, "")
    if value is None or (name in ("val_bpb", "pre_bpb") and not 0 < value < 10):
        return None
    return Quantity(value, Source(path, number, line.strip()[:300], head), text)


def _size_kind(cell: str, head: str) -> str:
    shown = f"{cell} {head}"
    if re.search(r"MiB", shown):
        return "mib"
    return "mb" if re.search(r"\bMB\b", shown) else "bytes"
