"""Small pieces every part of the ledger uses: rows, quantities from log lines, numbers as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from auditor.documents.interval import Interval, rounded, stated
from auditor.documents.model import Claim, LogRun, Metadata, Quantity, Readme, SizeLine, Source, TrainLog
from auditor.submission import Submission
from auditor.unpack import Program

AGREES, CONFLICTS, NO_EVIDENCE, NOT_CLAIMED = "agrees", "conflicts", "no evidence", "not claimed"
#: Artifact cap, bytes (decimal).
CAP = 16_000_000
MIB = 1 << 20

_SEED_IN_NAME = re.compile(r"seed[_\-]?(\d{1,10})(?!\d)|(?:^|[_\-/])s(\d{1,6})(?=[_\-.])", re.IGNORECASE)


@dataclass
class Parts:
    """Everything the ledger compares. `local_files`: paths of local files the program imports or runs, if known."""

    submission: Submission
    program: Program
    metadata: list[Metadata]
    readme: Readme | None
    logs: list[TrainLog]
    local_files: Sequence[str] = field(default=())

    @property
    def main(self) -> Metadata | None:
        """The submission.json that speaks for the folder."""
        return self.metadata[0] if self.metadata else None

    @property
    def runs(self) -> list[LogRun]:
        """Every run of every log, in file order."""
        return [run for log in self.logs for run in log.runs]


def seed_of(run: LogRun) -> str:
    """Seed of a run as text: as logged, else from the name of the log file, else ""."""
    return str(run.seed) if run.seed is not None else seed_in_name(run.path)


def seed_in_name(path: str) -> str:
    """Seed that the name of a log states (`train_seed42.log`), "" when it states none."""
    match = _SEED_IN_NAME.search(name_of(path))
    return (match.group(1) or match.group(2)) if match else ""


def name_of(path: str) -> str:
    """File name of a repository path."""
    return path.rsplit("/", 1)[-1]


def seed_key(text: str) -> str:
    """A seed as documents name it (`seed_42`, `seed 42`, `42 (submitted)`) as bare digits, the text when none."""
    match = re.search(r"\d+", text)
    return str(int(match.group())) if match else text.strip()


def scope_of(run: LogRun) -> str:
    """`seed 42`, or the name of the log for a run whose seed nobody says."""
    seed = seed_of(run)
    return f"seed {seed}" if seed else run.path.rsplit("/", 1)[-1]


def at_line(run: LogRun, line: int | None, value: float, text: str = "") -> Quantity:
    """A number of a log line as a quantity."""
    return Quantity(value, Source(run.path, line, text.strip()[:300]), text="")


def place(quantity: Quantity) -> str:
    """`train.log:12`, `submission.json (seeds.42.val_bpb)`: where a value stands, short enough for a sentence."""
    source = quantity.source
    name = source.path.rsplit("/", 1)[-1]
    if source.line is not None:
        return f"{name}:{source.line}"
    return f"{name} ({source.key})" if source.key else name


def claims(*values: Quantity | None) -> tuple[Quantity, ...]:
    """The quantities that exist, without repeats of the same place."""
    seen: dict[tuple, Quantity] = {}
    for value in values:
        if value is not None:
            seen.setdefault((value.source.path, value.source.line, value.source.key, value.value), value)
    return tuple(seen.values())


def says(quantity: Quantity, evidence: Interval | float, tight: bool = False) -> bool:
    """Whether a stated number can be the evidence, given the digits it was written with.

    `tight`: only when it was rounded (half a unit of the last digit); otherwise also when digits were cut off.
    """
    other = evidence if isinstance(evidence, Interval) else Interval.exact(evidence)
    told = written(quantity)
    if tight:
        told = Interval(quantity.value - told.width / 4, quantity.value + told.width / 4)
    return told.overlaps(other)


def written(quantity: Quantity) -> Interval:
    """What a stated quantity leaves open; the printed unit is converted when value and text differ by a factor."""
    told = stated(quantity.value, quantity.text, _factor(quantity))
    digits = f"{quantity.value:.0f}"
    if f"~{quantity.text.strip()}" in quantity.source.excerpt or quantity.text.lstrip().startswith("~"):
        # "~8,300" is a round number: its zeros say nothing.
        told = told.widened(10.0 ** (len(digits) - len(digits.rstrip("0"))) if quantity.value >= 10 else told.width)
    return told


def _factor(quantity: Quantity) -> float:
    """Factor between the number in the text and the value (a reader may have turned MB into bytes, ms into s)."""
    match = re.search(r"\d[\d,_]*\.?\d*(?:[eE][-+]?\d+)?", quantity.text)
    if not match:
        return 1.0
    try:
        shown = float(match.group().replace(",", "").replace("_", ""))
    except ValueError:
        return 1.0
    ratio = abs(quantity.value / shown) if shown and quantity.value else 1.0
    for factor in (1.0, 1e3, 1e6, 1e-3, 60.0, 3600.0, 1024.0, float(MIB)):
        if abs(ratio - factor) <= 0.001 * factor:
            return factor
    return 1.0


def logged(value: float, text: str = "", digits: int | None = None) -> Interval:
    """What a number printed by a program leaves open."""
    return rounded(value, text, digits)


def number(value: float, digits: int = 0) -> str:
    """1234567.8 as `1,234,568`, or with decimals."""
    return f"{value:,.{digits}f}"


def contrast(claim: Quantity, evidence: Quantity, unit: str, digits: int = 0) -> str:
    """`submission.json (steps) says 7,000 steps, the log 6,950 (train.log:12)`."""
    told, seen = number(claim.value, digits), number(evidence.value, digits)
    return f"{place(claim)} says {told} {unit}, the log {seen} ({place(evidence)})"


def bpb_text(value: float) -> str:
    """A BPB with up to eight decimals, trailing zeros dropped, never fewer than four."""
    head, _, tail = f"{value:.8f}".partition(".")
    return f"{head}.{tail.rstrip('0').ljust(4, '0')}"


def listing(items: Iterable[object], limit: int = 4) -> str:
    """`a, b, c and 3 more`."""
    names = [str(item) for item in items]
    head = ", ".join(names[:limit])
    return head if len(names) <= limit else f"{head} and {len(names) - limit} more"


def row(
    subject: str,
    scope: str,
    *,
    claimed: Iterable[Quantity] = (),
    evidence: Iterable[Quantity] = (),
    computed: float | None = None,
    how: str = "",
    unit: str = "",
    status: str | None = None,
    note: str = "",
) -> Claim:
    """A ledger row. Without a status: "conflicts" needs saying, so it is "not claimed" without claims, "no evidence"
    without evidence, "agrees" otherwise."""
    told, seen = tuple(claimed), tuple(evidence)
    if status is None:
        status = NOT_CLAIMED if not told else NO_EVIDENCE if not seen and computed is None else AGREES
    return Claim(subject, scope, told, seen, computed, how, unit, status, note)


def last_size(run: LogRun, kind: str) -> SizeLine | None:
    """Last size line of a kind: a log that prints several artifacts ends with the one that counts."""
    return next((line for line in reversed(run.sizes) if line.kind == kind), None)


def size_quantity(run: LogRun, line: SizeLine) -> Quantity:
    """A size line as evidence."""
    return at_line(run, line.line, float(line.size), line.text)


def size_says(claim: Quantity, size: float) -> bool:
    """Whether a stated size can be this one: to the byte, or for a round number (15900000) to its last digit that is
    not zero, at best a tenth of a megabyte."""
    digits = f"{claim.value:.0f}"
    zeros = len(digits) - len(digits.rstrip("0"))
    if zeros >= 3:
        return abs(claim.value - size) <= min(10.0**zeros, 1e5)
    return says(claim, size)


def file_size(parts: Parts, path: str) -> int | None:
    """Bytes of a file of the submission, None when it is unknown."""
    entry = parts.submission.files.get(path)
    return entry.size if entry else None
