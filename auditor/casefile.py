"""Calls the witnesses in order and puts what they say into one case.

Every witness is called on its own: one that fails leaves a problem that names it, and everything else is still done.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

from auditor.case import Case
from auditor.errors import AuditorError
from auditor.findings import Witness
from auditor.submission import Submission
from auditor.unpack import Program

# Why a witness of the order of events has not testified, until one is called.
_ABSENT = {
    Witness.STATIC: "not available",
    Witness.RUN: "not available",
    Witness.REPRODUCTION: "not run: it needs eight GPUs, see `auditor reproduce`",
}


def build_case(submission: Submission) -> Case:
    """Everything the witnesses say about a submission; never raises for what the submission contains.

    What could not be read stands in `submission.problems`, a witness that did not testify in `case.absent`.
    """
    desk = _Desk(submission)
    program = desk.ask("auditor.unpack", "read_program", submission) or Program()
    case = Case(submission, program, absent=dict(_ABSENT))
    case.metadata = desk.read("auditor.documents.metadata", "read_metadata", submission.metadata)
    readmes = desk.read("auditor.documents.readme", "read_readme", [submission.readme] if submission.readme else [])
    case.readme = readmes[0] if readmes else None
    case.logs = desk.read("auditor.documents.logs", "read_log", submission.logs)
    case.facts = desk.ask("auditor.static.facts", "program_facts", program, submission) or {}
    documents = (submission, program, case.metadata, case.readme, case.logs)
    case.headline = desk.ask("auditor.documents.ledger", "headline", *documents)
    case.ledger = desk.ask("auditor.documents.ledger", "build_ledger", *documents, _local_files(case)) or []
    case.forensics = desk.ask("auditor.documents.forensics", "forensics", submission, program, case.logs) or []
    if "forensics" in desk.failed or "read_log" in desk.failed:
        case.absent[Witness.DOCUMENTS] = "forensics: the logs could not be examined"
    submission.problems.extend(problem for problem in desk.problems if problem not in submission.problems)
    return case


def _local_files(case: Case) -> list[str]:
    return [str(getattr(item, "path", item)) for item in case.facts.get("local_files", ())]


class _Desk:
    """Asks witnesses one by one; remembers what went wrong and who failed."""

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.problems: list[str] = []
        self.failed: set[str] = set()

    def ask(self, module: str, function: str, *arguments: Any) -> Any:
        """Result of one witness, None when it fails."""
        return self._guarded(function, function, lambda: self._find(module, function)(*arguments))

    def read(self, module: str, function: str, paths: Iterable[str]) -> list:
        """Results of one reader for every file; a file that cannot be read is left out and named."""

        def one(path: str) -> Any:
            entry = self.submission.files.get(path)
            blob = (entry.blob,) if function == "read_log" and entry else ()
            return self._find(module, function)(path, self.submission.read(path), *blob)

        items = [self._guarded(function, path, lambda path=path: one(path)) for path in paths]
        return [item for item in items if item is not None]

    def _guarded(self, function: str, subject: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except AuditorError as error:  # says itself what is wrong
            self.failed.add(function)
            self.problems.append(str(error))
        except Exception as error:  # a defect of one witness must not silence the others
            self.failed.add(function)
            self.problems.append(f"{subject}: could not be examined ({type(error).__name__}: {error})")
        return None

    def _find(self, module: str, function: str) -> Callable[..., Any]:
        return getattr(importlib.import_module(module), function)
