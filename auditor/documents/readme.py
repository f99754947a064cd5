"""README of a submission: numbers in prose and tables, run commands, and the sentences that decide about a track."""

from __future__ import annotations

import re

from auditor.documents import amounts
from auditor.documents.model import Quantity, Readme, Source
from auditor.documents.readme_tables import read_table
from auditor.documents.shell import Shell, read_block
from auditor.text import decode

#: Above this only the beginning is read (bytes).
MAX_BYTES = 2 * 2**20
_MAX_LINE = 4000
_FENCE = re.compile(r"^\s*(```+|~~~+)\s*([\w+-]*)")
_SHELL_NAMES = {"", "bash", "sh", "shell", "zsh", "console", "powershell", "cmd", "bat", "text", "shell-session"}
_LOOKS_SHELL = re.compile(
    r"(?m)^\s*(?:\$ )?(?:[A-Z_][A-Z0-9_]*=\S|export |torchrun |python3? |pip |cd |apt|bash |for \w+ in )"
)

_N = r"(?<![\w.])[~≈]?(\d{1,3}(?:,\d{3})+|\d+(?:\.\d+)?)"
_NUMBERS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "val_bpb",
        re.compile(
            r"(?i)(?:\bval_?bpb|\bbpb)\b`?\**(?:\s*\([^)\d]{0,40}\))?\s*(?:[:=|≈~]|of|is|at|to|→|->|"
            r"mean|\*|`|\s){1,12}\s*(?<![-+Δ])(\d\.\d{2,})"
        ),
    ),
    ("val_bpb", re.compile(r"(?i)(?<![-+Δ\d.<>−])(?<![-+−]\s)(\d\.\d{2,})\**`?\s*(?:±\s*[\d.]+\s*)?(?:val[_ ])?bpb\b")),
    ("val_loss", re.compile(r"(?i)\bval_?loss`?\**\s*(?:[:=|≈~]|of|is|\*|`|\s){1,10}(\d{1,2}\.\d{2,})")),
    ("val_loss", re.compile(r"(?i)(?<![-+\d.])(\d\.\d{2,})\s*nats(?:/tok|\s+per\s+token)?\b")),
    ("bytes", re.compile(r"(?i)" + _N + r"\**`?\s*(?:bytes\b|B\b(?![\w-]))")),
    ("bytes", re.compile(r"(?i)\bbytes(?:[_ ]total)?`?\**\s*[:=|]\s*\**`?(\d{1,3}(?:,\d{3})+|\d{5,})")),
    ("mib", re.compile(_N + r"\s*MiB\b")),
    ("mb", re.compile(_N + r"\s*MB\b")),
    ("seconds", re.compile(_N + r"\s*(?:s|sec|secs|seconds)\b(?!/)")),
    ("ms", re.compile(_N + r"\s*ms\b(?!\s*/)")),
    ("minutes", re.compile(_N + r"\s*-?(?:min|mins|minutes?)\b")),
    ("step_ms", re.compile(_N + r"\s*ms\s*/\s*step")),
    ("steps", re.compile(r"(?i)" + _N + r"\s*(?:training |train |optimizer |gradient )?steps\b")),
    ("steps", re.compile(r"(?i)\bsteps?`?\**\s*[:=]\s*\**`?(\d{1,3}(?:,\d{3})+|\d{3,})")),
    ("std", re.compile(r"(?i)\b(?:std|stdev|std\.? ?dev|sd|σ|sigma)\b[^\d\n|]{0,12}(0?\.\d{3,}|\d\.\d+e-\d+)")),
    ("std", re.compile(r"(?:±|\+/-)\s*(0?\.\d{3,})")),
    (
        "p_value",
        re.compile(
            r"(?i)\bp(?:[- _]?val(?:ue)?)?\b`?\**\s*(?:[=<≈:~]|&lt;)\s*(\d*\.?\d+(?:\s*[eE]-?\d+|"
            r"\s*[×x]\s*10\^?-?\d+)?)"
        ),
    ),
    ("t_statistic", re.compile(r"(?i)\bt(?:[- ]stat\w*)?\s*[=≈]\s*(-?\d+\.\d+)")),
    ("params", re.compile(r"(?i)" + _N + r"\s*(?:M|million)\s*(?:model )?param")),
    ("params", re.compile(r"(?i)" + _N + r"\s+(?:model |total |trainable )?param(?:eter)?s\b")),
)
# Cheap word that must be in the lower-case line for the pattern to be tried.
_NEEDS = {
    "val_bpb": "bpb",
    "val_loss": "",
    "bytes": "b",
    "mib": "mib",
    "mb": "mb",
    "ms": "ms",
    "minutes": "min",
    "step_ms": "ms",
    "steps": "step",
    "std": "",
    "p_value": "p",
    "params": "param",
}

_STATEMENTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "unlimited",
        re.compile(
            r"(?i)unlimited[- ]compute|unlimited track|no (?:time|wall-?clock) (?:limit|cap)|"
            r"unconstrained compute|beyond the 10[- ]min"
        ),
    ),
    (
        "track",
        re.compile(
            r"(?i)\bnon[-_ ]?record\b|\btrack\b|10[-_ ]?min[-_ ]?16[-_ ]?mb|record submission|"
            r"not (?:a |an )?(?:official )?(?:leaderboard|record|sota)"
        ),
    ),
    (
        "hardware",
        re.compile(
            r"(?i)\b(?:\d+\s*[x×]\s*)?(?:NVIDIA |AMD |RTX ?|GTX ?)?(?:[HB]\d00\b|A100|A800|A40\b|"
            r"A10G?\b|L40S?|L4\b|GH200|4090|5090|3090|4080|3080|5080|RTX|T4\b|V100|MI\d{3}|TPU|"
            r"Apple M\d|M[1-4] (?:Max|Pro|Ultra)|DGX|GB10)"
        ),
    ),
    ("apt", re.compile(r"(?i)\bapt(?:-get)? (?:install|update)|\bapt-get\b|\bbrew install|\byum install")),
    ("pip", re.compile(r"(?i)\bpip3? install\b|\buv pip\b|\brequirements\.txt\b")),
    (
        "network",
        re.compile(
            r"(?i)\bwget\b|\bcurl\b|huggingface-cli|\bhf download|hf_hub_download|snapshot_download|"
            r"load_dataset|git clone|\bdownload(?:s|ed|ing)?\b|"
            r"https?://(?!github\.com/openai)\S+\.(?:bin|pt|npz|gz|zip|tar)"
        ),
    ),
    (
        "single_seed",
        re.compile(
            r"(?i)\b(?:single|one|1)[- ]seed\b|\bonly (?:one|1|a single) (?:seed|run)\b|"
            r"\bseed 1337 only|\bn ?= ?1\b|\bsingle run\b|\b1 run\b"
        ),
    ),
    (
        "seeds",
        re.compile(
            r"(?i)\b(?:[2-9]|\d\d|two|three|four|five|six)[- ]?(?:seeds?|runs)\b|"
            r"\bseeds?\b[^|\n]{0,10}\d+\s*(?:,|/|and)\s*\d+"
        ),
    ),
    (
        "not_run",
        re.compile(
            r"(?i)\b(?:not|never|hasn't|haven't|has not|have not) (?:yet )?(?:been )?(?:run|tested|"
            r"validated|evaluated|trained|verified)\b|\b(?:pending|awaiting|await|TBD|to be (?:run|"
            r"filled|determined|added)|in progress|work in progress|WIP|placeholder)\b|"
            r"\bexpected (?:val_?)?bpb|compute credits?"
        ),
    ),
    (
        "eval_adaptation",
        re.compile(r"(?i)\btest[- ]time training\b|\bTTT\b|\bscore[- ]first\b|\bbackward[- ]looking\b"),
    ),
    ("calibration", re.compile(r"(?i)\bcalibrat\w+|\bHessians?\b")),
    (
        "supersedes",
        re.compile(
            r"(?i)\b(?:built on|based on|builds on|fork of|derived from|follow-?up (?:to|of)|"
            r"supersedes)\b"
        ),
    ),
    (
        "val_data",
        re.compile(
            r"(?i)\b(?:train(?:s|ed|ing)?|fine-?tun\w+|calibrat\w+|adapt\w*|"
            r"fit(?:ted)?)\b[^.\n]{0,60}\bval(?:idation)?\b(?!_bpb|_loss)|\bval[- ]only\b"
        ),
    ),
)
_LIMIT = 400


def read_readme(path: str, data: bytes) -> Readme:
    """Read a README: see `Readme`. Values carry the line they stand in; never raises.

    Kinds of `values`: "val_bpb", "val_loss", "bytes", "mib", "mb", "seconds", "ms", "minutes", "steps", "step_ms",
    "std", "p_value", "t_statistic", "params". "mib" and "mb" hold bytes, "minutes" and "ms" hold seconds; `text`
    keeps the unit.
    """
    found = Readme(path, decode(data[:MAX_BYTES]))
    lines = found.text.split("\n")
    shell = Shell()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence:
            number = _fenced(found, lines, number, fence, shell)
            continue
        if "|" in lines[number] and number + 1 < len(lines) and _is_rule(lines[number + 1]):
            number = _table(found, lines, number)
            continue
        _prose(found, lines[number][:_MAX_LINE], number + 1)
        number += 1
    found.commands = shell.commands
    found.environment = shell.environment
    for seed in shell.seeds:
        found.seeds.setdefault(seed, {})
    _seed_sentences(found, lines)
    return found


