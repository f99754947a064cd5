"""Packed scripts to readable source layers, nothing executed, expansion bounded.

A stub is read by a static evaluator (`auditor.unpacking.evaluate`): what reaches exec, a file that is run or a module
that is imported becomes a layer. Where that fails, every long literal is tried against the known chains.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditor.submission import Submission


@dataclass(frozen=True)
class Layer:
    """One readable source.

    Attributes:
        name: path of the file, with `!codec` appended for every decoding step (`train_gpt.py!b85!lzma`).
        text: decoded text, line ends normalised to `\\n`, BOM removed.
        data: the bytes of this layer.
        codecs: decoding steps from the shipped file to here, outermost first; empty for a plain file.
        parent: name of the layer this one was packed in, "" for a file.
    """

    name: str
    text: str
    data: bytes
    codecs: tuple[str, ...] = ()
    parent: str = ""


@dataclass
class Program:
    """The source of a submission.

    Attributes:
        main: the readable source of the main script (innermost layer that is a program), None when there is none.
        layers: every layer of every Python file in the folder, files first.
        counted_bytes: bytes of the main script as shipped, what the rules count by convention (a).
        packed: True when the main script is a packed wrapper.
        problems: what could not be decoded or is not Python, naming the file.
    """

    main: Layer | None = None
    layers: list[Layer] = field(default_factory=list)
    counted_bytes: int = 0
    packed: bool = False
    problems: list[str] = field(default_factory=list)


# A file that only starts or unpacks another has no more source than this of its own (characters, literals not counted).
STUB_SIZE = 8_000
LONG_LINE = 400
MAX_LAYERS = 64
# Companion files are checked and looked into up to this many bytes in all; beyond are data or whole libraries.
MAX_COMPANIONS = 3 * 2**20
MAX_SOURCE = 8 * 2**20
_SUSPECT = re.compile(
    r"\bexec\b|\bcompile\s*\(|\brunpy\b|\bexec_module\b|\bSourceFileLoader\b|decompress|b(?:64|85|16|32)decode|"
    r"a85decode|fromhex|unhexlify|\bimport_module\b|__import__|\bmarshal\b|\bsubprocess\b|\bos\.(?:system|exec)|codecs\.decode"
)
_EXECUTES = re.compile(
    r"\bexec\s*\(|\brunpy\b|\bexec_module\b|\bSourceFileLoader\b|\bmarshal\b|\bcompile\s*\([^()]*,\s*['\"]exec"
)


def read_program(submission: Submission) -> Program:
    """Every Python file of the folder with everything packed inside, and which layer is the program.

    Nothing is executed. What cannot be read, decoded, or is not Python is a problem of the program, naming the file.
    """
    from auditor.unpacking.program import Reader

    return Reader(submission).read()


def unpack_bytes(
    data: bytes, siblings: Mapping[str, Callable[[], bytes]] | None = None, name: str = "train_gpt.py"
) -> tuple[list[Layer], list[str]]:
    """The layers of one script, itself first, and what could not be decoded.

    Args:
        data: the script as shipped.
        siblings: further files of its folder by path relative to it, each a function that reads it.
        name: path of the script relative to its folder, used to name the layers.
    """
    from auditor.unpacking.program import unpack_script

    found = unpack_script(data, siblings or {}, name)
    return found.layers, found.problems + [note for notes in found.notes.values() for note in notes]


def parses(layer: Layer) -> bool:
    """Whether a layer is Python, of any version up to 3.14."""
    from auditor.static.parse import parse_module

    return parse_module(layer.text).tree is not None


def suspicious(text: str) -> bool:
    """Cheap test without parsing: a source that could unpack or start another one.

    A file with much source of its own is no stub; in one only what executes text can hide another program.
    """
    short = sum(len(line) for line in text.split("\n") if len(line) <= LONG_LINE)
    return bool((_SUSPECT if short < 2 * STUB_SIZE else _EXECUTES).search(text))


@dataclass(frozen=True)
class OutlineEntry:
    """A function or class of a layer: kind, dotted name, first and last line (1-based), characters of source."""

    kind: str
    name: str
    line: int
    end: int
    size: int


def outline(layer: Layer) -> list[OutlineEntry]:
    """Functions and classes of a layer in the order of their lines; empty when it is not Python."""
    from auditor.static.parse import parse_module

    tree = parse_module(layer.text).tree
    offsets = [0]
    for line in layer.text.split("\n"):
        offsets.append(offsets[-1] + len(line) + 1)
    found: list[OutlineEntry] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = min([child.lineno, *(d.lineno for d in child.decorator_list)])
                end = child.end_lineno or child.lineno
                kind = "class" if isinstance(child, ast.ClassDef) else "function"
                size = offsets[min(end, len(offsets) - 1)] - offsets[min(first - 1, len(offsets) - 1)]
                found.append(OutlineEntry(kind, prefix + child.name, first, end, size))
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.stmt | ast.ExceptHandler):
                visit(child, prefix)

    if tree is not None:
        visit(tree, "")
    return found
