"""Numbers as printed: what a decimal text leaves open, and arithmetic that keeps track of it.

Every tolerance of the ledger comes from here. A line that prints `1.1194` says that the value lay in
[1.11935, 1.11945]; two numbers contradict each other only when no value could have been printed as both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:[,_]\d{3})+(?!\d)|\d+)?(?:\.(\d*))?(?:[eE]([-+]?\d+))?")


@dataclass(frozen=True)
class Interval:
    """A closed range of real numbers, `low <= high`."""

    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """The range that holds one value."""
        return cls(value, value)

    @property
    def middle(self) -> float:
        """Centre of the range."""
        return (self.low + self.high) / 2

    @property
    def width(self) -> float:
        """`high - low`."""
        return self.high - self.low

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def overlaps(self, other: Interval) -> bool:
        """True when some value lies in both ranges (touching counts: a printed 5 may come from either
        side)."""
        slack = 4e-16 * max(abs(self.low), abs(self.high), abs(other.low), abs(other.high))
        return self.low <= other.high + slack and other.low <= self.high + slack

    def widened(self, by: float) -> Interval:
        """The range with `by` added on both sides."""
        return Interval(self.low - by, self.high + by)

    def scaled(self, factor: float) -> Interval:
        """The range times a non-negative factor."""
        return Interval(self.low * factor, self.high * factor)

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        products = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(products), max(products))

    def __truediv__(self, other: Interval) -> Interval:
        """Quotient of two ranges.

        Raises:
            ZeroDivisionError: the divisor's range holds zero.
        """
        if other.low <= 0 <= other.high:
            raise ZeroDivisionError(f"division by the range {other.low:g}..{other.high:g}, which holds zero")
        return self * Interval(1 / other.high, 1 / other.low)


def unit_of(text: str) -> float:
    """Unit of the last printed digit of the first number in `text`: 1 for `600`, 1e-4 for `~1.1194`, 1e-6 for
    `1.5e-5`; thousands separators are read as such. 0.0 when the text holds no number."""
    for match in _NUMBER.finditer(text):
        if not any(character.isdigit() for character in match.group()):
            continue
        decimals = len(match.group(1) or "")
        return 10.0 ** (int(match.group(2) or 0) - decimals)
    return 0.0


def unit_of_value(value: float, text: str = "") -> float:
    """Like `unit_of`, from the value's shortest decimal form when there is no text."""
    return unit_of(text) or unit_of(repr(value))


def rounded(value: float, text: str = "", digits: int | None = None) -> Interval:
    """What a program's printed number leaves open: half a unit of its last digit on both sides.

    `digits` (number of decimals) is for lines whose text is not at hand.
    """
    unit = 10.0**-digits if digits is not None else unit_of_value(value, text)
    return Interval(value - unit / 2, value + unit / 2)


def stated(value: float, text: str = "", factor: float = 1.0) -> Interval:
    """What a number written by a person leaves open: one unit of its last digit, because people cut digits
    off as often as they round. `factor` converts the printed unit (MB, ms) to the unit of `value`."""
    unit = unit_of_value(value / factor, text) * factor
    # A "~" or "about" says that the writer gave up on the last digit.
    if re.match(r"\s*(~|≈|about|approx|ca\.)", text):
        unit *= 5
    return Interval(value - unit, value + unit)


def hull(ranges: Iterable[Interval]) -> Interval:
    """Smallest range that holds all of them.

    Raises:
        ValueError: there are none.
    """
    items = list(ranges)
    return Interval(min(item.low for item in items), max(item.high for item in items))


def mean_interval(ranges: Iterable[Interval]) -> Interval:
    """Range of the arithmetic mean of values that lie in the given ranges."""
    items = list(ranges)
    return Interval(
        math.fsum(item.low for item in items) / len(items),
        math.fsum(item.high for item in items) / len(items),
    )
