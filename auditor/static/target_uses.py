"""What a loss method of a module does with its targets beside comparing them with its logits.

Methods of modules are arithmetic to the abstract machine: what goes in may come out. One that writes something at the
ids of its targets before it takes the loss has to be read line by line, because only its body shows whether that
reaches the logits.
"""

from __future__ import annotations

import ast

from auditor.static.library import CROSS_ENTROPY

_WRITES = frozenset(
    {"scatter", "scatter_", "scatter_add", "scatter_add_", "index_put", "index_put_", "index_fill", "index_fill_",
     "masked_scatter", "masked_scatter_", "one_hot", "put_"}
)  # fmt: skip


def writes_at_targets(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> bool:
    """True when something is written at positions that the targets of a loss of this function name.

    Names are followed through plain assignments only (`safe = targets.clamp(min=0)`).
    """
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    losses = [call for call in calls if _name(call.func) in CROSS_ENTROPY]
    if not losses:
        return False
    wanted = _related(function, frozenset().union(*(_names(_target(call)) for call in losses)))
    if any(_name(call.func) in _WRITES and _handed(call) & wanted for call in calls):
        return True
    return any(
        isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store) and _names(node.slice) & wanted
        for node in ast.walk(function)
    )


def _related(function: ast.AST, names: frozenset[str]) -> frozenset[str]:
    """`names`, what they were made of and what was made of them, as far as plain assignments tell.

    Sizes that a target was cut to are no targets, so a name that is only an index or a shape is left out.
    """
    pairs = [
        (target.id, _sources(node.value))
        for node in ast.walk(function)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    found = names
    for _ in range(4):
        more = frozenset(root for made, root in pairs if root and made in found)
        more |= frozenset(made for made, root in pairs if root in found)
        if more <= found:
            break
        found |= more
    return found


def _sources(node: ast.expr) -> str:
    """The tensor that an expression is a view or a small change of: `targets` of `targets[:, 1:].clamp(min=0)`."""
    while True:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func.value
        elif isinstance(node, ast.Subscript):
            node = node.value
        else:
            return node.id if isinstance(node, ast.Name) else ""


def _target(call: ast.Call) -> ast.expr | None:
    given = next((k.value for k in call.keywords if k.arg == "target"), None)
    return given if given is not None else call.args[1] if len(call.args) > 1 else None


def _names(node: ast.AST | None) -> frozenset[str]:
    """Names of tensors in an expression; `targets.shape[0]` is a number."""
    if node is None or (isinstance(node, ast.Attribute) and node.attr in ("shape", "device", "dtype")):
        return frozenset()
    if isinstance(node, ast.Name):
        return frozenset({node.id})
    if isinstance(node, ast.Call) and _name(node.func) in ("size", "numel", "len"):
        return frozenset()
    return frozenset().union(*(_names(child) for child in ast.iter_child_nodes(node)))


def _handed(call: ast.Call) -> frozenset[str]:
    return frozenset().union(*(_names(part) for part in (*call.args, *(k.value for k in call.keywords))))


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
