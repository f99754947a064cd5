"""Whether attention is causal, where it can be read from the calls.

A hypothesis for reviewers and for the executed probe: library attention with its causal switch on, or scores masked by
a triangle. Models without such calls (state space layers, custom kernels) are left to the executed witness.
"""

from __future__ import annotations

import ast

from auditor.findings import Status
from auditor.static.machine import Machine
from auditor.static.order import Verdict
from auditor.timeline import Place

RULE = "PG-C1-causality"
_SWITCHES = ("is_causal", "causal")
_TRIANGLES = frozenset({"tril", "triu", "tril_indices", "triu_indices", "create_block_mask"})


def causality(machine: Machine) -> Verdict | None:
    """What the attention calls of the walked modules show; None when they cannot be read.

    Never a PASS: a pooling, a routing or a state of another layer may still look ahead, which only a run shows.
    """
    causal: list[Place] = []
    open_calls: list[Place] = []
    triangles = False
    for path in machine.modules:
        tree = machine.sources.tree(path)
        if tree is None:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                kind = _attention(node)
                if kind is not None:
                    (causal if kind else open_calls).append(Place(path, node.lineno))
                triangles |= _last(node.func) in _TRIANGLES
    if open_calls and not triangles:
        return None
    if causal or (triangles and open_calls):
        chain = tuple((place, "causal attention") for place in causal[:2])
        words = "every attention call is causal; whether another layer lets later tokens in was not read"
        return Verdict(RULE, Status.UNKNOWN, words, chain)
    return None


def _attention(node: ast.Call) -> bool | None:
    """True for causal attention, False for attention without a causal switch, None for any other call."""
    for keyword in node.keywords:
        if keyword.arg in _SWITCHES:
            return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    name = _last(node.func)
    if name == "scaled_dot_product_attention" or name.startswith("flash_attn"):
        return any(k.arg in ("attn_mask", "block_mask") for k in node.keywords) or None
    return None


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
