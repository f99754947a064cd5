"""PG-P-one-folder: PR adds exactly one new records folder."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.support import at_line, failed, listed, passed, plural, unknown, warned


def decide(case: Case) -> Finding:
    """The file list against the merge base; a folder reviewed alone has none."""
    submission = case.submission
    where = _misplaced(submission.folder)
    outside = [
        change
        for change in submission.root_files_changed
        if not any(change.path.startswith(f"{folder}/") for folder in submission.other_folders)
    ]
    elsewhere = [change for change in outside if not change.path.startswith("records/")]
    stale = [change for change in outside if change.path.startswith("records/")]
    if elsewhere:
        return failed(
            f"{plural(len(elsewhere), 'file')} outside records/: {listed(change.path for change in elsewhere)}",
            _evidence(elsewhere),
        )
    if submission.other_folders:
        return failed(
            f"{plural(len(submission.other_folders) + 1, 'record folder')} in one pull request: "
            f"{listed([submission.folder, *submission.other_folders], 3)}",
            [at_line(folder, None, "", "further record folder") for folder in submission.other_folders],
        )
    if where:
        return failed(where, [at_line(submission.folder or ".", None, "", "record folder")])
    if stale:
        return warned(
            f"{plural(len(stale), 'entry')} of other record folders in the file list: "
            f"{listed(change.path for change in stale)}".replace("entrys", "entries"),
            _evidence(stale),
        )
    if not submission.changes and submission.pr is not None:
        return unknown("the file list of the pull request is not known")
    return passed(f"one folder: {submission.folder}")


def _misplaced(folder: str) -> str:
    if not folder.startswith("records/"):
        return f"the submission does not lie in a records folder ({folder or 'repository root'})"
    if not folder.startswith(("records/track_10min_16mb/", "records/track_non_record_16mb/")):
        return f"{folder} is not below a track folder"
    return ""


def _evidence(changes) -> list[Evidence]:
    return [at_line(change.path, None, "", f"{change.status} outside the record folder") for change in changes]


RULE = Rule(
    id="PG-P-one-folder",
    title="PR adds exactly one new records folder",
    statement=(
        "A submission PR only adds one folder under records/track_10min_16mb or "
        "records/track_non_record_16mb; it touches no root file and no other folder."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README + rulings",
    violations=(
        (
            "edited train_gpt.py at root; experiments/ trees (#1120: 238 outside files; #1028: +207k lines); "
            "a second old record folder (#1143); top-level our_submission/ (#1031)"
        ),
    ),
    allowed=("sub-folders inside the record folder (logs/, tokenizers/, ngram/)",),
    history="Some were merged after trimming; #1120 was finally listed.",
    legal_precedents=(265,),
    illegal_precedents=(53, 76, 236, 545, 1028, 1031, 1120, 1143),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/pull/53",
        "https://github.com/openai/parameter-golf/pull/545",
        "https://github.com/openai/parameter-golf/pull/1031",
        "https://github.com/openai/parameter-golf/pull/1120",
        "https://github.com/openai/parameter-golf/pull/1143",
        "https://github.com/openai/parameter-golf/pull/76",
        "https://github.com/openai/parameter-golf/pull/236",
    ),
    witnesses=(Witness.DOCUMENTS,),
    remedy=(
        "Reduce the pull request to one new folder below records/track_10min_16mb or records/track_non_record_16mb."
    ),
    legal=(Example("one new folder"),),
    illegal=(
        Example("the root script is edited", pull_request=("M train_gpt.py",), expect=Status.FAIL),
        Example("folder without a track", folder="records/my_run", expect=Status.FAIL),
    ),
    decide=decide,
)
