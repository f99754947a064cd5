"""PG-T-hardware: Hardware of record runs."""

from __future__ import annotations

import datetime as dt
import re

from auditor.case import Case
from auditor.documents.model import LogRun
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import runs, variant
from rules.measures import as_number, at_log, main_metadata, reported_runs, setting
from rules.support import at_line, failed, listed, passed, plural, unknown

_H100 = re.compile(r"(?i)\bh100\b")
_OTHER = re.compile(
    r"(?i)\b(?:a100|a800|h200|b200|a40|l40s?|rtx|4090|3090|5090|v100|t4|mi300x?|gh200|m[1-5](?: pro| max| ultra)?)\b"
)
_FORM = re.compile(r"(?i)\b(?:pcie|nvl)\b")


def decide(case: Case) -> Finding:
    """GPU name and count of every reported run, then what the metadata says."""
    seen = [hardware for run in reported_runs(case) if (hardware := _logged(case, run))]
    bad = [(what, place) for what, wrong, place in seen if wrong]
    if bad:
        return failed(f"a reported run used {bad[0][0]}", [place for _, place in bad])
    stated = _stated(case)
    if stated and stated[1]:
        return failed(f"the metadata states {stated[0]}", [stated[2]])
    if seen:
        return passed(
            f"{listed(sorted({what for what, _, _ in seen}))} in {plural(len(seen), 'reported log')}",
            [place for _, _, place in seen],
        )
    if stated:
        return unknown(
            f"the metadata states {stated[0]}, no log shows it", (Witness.REPRODUCTION,), evidence=[stated[2]]
        )
    return unknown("neither a log nor the metadata names the GPUs", (Witness.REPRODUCTION,))


def _logged(case: Case, run: LogRun) -> tuple[str, bool, Evidence] | None:
    """(words, whether it is not eight H100, evidence); None when the run says nothing of it."""
    name = next(
        (
            value
            for key, value in run.environment.items()
            if "gpu" in key.lower() and "count" not in key.lower() and not value.strip().isdigit()
        ),
        "",
    )
    count = next(
        (
            int(float(value))
            for key, value in run.environment.items()
            if ("count" in key.lower() or "world_size" in key.lower()) and value.strip().isdigit()
        ),
        0,
    )
    count = int(as_number(setting(run, "world_size")) or 0) or count
    if not name and not count:
        return None
    other = bool(name) and not _H100.search(name)
    wrong = other or (count not in (0, 8)) or bool(_FORM.search(name))
    words = f"{count or '?'} x {name}" if name else f"{count} GPUs"
    if not name and not wrong:
        return None
    lines = next((log.lines for log in case.logs if log.path == run.path), [])
    wanted = name if other or count in (0, 8) else "world_size"
    line = next(
        (i for i in range(run.first_line, min(run.last_line, len(lines)) + 1) if wanted and wanted in lines[i - 1]),
        None,
    )
    return words, wrong, at_log(case, run, line, "hardware as logged")


def _stated(case: Case) -> tuple[str, bool, Evidence] | None:
    data = main_metadata(case)
    text = (data.hardware or "") if data else ""
    if not text:
        return None
    count = re.search(r"(?i)\b(\d+)\s*[x×]", text)
    wrong = (
        bool(_OTHER.search(text) and not _H100.search(text))
        or bool(count and int(count[1]) != 8)
        or bool(_FORM.search(text))
    )
    return text, wrong, at_line(data.path, None, text, "hardware as stated")


RULE = Rule(
    id="PG-T-hardware",
    title="Hardware of record runs",
    statement=(
        "Record evidence must come from 8xH100 SXM (single node). Other GPUs, fewer GPUs with scaled time, "
        "PCIe/NVL, H200, extrapolated wall clock are non-record."
    ),
    severity=Severity.NOT_RECORD_ELIGIBLE,
    tracks=frozenset({Track.RECORD}),
    since=dt.date(2026, 3, 18),
    authority="README",
    violations=(
        (
            "4xH100 with extended wallclock (#1959); single 1xH100 run (#2103); 2-node 4+4 HGX (#44, not "
            "ruled on this ground)"
        ),
    ),
    allowed=("development on any hardware; non-record runs on anything",),
    history=(
        'Software is not pinned; evaluation "in the RunPod environment"; merged rows use torch 2.9.1+cu128 and FA3.'
    ),
    legal_precedents=(1855,),
    illegal_precedents=(1959, 2103),
    sources=(
        "https://github.com/openai/parameter-golf/commit/954a15810",
        "https://github.com/openai/parameter-golf/blob/main/README.md",
        "https://github.com/openai/parameter-golf/pull/1959",
        "https://github.com/openai/parameter-golf/pull/2103",
        "https://github.com/openai/parameter-golf/pull/44",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.REPRODUCTION),
    remedy="Run the record seeds on one node with eight H100 SXM, or file the submission as non-record.",
    legal=(Example("eight H100"),),
    illegal=(
        Example(
            "eight A800", variant(done=runs(gpu="NVIDIA A800-SXM4-80GB"), hardware="8xA800-SXM4-80GB"), Status.FAIL
        ),
        Example("four H100", variant(done=runs(world_size=4)), Status.FAIL),
    ),
    decide=decide,
)
