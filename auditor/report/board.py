"""The board at the top of a report: the four conditions, then size, time, bytes, data and seeds, one word each.

PROVEN       every rule of the row that applies was decided and passed
VIOLATION    a rule failed that makes the score invalid (`auditor.judge.is_violation`)
NOT MET      another rule failed (size, time, seeds: not eligible, not dishonest)
SUSPECT      a rule warns: something a person has to look at
NOT PROVEN   nobody could see; never shown as a pass
NOT APPLICABLE  no rule of the row binds this track at this date
"""

from __future__ import annotations

from typing import Any

ROWS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("C1", "Causality", "each prediction uses only the artifact and earlier tokens", ("C1",)),
    ("C2", "Normalised distribution", "one full distribution, fixed before the token is known", ("C2",)),
    ("C3", "Score before update", "no token changes the model before its score is final", ("C3",)),
    ("C4", "Single pass", "one left-to-right pass, nothing re-scored or selected", ("C4", "TRACK")),
    ("size", "Size", "model and code within 16,000,000 bytes", ("S",)),
    ("time", "Time", "training and evaluation within 600 s each", ("T",)),
    ("bytes", "Byte count", "bits per byte over the right number of bytes", ("B",)),
    ("data", "Data", "no validation data in training, no training data at evaluation", ("D", "X", "E")),
    ("seeds", "Seeds", "enough runs of one configuration, significant", ("ST",)),
)
FAMILIES = {
    "C1": "causality",
    "C2": "normalisation",
    "C3": "score before update",
    "C4": "single pass",
    "TRACK": "track",
    "D": "data",
    "X": "external compute",
    "B": "byte count",
    "S": "size",
    "T": "time",
    "E": "environment",
    "ST": "statistics",
    "P": "package",
}

# The gravest finding of a row decides its word; its summary explains it.
_DECISIVE = ("PROVEN", "NOT PROVEN", "SUSPECT", "NOT MET", "VIOLATION")


# The rule that speaks for a row when several findings weigh the same.
_PRINCIPAL = {
    "C1": "PG-C1-causality",
    "C2": "PG-C2-normalisation",
    "C3": "PG-C3-score-first",
    "C4": "PG-C4-single-pass",
    "size": "PG-S-cap",
    "time": "PG-T-train",
    "bytes": "PG-B-bpb-formula",
    "data": "PG-D-val-in-train",
    "seeds": "PG-ST-seeds",
}

# Ledger rows in the order in which a reviewer asks for them.
_SUBJECTS = ("val_bpb", "artifact bytes", "train seconds", "eval seconds", "seeds", "steps")


def headline(ledger: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the ledger, the most telling first: conflicts, then the score, the sizes, the times, the seeds."""

    def importance(row: dict[str, Any]) -> tuple[bool, int]:
        name = row["subject"].replace("_", " ").lower()
        known = [i for i, subject in enumerate(_SUBJECTS) if subject.replace("_", " ") == name]
        return (row["status"] != "conflicts", known[0] if known else len(_SUBJECTS))

    return sorted(ledger, key=importance)


def subject(row: dict[str, Any]) -> str:
    """What a row of the ledger is about, with its unit where the words do not name it already."""
    words, unit = row["subject"], row["unit"]
    known = unit.lower() in words.lower().replace("_", " ").split() or (unit == "s" and "seconds" in words)
    return words if not unit or known else f"{words} ({unit})"


def unique_texts(quantities: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Quantities with how often each text occurs, in order of first occurrence: `212.4` three times is one entry."""
    found: dict[str, list[dict[str, Any]]] = {}
    for quantity in quantities:
        found.setdefault(quantity["text"], []).append(quantity)
    return [(same[0], len(same)) for same in found.values()]


def family(rule: str) -> str:
    """Family of a rule id: the part after `PG-`, e.g. `C3` for `PG-C3-score-first`."""
    parts = rule.split("-")
    return parts[1] if len(parts) > 1 and parts[0] == "PG" else "other"


def board(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the board from the findings of a document."""
    rows = []
    for key, title, asks, families in ROWS:
        own = [finding for finding in findings if finding["family"] in families]
        bound = [finding for finding in own if finding["status"] != "not applicable"]
        word, decisive = _word(bound, _PRINCIPAL[key])
        if not bound and own:
            word = "NOT APPLICABLE"
        summary = decisive["summary"] if decisive else _silence(word)
        rows.append(
            {
                "key": key,
                "title": title,
                "asks": asks,
                "state": word,
                "summary": summary,
                "findings": [finding["rule"] for finding in bound],
                "decided": sum(finding["status"] != "unknown" for finding in bound),
                "rule": decisive["rule"] if decisive else None,
            }
        )
    return rows


def _word(findings: list[dict[str, Any]], principal: str) -> tuple[str, dict[str, Any] | None]:
    """The gravest word; among findings of equal gravity the principal rule of the row speaks."""
    if not findings:
        return "NOT PROVEN", None
    decisive = max(findings, key=lambda finding: (_DECISIVE.index(_of(finding)), finding["rule"] == principal))
    return _of(decisive), decisive


def _of(finding: dict[str, Any]) -> str:
    status = finding["status"]
    if status == "fail":
        if finding["violation"]:
            return "VIOLATION"
        return "SUSPECT" if finding["severity"] in ("advice", "disputed") else "NOT MET"
    return {"pass": "PROVEN", "warn": "SUSPECT"}.get(status, "NOT PROVEN")


def _silence(word: str) -> str:
    return "no rule of this row binds here" if word == "NOT APPLICABLE" else "no witness reported on this"
