"""PG-S-code-count: Which code counts."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.documents.model import LogRun
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.example_program import IMPORTS, program
from rules.examples import runs, variant
from rules.measures import Measured, at_log, counts_packed_code, largest, logged_model, reported_runs, size_lines
from rules.package_facts import Named, local_code
from rules.support import listed, number, passed, plural, unknown, warned

CAP = 16_000_000
EVALUATED_APART = "```bash\npython eval_ttt.py\n```"
HELPER = "def smooth(x):\n    return x\n"
IMPORTS_HELPER = IMPORTS + "\nfrom helper import smooth\n"


def decide(case: Case) -> Finding:
    """Three totals: as logged, with the script as shipped, with every local file the script runs."""
    run = next((run for run in reported_runs(case) if logged_model(case, run)), None)
    model = largest(logged_model(case, each) for each in reported_runs(case))
    extra = local_code(case)
    shipped = case.program.counted_bytes
    if not shipped:
        return unknown("there is no main script to measure", (Witness.STATIC,))
    if model is None or run is None:
        return _without_model(extra, shipped)
    total = model.value + shipped
    everything = total + sum(file.size for file in extra)
    sums = (
        f"model {number(model.value)} + script as shipped {number(shipped)} = {number(total)}; "
        f"with {plural(len(extra), 'further local file')} {number(everything)}"
    )
    if counts_packed_code(run):
        return warned(
            f"the log counts the size a packed script would have; {sums}",
            [model.evidence, *(f.evidence for f in extra)],
            "Practice of merged records since #1530; the README asks for code inside train_gpt.py.",
        )
    if extra:
        note = "over the cap" if everything > CAP else "still under the cap"
        return warned(
            f"further local code is run, which no total counts ({note}): {listed(f.name for f in extra)}; {sums}",
            [file.evidence for file in extra],
        )
    logged = _logged_code(case, run)
    if logged is not None and abs(logged.value - shipped) > 0:
        return warned(
            f"the log counts {number(logged.value)} bytes of code, the shipped script has {number(shipped)}; {sums}",
            [logged.evidence],
        )
    return passed(sums, [model.evidence])


def _without_model(extra: list[Named], shipped: int) -> Finding:
    if extra:
        return warned(
            f"{listed(f.name for f in extra)} run besides the {number(shipped)} bytes of the script",
            [file.evidence for file in extra],
        )
    return unknown("no log states the size of the compressed model", (Witness.RUN, Witness.REPRODUCTION))


def _logged_code(case: Case, run: LogRun) -> Measured | None:
    lines = size_lines(run, "code")
    return Measured(lines[-1].size, at_log(case, run, lines[-1].line, "code as logged"), run) if lines else None


RULE = Rule(
    id="PG-S-code-count",
    title="Which code counts",
    statement=(
        "README: code bytes = the counted code, all of which should live in train_gpt.py. Practice has two "
        "conventions: (a) bytes of train_gpt.py as shipped (raw, or an lzma/brotli+base85 self-extracting "
        "wrapper), (b) since #1530 the size a packed wrapper WOULD have, while the readable 120-158 kB source "
        "is shipped."
    ),
    severity=Severity.DISPUTED,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 3, 18),
    authority="README + merged precedent",
    violations=(
        (
            'code executed in train/eval that is in no count: `exec(open("other.py").read())`, imports of '
            "local modules, .cu/.cpp/.c sources compiled at run time"
        ),
        (
            "reporting model bytes as artifact_bytes (#1412 first version: 16,054,963 once the exec-ed file "
            "was counted; repaired by packing)"
        ),
        "log total computed with other code than the shipped file",
    ),
    allowed=(
        "packed source in train_gpt.py that unpacks itself (#1394, #1412, #1493, #1514)",
        (
            "tokenizer .model, data-preparation scripts, README, logs, run scripts: never counted in any "
            "merged row (baseline does not count the tokenizer)"
        ),
    ),
    history=(
        "Severity: disputed (convention b, extra files). Measured on merged rows: #1855 model 15,865,260 + "
        "packed code 31,999 = 15,897,259 counted; with the shipped raw source (158,429) 16,023,689. #1514 "
        "counted 15,993,346; its imported ngram_tilt.py (8,624) and fused_expert_kernel.cpp (18,406) would "
        "give 16,020,376. CaseOps rows ship lossless_caps.py (28,917) and a 366,510-byte tokenizer; only data "
        "preparation imports the former, neither is counted. So: compute three totals (as logged, "
        "train_gpt.py as shipped, all locally imported/executed files as shipped and packed) and fail only on "
        "the first two conventions as configured; report the others as WARN."
    ),
    legal_precedents=(1394, 1412, 1493, 1514, 1530, 1855),
    illegal_precedents=(1835,),
    sources=(
        "https://github.com/openai/parameter-golf/commit/a15093ada",
        "https://github.com/openai/parameter-golf/blob/main/train_gpt.py",
        "https://github.com/openai/parameter-golf/pull/1394",
        "https://github.com/openai/parameter-golf/pull/1412",
        "https://github.com/openai/parameter-golf/pull/1530",
        "https://github.com/openai/parameter-golf/pull/1835",
        "https://github.com/openai/parameter-golf/pull/1855",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC),
    remedy=(
        "Put all code that training and evaluation execute into train_gpt.py, packed if need be, and let the "
        "log print the size of that file."
    ),
    legal=(Example("everything in train_gpt.py"),),
    illegal=(
        Example(
            "a local helper is imported", {**variant(program(imports=IMPORTS_HELPER)), "helper.py": HELPER}, Status.WARN
        ),
        Example(
            "a second script makes the score",
            {**variant(readme_more=EVALUATED_APART), "eval_ttt.py": program()},
            Status.WARN,
        ),
        Example("the log counts other code than the shipped file", variant(done=runs(code_bytes=47_642)), Status.WARN),
    ),
    decide=decide,
)
