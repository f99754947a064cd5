"""What is said about the byte count of a program: the verdict, the defect by name, the lines it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field

CORRECT, WRONG, UNDECIDED, NONE = "correct", "wrong", "undecided", "none"
DOUBLE, MARKER, BYTES, CREDITED = (
    "double leading space",
    "marker counted",
    "byte tokens counted wrongly",
    "boundary tokens credited",
)
EXTERNAL = "external table"
LONE = "lone space counted twice"
DROPPED, CONSTANT, OTHER = "leading space not counted", "constant ratio", "byte counts differ from the text"


@dataclass(frozen=True)
class BytePlace:
    """A line that the verdict rests on: layer, 1-based line, its text, what it does."""

    path: str
    line: int
    excerpt: str
    what: str


@dataclass(frozen=True)
class Sample:
    """Bytes of one token of the stand-in vocabulary: what the official look-up gives and what the program counts.

    Attributes:
        piece, after: the token and the one before it, as pieces.
        official, counted: bytes; `counted` is None where the program's sum cannot be evaluated for this pair.
    """

    piece: str
    after: str
    official: int
    counted: int | None


@dataclass(frozen=True)
class FormulaFault:
    """A printed BPB that is not losses / ln 2 / bytes.

    Attributes:
        bug: name of the fault.
        places: where the value is printed, then the lines it is made in.
        everywhere: every BPB of the program whose making is known has this fault.
    """

    bug: str
    places: tuple[BytePlace, ...]
    everywhere: bool


@dataclass
class ByteTable:
    """Verdict on the byte count of a program.

    Attributes:
        status: "correct", "wrong", "undecided", or "none" when nothing in the program counts bytes.
        bug: name of the defect, "" when there is none.
        reason: the verdict in a sentence.
        places: builder and sums.
        ratio: estimated bytes counted over bytes of the text; 1.0 when they agree, None when not known.
        minor: a difference at document starts only (below 0.04 % of the bytes).
        sidecar: per-token bytes can also come from a file (transformed texts).
        samples: the count token by token beside the official look-up.
        takings: (state, place) where bytes from a file are taken: "aligned", "taken at the inputs", "" when not known.
        absence: of a program that counts no bytes, what it does instead (`byte_absence`); "" while that is open.
        faults: printed BPBs whose formula is wrong; `formulas`: (known to be right, known at all, printed).
    """

    status: str
    bug: str = ""
    reason: str = ""
    places: list[BytePlace] = field(default_factory=list)
    ratio: float | None = None
    minor: str = ""
    sidecar: list[BytePlace] = field(default_factory=list)
    faults: list[FormulaFault] = field(default_factory=list)
    formulas: tuple[int, int, int] = (0, 0, 0)
    samples: list[Sample] = field(default_factory=list)
    takings: list[tuple[str, BytePlace]] = field(default_factory=list)
    absence: str = ""
