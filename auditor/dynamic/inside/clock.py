"""What a program compares its own clock with: the seconds after which a loop ends, whatever this machine's speed is.

Times of the `time` module come as numbers that know they are times. Differences, sums and multiples keep that, as a
multiple of seconds plus something fixed, and a comparison with a fixed number tells after how many seconds it turns over:
the limit of a training loop, less what is set aside for later. The run itself goes on as it would.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

_SOURCES = ("time", "perf_counter", "monotonic")
_MOST = 64  # different comparisons that are told


class Time(float):
    """A float that is `scale` times some seconds, plus `offset`; `since` tells whether the seconds are those of a span, or
    of the clock itself. `told` is called with the seconds at which a comparison turns over."""

    scale: float
    offset: float
    since: bool
    told: Callable[[float], None]

    def __add__(self, other: Any) -> Any:
        return _sum(self, other, float.__add__(self, other), 1.0)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return _sum(self, other, float.__sub__(self, other), -1.0)

    def __rsub__(self, other: Any) -> Any:
        result = float.__rsub__(self, other)
        if isinstance(other, Time) or result is NotImplemented:
            return result
        return _made(result, -self.scale, float(other) - self.offset, self.since, self.told)

    def __mul__(self, other: Any) -> Any:
        return _times(self, other, float.__mul__(self, other), other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return _times(self, other, float.__truediv__(self, other), 1.0 / other if _fixed(other) and other else None)

    def __neg__(self) -> Any:
        return _made(float.__neg__(self), -self.scale, -self.offset, self.since, self.told)

    def __lt__(self, other: Any) -> Any:
        _compared(self, other)
        return float.__lt__(self, other)

    def __le__(self, other: Any) -> Any:
        _compared(self, other)
        return float.__le__(self, other)

    def __gt__(self, other: Any) -> Any:
        _compared(self, other)
        return float.__gt__(self, other)

    def __ge__(self, other: Any) -> Any:
        _compared(self, other)
        return float.__ge__(self, other)

    def __reduce__(self) -> Any:
        return float, (float(self),)


def _made(value: Any, scale: float, offset: float, since: bool, told: Callable[[float], None]) -> Any:
    if type(value) is not float or not math.isfinite(scale) or scale == 0:
        return value
    made = Time(value)
    made.scale, made.offset, made.since, made.told = scale, offset, since, told
    return made


def _fixed(other: Any) -> bool:
    return isinstance(other, int | float) and not isinstance(other, Time)


def _sum(one: Time, other: Any, result: Any, sign: float) -> Any:
    """A time and a number, two spans of one unit, or a span between two times."""
    if _fixed(other):
        return _made(result, one.scale, one.offset + sign * float(other), one.since, one.told)
    if not isinstance(other, Time) or other.scale != one.scale:
        return result
    # What the clock shows may be moved by a span; two of them make a span, and their sum nothing.
    sensible = sign < 0 if not one.since and not other.since else (not one.since or other.since or sign > 0)
    since = one.since == other.since
    return _made(result, one.scale, one.offset + sign * other.offset, since, one.told) if sensible else result


def _times(one: Time, other: Any, result: Any, factor: float | None) -> Any:
    if not _fixed(other) or factor is None:
        return result
    return _made(result, one.scale * float(factor), one.offset * float(factor), one.since, one.told)


def _compared(one: Time, other: Any) -> None:
    """Tells the seconds at which a comparison turns over; only for seconds and milliseconds, not for shares of a limit."""
    if abs(abs(one.scale) - 1.0) > 1e-9 and abs(abs(one.scale) - 1000.0) > 1e-6:
        return
    if one.since and _fixed(other):
        one.told((float(other) - one.offset) / one.scale)
    elif not one.since and isinstance(other, Time) and not other.since and other.scale == one.scale:
        one.told((other.offset - one.offset) / one.scale)


def install(ours: Callable[[], bool], tell: Callable[[float], None]) -> None:
    """Let the program's calls of the clock return times that tell.

    Args:
        ours: whether the program is calling. tell: called with seconds, once for every line and limit.
    """
    seen: set[tuple[Any, int, float]] = set()

    def told(seconds: float) -> None:
        frame = sys._getframe(3)
        # A span may have been taken backwards (what is left until a deadline): then its seconds are negative ones.
        key = (frame.f_code, frame.f_lineno, round(seconds, 2))
        if 0 < abs(seconds) < 1e5 and key not in seen and len(seen) < _MOST:
            seen.add(key)
            tell(abs(seconds))

    for name in _SOURCES:
        setattr(time, name, _telling(getattr(time, name), ours, told))


def _telling(real: Callable[[], float], ours: Callable[[], bool], told: Callable[[float], None]) -> Callable[[], float]:
    def now() -> float:
        value = real()
        return _made(value, 1.0, 0.0, False, told) if ours() else value

    return now
