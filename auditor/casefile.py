"""Calls the witnesses in order and puts what they say into one case.

Every witness is called on its own: one that fails leaves a problem that names it, and everything else is still done.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from auditor.case import Case
from auditor.documents.description import with_description
from auditor.documents.forensics import forensics
from auditor.documents.ledger import against_record, build_ledger, headline
from auditor.documents.logs import read_log
from auditor.documents.metadata import read_metadata
from auditor.documents.model import TrainLog
from auditor.documents.readme import read_readme
from auditor.documents.shell import read_shell
from auditor.errors import AuditorError
from auditor.findings import Witness
from auditor.static.facts import program_facts
from auditor.submission import Submission
from auditor.unpack import Program, read_program

if TYPE_CHECKING:
    from auditor.documents.copies import LogIndex

Answer = TypeVar("Answer")

MAX_SCRIPTS = 8
_NOT_REPRODUCED = "not run: it needs eight GPUs, see `auditor reproduce`"
_NOT_ASKED = "not asked for in this review"
_NO_TORCH = "not run: torch is not installed here (pip install 'parameter-golf-auditor[torch]', or bin/setup torch)"


@dataclass(frozen=True)
class Call:
    """Which witnesses are called beside the documents.

    Attributes:
        static: read the program's order of events.
        run: execute the submission at reduced scale in the sandbox (needs torch; up to a minute), and once more on an
            altered stream.
        log_index: logs of the whole clone by content, to find copied ones; None when it was not built.
        description: title and text of the pull request, which no clone holds; "" when not handed in.
        reproduction: folder of a re-run made by `auditor reproduce`; None to look into the working directory.
        progress: told in words what is being done, where that takes seconds.
    """

    static: bool = True
    run: bool = False
    log_index: LogIndex | None = None
    description: bytes = b""
    reproduction: Path | None = None
    progress: Callable[[str], None] | None = None


def build_case(submission: Submission, call: Call | None = None) -> Case:
    """Everything the witnesses say about a submission; never raises for what the submission contains.

    What could not be read stands in `submission.problems`, a witness that did not testify in `case.absent`.
    """
    call = call or Call()
    desk = _Desk(submission)
    program = desk.ask("the program", lambda: read_program(submission)) or Program()
    case = Case(submission, program, absent={Witness.REPRODUCTION: _NOT_REPRODUCED})
    _documents(desk, case, call)
    _static(desk, case, call)
    _run(desk, case, call)
    _reproduction(desk, case, call)
    submission.problems.extend(problem for problem in desk.problems if problem not in submission.problems)
    return case


def _documents(desk: _Desk, case: Case, call: Call) -> None:
    submission, program = case.submission, case.program
    case.metadata = desk.read(submission.metadata, lambda path: read_metadata(path, submission.read(path)))
    readmes = [submission.readme] if submission.readme else []
    case.readme = next(iter(desk.read(readmes, lambda path: read_readme(path, submission.read(path)))), None)
    if call.description:
        case.readme = (
            desk.ask("the description", lambda: with_description(case.readme, call.description)) or case.readme
        )
    case.scripts = desk.read(_run_scripts(submission), lambda path: read_shell(path, submission.read(path)))
    case.logs = desk.read(submission.logs, lambda path: _log(submission, path))
    desk.problems += [problem for log in case.logs for problem in _unread(log)]
    case.facts = desk.ask("the program's facts", lambda: program_facts(program, submission)) or {}
    documents = (submission, program, case.metadata, case.readme, case.logs)
    local = [str(getattr(item, "path", item)) for item in case.facts.get("local_files", ())]
    case.headline = desk.ask("the headline", lambda: headline(*documents))
    if case.headline is not None:
        head = case.headline
        case.statistics = desk.ask("the statistics", lambda: against_record(submission, head))
    case.ledger = desk.ask("the claims", lambda: build_ledger(*documents, local)) or []
    facts = desk.ask("the logs", lambda: forensics(submission, program, case.logs, call.log_index))
    case.forensics = facts or []
    if facts is None or len(case.logs) < len(submission.logs):
        case.absent[Witness.DOCUMENTS] = "forensics: the logs could not be examined"


def _log(submission: Submission, path: str) -> Any:
    entry = submission.files.get(path)
    # A very long log comes back as its beginning; its size says how much is missing.
    return read_log(path, submission.read(path), entry.blob if entry else "", entry.size if entry else None)


def _unread(log: TrainLog) -> Iterator[str]:
    """Says so when nothing in a log is a train log's; the reader's own problems stand in the log."""
    if not any(run.steps or run.results or run.sizes or run.settings or run.crashed for run in log.runs):
        yield f"{log.path}: no line of a train log was recognised in {len(log.lines):,} lines ({log.encoding})"


def _static(desk: _Desk, case: Case, call: Call) -> None:
    """The order of events as the program states it, under the settings that were in force."""
    if not call.static:
        case.absent[Witness.STATIC] = _NOT_ASKED
        return
    from auditor.static.byte_table import byte_table

    case.facts["byte_table"] = desk.ask("the byte count", lambda: byte_table(case.program))
    from auditor.static.claim import claimed_timeline
    from auditor.static.effective import settings_of_case

    def read() -> Any:
        settings = settings_of_case(case)
        return claimed_timeline(case.program, settings)

    if case.program.main is None:
        case.absent[Witness.STATIC] = "there is no readable script"
        return
    result = desk.ask("the order of events", read)
    if result is None:
        case.absent[Witness.STATIC] = "the program could not be followed"
        return
    case.facts["static"] = result
    case.timelines[Witness.STATIC] = result.timeline


def _run_scripts(submission: Submission) -> list[str]:
    """Shell scripts beside the main script, in which the command of the claimed run may stand."""
    inside = f"{submission.folder}/" if submission.folder else ""
    found = [path for path in submission.files if path.startswith(inside) and path.lower().endswith((".sh", ".bash"))]
    return [path for path in sorted(found) if submission.folder or "/" not in path][:MAX_SCRIPTS]


def _run(desk: _Desk, case: Case, call: Call) -> None:
    """The order of events as a run at reduced scale shows it."""
    if not call.run:
        case.absent[Witness.RUN] = _NOT_ASKED
        return
    if importlib.util.find_spec("torch") is None:
        case.absent[Witness.RUN] = _NO_TORCH
        return
    from auditor.dynamic.witness import testimony_of

    known = len(desk.problems)
    said = desk.ask("the CPU run", lambda: testimony_of(case, probe=True, progress=call.progress))
    case.facts["run"] = said
    if said is None or said.timeline is None:
        why = "; ".join(desk.problems[known:]) or "the run could not be made"
        case.absent[Witness.RUN] = said.absent if said is not None else f"not run: {why}"
        return
    case.timelines[Witness.RUN] = said.timeline


def _reproduction(desk: _Desk, case: Case, call: Call) -> None:
    """A re-run of these files that was made before; none is made here."""
    from auditor.reproduce.testimony import find_reproduction

    before = len(desk.problems)
    found = desk.ask("the re-run", lambda: find_reproduction(case.submission, call.reproduction))
    if found is not None:
        case.facts["reproduction"] = found
        del case.absent[Witness.REPRODUCTION]
    elif len(desk.problems) > before:
        case.absent[Witness.REPRODUCTION] = desk.problems[-1]


@dataclass
class _Desk:
    """Asks witnesses one by one; remembers what went wrong."""

    submission: Submission
    problems: list[str] = field(default_factory=list)

    def ask(self, subject: str, call: Callable[[], Answer]) -> Answer | None:
        """Result of one witness, None when it fails."""
        try:
            return call()
        except AuditorError as error:  # says itself what is wrong
            self.problems.append(str(error))
        except Exception as error:  # a defect of one witness must not silence the others
            self.problems.append(f"{subject}: could not be examined ({type(error).__name__}: {error})")
        return None

    def read(self, paths: Iterable[str], reader: Callable[[str], Answer]) -> list[Answer]:
        """Results of one reader for every file; a file that cannot be read is left out and named."""
        items = [self.ask(path, lambda path=path: reader(path)) for path in paths]
        return [item for item in items if item is not None]
