"""What each file of a record folder is for: main script, modules, logs, metadata, artifacts, README; track and date.

Names are only used where the challenge itself prescribes or documents them; the main script is chosen by evidence
(what the README and run scripts start, what defines an entry point), see `main_script`.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from auditor.errors import AuditorError
from auditor.text import decode

if TYPE_CHECKING:
    from auditor.submission import Submission, Track

LOG_SUFFIXES = (".log", ".txt", ".out", ".stdout", ".logs")
ARTIFACT_SUFFIXES = (
    ".ptz", ".pt", ".pth", ".bin", ".zst", ".npz", ".npy", ".safetensors", ".ckpt", ".pkl", ".pickle", ".xz", ".lzma",
    ".br", ".gz", ".bz2", ".zip", ".7z", ".lrz", ".tar", ".model", ".vocab", ".gguf", ".blob", ".pack", ".so", ".zz",
)  # fmt: skip
TOKENIZER_SUFFIXES = (".model", ".vocab")
# .txt files that are documents or settings of the package, not output of a run.
_NOT_LOGS = re.compile(
    r"^(?:requirement|constraint|pip[-_ ]?freeze|license|licence|notice|readme|command|manifest|vocab|merges|"
    r"packages|environment|todo|notes?\b|pr[-_]|cmd|env\b)|require?ments|tokenizer|sha256|checksums?",
    re.I,
)
_README = re.compile(r"^readme(?:\.(?:md|markdown|rst|txt))?$", re.I)
# `train.log` under other spellings (`train_log`, `log`, `seed42_log`); a file without a suffix that says it is a log.
_BARE_LOG = re.compile(r"(?:^|[_-])logs?(?:[_-].*)?$|\.log[._-]?\w*$|\.lgo$|\.l0g$|\.log\.\d+$", re.I)
_ENTRY = re.compile(rb"""^if\s+__name__\s*==\s*["']__main__["']|^if\s*["']__main__["']\s*==\s*__name__""", re.M)
_MAIN_DEF = re.compile(rb"^def\s+main\s*\(|^main\s*\(", re.M)
# A command that starts a Python file: torchrun ... x.py, python -u x.py, accelerate launch x.py
_COMMAND = re.compile(
    r"(?:torchrun|accelerate\s+launch|torch\.distributed\.(?:run|launch)|python[\d.]*|mpirun)\b"
    r"((?:[^\n`|;&\\]|\\\n)*?)([\w./~${}-]*?)([\w-]+\.py)\b"
)
_HELPER = re.compile(
    r"(?:^|[_-])(?:prepare|prep|download|build|make|sweep|search|plot|analy[sz]e|analysis|lossless|pack|unpack|minify|"
    r"compress|test|tests|bench|benchmark|convert|export|retokenize|tokenize|setup|util|utils|check|verify|count|"
    r"summari[sz]e|collect|parse|launch|orchestrat\w*|modal|runpod|ablat\w*|decode|visuali[sz]e|patch|smoke)(?:[_-]|$)",
    re.I,
)
_UNLIMITED = re.compile(
    r"unlimited[\s_-]*compute|unlimited[\s_-]*(?:track|time|non[\s-]?record)|track[:\s*_`\"-]{1,8}unlimited|"
    r"non[\s_-]*record[\s_-]*unlimited|not\s+(?:time[\s-]|compute[\s-])?limited\s+to\s+(?:10|ten)\s+min|"
    r"no\s+(?:wall[\s-]?clock|time|compute)\s+(?:limit|constraint)",
    re.I,
)
_NOT_UNLIMITED = re.compile(r"\b(?:not|isn't|no|than|vs\.?|versus|unlike)\b[^.\n]{0,25}$", re.I)
_NON_RECORD = re.compile(r"\bnon[\s_-]*record\b|\bnotable\b", re.I)
_DATE = re.compile(r"(20\d\d)[-_.]?(\d\d)[-_.]?(\d\d)(?!\d)")
_JSON_DATE = re.compile(r"20\d\d-\d\d-\d\d")


def is_python(path: str) -> bool:
    """Whether a path names Python source."""
    return path.lower().endswith((".py", ".pyw"))


def is_readme(path: str) -> bool:
    """Whether a path names a README."""
    return bool(_README.match(PurePosixPath(path).name))


def is_metadata(path: str) -> bool:
    """`submission.json` and its variants (`submission_v2.json`, `my_submission.json`), also misspelt suffixes."""
    name = PurePosixPath(path).name.lower()
    return bool(re.search(r"submission|submition|submision", name)) and bool(re.search(r"\.jsonc?5?(?:\.\w+)?$", name))


