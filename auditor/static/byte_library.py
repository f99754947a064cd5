"""What the calls of array libraries, texts and containers do that byte tables are made with."""

from __future__ import annotations

import ast
import math
from typing import Any

from auditor.static.byte_operators import BINARY, COMPARE, invert, spread
from auditor.static.byte_stand_in import OPAQUE, SIZE, Argument, Opaque, Table

# Conversions that keep the number of bytes what it is.
SAME = frozenset(
    [
        "to",
        "float",
        "double",
        "long",
        "int",
        "short",
        "half",
        "bfloat16",
        "bool",
        "byte",
        "astype",
        "type",
        "type_as",
        "cpu",
        "cuda",
        "numpy",
        "clone",
        "copy",
        "contiguous",
        "view",
        "reshape",
        "flatten",
        "ravel",
        "squeeze",
        "unsqueeze",
        "detach",
        "sum",
        "item",
        "pin_memory",
        "share_memory_",
        "tolist",
        "requires_grad_",
        "view_as",
        "expand",
        "expand_as",
        "float32",
        "float64",
        "int64",
        "int32",
        "cumsum",
    ]
)
TEXT_METHODS = frozenset(
    [
        "encode",
        "decode",
        "startswith",
        "endswith",
        "replace",
        "strip",
        "lstrip",
        "rstrip",
        "removeprefix",
        "removesuffix",
        "lower",
        "upper",
        "split",
        "count",
        "find",
        "isdigit",
        "isalpha",
        "isspace",
        "hex",
        "fromhex",
        "index",
        "get",
        "keys",
        "values",
        "items",
        "append",
        "add",
        "extend",
        "update",
        "pop",
        "copy",
        "setdefault",
        "join",
        "partition",
        "rpartition",
        "rfind",
        "isalnum",
        "isascii",
        "ljust",
    ]
)
_MAKERS = {"zeros": 0, "ones": 1, "empty": 0, "full": None, "zeros_like": 0, "ones_like": 1, "full_like": None}
_WRAPPERS = frozenset(
    [
        "tensor",
        "as_tensor",
        "array",
        "asarray",
        "from_numpy",
        "LongTensor",
        "IntTensor",
        "BoolTensor",
        "FloatTensor",
        "ShortTensor",
        "ascontiguousarray",
    ]
)
_NUMBERS = frozenset(
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "float16", "float32", "float64", "intp"]
)


def kind_of(dtype: Any) -> str:
    """ "bool", "int", "float" or "" of a dtype as written."""
    name = getattr(dtype, "name", dtype if isinstance(dtype, str) else "").rpartition(".")[2].lower()
    if name.startswith("bool"):
        return "bool"
    if name.startswith(("int", "uint", "long", "short", "<u", "<i")):
        return "int"
    return "float" if name.startswith(("float", "double", "half")) else ""


