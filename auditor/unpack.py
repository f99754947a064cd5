"""Packed scripts to readable source layers, nothing executed, expansion bounded.

(Types first; the decoders follow.)
"""

from __future__ import annotations

from dataclasses import dataclass, field


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
