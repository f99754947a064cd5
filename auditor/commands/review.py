"""`auditor review`: targets in, reports out; progress while it lasts, resumable, one exit code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from auditor.casefile import Call
from auditor.errors import AuditorError
from auditor.findings import Verdict
from auditor.review import Review, review_target
from auditor.targets import Target, all_pull_requests, main_records, read_list, resolve

# Of several reviews the gravest decides the exit code.
GRAVITY = (Verdict.CLEAN, Verdict.NEEDS_REVIEW, Verdict.NOT_ELIGIBLE, Verdict.VIOLATION, Verdict.ERROR)


@dataclass(frozen=True)
class Options:
    """Options of the command, as the command line names them."""

    repo: Path | None = None
    list_file: Path | None = None
    main_branch: bool = False
    everything: bool = False
    fetch: bool = False
    out: Path | None = None
    formats: tuple[str, ...] = ()
    jsonl: Path | None = None
    resume: bool = False
    run: bool | None = None
    description: Path | None = None
    reproduction: Path | None = None
    verbose: bool = False
    quiet: bool = False


def run(names: tuple[str, ...], options: Options) -> int:
    """Review everything asked for; returns the exit code."""
    targets = list(_targets(names, options))
    if options.resume and options.jsonl:
        done = _labels_done(options.jsonl)
        targets = [target for target in targets if target.label not in done]
    console = Console(soft_wrap=options.quiet or len(targets) > 1)
    single = len(targets) == 1
    gravest = Verdict.CLEAN
    for review in _reviews(targets, _call(options, len(targets)), single):
        if options.jsonl:
            _append(options.jsonl, review)
        written = _write_reports(review, options) if options.out else []
        _show(review, written, console, options, brief=options.quiet or not single)
        gravest = max(gravest, review.verdict, key=GRAVITY.index)
    return gravest.exit_code


def _targets(names: tuple[str, ...], options: Options) -> Iterator[Target]:
    listed = list(names) + (read_list(options.list_file) if options.list_file else [])
    streams: list[Iterable[Target]] = [resolve(listed, options.repo, options.fetch)]
    if options.main_branch or options.everything:
        if options.repo is None:
            raise AuditorError("--main and --all need a clone: name one with --repo DIR")
        if options.main_branch:
            streams.append(main_records(options.repo))
        if options.everything:
            streams.append(resolve(all_pull_requests(options.repo), options.repo))
    return chain.from_iterable(streams)


def _call(options: Options, count: int) -> Call:
    """Witnesses to call. A single target that was named is also run on the CPU; lists are, where that is asked for.

    Building the index of logs is left out for a single review, which uses one that is there.
    """
    listed = options.list_file or options.main_branch or options.everything
    run = options.run if options.run is not None else count == 1 and not listed
    index = None
    if options.repo is not None:
        from auditor.documents.copies import log_index

        try:
            index = log_index(options.repo, _cache(), build=count > 1)
        except AuditorError:
            index = None  # the reviews themselves will say what is wrong with the clone
    if options.reproduction is not None and count != 1:
        raise AuditorError(f"--reproduction belongs to one submission; {count} targets were named")
    description = _description(options, count)
    return Call(run=run, log_index=index, description=description, reproduction=options.reproduction)


def _description(options: Options, count: int) -> bytes:
    if options.description is None:
        return b""
    if count != 1:
        raise AuditorError(f"--description belongs to one pull request; {count} targets were named")
    try:
        return options.description.read_bytes()
    except OSError as error:
        raise AuditorError(f"cannot read the description {options.description}: {error}") from error


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "parameter-golf-auditor"


def _reviews(targets: list[Target], call: Call, single: bool) -> Iterator[Review]:
    """Reviews one after the other, with progress on standard error: a bar over many, the witness at work for one."""
    if single and call.run:
        with Console(stderr=True).status("reading the submission") as status:
            told = replace(call, progress=lambda words: status.update(words))
            review = review_target(targets[0], told)
        yield review
        return
    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=single) as progress:
        task = progress.add_task("reviewing", total=len(targets))
        for target in targets:
            progress.update(task, description=f"reviewing {target.label[-40:]}")
            yield review_target(target, call)
            progress.advance(task)


def _labels_done(path: Path) -> set[str]:
    """Labels already in a results file; a line cut short by an interruption does not count."""
    done = set()
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                done.add(json.loads(line)["label"])
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    return done


def _append(path: Path, review: Review) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        # A line that an interruption cut short must not swallow the next one.
        if file.tell() and (file.seek(-1, 2), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write(json.dumps(review.row(), ensure_ascii=False).encode() + b"\n")


def _write_reports(review: Review, options: Options) -> list[Path]:
    from auditor import report

    options.out.mkdir(parents=True, exist_ok=True)
    document = report.document(review)
    stem = _stem(review)
    written = []
    for name in options.formats or tuple(report.WRITERS):
        suffix, render = report.WRITERS[name]
        path = options.out / f"{stem}.{suffix}"
        path.write_text(render(document), encoding="utf-8")
        written.append(path)
    return written


def _stem(review: Review) -> str:
    """File name of the reports: the pull request's number, or the folder's own name."""
    label = review.label.rstrip("/").removeprefix("main:").removesuffix(".py")
    if review.submission is not None and review.submission.pr is None and review.submission.folder:
        label = review.submission.folder.rsplit("/", 1)[-1]
    return "review-" + re.sub(r"[^\w.-]+", "_", label).strip("_")[-80:]


def _show(review: Review, written: list[Path], console: Console, options: Options, brief: bool) -> None:
    from auditor import report

    if brief:
        line = f"{review.verdict.value:13} {_stem(review).removeprefix('review-')}: {review.reason}"
        console.print(report.plain(line), markup=False, highlight=False)
        if review.defect:
            console.print(review.defect, markup=False, highlight=False)
    else:
        for path in written:
            console.print(f"report: {path}", markup=False, highlight=False, soft_wrap=True)
        report.show(report.document(review), console, verbose=options.verbose)
    if brief and written:
        html = [path for path in written if path.suffix == ".html"]
        console.print(f"              report: {(html or written)[0]}", markup=False, highlight=False, soft_wrap=True)
