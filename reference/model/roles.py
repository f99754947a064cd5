"""Roles of parameters by name; optimiser groups, quantiser rules and TTT selections are written in terms of them."""

from __future__ import annotations

import re

from reference.config_eval import Role

_BLOCK = re.compile(r"^blocks\.(\d+)\.")

_ROLES: tuple[tuple[re.Pattern[str], Role], ...] = tuple(
    (re.compile(pattern), role)
    for pattern, role in (
        (r"\.attn\.[qkvo]\.weight$", "attn"),
        (r"\.mlp\.(up|gate|down)\.weight$", "mlp"),
        (r"\.mlp\.hidden_(scale|bias)$", "affine"),
        (r"^tok_embed$", "embed"),
        (r"^head$", "head"),
        (r"^bigram\.table$", "bigram"),
        (r"^value_embed\.table$", "value"),
        (r"^(bigram|value_embed)\.proj\.weight$", "proj"),
    )
)


def role_of(name: str) -> Role:
    """Role of a parameter; gains, scales, gates, mixes and skip weights are `control`."""
    for pattern, role in _ROLES:
        if pattern.search(name):
            return role
    return "control"


def block_of(name: str) -> int | None:
    """Number of the block a parameter belongs to, None outside the blocks."""
    match = _BLOCK.match(name)
    return int(match.group(1)) if match else None
