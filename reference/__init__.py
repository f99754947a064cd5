"""Reference trainer, quantiser and score-first TTT evaluator: the yardstick of the auditor.

Written from the specification of the seed submissions, not from their code. Everything is fp32 or bf16 PyTorch; one
process on a CPU, one GPU, or up to eight under torchrun give the same numbers up to the order of a reduction.
"""

from __future__ import annotations

__version__ = "0.1.0"
