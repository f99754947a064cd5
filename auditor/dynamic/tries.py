"""What to try next when a run did not come to a score, by the reason it ended with.

A program is first run as its documents say. Many need something the first try cannot know: a file that lies elsewhere in
the pull request, options of the command line, other sizes, a start without ranks, the program's own defaults. Each further
try changes one thing and says which, so that the report can tell under what conditions the program ran.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from auditor.dynamic.nowhere import documents, own_module
from auditor.dynamic.plan import NEVER, SCALES, TIMED, Scale
from auditor.submission import Submission

MOST = 8  # tries of one program
_WIDEST = 256  # head of a model that still runs here
# For evaluations that want whole batches of their own size, and programs whose last validation is their score.
LONG = Scale(val_tokens=2 * 16 * 1024 + 1, never=SCALES[0].steps)
# For programs that are slow here: half the stream, few and short steps; still eight chunks.
SMALL = Scale(seq=64, batch=8, chunk=256, stride=32, steps=3, val_tokens=8 * 256 + 1)
# The model as submitted, on as little as possible: whether an error is there as well.
WHOLE = Scale(seq=64, batch=8, chunk=256, stride=32, steps=2, val_tokens=8 * 256 + 1, whole=True)
_SHAPES = ("shape", "size", "divisible", "divide", "assert", "dimension", "index", "range", "view", "must", "zero")
_FINAL = ("needs the package", "needs the network", "has no stand-in", "no stand-in on a CPU", "wall time over")
# Where the sandbox lays its own data set, and folders of the system.
_SYSTEM = ("/data/", "/repo/", "/scratch/", "/tmp/", "/usr/", "/lib", "/bin/", "/etc/", "/proc/", "/dev/", "/sys/")
_RANKS = ("Wrapped", "DistributedDataParallel", "distributed", "ddp", "DDP", "process group", "world_size")


@dataclass(frozen=True)
class Try:
    """Conditions of one attempt.

    Attributes:
        scale: sizes. documented: settings that documents and logs show are in force; otherwise the program's defaults.
        ranked: variables that `torchrun` sets are there. options: with the documented command line options.
        extra: files of the pull request outside the record folder, by path, that are laid beside it.
        data: paths at which it looked for shards or a tokenizer in vain; the data set is laid there as well.
        without: packages that are not here and can be imported in name only.
        shell: script of the folder whose variables are set, where documents and logs say nothing else.
        words: what differs from a run as documented, "" when nothing does.
    """

    scale: Scale = SCALES[0]
    documented: bool = True
    ranked: bool = True
    options: bool = False
    extra: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    shell: str = ""
    words: str = ""

    @property
    def bare(self) -> Try:
        """The conditions alone, whatever words lead to them."""
        return replace(self, words="")

    def supplies(self, before: Try) -> bool:
        """Whether something is here that was missing before, so that the end before was not the program's."""
        return any(len(now) > len(then) for now, then in
                   ((self.extra, before.extra), (self.data, before.data), (self.without, before.without)))  # fmt: skip

    def but(self, words: str, **changed: Any) -> Try:
        """The same with one thing changed."""
        return replace(self, words="; ".join(filter(None, (self.words, words))), **changed)


WHOLE_TRY = Try(scale=WHOLE, words="with the model's sizes as submitted")


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: `finished` or stopped for `reason`; whether it printed a result."""

    finished: bool
    reason: str
    scored: bool


def following(tried: list[Try], ended: Ended, submission: Submission, options: Mapping[str, str] | None) -> Try | None:
    """The next attempt, None when none is worth it.

    Args:
        tried: attempts so far, the last one being what `ended` is about.
        options: flags of the documented command, as `auditor.static.arguments.options_of` finds them.
    """
    if (ended.finished and ended.scored) or len(tried) >= MOST:
        return None
    return next(
        (item for item in _candidates(tried, ended, submission, options or {}) if not _known(item, tried)), None
    )


def _known(item: Try, tried: list[Try]) -> bool:
    return any(item.bare == old.bare for old in tried)


def _candidates(tried: list[Try], ended: Ended, submission: Submission, options: Mapping[str, str]) -> list[Try]:
    last, reason = tried[-1], ended.reason
    given = [last.but("with the documented command line options", options=True)] if options else []
    if ended.finished or reason.startswith("exit status"):
        return [*given, last.but("on a longer stream, validated at the last step", scale=LONG)]
    found = elsewhere(reason, submission)
    if found:
        return [last.but(f"with {found[0]} of the same pull request", extra=(*last.extra, *found))]
    path = missing_data(reason)
    if path and path not in last.data:
        return [last.but(f"with the data set at {data_root(path)}", data=(*last.data, path))]
    absent = re.match(r"needs the package (\w+)", reason)
    if absent and absent[1] not in last.without and not own_module(absent[1], documents(submission)):
        words = f"without the package {absent[1]}, which it imports"
        return [last.but(words, without=(*last.without, absent[1]))]
    if any(words in reason for words in _FINAL):
        return []
    if "CPU time over" in reason or "memory over" in reason:
        if last.scale != SCALES[0]:
            return []
        if "by the clock" in reason:
            return [last.but(f"with {TIMED} s of training", scale=replace(SMALL, seconds=TIMED))]
        return [last.but("at the smallest scale", scale=SMALL)]
    scripts = [last.but(f"with the variables of {path}", shell=path) for path in launchers(submission)]
    return [*_by_error(tried, reason), *given, *scripts[:1], *_otherwise(last)]


def _by_error(tried: list[Try], reason: str) -> list[Try]:
    last, found = tried[-1], []
    if "modulo by zero" in reason and last.scale.never == 0:
        found.append(last.but("", scale=replace(last.scale, never=NEVER)))
    if any(word in reason for word in _RANKS):
        found.append(last.but("started without ranks", ranked=False))
    if any(word in reason.lower() for word in _SHAPES):
        scales = (*_in_blocks(last.scale, reason), *SCALES)
        found += [last.but(f"at another scale (width {scale.width})", scale=scale) for scale in scales]
        if last.documented:  # sizes that the program takes for granted
            found.append(last.but(WHOLE_TRY.words, scale=WHOLE))
    return found


def _in_blocks(scale: Scale, reason: str) -> tuple[Scale, ...]:
    """Heads as wide as blocks that are written into the program, where it says that it needs that."""
    blocks = [int(size) for size in re.findall(r"(?:divisible by|multiple of)[\s\w.]*?[=:(]?\s*(\d+)\b", reason)]
    block = max(blocks, default=0)
    return (replace(scale, width=2 * block, heads=2, kv_heads=1),) if scale.width < block <= _WIDEST else ()


def _otherwise(last: Try) -> list[Try]:
    """For an error of the program's own: other conditions under which it may have been run."""
    first = replace(last, scale=SCALES[0])
    return [
        first.but("with the program's own defaults", documented=False),
        first.but("started without ranks", ranked=False),
    ]


