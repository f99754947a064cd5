"""Sizes that a program writes out where no setting reaches them: made smaller in its syntax tree before it is compiled.

Only whole numbers change, never structure: constants of a module with the name of a size, and the defaults and keywords
of functions that generate or collect calibration data. Lines stay what they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from typing import Any

from auditor.dynamic.plan import Scale, planned

_COLLECTING = re.compile(r"calib|gptq|hessian|selfgen|self_gen|autoreg|ar_|generat", re.I)
_COUNTS = re.compile(
    r"^(num|n|max|total)?_?(calib\w*_)?(seqs|sequences|samples|batches|docs|windows|steps|prompts)$|^nsamples$"
)
_LENGTHS = re.compile(r"^(max_)?(seq|ctx|context|gen|new|block)_?(len|length|size|tokens)$")
_BATCHES = re.compile(r"^(gen_)?batch_?(size|seqs)$|^bs$")
_FEW = 4


class Shrinker:
    """Changes syntax trees of the submission. `tell` is called with (name, full value, value of this run)."""

    def __init__(self, scale: Scale, wanted: dict[str, str], tell: Callable[[str, Any, Any], None]) -> None:
        self.scale, self.wanted, self.tell = scale, wanted, tell

    def shrink(self, tree: ast.Module) -> bool:
        """Change a tree in place; whether anything changed."""
        changed = [self._module_constant(statement) for statement in tree.body]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and _COLLECTING.search(node.name):
                changed += [self._collecting(name, value) for name, value in _defaults(node.args)]
            elif isinstance(node, ast.Call) and _COLLECTING.search(_called(node.func)):
                changed += [self._collecting(keyword.arg or "", keyword.value) for keyword in node.keywords]
        return any(changed)

    def _module_constant(self, statement: ast.stmt) -> bool:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, value = statement.target, statement.value
        else:
            return False
        if not isinstance(target, ast.Name) or not _whole(value):
            return False
        full, new = planned(target.id, value.value, self.wanted, self.scale)
        return self._set(target.id, value, new) if isinstance(new, int) and str(full) == str(value.value) else False

    def _collecting(self, name: str, value: ast.expr) -> bool:
        if not _whole(value):
            return False
        for pattern, limit in ((_COUNTS, _FEW), (_LENGTHS, self.scale.seq), (_BATCHES, _FEW)):
            if pattern.search(name) and value.value > limit:
                return self._set(name, value, limit)
        return False

    def _set(self, name: str, node: ast.Constant, value: int) -> bool:
        if node.value == value:
            return False
        self.tell(f"{name} in line {node.lineno}", node.value, value)
        node.value = value
        return True


def _whole(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is int


def _defaults(arguments: ast.arguments) -> Iterator[tuple[str, ast.expr]]:
    positional = [*arguments.posonlyargs, *arguments.args]
    with_default = positional[len(positional) - len(arguments.defaults) :]
    yield from ((item.arg, value) for item, value in zip(with_default, arguments.defaults, strict=True))
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    yield from ((item.arg, value) for item, value in pairs if value is not None)


def _called(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
