"""Numbers with units as people write them: sizes to bytes, durations to seconds. The text stays with the value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

MIB = 1 << 20
NUMBER = r"[-+]?(?:\d{1,3}(?:[,_ ]\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?"

_NUMBER = re.compile(NUMBER)
_SIZE = re.compile(rf"({NUMBER})\s*(MiB|MB|Mb|mb|M(?![A-Za-z])|KiB|kiB|KB|kB|kb|GiB|GB|bytes?|B(?![A-Za-z]))?")
_PART = re.compile(
    r"(\d[\d,]*(?:\.\d+)?)\s*(ms|milliseconds?|msec|hours?|hrs?|h(?![a-z])|minutes?|mins?|"
    r"m(?![a-zA-Z])|seconds?|secs?|s(?![a-z]))"
)
_FACTORS = {
    "mib": MIB,
    "mb": 1e6,
    "m": 1e6,
    "kib": 1024,
    "kb": 1e3,
    "gib": 1 << 30,
    "gb": 1e9,
    "b": 1,
    "byte": 1,
    "bytes": 1,
}


@dataclass(frozen=True)
class Amount:
    """`value` in bytes or seconds, `text` as written, `guessed` when no unit was given and magnitude decided."""

    value: float
    text: str
    guessed: bool = False


def number(text: str) -> float | None:
    """First number of a text, thousands separators dropped; None when there is none or it is not finite."""
    found = _NUMBER.search(text)
    return to_float(found.group()) if found else None


def to_float(text: str) -> float | None:
    """A number as written (`15,510,640`, `16_000_000`, `1.5e-3`), None when it is none or not finite."""
    try:
        value = float(re.sub(r"[,_ ]", "", text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def size(value: object, text: str = "", name: str = "") -> Amount | None:
    """A size in bytes. The unit stands in the text, else in the name of the key, else the magnitude decides."""
    shown = text or str(value)
    if isinstance(value, bool) or value is None:
        return None
    found = _SIZE.search(shown)
    amount = to_float(found[1]) if found else None
    if amount is None or amount <= 0 or found is None:
        return None
    if found[2]:
        return Amount(amount * _FACTORS[found[2].lower()], shown.strip())
    unit = re.search(r"(?:^|_)(mib|mb|kib|kb|bytes)(?:_|$)", name.lower())
    # A key that says bytes and a value of 15.5 contradict each other: nobody ships a model of 15.5 bytes.
    if unit and not (unit[1] == "bytes" and amount < 1000 and amount != int(amount)):
        return Amount(amount * _FACTORS[unit[1]], shown.strip())
    if amount >= 1000:
        return Amount(amount, shown.strip())
    return Amount(amount * 1e6, shown.strip(), guessed=True)


def seconds(value: object, text: str = "", name: str = "") -> Amount | None:
    """A duration in seconds. The unit stands in the text, else in the name of the key, else the magnitude decides."""
    shown = text or str(value)
    if isinstance(value, bool) or value is None:
        return None
    parts = _PART.findall(shown[:200])
    if parts:
        return Amount(_first_sum(parts), shown.strip())
    amount = number(shown)
    if amount is None or amount < 0:
        return None
    lower = name.lower()
    if re.search(r"(?:^|_)(?:ms|millis\w*|msec)(?:_|$)", lower):
        return Amount(amount / 1e3, shown.strip())
    if re.search(r"(?:^|_)(?:min|mins|minutes?)(?:_|$)", lower):
        return Amount(amount * 60, shown.strip())
    if re.search(r"(?:^|_)(?:h|hours?)(?:_|$)", lower):
        return Amount(amount * 3600, shown.strip())
    if re.search(r"(?:^|_)(?:s|secs?|seconds?)(?:_|$)", lower):
        return Amount(amount, shown.strip())
    # Without any unit: no pass lasts six hours in these documents, but 599,608 ms is common.
    return Amount(amount / 1e3 if amount > 21_600 else amount, shown.strip(), guessed=True)


def _first_sum(parts: list[tuple[str, str]]) -> float:
    """`10m 3s` is one duration, `600s (10 min)` states one twice: only descending units are added."""
    total, last = 0.0, math.inf
    for amount, unit in parts:
        factor = _unit_seconds(unit)
        if factor >= last:
            break
        total += float(amount.replace(",", "")) * factor
        last = factor
    return total


def _unit_seconds(unit: str) -> float:
    if unit.startswith("h"):
        return 3600.0
    if unit.startswith(("ms", "milli")):
        return 1e-3
    return 60.0 if unit.startswith("m") else 1.0