def array_call(name: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
    """Result of a function of numpy, torch or math; `OPAQUE` when it is none that is known."""
    short = name.rpartition(".")[2]
    positional = [keywords["size"], *positional] if "size" in keywords and short in _MAKERS else positional
    if not positional:
        return OPAQUE
    if short in _MAKERS:
        return _make(short, positional, keywords)
    if short in _WRAPPERS:
        return _wrap(positional, keywords)
    if short in _NUMBERS or short in ("bool_", "Path", "str_", "fspath", "expanduser", "abspath"):
        return positional[0]
    if short == "arange":
        ends = [SIZE if isinstance(end, Argument) else int(end) for end in positional[:3]]
        return Table(list(range(*ends)), "int") if all(abs(end) <= 1 << 20 for end in ends) else OPAQUE
    if name.startswith("os.path.") and short in ("exists", "isfile"):
        return True if isinstance(positional[0], Argument) else OPAQUE
    if short == "log" and isinstance(positional[0], int | float):
        return math.log(positional[0])
    return _combine(short, positional)


def _combine(short: str, positional: list[Any]) -> Any:
    pairs = {
        **dict.fromkeys(("logical_and", "bitwise_and"), BINARY[ast.BitAnd]),
        **dict.fromkeys(("logical_or", "bitwise_or"), BINARY[ast.BitOr]),
        **{"add": BINARY[ast.Add], "mul": BINARY[ast.Mult], "multiply": BINARY[ast.Mult], "eq": COMPARE[ast.Eq]},
        **{"sub": BINARY[ast.Sub], "subtract": BINARY[ast.Sub], "maximum": max, "minimum": min},
    }
    if short in pairs and len(positional) >= 2:
        return spread(pairs[short], positional[0], positional[1])
    if short in ("logical_not", "bitwise_not", "invert"):
        return invert(bool(positional[0]) if isinstance(positional[0], int) else positional[0])
    if short == "where" and len(positional) == 3 and not isinstance(positional[0], Opaque | Table):
        return positional[1] if positional[0] else positional[2]
    if short in ("sum", "clip", "clamp") and isinstance(positional[0], int | float):
        return positional[0]
    return OPAQUE


def _make(short: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
    size = positional[0]
    size = size[0] if isinstance(size, tuple | list) and size else size
    count = len(size.items) if isinstance(size, Table) else SIZE if isinstance(size, Argument) else size
    if not isinstance(count, int) or not 0 <= count <= 1 << 20:
        return OPAQUE
    fill = _MAKERS[short]
    if fill is None:
        fill = positional[1] if len(positional) > 1 else keywords.get("fill_value", OPAQUE)
    at = 2 if short.startswith("full") else 1
    dtype = keywords.get("dtype", positional[at] if len(positional) > at else "")
    table = Table([], kind_of(dtype) or ("float" if short != "full" else ""))
    table.items = [table.store(fill)] * count
    return table


def _wrap(positional: list[Any], keywords: dict[str, Any]) -> Any:
    value = positional[0]
    dtype = keywords.get("dtype", positional[1] if len(positional) > 1 else "")
    if isinstance(value, list | tuple | Table):
        items = value.items if isinstance(value, Table) else list(value)
        table = Table([], kind_of(dtype) or (value.numeric if isinstance(value, Table) else ""))
        table.items = [table.store(item) if isinstance(item, int | float | Opaque) else item for item in items]
        return table
    return value


def array_method(owner: Any, name: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
    """Result of a method of an array or of a number that stands for one of its elements."""
    if isinstance(owner, Table):
        if name == "tolist":
            return list(owner.items)
        if name in ("numel", "size", "__len__"):
            return len(owner.items)
        if name in ("fill_", "fill"):
            owner.items = [owner.store(positional[0])] * len(owner.items)
            return owner
        if name in SAME and name != "sum":
            kind = kind_of(keywords.get("dtype", positional[0] if positional else "")) or kind_of(name)
            table = Table([], kind if name in ("to", "type", "astype") or kind_of(name) else owner.numeric)
            table.numeric = table.numeric or owner.numeric
            table.items = [table.store(item) if isinstance(item, int | float) else item for item in owner.items]
            return table
        return OPAQUE
    if name in ("logical_not", "bitwise_not"):
        return not owner
    if name in SAME or (name in ("clamp", "clamp_min") and not keywords):
        return bool(owner) if name == "bool" else owner
    if name in ("add", "add_", "__and__", "logical_and", "bitwise_and", "mul", "__add__"):
        return _combine(
            name.strip("_").replace("and", "logical_and") if name == "__and__" else name.strip("_"),
            [owner, *positional],
        )
    return OPAQUE


def plain_method(owner: Any, name: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
    """Result of a method of a text, a container; only harmless ones are known."""
    if name not in TEXT_METHODS or not isinstance(owner, str | bytes | list | dict | set | tuple):
        return OPAQUE
    if any(isinstance(item, Opaque | Argument | Table) for item in positional):
        if name in ("append", "add") and isinstance(owner, list | set):
            owner.append(positional[0]) if isinstance(owner, list) else None
            return None
        return OPAQUE
    if name == "ljust" or (name == "replace" and not positional[0]):
        return OPAQUE
    if name == "replace" and owner.count(positional[0]) * len(positional[1]) > 1 << 20:
        return OPAQUE
    if name in ("encode", "decode"):
        return _code(owner, name, positional, keywords)
    result = getattr(owner, name)(*positional, **keywords)
    return list(result) if name in ("keys", "values", "items") else result


def _code(owner: Any, name: str, positional: list[Any], keywords: dict[str, Any]) -> Any:
    codec = str(keywords.get("encoding", positional[0] if positional else "utf-8")).lower().replace("_", "-")
    errors = str(keywords.get("errors", positional[1] if len(positional) > 1 else "strict"))
    known = ("utf-8", "utf8", "latin-1", "latin1", "ascii")
    if codec not in known or errors not in ("strict", "ignore", "replace", "surrogateescape"):
        return OPAQUE
    return getattr(owner, name)(codec, errors)
