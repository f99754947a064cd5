"""Quantisation as pure functions: `rowwise.py` (clip search), `gptq.py` (second order), `apply.py` (whole models)."""

from __future__ import annotations

from reference.quantize.apply import QuantizedModel, quantize_state

__all__ = ["QuantizedModel", "quantize_state"]
