"""What a program that counts no bytes does instead: score nothing, print nats only, repeat a BPB it did not compute.

A program without a count of bytes is no open question as long as it prints no bits per byte of its own; which of these
it is decides whether somebody has to look for the count elsewhere.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence

from auditor.static import byte_find as find

# Kinds of absence; the empty one is open: a BPB is computed and what counts its bytes was not found.
NO_SCORE, NATS, REPEATED, OPEN = "scores nothing", "prints nats only", "repeats a BPB", ""
# The program hands its evaluation to a module that was not submitted: only a log can show what was counted.
ELSEWHERE = "counted elsewhere"

_BITS = re.compile(r"bpb|bits?[\s_/-]*(per)?[\s_/-]*byte|\bbpc\b", re.IGNORECASE)
_LOSSES = frozenset({
    "cross_entropy", "nll_loss", "CrossEntropyLoss", "NLLLoss", "log_softmax", "logsumexp", "kl_div", "gaussian_nll_loss",
    "softmax_cross_entropy", "value_and_grad", "fused_cross_entropy", "linear_cross_entropy",
})  # fmt: skip
_STARTS = frozenset({"run", "Popen", "check_call", "check_output", "system", "call", "spawn"})


def absence(trees: Iterable[ast.Module], absent: Sequence[str] = ()) -> tuple[str, str]:
    """(kind, sentence) for a program in which no count of bytes was found.

    Args:
        trees: the main script and those modules of the folder that it imports.
        absent: calls into modules that are not in the submission and may count bytes.
    """
    nodes = [node for tree in trees for node in find.outline(tree).all]
    losses, bits = _computes_losses(nodes), _names_bits(nodes)
    if bits and absent:
        return ELSEWHERE, f"a BPB is printed, and its bytes are counted by {absent[0]}, which is not in the submission"
    if bits and losses:
        return OPEN, ""
    if bits:
        how = "starts another program and reads" if _starts_programs(nodes) else "reads"
        return REPEATED, f"no loss is computed here: the program {how} a BPB that was made elsewhere, or speaks of one"
    if losses:
        return NATS, "losses are computed and no bits per byte are printed: there is nothing to divide by bytes"
    return NO_SCORE, "the program computes no loss: there is no score to divide by bytes"


def _computes_losses(nodes: list[ast.AST]) -> bool:
    return any(_name(node) in _LOSSES for node in nodes if isinstance(node, ast.Attribute | ast.Name)) or any(
        alias.name in _LOSSES for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    )


def _names_bits(nodes: list[ast.AST]) -> bool:
    """A BPB in a text that is no docstring, or in the name of something that is computed."""
    documented = {id(n.value) for n in nodes if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    return any(_BITS.search(text) for text in _words(nodes, documented))


def _words(nodes: list[ast.AST], left_out: set[int]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.value[:2000]
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword):
            yield node.arg or ""


def _starts_programs(nodes: list[ast.AST]) -> bool:
    return any(isinstance(node, ast.Call) and _name(node.func) in _STARTS for node in nodes)


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