def launchers(submission: Submission) -> list[str]:
    """Shell scripts of the folder that start its main script, the one that sets most first."""
    if submission.main_script is None:
        return []
    name = PurePosixPath(submission.main_script).name.encode()
    texts = {path: submission.read(path, 1 << 16) for path in submission.files if path.endswith(".sh")}
    starting = [path for path, text in texts.items() if re.search(rb"(?<![\w])" + re.escape(name), text)]
    return sorted(starting, key=lambda path: (-texts[path].count(b"="), path))


def elsewhere(reason: str, submission: Submission) -> tuple[str, ...]:
    """Files of the pull request's tree that a run missed: a module with its package, or a file by its path.

    Only source files outside the record folder are looked at (`Submission.neighbours`); of several the one nearest to the
    record folder is taken.
    """
    module = re.search(r"needs the package ([\w.]+)|No module named '([\w.]+)'", reason)
    if module:
        return _module((module[1] or module[2]).replace(".", "/"), submission)
    missing = re.search(r"No such file or directory: '([^']+\.py)'", reason)
    if not missing:
        return ()
    name = PurePosixPath(missing[1]).name
    return _nearest([path for path in _within_reach(submission) if PurePosixPath(path).name == name], submission)[:1]


def missing_data(reason: str) -> str:
    """The absolute path of shards or of a tokenizer that a run missed, "" when it missed something else."""
    found = re.search(r"(?:No such file|[Nn]o files|[Nn]ot found|does not exist|NOT_FOUND|Missing)", reason)
    named = re.search(r"(?<![\w.])/[\w.\-/]+/[\w.\-*]+\.(?:model|bin)\b", reason)
    return named[0] if found and named and not named[0].startswith(_SYSTEM) else ""


def data_root(path: str) -> str:
    """The folder of a data set in which `path` lies, as `datasets/NAME/SHARD`, `tokenizers/MODEL`, or beside each other."""
    parts = PurePosixPath(path).parts
    inner = [i for i, part in enumerate(parts) if part in ("datasets", "tokenizers")]
    return str(PurePosixPath(*parts[: inner[-1]])) if inner and inner[-1] > 1 else str(PurePosixPath(path).parent)


def _module(place: str, submission: Submission) -> tuple[str, ...]:
    ends = f"{place}.py", f"{place}/__init__.py"
    reach = _within_reach(submission)
    named = [path for path in reach if any(path == end or path.endswith(f"/{end}") for end in ends)]
    # A package of namespaces has no file of its own.
    inside = [path for path in reach if path.startswith(f"{place}/")]
    chosen = _nearest(named, submission)[:1] or tuple(inside[:1])
    if not chosen:
        return ()
    root = chosen[0].removesuffix("/__init__.py")
    package = [path for path in reach if path.startswith(f"{root}/")] if root != chosen[0] else inside
    return tuple(dict.fromkeys((*chosen, *package)))


def _within_reach(submission: Submission) -> list[str]:
    """Files that are the pull request's own or the repository's; a namesake in somebody else's record is neither."""
    own = {change.path for change in submission.changes}
    return [path for path in submission.neighbours if path in own or not path.startswith("records/")]


def _nearest(paths: list[str], submission: Submission) -> tuple[str, ...]:
    here = PurePosixPath(submission.folder).parts

    def distance(path: str) -> tuple[int, str]:
        parts = PurePosixPath(path).parts
        common = next(
            (i for i, (a, b) in enumerate(zip(here, parts, strict=False)) if a != b), min(len(here), len(parts))
        )
        return len(here) + len(parts) - 2 * common, path

    return tuple(sorted(paths, key=distance))