def is_log(path: str) -> bool:
    """Output of a run: by suffix, by a name that says so, or any text in a folder `log(s)`; never requirements.txt."""
    pure = PurePosixPath(path)
    name = pure.name
    if is_readme(path) or is_python(path) or is_metadata(path):
        return False
    suffix = pure.suffix.lower()
    in_log_folder = any(re.fullmatch(r"(?:train_?)?logs?(?:_.*)?", part, re.I) for part in pure.parts[:-1])
    if suffix in (".log", ".out", ".stdout", ".logs") or (_BARE_LOG.search(name) and suffix in ("", ".log", ".lgo")):
        return True
    if _BARE_LOG.search(name) and not suffix.endswith(
        (".md", ".json", ".jsonl", ".sh", ".csv", ".png", ".toml", ".gz")
    ):
        return True
    if suffix == ".txt":
        return in_log_folder or not _NOT_LOGS.search(name)
    return in_log_folder and suffix == ""


def is_artifact(path: str) -> bool:
    """Model blobs, compressed payloads, tokenizer models, binaries."""
    name = PurePosixPath(path).name.lower()
    return name.endswith(ARTIFACT_SUFFIXES) or ".ptz" in name or name.endswith((".int8", ".int6", ".q8"))


def is_tokenizer(path: str) -> bool:
    """Tokenizer models and vocabularies, which are never counted (rule book, PG-S-code-bytes)."""
    return path.lower().endswith(TOKENIZER_SUFFIXES)


def depth(path: str, folder: str) -> int:
    """Number of sub-folders between the record folder and the file."""
    return path.count("/") - (folder.count("/") + 1 if folder else 0)


def main_script(
    paths: Iterable[str],
    folder: str,
    read: Callable[[str], bytes],
    sizes: Mapping[str, int | None],
    texts: Iterable[str],
) -> str | None:
    """The script that is run, among the Python files `paths` of a record folder; None when there is none.

    `train_gpt.py` directly in the folder is what the challenge prescribes. Otherwise the best by, in this order:
    its name is not that of a helper (prepare, sweep, plot, ...); a run command in `texts` (README, run scripts) starts
    it (a `train*` file before others); it is named `train_gpt*`, then `train*`, then `eval*`; it lies higher up; it
    has an entry point (`__main__` guard, then `def main`); it is the biggest.
    """
    scripts = list(paths)
    prescribed = f"{folder}/train_gpt.py" if folder else "train_gpt.py"
    if prescribed in scripts:
        return prescribed
    commands: list[str] = [match[3] for text in texts for match in _COMMAND.finditer(text)]

    def rank(path: str) -> tuple:
        name = PurePosixPath(path).name
        stem = PurePosixPath(path).stem
        family = (
            3
            if stem.startswith("train_gpt")
            else 2
            if stem.startswith("train")
            else 1
            if stem.startswith("eval")
            else 0
        )
        return (
            not _HELPER.search(stem) or family == 3,
            name != "__init__.py" and (sizes.get(path) or 0) > 0,
            (name in commands) * (1 + (family >= 2)),
            family,
            -depth(path, folder),
            _entry_point(path, read),
            sizes.get(path) or 0,
            path,
        )

    return max(scripts, key=rank, default=None)


def _entry_point(path: str, read: Callable[[str], bytes]) -> int:
    try:
        data = read(path)
    except Exception:  # an unreadable script is ranked as one without an entry point; reading it reports the problem
        return 0
    return 2 if _ENTRY.search(data) else 1 if _MAIN_DEF.search(data) else 0


def json_field(text: str, names: tuple[str, ...]) -> str | None:
    """A top-level string or number of a JSON text by the first of `names`; tolerant of broken JSON."""
    try:
        value = json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        for name in names:
            if isinstance(value.get(name), (str, int, float)) and not isinstance(value.get(name), bool):
                return str(value[name])
        return None
    for name in names:
        match = re.search(rf'"{re.escape(name)}"\s*:\s*"?([^",\n}}]+)', text)
        if match:
            return match[1].strip()
    return None


def track_of(folder: str, declared: str, readme: str) -> tuple[str, str]:
    """(track, problem) from the parent folder, the metadata's track string and the README.

    The parent folder decides between record and non-record because it is what the author asks the organisers to list;
    without one of the two the metadata decide, then the README. A statement of unlimited compute turns non-record into
    unlimited. The problem is "" or says that metadata and folder disagree.
    """
    parents = folder.lower().split("/")[:-1] or [folder.lower()]
    placed = ""
    for part in parents:
        if re.search(r"non[_-]?record", part):
            placed = "non-record"
        elif re.search(r"unlimited", part):
            placed = "unlimited"
        elif re.search(r"10[_-]?min", part):
            placed = "record"
    said = _declared_track(declared)
    track = placed or said or ("non-record" if _NON_RECORD.search(readme) else "unknown")
    if track == "non-record" and (said == "unlimited" or _claims_unlimited(readme)):
        track = "unlimited"
    problem = ""
    if placed == "record" and said in ("non-record", "unlimited"):
        problem = f"submission.json names the track '{declared}', but the folder lies in the record track"
    elif placed == "non-record" and said == "record":
        problem = f"submission.json names the track '{declared}', but the folder lies in the non-record track"
    return track, problem


