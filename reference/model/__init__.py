"""The model: read `gpt.py` first, then `attention.py`, `mlp.py`, `embeddings.py`.

Shape letters: B rows, T positions, V vocabulary, D width, H query heads, K key/value heads, h head width, M MLP width.
"""

from __future__ import annotations

from reference.model.gpt import GPT
from reference.model.roles import role_of

__all__ = ["GPT", "role_of"]
