"""Numbers in other JSON files of the folder (results an evaluation script wrote): evidence beside the logs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from auditor.documents.ledger.common import (
    CONFLICTS,
    Parts,
    file_size,
    listing,
    number,
    place,
    row,
    size_says,
)
from auditor.documents.model import Claim, Quantity, Source
from auditor.errors import AuditorError

#: Larger JSON files are tokenizers, traces or data, not results.
MAX_BYTES = 65_536
_SIZE_KEY = re.compile(
    r"(?:file|artifact|model|total|submission|compressed)\w*bytes|bytes\w*(?:total|model|artifact)", re.I
)
_DONE_KEY = re.compile(r"chunks?_(?:processed|scored|done|evaluated)|(?:processed|scored|evaluated)_chunks?", re.I)
_ALL_KEY = re.compile(r"total\w*_chunks?|num_chunks_total|chunks?_total", re.I)


def result_rows(parts: Parts) -> Iterator[Claim]:
    """Rows from result files: artifact sizes other than the claimed one, evaluations cut short."""
    numbers = list(result_numbers(parts))
    yield from _size_row(parts, numbers)
    yield from _coverage_rows(parts, numbers)


def result_numbers(parts: Parts) -> Iterator[Quantity]:
    """Every number of the small JSON files of the folder that are not metadata, with its key path."""
    for path in parts.submission.files:
        size = file_size(parts, path)
        if not path.endswith(".json") or path in parts.submission.metadata or not size or size > MAX_BYTES:
            continue
        try:
            data = json.loads(parts.submission.read(path).decode("utf-8-sig"))
        except (ValueError, RecursionError, KeyError, AuditorError):
            continue
        yield from _numbers(data, path, "")


def _numbers(data: object, path: str, key: str, depth: int = 0) -> Iterator[Quantity]:
    if isinstance(data, dict) and depth < 8:
        for name, value in data.items():
            yield from _numbers(value, path, f"{key}.{name}" if key else str(name), depth + 1)
    elif isinstance(data, (int, float)) and not isinstance(data, bool):
        yield Quantity(float(data), Source(path, key=key), repr(data))


def _size_row(parts: Parts, numbers: list[Quantity]) -> Iterator[Claim]:
    data = parts.main
    told = [item for item in (data.artifact_bytes, data.model_bytes) if item is not None] if data else []
    found = [item for item in numbers if _SIZE_KEY.search(item.source.key) and 1e6 <= item.value <= 1e8]
    if not told or not found:
        return
    other = [item for item in found if not any(size_says(claim, item.value) for claim in told)]
    claimed = listing(f"{number(claim.value)} ({place(claim)})" for claim in told)
    note = f"{listing(f'{place(item)} says {number(item.value)} bytes' for item in other)}; stated are {claimed}"
    yield row("artifact bytes", "result files", claimed=told, evidence=found, unit="bytes",
              computed=max(item.value for item in found), how="largest size in a result file",
              status=CONFLICTS if other else None, note=note if other else "")  # fmt: skip


def _coverage_rows(parts: Parts, numbers: list[Quantity]) -> Iterator[Claim]:
    """`chunks_processed: 900` beside `total_possible_chunks: 1893`, in submission.json or a result file."""
    if parts.main is not None and parts.main.raw:
        numbers = [*_numbers(parts.main.raw, parts.main.path, ""), *numbers]
    for done in numbers:
        if not _DONE_KEY.search(done.source.key):
            continue
        whole = [item for item in numbers if _ALL_KEY.search(item.source.key) and item.source.path == done.source.path]
        if whole and 0 < done.value < whole[0].value:
            share = done.value / whole[0].value
            note = (
                f"{place(done)} says {number(done.value)} of {number(whole[0].value)} chunks were scored, "
                f"{share:.1%} of the validation set"
            )
            yield row("scored share", "submission", claimed=(done, whole[0]), computed=share, unit="share",
                      how="chunks scored / all chunks", status=CONFLICTS, note=note)  # fmt: skip
            return


def stated_elsewhere(parts: Parts, value: float, unit: float) -> Quantity | None:
    """A number of a result file that equals `value` within `unit`, with a key that speaks of BPB."""
    for item in result_numbers(parts):
        if "bpb" in item.source.key.lower() and abs(item.value - value) <= unit:
            return item
    return None