def _declared_track(declared: str) -> str:
    text = declared.lower()
    if "unlimited" in text or re.search(r"\b\d+\s*-?_?h(?:our|r)", text):
        return "unlimited"
    if re.search(r"non[\s_-]*record|unconstrained|notable", text):
        return "non-record"
    return "record" if re.search(r"10[\s_-]*min|\brecord\b|track_10|^10min|600s", text) else ""


def _claims_unlimited(readme: str) -> bool:
    """A statement that this run is unlimited; "unlike unlimited compute ..." and the like do not count."""
    for match in _UNLIMITED.finditer(readme):
        if not _NOT_UNLIMITED.search(readme[max(0, match.start() - 40) : match.start()]):
            return True
    return False


def date_in(text: str, pattern: re.Pattern[str] = _DATE) -> dt.date | None:
    """First valid calendar date in a text (`2026-03-18`, `20260318`, `2026_03_18`)."""
    for match in pattern.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        try:
            return dt.date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
        except ValueError:
            continue
    return None


# Parts of documents that are read to find run commands, track and date (bytes).
_DOCUMENT_LIMIT = 2**18


def assign(submission: Submission, known: frozenset[str] = frozenset()) -> None:
    """Fill in roles, main script, track and date of a submission from its files; attributes in `known` stay."""
    folder = submission.folder
    paths = [p for p, e in submission.files.items() if e.kind == "file"]
    paths.sort(key=lambda p: (depth(p, folder), p))
    found: dict[str, object] = {
        "metadata": sorted(
            filter(is_metadata, paths), key=lambda p: (p.rsplit("/", 1)[-1] != "submission.json", depth(p, folder))
        ),
        "readme": next(filter(is_readme, paths), None),
        "logs": list(filter(is_log, paths)),
        "artifacts": [p for p in paths if is_artifact(p) and not is_log(p)],
    }
    scripts = list(filter(is_python, paths))
    documents = {p: _text(submission, p) for p in _documents(paths, found["readme"])}
    sizes = {p: e.size for p, e in submission.files.items()}
    main = main_script(scripts, folder, lambda p: submission.read(p, 2**20), sizes, documents.values())
    found |= {"main_script": main, "modules": [p for p in scripts if p != main]}
    readme = documents.get(found["readme"] or "", "")
    metadata = _text(submission, found["metadata"][0]) if found["metadata"] else ""
    track, problem = track_of(folder, json_field(metadata, ("track", "submission_type", "category")) or "", readme)
    found["track"] = _track_type()(track)
    found["date"] = (
        date_in(folder.rsplit("/", 1)[-1])
        or date_in(json_field(metadata, ("date", "submission_date", "created_at")) or "")
        or (submission.head_date.date() if submission.head_date else None)
    )
    for name, value in found.items():
        if name not in known:
            setattr(submission, name, value)
    if problem and "track" not in known:
        submission.problems.append(problem)
    submission.problems += _complaints(submission)


def _documents(paths: list[str], readme: object) -> list[str]:
    """README and run scripts, in which run commands are looked for."""
    scripts = [p for p in paths if p.lower().endswith((".sh", ".bash", ".slurm")) or p.rsplit("/", 1)[-1] == "Makefile"]
    notes = [p for p in paths if p.lower().endswith(".md") and p != readme]
    return ([str(readme)] if readme else []) + scripts[:8] + notes[:4]


def _text(submission: Submission, path: str) -> str:
    try:
        return decode(submission.read(path, _DOCUMENT_LIMIT))
    except (AuditorError, KeyError):
        return ""


def _complaints(submission: Submission) -> list[str]:
    """What makes parts of the submission unreadable, naming the file."""
    problems = []
    where = submission.folder or "the submission"
    for path, entry in submission.files.items():
        if entry.kind == "submodule":
            problems.append(f"{path}: a submodule, its content is not part of the submission and was not read")
        elif entry.kind == "symlink" and not any(p.startswith(f"{path}:") for p in submission.problems):
            problems.append(f"{path}: a symbolic link, it is not followed")
        elif entry.kind == "file" and entry.size is None:
            problems.append(f"{path}: the clone lists this file but does not hold its content (blob {entry.blob})")
    main = submission.main_script
    if main is None:
        problems.append(f"{where}: there is no Python script in the folder")
    elif submission.files[main].size == 0:
        problems.append(f"{main}: the main script is empty (0 bytes)")
    elif depth(main, submission.folder) > 0:
        problems.append(f"{main}: the main script lies in a sub-folder of the record folder")
    return problems


def _track_type() -> type[Track]:
    from auditor.submission import Track

    return Track
