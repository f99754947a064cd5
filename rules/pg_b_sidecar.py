"""PG-B-sidecar: Reversible text transforms: raw-byte sidecar (CaseOps)."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace

from auditor.case import Case
from auditor.findings import Evidence, Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.byte_accounts import accounts, by_denominator
from rules.example_program import DATA, EVALUATION, edited, program
from rules.examples import runs, variant
from rules.measures import at_log, reported_runs
from rules.support import not_applicable, warned
from rules.testimony import ORDER_WITNESSES

_LOAD = """

def load_sidecar(length):
    pattern = f"{args.data_path}/fineweb_val_bytes_*.bin"
    return torch.cat([load_shard(path) for path in sorted(glob.glob(pattern))])[:length]
"""
_WINDOW = "window = val_tokens[start:start + args.seq_len + 1].to(device)"
_COUNT = "nbytes = size[targets] + (space[targets] & ~control[inputs])"


def _beside(cut: str) -> str:
    """The example program with the bytes of a sidecar, cut out at `cut`."""
    loads = "    original = load_sidecar(val_tokens.numel())\n    model.eval()\n"
    text = edited(EVALUATION, "    model.eval()\n", loads)
    text = edited(
        text, _WINDOW, "stop = start + args.seq_len + 1\n            window = val_tokens[start:stop].to(device)"
    )
    text = edited(
        text,
        "inputs, targets = window[None, :-1], window[None, 1:]",
        "inputs, targets = window[:-1][None], window[1:][None]",
    )
    return program(data=DATA + _LOAD, evaluation=edited(text, _COUNT, f"nbytes = original[{cut}].to(device)"))


CASEOPS = "fineweb10B_sp8192_lossless_caps_caseops_v1_reserved"
_TRANSFORMED = re.compile(r"(?i)caseops|lossless_caps")


def decide(case: Case) -> Finding:
    """For a transformed corpus the implied bytes have to be those of the original text."""
    transformed = [
        account
        for account in accounts(case)
        if "CaseOps" in account.denominator.tokenizer or account.denominator.kind == "transformed bytes"
    ]
    named = any(_TRANSFORMED.search(value) for run in case.runs for value in run.settings.values())
    if not transformed and not named:
        return not_applicable("the data set is not a transformed text")
    logged = by_denominator(
        case,
        ("transformed bytes", "not the canonical bytes"),
        "bytes of the transformed text are counted",
        ORDER_WITNESSES,
    )
    return aligned(case, switched_off(case, logged))


def switched_off(case: Case, logged: Finding) -> Finding:
    """A run on transformed data whose log says that the bytes of the original text are not used."""
    if logged.status is not Status.UNKNOWN:
        return logged
    off = [
        at_log(case, run, run.setting_lines.get(name), "the sidecar is switched off")
        for run in reported_runs(case)
        for name, value in run.settings.items()
        if _TRANSFORMED.search(name) and value.strip().lower() in ("0", "false")
        if any(_TRANSFORMED.search(other) for other in run.settings.values())
    ]
    if not off:
        return logged
    return warned("the data are a transformed text, and the log says that its sidecar of bytes is switched off", off)


AT_INPUTS = "taken at the inputs"


def aligned(case: Case, logged: Finding) -> Finding:
    """Adds where the program takes the bytes: at the targets, or one position too early."""
    table = case.facts.get("byte_table")
    takings = getattr(table, "takings", [])
    early = [place for state, place in takings if state == AT_INPUTS]
    if early and logged.status in (Status.PASS, Status.UNKNOWN):
        return replace(
            warned(
                "bytes of the sidecar are taken at the inputs, one position before the targets they belong to",
                [*(Evidence(p.path, p.line, p.excerpt, p.what) for p in early), *logged.evidence],
                "Over a whole stream the sum differs by its two ends only; over parts of documents, and token by token, "
                "it is the bytes of other tokens.",
            ),
            witness=Witness.STATIC,
        )
    if takings and all(state == "aligned" for state, _ in takings) and logged.status is Status.PASS:
        places = [Evidence(p.path, p.line, p.excerpt, p.what) for _, p in takings]
        return replace(logged, evidence=(*logged.evidence, *places)[:12])
    return logged


RULE = Rule(
    id="PG-B-sidecar",
    title="Reversible text transforms: raw-byte sidecar (CaseOps)",
    statement=(
        "For a transformed corpus the denominator is the number of bytes of the ORIGINAL validation text, "
        "supplied per token by a sidecar file, not the bytes of the transformed text. Canonical CaseOps "
        "sidecar sum 151,074,309 raw bytes (logs imply 151,074,499 for the TTT path)."
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 4, 26),
    authority="organiser rulings (cocohearts)",
    violations=(
        ("denominator 164,594,398 (transformed) instead of 151,074,309 (#2138: 0.9796 claimed, ~1.067 true)"),
        (
            "CASEOPS_ENABLED=0 with CaseOps shards, or LUT bytes of operator tokens U+E001..U+E004 counted "
            "(#2071: 1.0066)"
        ),
        "sidecar not aligned with the target index (must be val_bytes[1:] for targets)",
    ),
    allowed=(
        "`fineweb_val_bytes_*.bin` loaded, sliced raw_start+1:raw_end, summed with the losses",
        "sidecar generated by the submitter when its sum and round trip are proven",
    ),
    history=(
        "Severity: illegal (if transformed bytes are used). Operator tokens carry 0 raw bytes; early CaseOps "
        "code over-counted them, cocohearts confirmed the repair in #1797."
    ),
    legal_precedents=(1729, 1736, 1769, 1787, 1855),
    illegal_precedents=(2039, 2071, 2076, 2138),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1729",
        "https://github.com/openai/parameter-golf/pull/1736",
        "https://github.com/openai/parameter-golf/pull/1797",
        "https://github.com/openai/parameter-golf/pull/2039",
        "https://github.com/openai/parameter-golf/pull/2071",
        "https://github.com/openai/parameter-golf/pull/2138",
        "https://github.com/openai/parameter-golf/issues/1604",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Take the bytes of the original text from the sidecar, aligned with the targets (val_bytes[1:]), and "
        "score again."
    ),
    legal=(
        Example(
            "original bytes from the sidecar",
            variant(done=runs(dataset=CASEOPS, val_tokens=47_851_520, val_bytes=151_074_499)),
        ),
        Example(
            "a sidecar taken at the targets",
            variant(_beside("start + 1:stop"), runs(dataset=CASEOPS, val_tokens=47_851_520, val_bytes=151_074_499)),
            witnesses=(Witness.DOCUMENTS, Witness.STATIC),
        ),
    ),
    illegal=(
        Example(
            "bytes of the transformed text",
            variant(done=runs(dataset=CASEOPS, val_tokens=47_851_520, val_bytes=164_594_398)),
            Status.FAIL,
        ),
        Example(
            "a sidecar taken at the inputs",
            variant(_beside("start:stop - 1"), runs(dataset=CASEOPS, val_tokens=47_851_520, val_bytes=151_074_499)),
            Status.WARN,
            witnesses=(Witness.DOCUMENTS, Witness.STATIC),
        ),
    ),
    decide=decide,
)
