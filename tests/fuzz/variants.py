"""The same program in another shape, by the name of the shape. See `renaming`, `reshaping`, `printing`."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterable

from printing import minified, packed
from renaming import renamed
from reshaping import inline_helpers, reorder, split_helpers, wrap_in_classes

from auditor.static.parse import parse_module

Make = Callable[[ast.Module, random.Random, tuple[str, ...]], str]


def _renamed(style: str) -> Make:
    return lambda tree, rng, keep: ast.unparse(renamed(tree, rng, style, keep))


def _shaped(change: Callable[[ast.Module, random.Random], int]) -> Make:
    def make(tree: ast.Module, rng: random.Random, keep: tuple[str, ...]) -> str:
        if not any(change(tree, rng) for _ in range(8)):
            raise Inapplicable("no place for it in this program")
        return ast.unparse(tree)

    return make


def _everything(tree: ast.Module, rng: random.Random, keep: tuple[str, ...]) -> str:
    for change in (inline_helpers, split_helpers, wrap_in_classes, reorder):
        change(tree, rng)
    again = ast.parse(ast.unparse(tree))
    return packed(minified(renamed(again, rng, "short", keep)))


class Inapplicable(ValueError):
    """The shape cannot be given to this program."""


SHAPES: dict[str, Make] = {
    "renamed": _renamed("fresh"),
    "names exchanged": _renamed("swapped"),
    "one letter, minified": lambda tree, rng, keep: minified(renamed(tree, rng, "short", keep)),
    "helpers split off": _shaped(split_helpers),
    "helpers put in place": _shaped(inline_helpers),
    "in classes": _shaped(wrap_in_classes),
    "reordered": _shaped(reorder),
    "packed": lambda tree, rng, keep: packed(ast.unparse(tree)),
    "everything at once": _everything,
}


def variant(text: str, shape: str, seed: int, keep: Iterable[str] = ()) -> str:
    """`text` in another shape; the same seed makes the same variant.

    Args:
        keep: names the program's settings are known by in its logs.

    Raises:
        Inapplicable: the program has no place for the shape, or is not Python for this interpreter.
    """
    parsed = parse_module(text)
    if parsed.tree is None:
        raise Inapplicable("the program does not parse")
    try:
        tree = ast.parse(ast.unparse(parsed.tree))
        return SHAPES[shape](tree, random.Random(f"{shape} {seed}"), tuple(keep))
    except (ValueError, SyntaxError, RecursionError) as error:
        raise Inapplicable(str(error)) from error
