"""Banks of parameters of which a forward pass uses a selection of rows that was set from outside.

A bank of adapters holds one row for each document of a batch. When a program has other rows answer for a document than
its own, the bank has learnt from the document and the rows may not have: which rows a document trained is a question of
positions that a reading by states does not decide.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from auditor.static.heap import Function, Instance

_MOST_MODULES = 400


@lru_cache(maxsize=512)
def selectors(forward: ast.FunctionDef) -> frozenset[str]:
    """Attributes that pick rows of the module's own tensors where they are not None: `self.A[rows]`."""
    if not forward.args.args:
        return frozenset()
    me = forward.args.args[0].arg
    renamed, picking, optional = {}, set(), set()
    for node in ast.walk(forward):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
            renamed |= {target.id: node.value.attr for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute):
            if isinstance(node.value.value, ast.Name) and node.value.value.id == me:
                picking.add(_named(node.slice))
        elif isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Is | ast.IsNot):
            optional.add(_named(node.left))
    return frozenset(renamed.get(name, name) for name in picking & optional if name)


def _named(node: ast.expr) -> str:
    """The name of a variable or attribute, empty for any other expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def selecting(instance: Instance) -> bool:
    """Whether a module at or below this one now uses a selection of rows of its parameters."""
    queue, seen = [instance], {id(instance)}
    while queue and len(seen) < _MOST_MODULES:
        module = queue.pop()
        if module.cls is not None and _selects(module):
            return True
        for child in module.children:
            if id(child) not in seen:
                seen.add(id(child))
                queue.append(child)
    return False


def _selects(module: Instance) -> bool:
    forward = module.cls.find("forward") if module.cls is not None else None
    if forward is None or not isinstance(forward.obj, Function) or not isinstance(forward.obj.node, ast.FunctionDef):
        return False
    for name in selectors(forward.obj.node):
        value = module.slots.get(name) or module.cls.find(name)
        if value is not None and not value.known:
            return True
    return False
