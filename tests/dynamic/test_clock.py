"""What a program compares its clock with, told in seconds whatever it computes in between."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.dynamic.inside.clock import _made


def clock(seconds: float, told: list[float]):
    return _made(float(seconds), 1.0, 0.0, False, told.append)


def limits(compare) -> list[float]:
    """Seconds told when a program started at 1000 s and looks at its clock at 1003 s."""
    told: list[float] = []
    compare(clock(1000.0, told), clock(1003.0, told))
    return told


@pytest.mark.parametrize(
    "compare",
    [
        lambda start, now: now - start >= 592.0,
        lambda start, now: 1000.0 * (now - start) >= 592_000.0,
        lambda start, now: 0.0 + 1000.0 * (now - start) > 600_000.0 - 8000.0,
        lambda start, now: max(592_000.0 - (now - start) * 1e3, 0),
        lambda start, now: (now - start) + 8.0 >= 600,
        lambda start, now: now >= start + 592.0,
        lambda start, now: start + 600 - now < 8,
        lambda start, now: now > start - -592,
        lambda start, now: -(now - start) <= -592.0,
    ],
)
def test_a_limit_is_told_in_seconds(compare):
    found = limits(compare)
    assert [round(abs(seconds), 6) for seconds in found] == [592.0]


@pytest.mark.parametrize(
    "compare",
    [
        lambda start, now: (now - start) / 600.0 >= 0.85,  # a share of the limit
        lambda start, now: (now - start) * 60.0 > 5.0,
        lambda start, now: now > start,
        lambda start, now: (now - start) > 2 * (now - start),
        lambda start, now: int(now - start) > 592,  # lost, which is no claim
        lambda start, now: (now + start) > 592.0,
    ],
)
def test_what_is_no_limit_is_not_told(compare):
    assert [seconds for seconds in limits(compare) if abs(seconds) > 0] == []


@given(st.floats(0.1, 1e4), st.floats(-1e4, 1e4), st.sampled_from([1.0, 1000.0]), st.booleans())
def test_arithmetic_is_that_of_plain_numbers(span, other, unit, added):
    told: list[float] = []
    start, now = clock(1000.0, told), clock(1000.0 + span, told)
    plain = unit * ((1000.0 + span) - 1000.0)
    traced = unit * (now - start)
    assert float(traced) == plain
    result, expected = (traced + other, plain + other) if added else (other - traced, other - plain)
    assert float(result) == expected and f"{result:.3f}" == f"{expected:.3f}"
    assert (result > 5.0) == (expected > 5.0) and (result <= 5.0) == (expected <= 5.0)
    # It turns over at the seconds that were told.
    seconds = told[-1]
    there = unit * seconds
    assert math.isclose(there + other if added else other - there, 5.0, abs_tol=1e-6 * max(1.0, abs(other)))
