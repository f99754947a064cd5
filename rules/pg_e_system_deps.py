"""PG-E-system-deps: System binaries."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import MAIN, edited, program
from rules.examples import variant
from rules.package_facts import processes
from rules.support import failed, listed, passed, unknown, warned

CALLS_LRZIP = edited(
    MAIN,
    "    if dist.is_initialized():\n        dist.barrier()\n",
    '        subprocess.run(["lrzip", "-z", "final_model.int8.ptz"], check=True)\n'
    "    if dist.is_initialized():\n        dist.barrier()\n",
)
DOCUMENTED = "Set-up: `apt-get install lrzip` before the run."
# Part of every image of the challenge; the official script calls nvidia-smi itself.
ORDINARY = frozenset(
    {
        "nvidia-smi",
        "git",
        "uname",
        "lscpu",
        "nproc",
        "hostname",
        "python",
        "python3",
        "torchrun",
        "gcc",
        "g++",
        "cc",
        "c++",
        "nvcc",
        "free",
        "cat",
        "ls",
        "sh",
        "bash",
        "df",
        "date",
        "which",
        "ninja",
    }
)
INSTALLERS = frozenset({"apt", "apt-get", "pip", "pip3", "conda", "curl", "wget", "yum", "dnf", "brew", "npm"})


def decide(case: Case) -> Finding:
    """Programs the script starts, against what the README documents."""
    started = processes(case)
    if started is None:
        return unknown("which programs the script starts could not be read", (Witness.STATIC,))
    installs = [item for item in started if item.name in INSTALLERS]
    if installs:
        return failed(f"the script runs {listed(item.name for item in installs)}", [item.evidence for item in installs])
    text = (case.readme.text if case.readme else "").lower()
    foreign = [item for item in started if item.name not in ORDINARY]
    silent = [item for item in foreign if item.name.lower() not in text]
    if silent:
        return warned(
            f"the README does not mention {listed(sorted({item.name for item in silent}))}, which the script starts",
            [item.evidence for item in silent],
        )
    return passed(
        f"documented: {listed(sorted({item.name for item in foreign}))}"
        if foreign
        else "no program besides ordinary tools is started",
        [item.evidence for item in foreign],
    )


RULE = Rule(
    id="PG-E-system-deps",
    title="System binaries",
    statement=(
        'A system binary (lrzip) called by subprocess was contested as breaking "runs in the records folder" '
        "and accepted: #1855 was merged with `apt-get install lrzip` as documented set-up."
    ),
    severity=Severity.PACKAGING,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 4, 29),
    authority="merged precedent",
    violations=(
        "apt-get/curl executed by the script itself",
        "undocumented binary",
    ),
    allowed=("pre-installed, documented, offline binary; brotli fallback absent is acceptable",),
    history="A re-run harness must install lrzip and know that per-group compression needs ~75-118 s.",
    legal_precedents=(1855, 2135),
    illegal_precedents=(),
    sources=(
        "https://github.com/openai/parameter-golf/issues/1856",
        "https://github.com/openai/parameter-golf/pull/1855",
        "https://github.com/openai/parameter-golf/pull/1902",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy="Document the binary and its installation in the README, and do not install anything from the script.",
    legal=(
        Example("nvidia-smi only"),
        Example("lrzip, documented", variant(program(main=CALLS_LRZIP), readme_more=DOCUMENTED)),
    ),
    illegal=(Example("lrzip, undocumented", variant(program(main=CALLS_LRZIP)), Status.WARN),),
    decide=decide,
)
