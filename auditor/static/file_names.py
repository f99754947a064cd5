"""Which split a file belongs to, told from the official names of the shards."""

from __future__ import annotations

import ast
import fnmatch
import re

# The first shard of each split under its official name.
_SHARDS = {"val": "fineweb_val_000000.bin", "train": "fineweb_train_000001.bin"}


def file_split(text: str) -> str:
    """Split a path or pattern names, "" for none: the official file names carry it."""
    low = text.lower()
    if len(low) > 300 or not low or " " in low.strip():
        return ""
    tail = low.rsplit("/", 1)[-1]
    if "val_bytes" in tail or "valbytes" in tail:
        return "valbytes"
    looks_like_file = "*" in tail or "." in tail or "_" in tail
    for split in ("val", "train"):
        if f"fineweb_{split}" in low or (
            looks_like_file and tail.startswith(f"{split}_") and ("*" in tail or ".bin" in tail)
        ):
            return split
        if (f"_{split}_" in tail or f"{split}_*" in tail or f"*{split}*" in tail) and (".bin" in tail or "*" in tail):
            return split
    if tail.endswith((".bin", ".npy")) and "validation" in tail:
        return "val"
    return _matched(tail)


def _matched(pattern: str) -> str:
    """Split whose official shards, and no others, a pattern with wildcards finds."""
    if not any(sign in pattern for sign in "*?["):
        return ""
    found = [split for split, name in _SHARDS.items() if fnmatch.fnmatchcase(name, pattern)]
    return found[0] if len(found) == 1 else ""


def sifted(node: ast.AST, name: str) -> str:
    """Split that a test of a file name asks for: `"val" in name`, `"train" not in name`, `name.startswith("fineweb_val")`; "" for none."""
    asked: ast.expr | None = None
    left_out = isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.NotIn)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.In | ast.NotIn):
        asked = (
            node.left if any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node.comparators[0])) else None
        )
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
        about = any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node.func.value))
        asked = node.args[0] if about and node.func.attr in ("startswith", "endswith", "find", "count") else None
    if not isinstance(asked, ast.Constant) or not isinstance(asked.value, str):
        return ""
    words = asked.value.lower()
    found = next(
        (split for split in ("val", "train") if re.search(rf"(?<![a-z]){split}", words) and "byte" not in words), ""
    )
    # There are two splits: what is not the one is the other.
    return {"val": "train", "train": "val"}.get(found, "") if left_out else found
