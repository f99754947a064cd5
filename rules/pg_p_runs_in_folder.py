"""PG-P-runs-in-folder: Script compiles and runs inside the records folder."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.package_facts import base_file, missing_modules, syntax_error
from rules.support import at_line, failed, listed, passed, warned


def decide(case: Case) -> Finding:
    """Whether the script can be parsed and brings its local modules along."""
    program = case.program
    script = case.submission.main_script
    if script is None:
        return failed("there is no script to run", [at_line(case.submission.folder or ".", None, "", "file list")])
    broken = [problem for problem in program.problems if base_file(script) in problem]
    if program.main is None:
        return failed(
            f"{base_file(script)} is not a readable program: {listed(broken or program.problems or ['empty'])}",
            [at_line(script, None, "", "not a program")],
        )
    error = syntax_error(case)
    if error:
        return failed(f"{base_file(script)} does not compile: {error.note}", [error])
    absent = missing_modules(case)
    if absent:
        return failed(
            f"imports {listed(sorted(absent))}, which is neither installed nor in the folder",
            [place for place in absent.values() if place],
        )
    if broken:
        return warned(listed(broken), [at_line(script, None, "", "problem while reading")])
    return passed(f"{base_file(script)} compiles", [])


RULE = Rule(
    id="PG-P-runs-in-folder",
    title="Script compiles and runs inside the records folder",
    statement=(
        "train_gpt.py must compile and run from its folder; broken scripts are not accepted. Defaults or a "
        "documented command must reproduce the submission."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=(
        "SyntaxError, missing local module, absolute private paths without env override",
        "settings only in an unlisted shell history",
    ),
    allowed=("env-var command line in README (all merged April rows need one)",),
    history="",
    legal_precedents=(1855,),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Repair the script so that it compiles and runs from its folder, and give the command with every "
        "setting in the README."
    ),
    legal=(Example("compiles"),),
    illegal=(Example("syntax error", {"train_gpt.py": "def main(:\n    pass\n"}, Status.FAIL),),
    decide=decide,
)
