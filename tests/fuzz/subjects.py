"""A submission under another program: everything its documents say stays, only what was read from the source changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from auditor.case import Case
from auditor.casefile import build_case
from auditor.findings import Finding, Status, Verdict, Witness
from auditor.judge import judge
from auditor.static.analysis import static_timeline
from auditor.static.byte_table import byte_table
from auditor.static.effective import settings_of_case
from auditor.static.facts import program_facts
from auditor.submission import Submission
from auditor.unpack import Layer, Program, unpack_bytes
from rules import all_rules
from rules.base import Example
from rules.example_program import program
from rules.examples import FOLDER, overlaid

# Rules about the text of the shipped file: another text is another answer, whatever it means.
ABOUT_TEXT = frozenset({"PG-S-code-count", "PG-S-cap", "PG-P-log-provenance", "PG-P-reviewability", "PG-S-units",
                        "PG-P-runs-in-folder", "PG-S-side-channel"})  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a review says of a program: the verdict, and the status of every rule about what it does."""

    verdict: Verdict
    findings: dict[str, Finding]

    @property
    def statuses(self) -> dict[str, Status]:
        """Rule -> status."""
        return {rule: finding.status for rule, finding in self.findings.items()}


def answer(case: Case) -> Answer:
    """The review of a case."""
    judged = judge(case)
    return Answer(judged.verdict, {f.rule: f for f in judged.findings if f.rule not in ABOUT_TEXT})


def with_program(case: Case, text: str, silent: bool = False) -> Case:
    """The same documents beside another main program, read as a review reads it; nothing is executed.

    `silent`: the logs still say which settings were in force, but nothing of their results is believed: they are
    another program's.
    """
    name = case.program.main.name.split("!")[0] if case.program.main else "train_gpt.py"
    layers, problems = unpack_bytes(text.encode(), name=name)
    others = [layer for layer in case.program.layers if layer.name.split("!")[0] != name]
    main: Layer = layers[-1]
    # Size and packing are those of the shipped file: they are not what is varied here.
    program = Program(main, [*layers, *others], case.program.counted_bytes, case.program.packed, problems)
    fresh = replace(case, program=program, timelines={}, facts={})
    if silent:
        fresh = replace(fresh, logs=[], ledger=[], forensics=[], headline=None, statistics=None)
    fresh.facts = program_facts(program, case.submission)
    fresh.facts["byte_table"] = byte_table(program)
    result = static_timeline(program, settings_of_case(case))
    fresh.facts["static"] = result
    fresh.timelines[Witness.STATIC] = result.timeline
    return fresh


def settings_names(case: Case) -> tuple[str, ...]:
    """Names of settings that logs and README state: part of what the program shows, not of how it is written."""
    effective = settings_of_case(case)
    return tuple(effective.logged)


def example_cases(programs_only: bool = True) -> Iterator[tuple[str, Case]]:
    """(rule, side and title; case) of the rules' own examples whose program differs from the clean package's."""
    clean = program()
    for rule in all_rules():
        for side, examples in (("legal", rule.legal), ("illegal", rule.illegal)):
            for example in examples:
                if programs_only and example.files.get("train_gpt.py", clean) in (clean, None):
                    continue
                yield f"{rule.id} {side}: {example.title}", build_case(submission_of(example))


def submission_of(example: Example) -> Submission:
    """The clean package with the example laid over it."""
    folder = example.folder or FOLDER
    laid = overlaid(example.files, folder)
    files = {path: text.encode() if isinstance(text, str) else text for path, text in laid.items()}
    known: dict = {"folder": folder}
    if example.dated:
        known["date"] = example.dated
    return Submission.from_files(files, label=example.title, **known)


def caught_by(before: Answer, after: Answer, expected: frozenset[str], lines: frozenset[int]) -> tuple[set[str], bool]:
    """(rules that show the breach, whether one of them names an edited line) of a program spoilt by one edit.

    A rule shows it when it fails or warns and did not before, or on other lines than before; a review that is clean
    in spite of it has not caught anything.
    """
    bad = (Status.FAIL, Status.WARN)
    fresh = {
        rule: finding
        for rule, finding in after.findings.items()
        if rule in expected and finding.status in bad
        and (before.statuses.get(rule) is not finding.status or any(e.line in lines for e in finding.evidence))
    }  # fmt: skip
    if after.verdict is Verdict.CLEAN:
        return set(), False
    shown = any(evidence.line in lines for finding in fresh.values() for evidence in finding.evidence)
    return set(fresh), shown
