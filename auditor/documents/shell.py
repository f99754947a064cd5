"""Commands and environment variables of shell text: fenced blocks of a README and the scripts of a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from auditor.documents import amounts
from auditor.documents.model import Quantity, Source
from auditor.text import decode

_ASSIGN = re.compile(r"""(?:^|(?<=[\s;&(]))([A-Za-z_]\w*)=("(?:[^"\\]|\\.)*"|'[^']*'|\$\([^)]*\)|[^\s;&|)]*)""")
_EXPORT = re.compile(r"^\s*(?:export|set|setx|declare -x|ENV|env)\s+", re.IGNORECASE)
_RUNS = re.compile(
    r"(?<![\w./-])(?:torchrun|python3?(?:\.\d+)?|uv run|accelerate|srun|deepspeed|bash|sh|"
    r"pip3?|apt(?:-get)?|conda|git|wget|curl|"
    r"huggingface-cli|hf|modal|docker|nvidia-smi|cd|mkdir|cp|for|lrzip|tar|sudo)(?=\s)|\S+\.(?:py|sh)\b"
)
_LAUNCH = re.compile(
    r"(?<![\w-])(?:torchrun|srun|accelerate|deepspeed)\s|python3?\s[^|;&]*\.py\b|"
    r"-m torch\.distributed|bash\s+\S+\.sh|\.py\b"
)
_PROMPT = re.compile(r"^\s*(?:\$|>|%|#(?=\s*(?:torchrun|python)))\s+(?=\S)")
_LOOP = re.compile(r"\bfor\s+(\w*SEED\w*)\s+in\s+([^;\n]+?)\s*(?:;|$|\bdo\b)", re.IGNORECASE)
_SAYS = re.compile(r"(?:echo|printf)\b")
_DEFAULT = re.compile(r"^\$\{(\w+):?[-=]([^}]*)\}$")


@dataclass
class Shell:
    """What a shell text runs.

    Attributes:
        commands: logical lines (continuations joined) that run something, with the line where each begins.
        environment: variables set by assignments, `export`, or before a command; the first training command counts.
        seeds: seeds named by loops (`for SEED in 42 314`), as text.
        launches: the part of `commands` that start a program of the folder.
    """

    commands: list[Source] = field(default_factory=list)
    environment: dict[str, Quantity | str] = field(default_factory=dict)
    seeds: list[str] = field(default_factory=list)
    launches: list[Source] = field(default_factory=list)


def read_shell(path: str, data: bytes) -> Shell:
    """Commands and environment of a shell script. Nothing is expanded but `${NAME:-default}`; never raises."""
    found = Shell()
    read_block(path, decode(data[: 2**20]).split("\n"), 1, found)
    return found


def read_block(path: str, lines: list[str], first: int, found: Shell) -> None:
    """Add the commands of some lines, the first of which is line `first` of the file."""
    for number, text in _logical(lines, first):
        _command(path, number, text, found)


def _logical(lines: list[str], first: int) -> list[tuple[int, str]]:
    """Lines with their continuations joined (backslash, PowerShell's backtick, a pipe at the end)."""
    joined: list[tuple[int, str]] = []
    held, start = "", first
    for offset, line in enumerate(lines):
        text = line.rstrip()
        if not held:
            start = first + offset
            text = _PROMPT.sub("", text)
        if text.endswith("\\") or (text.endswith("`") and text.count("`") == 1):
            held += text[:-1].rstrip() + " "
            if len(held) < 20_000:
                continue
            text = ""
        whole = held + (text.strip() if held else text)
        held = ""
        if whole.strip():
            joined.append((start, whole.strip()))
    return [*joined, (start, held.strip())] if held.strip() else joined


def _command(path: str, number: int, text: str, found: Shell) -> None:
    if text.startswith("#") or _SAYS.match(text):
        return
    text = text[:8000]
    source = Source(path, number, text[:2000])
    loop = _LOOP.search(text)
    if loop:
        found.seeds += [seed for seed in re.findall(r"\d{1,10}", loop[2]) if seed not in found.seeds]
    body = _EXPORT.sub("", text)
    head = _RUNS.search(body)
    assigned = body[: head.start()] if head else body
    names = dict(_ASSIGN.findall(assigned if not _EXPORT.match(text) else body))
    for name, value in names.items():
        _assign(name, value, source, found)
    if head:
        found.commands.append(source)
        if _LAUNCH.search(body):
            found.launches.append(source)
            for name, value in re.findall(r"(?:^|\s)--([a-z][\w-]+)[= ](\w[\w./-]*)", body):
                if name in ("nproc_per_node", "nproc-per-node", "nnodes"):
                    _assign(name.replace("-", "_"), value, source, found)


def _assign(name: str, value: str, source: Source, found: Shell) -> None:
    plain = value.strip().strip("\"'")
    default = _DEFAULT.match(plain)
    plain = default[2] if default else plain
    if name in found.environment or "$" in plain or len(name) > 80:
        return
    number = amounts.to_float(plain) if re.fullmatch(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", plain) else None
    if number is None:
        found.environment[name] = plain[:500]
        return
    found.environment[name] = Quantity(number, Source(source.path, source.line, source.excerpt[:300], name), plain)
