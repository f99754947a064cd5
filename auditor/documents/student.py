"""Student's t distribution with real degrees of freedom, without the half second that importing scipy takes.

A review tests a handful of numbers, so the library's start-up would be the largest cost of the whole documents pass.
The tail is the regularised incomplete beta function, by its continued fraction (Lentz's method; Press et al.,
Numerical Recipes, section 6.4); the tests compare it with scipy.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_ACCURACY = 1e-15
_MAX_TERMS = 500


def upper_tail(t: float, df: float) -> float:
    """P(T > t) for `df` > 0 degrees of freedom.

    Raises:
        ValueError: `df` is not positive.
    """
    if df <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")
    square = t * t
    # Of the two equal forms the one whose argument is small keeps its digits (near the middle and far out).
    if square < df:
        tail = 0.5 - incomplete_beta(0.5, df / 2, square / (df + square)) / 2
    else:
        tail = incomplete_beta(df / 2, 0.5, df / (df + square)) / 2
    return tail if t >= 0 else 1 - tail


def quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = `probability`, by bisection.

    Raises:
        ValueError: `probability` is not inside (0, 1), or `df` is not positive.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie between 0 and 1, got {probability}")
    if probability < 0.5:
        return -quantile(1 - probability, df)
    low, high = 0.0, 1.0
    while upper_tail(high, df) > 1 - probability:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if upper_tail(middle, df) > 1 - probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1]."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    # The fraction converges fast only below the mean; above it the symmetric one is used.
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            value *= d * c
        if abs(d * c - 1) < _ACCURACY:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