def _fenced(found: Readme, lines: list[str], number: int, fence: re.Match[str], shell: Shell) -> int:
    mark, language = fence[1], fence[2].lower()
    end = next((k for k in range(number + 1, len(lines)) if lines[k].strip().startswith(mark)), len(lines))
    block = lines[number + 1 : end]
    if language in _SHELL_NAMES and _LOOKS_SHELL.search("\n".join(block)):
        read_block(found.path, block, number + 2, shell)
    for offset, line in enumerate(block):
        _prose(found, line[:_MAX_LINE], number + 2 + offset, heading=False)
    return min(end + 1, len(lines))


def _is_rule(line: str) -> bool:
    return "-" in line and re.fullmatch(r"\s*\|?(?:\s*:?-+:?\s*\|?)+\s*", line[:2000]) is not None


def _table(found: Readme, lines: list[str], number: int) -> int:
    """A table from its header line on; returns the index of the first line after it."""
    end = number + 2
    while end < len(lines) and "|" in lines[end] and lines[end].strip():
        end += 1
    table = read_table(found.path, lines[number:end], number + 1)
    for kind, quantity in table.values:
        _keep(found, kind, quantity)
    for seed, values in table.seeds.items():
        kept = found.seeds.setdefault(seed, {})
        for metric, quantity in values.items():
            kept.setdefault(metric, quantity)
    for k in range(number, end):
        _statements(found, lines[k][:_MAX_LINE], k + 1)
        if k != number + 1:
            _numbers(found, lines[k][:_MAX_LINE], k + 1)
    return end


def _prose(found: Readme, line: str, number: int, heading: bool = True) -> None:
    if not line.strip():
        return
    if heading and not found.title and re.match(r"\s*#+\s*\S", line):
        found.title = line.strip().strip("#").strip()
    _statements(found, line, number)
    if any(c.isdigit() for c in line):
        _numbers(found, line, number)


def _numbers(found: Readme, line: str, number: int) -> None:
    lower = line.lower()
    for kind, pattern in _NUMBERS:
        if _NEEDS.get(kind, "") not in lower:
            continue
        for match in pattern.finditer(line):
            value = _value(kind, match)
            if value is not None:
                shown = match.group().strip(" *`|")
                text = match[1].strip() if kind in ("val_bpb", "val_loss", "std", "p_value") else shown
                _keep(found, kind, Quantity(value, Source(found.path, number, line.strip()[:300]), text))


def _value(kind: str, match: re.Match[str]) -> float | None:
    text = match[1]
    if kind == "p_value":
        text = re.sub(r"\s*[×x]\s*10\^?", "e", text).replace(" ", "")
    value = amounts.to_float(text)
    if value is None:
        return None
    factor = {"mib": amounts.MIB, "mb": 1e6, "minutes": 60.0, "ms": 1e-3}.get(kind, 1.0)
    if kind == "params" and re.search(r"(?:M|[Mm]illion)\s*(?:model )?param", match.group()):
        factor = 1e6
    if kind == "val_bpb" and not 0 < value < 20:
        return None
    return value * factor


def _keep(found: Readme, kind: str, quantity: Quantity) -> None:
    """One entry for a value of a line, however many patterns see it."""
    values = found.values.setdefault(kind, [])
    place = (quantity.source.line, quantity.value)
    if len(values) < _LIMIT and all((old.source.line, old.value) != place for old in values[-40:]):
        values.append(quantity)


def _statements(found: Readme, line: str, number: int) -> None:
    for kind, pattern in _STATEMENTS:
        kept = found.statements.get(kind)
        if (kept is None or len(kept) < 60) and pattern.search(line):
            found.statements.setdefault(kind, []).append(Source(found.path, number, line.strip()[:300]))


_SEED_BPB = re.compile(
    r"(?i)\bseed\s*[:=]?\s*`?(\d{1,10})`?\**\s*[:=)→-]+\s*\**`?(?:val_?bpb\s*[:=]?\s*`?)?(\d\.\d{3,})"
)


def _seed_sentences(found: Readme, lines: list[str]) -> None:
    """`Seed 42: 1.0812` in prose or lists, where no table says it."""
    for number, line in enumerate(lines, 1):
        if "eed" not in line:
            continue
        for seed, text in _SEED_BPB.findall(line[:_MAX_LINE]):
            value = amounts.to_float(text)
            if value is not None and 0 < value < 5:
                quantity = Quantity(value, Source(found.path, number, line.strip()[:300]), text)
                found.seeds.setdefault(str(int(seed)), {}).setdefault("val_bpb", quantity)
