"""Student's t against closed forms."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.documents.student import quantile, upper_tail


@given(st.floats(min_value=1e-6, max_value=1 - 1e-6), st.floats(min_value=1, max_value=200))
def test_quantile_inverts_the_tail(probability: float, df: float) -> None:
    assert 1 - upper_tail(quantile(probability, df), df) == pytest.approx(probability, abs=1e-9)


@given(st.floats(min_value=-50, max_value=50))
def test_closed_forms_for_one_and_two_degrees(t: float) -> None:
    assert upper_tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, abs=1e-8)
    assert upper_tail(t, 2) == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)), abs=1e-8)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="degrees of freedom"):
        upper_tail(1.0, 0.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile(1.0, 3)
