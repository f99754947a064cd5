"""Fingerprints of the data a run was trained and scored on, as its log shows them (rule book, section 1.1)."""

from __future__ import annotations

import re

from auditor.case import Case
from auditor.documents.metric import tokenizers
from auditor.documents.model import LogRun
from auditor.findings import Evidence
from rules.measures import at_log, claim_is_logged, headline, reported, reported_runs
from rules.support import at, at_line

# A local CaseOps build with the shipped default of 10,000 reserved documents has this many train shards.
LEAKY_SHARDS = 1499
_DOUBLED = re.compile(r"datasets/datasets")
_RESERVED_ALL = re.compile(r"--val[-_]docs[= ]+50[,_]?000")
_WRONG_TOKENS = {
    9_662_464: "9,662,464 validation tokens are the first 10,000 documents, not 50,000",
    36_562_944: "36,562,944 validation tokens come from a split assembled by parallel builds",
}
_SUBSET = re.compile(r"(?i)\bsubset(?:_tokens)?[=:]\s*([\d_,]+)|\btotal_docs[=:]\s*(10[,_]?000)\b")
_COVERAGE = re.compile(
    r"(?i)(\d[\d,]*)\s*(?:/|of|out of)\s*(\d[\d,]*)\s*(?:possible\s+)?(?:val(?:idation)?\s+)?(?:ttt\s+)?chunks"
    r"|(?:first|only|random)\s+(\d[\d,]*)\s+(?:val(?:idation)?\s+)?(?:sequences|batches|windows|documents|docs)\b"
    r"|\bcapped\s+(?:to|at)\s+(?:the\s+first\s+)?(\d[\d,]*)\s+(?:val(?:idation)?\s+)?tokens\b"
    r"|\bscored\s+tokens\s*[:=]\s*(\d{1,3}(?:,\d{3}){0,2}|\d{1,7})\b"
)


def leaky_builds(case: Case) -> list[Evidence]:
    """Evidence for each reported run whose train shards are those of the build that overlaps the validation set."""
    found = []
    for run in reported_runs(case):
        if run.train_shards is None or run.train_shards.value != LEAKY_SHARDS:
            continue
        doubled = _doubled_path(case, run)
        note = f"{LEAKY_SHARDS:,} train shards"
        found.append(
            at(
                run.train_shards,
                f"{note}{' under a doubled datasets path' if doubled else ''}: "
                "the local build that reserves 10,000 documents",
            )
        )
        if doubled:
            found.append(doubled)
    return found


def _doubled_path(case: Case, run: LogRun) -> Evidence | None:
    for name, value in run.settings.items():
        if _DOUBLED.search(value):
            return at_log(case, run, run.setting_lines.get(name), "path of a local build")
    return None


def rebuilt_cleanly(case: Case) -> bool:
    """Whether the README's commands build the data with all 50,000 validation documents reserved."""
    return bool(case.readme and _RESERVED_ALL.search(case.readme.text))


def wrong_token_counts(case: Case) -> list[Evidence]:
    """Reported runs whose logged number of validation tokens is a known wrong one."""
    return [
        at(run.val_tokens, _WRONG_TOKENS[int(run.val_tokens.value)])
        for run in reported_runs(case)
        if run.val_tokens and int(run.val_tokens.value) in _WRONG_TOKENS
    ]


def partial_evidence(case: Case) -> tuple[str, list[Evidence], bool] | None:
    """(what is missing, where it shows, whether the author says so) when less than the full set was scored."""
    from rules.byte_accounts import accounts

    short = [a for a in accounts(case) if a.denominator.kind in ("partial", "10,000 documents", "wrong split")]
    if short:
        return short[0].denominator.reason, [a.evidence for a in short], _said(case) is not None
    wrong = wrong_token_counts(case)
    if wrong:
        return wrong[0].note, wrong, False
    logged = _subset_lines(case) or _unfinished(case)
    if logged:
        return logged[0].note, logged, _said(case) is not None
    said = _said(case)
    if said and _speaks_of_the_claim(case):
        return said.note, [said], True
    return None


def _subset_lines(case: Case) -> list[Evidence]:
    found = []
    for run in reported_runs(case):
        lines = next((log.lines for log in case.logs if log.path == run.path), [])
        skip = range(*run.source_lines) if run.source_lines else range(0)
        for number in range(run.first_line, min(run.last_line, len(lines)) + 1):
            match = _SUBSET.search(lines[number - 1]) if number not in skip else None
            tokens = int(re.sub(r"\D", "", (match[1] or match[2]))) if match else 0
            if tokens and not (run.val_tokens and tokens >= run.val_tokens.value):
                found.append(at_log(case, run, number, f"the log scores a subset of {tokens:,}"))
                break
    return found


def _unfinished(case: Case) -> list[Evidence]:
    """A chunked pass whose last progress line stops far before its total, right before the reported result."""
    found = []
    for item in reported(case):
        run = item.run
        # A pass that was cut off after the reported result is another attempt, which nothing is claimed of.
        chunks = [p for p in run.progress if p.total and "chunk" in p.label.lower() and p.line < item.line]
        if chunks and chunks[-1].total >= 20 and chunks[-1].index < 0.9 * chunks[-1].total - 100:
            last = chunks[-1]
            found.append(at_log(case, run, last.line, f"the pass stops at chunk {last.index} of {last.total}"))
    return found


def _said(case: Case) -> Evidence | None:
    """The README's own statement that only a part was scored."""
    text = case.readme.text if case.readme else ""
    for match in _COVERAGE.finditer(text):
        if match[1]:
            done, whole = (int(re.sub(r"\D", "", part)) for part in (match[1], match[2]))
            if not 0 < done < 0.98 * whole:
                continue
        tokens = match[4] or match[5]
        if tokens and int(tokens.replace(",", "")) > 0.98 * min(item.tokens for item in tokenizers()):
            continue
        line = text.count("\n", 0, match.start()) + 1
        line_of = text.splitlines()[line - 1].strip()
        if match[1] or re.search(r"(?i)\bval(?:idation)?\b|\bscor", line_of):
            return at_line(case.readme.path, line, line_of, f"the README says: {match[0]}")
    return None


def _speaks_of_the_claim(case: Case) -> bool:
    """A statement about coverage counts when no log shows the headline with full coverage."""
    from rules.byte_accounts import canonical

    return headline(case) is not None and not (claim_is_logged(case) and canonical(case))
