"""A train log read whole: `read_log` gives its lines and the runs in it."""

from __future__ import annotations

from typing import BinaryIO

from auditor.documents.logs.decode import decode_log
from auditor.documents.logs.patterns import STAMP
from auditor.documents.logs.runs import RunBuilder
from auditor.documents.logs.source import find_source
from auditor.documents.model import EvalResult, LogRun, TrainLog

#: Runs kept apart in one log; what follows is read as part of the last.
MAX_RUNS = 200


def read_log(path: str, source: bytes | BinaryIO, blob: str = "", size: int | None = None) -> TrainLog:
    """Read a train log of any size and encoding.

    Args:
        path: repository-relative path, for sources.
        source: the bytes, or a binary file that is read as a stream.
        blob: git object id, kept for comparisons.
        size: bytes of the whole file, when `source` may be only its beginning.

    Never raises for content; problems are listed in words. Times in seconds, sizes in bytes.
    """
    decoded = decode_log(path, source)
    log = TrainLog(path, decoded.lines, [], decoded.encoding, decoded.skipped is not None, blob, decoded.problems)
    log.truncated = log.truncated or any("were not read" in problem for problem in decoded.problems)
    if size is not None and isinstance(source, bytes) and len(source) < size:
        log.truncated = True
        log.problems.append(f"{path}: only the first {len(source):,} of {size:,} bytes were read")
    if decoded.is_text:
        log.runs = _Splitter(path, decoded.lines, decoded.overwritten).split()
    if len(log.runs) >= MAX_RUNS:
        log.problems.append(f"{path}: more than {MAX_RUNS} runs; the rest is read as part of the last")
    return log


class _Splitter:
    def __init__(self, path: str, lines: list[str], overwritten: dict[int, list[str]]) -> None:
        self.path = path
        self.lines = lines
        self.overwritten = overwritten
        self.finished: list[LogRun] = []
        self.builder = RunBuilder(path, 1)

    def split(self) -> list[LogRun]:
        """Runs in file order; an empty log has none."""
        if not any(line.strip() for line in self.lines):
            return []
        block = find_source(self.lines)
        number = 1
        while number <= len(self.lines):
            if block is not None and number == block[0] + 1:
                self._source(block)
                number = block[1] + 1
                block = find_source(self.lines, block[1]) if block[1] < len(self.lines) else None
                continue
            self._line(number)
            number += 1
        self._close(len(self.lines))
        return _without_echoes(self.finished)

    def _source(self, block: tuple[int, int]) -> None:
        first, last = block[0] + 1, block[1] + 1
        if self.builder.progressed:
            self._next(first)
        run = self.builder.run
        # A program may be printed in two parts; what lies between belongs to it.
        run.source_lines = (run.source_lines[0] if run.source_lines else first, last)
        run.last_line = last - 1

    def _line(self, number: int) -> None:
        for part in (*self.overwritten.get(number, ()), self.lines[number - 1]):
            if not part or part.isspace():
                continue
            stamp = STAMP.match(part) if part[0] in " [0123456789dIDWr" else None
            text = part[stamp.end() :] if stamp else part
            if len(text) > 200 and "\\n" in text and "step:" in text:
                self._quoted(number, text)
                continue
            if self.builder.starts_again(text):
                self._next(number)
            self.builder.feed(number, text)

    def _quoted(self, number: int, text: str) -> None:
        """A log inside a JSON string: every line of it stands in this one."""
        for part in text.split("\\n")[:5000]:
            if part.strip():
                self.builder.feed(number, part)

    def _next(self, number: int) -> None:
        if len(self.finished) >= MAX_RUNS:
            return
        self._close(number - 1)
        self.builder = RunBuilder(self.path, number)

    def _close(self, last: int) -> None:
        run = self.builder.finish()
        run.last_line = last
        before = self.finished[-1] if self.finished else None
        if before is not None and _continues(before, run):
            _join(before, run)
        else:
            self.finished.append(run)


def _without_echoes(runs: list[LogRun]) -> list[LogRun]:
    """Runs without those whose output stands in the file twice, the console's copy beside the log's.

    Of two such copies the one that tells more about its settings stays, and marks where the other begins.
    """
    kept: list[LogRun] = []
    for run in runs:
        printed = _printed(run)
        twin = next((place for place, other in enumerate(kept) if printed and _printed(other) == printed), None)
        if twin is None:
            kept.append(run)
            continue
        richer, poorer = sorted((kept[twin], run), key=_told, reverse=True)
        richer.markers.setdefault("printed twice", []).append(poorer.first_line)
        _fill(richer, poorer)
        kept[twin] = richer
    return kept


def _told(run: LogRun) -> tuple[bool, int]:
    """How much a run says about itself: its program, its settings."""
    return run.source_lines is not None, len(run.settings) + len(run.environment)


def _printed(run: LogRun) -> tuple | None:
    """What no second run prints again to the millisecond: training lines with their times, and the results."""
    timed = [step for step in run.steps if step.train_seconds]
    if len(timed) < 3 or not run.results:
        return None
    return tuple((s.step, s.train_loss, s.val_bpb, s.train_seconds) for s in timed), tuple(
        (r.label, r.val_loss, r.val_bpb, r.seconds) for r in run.results
    )


def _continues(before: LogRun, run: LogRun) -> bool:
    """An evaluation stage without training of its own, by the same seed, is the second half of the run before it."""
    if not before.steps or before.crashed or run.stop is not None:
        return False
    trains = any(step.step > 0 for step in run.steps)
    same = run.seed is None or before.seed is None or run.seed == before.seed
    return not trains and same and run.source_lines is None


def _join(before: LogRun, run: LogRun) -> None:
    before.last_line = run.last_line
    before.markers.setdefault("second process", []).append(run.first_line)
    for name in ("steps", "results", "sizes", "progress", "phases"):
        getattr(before, name).extend(getattr(run, name))
    for name, lines in run.markers.items():
        before.markers.setdefault(name, []).extend(lines)
    before.crashed = run.crashed
    _fill(before, run)


def _fill(run: LogRun, other: LogRun) -> None:
    """What `run` does not say about itself and `other` does."""
    for name, value in other.settings.items():
        if run.settings.setdefault(name, value) is value:
            run.setting_lines.setdefault(name, other.setting_lines.get(name, other.first_line))
    for name, value in other.environment.items():
        run.environment.setdefault(name, value)
    for name in ("seed", "params", "val_tokens", "train_shards", "train_seconds"):
        if getattr(run, name) is None:
            setattr(run, name, getattr(other, name))


def final_candidates(run: LogRun) -> list[EvalResult]:
    """Results that can be the headline, the likeliest first: the latest label, each label with its most exact line."""
    best: dict[str, EvalResult] = {}
    for result in run.results:
        if result.val_bpb is None:
            continue
        label = result.label.removesuffix("_exact")
        old = best.pop(label, None)
        twin = (
            old is not None
            and old.val_bpb is not None
            and abs(old.val_bpb - result.val_bpb) <= 0.6 * 10.0 ** -min(old.digits, result.digits)
        )
        best[label] = old if twin and old is not None and old.digits > result.digits else result
    return list(reversed(best.values()))
