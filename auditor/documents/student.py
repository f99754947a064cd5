"""Student's t distribution with real degrees of freedom.

From `scipy.special` rather than `scipy.stats`, whose import would be the largest cost of a whole review.
"""

from __future__ import annotations


def upper_tail(t: float, df: float) -> float:
    """P(T > t) for `df` > 0 degrees of freedom.

    Raises:
        ValueError: `df` is not positive.
    """
    if df <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")
    from scipy.special import stdtr

    return float(stdtr(df, -t))


def quantile(probability: float, df: float) -> float:
    """The t with P(T <= t) = `probability`.

    Raises:
        ValueError: `probability` is not inside (0, 1), or `df` is not positive.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must lie between 0 and 1, got {probability}")
    if df <= 0:
        raise ValueError(f"degrees of freedom must be positive, got {df}")
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))
