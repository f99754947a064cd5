"""PG-C1-ngram-target-gate: N-gram/hint experts must not be gated on a property of the current target."""

from __future__ import annotations

import datetime as dt

from auditor.case import Case
from auditor.findings import Finding, Severity, Status, Witness
from auditor.submission import Track
from rules.base import Example, Rule
from rules.examples import runs, variant
from rules.gates import gate_findings, target_gates
from rules.support import failed, passed, plural
from rules.testimony import from_timelines

COUNTERS_OFF = "ngram_tilt:hints total=62021632 gated=812204 token_gate=812204 within_gate=0 word_gate=0 agree2plus=0"
COUNTERS_ON = (
    "ngram_tilt:hints total=62021632 gated=16880344 token_gate=812204 "
    "within_gate=12788120 word_gate=3747812 agree2plus=392950"
)
BOOSTS_ON = ("  agree_add_boost: 0.5", "  within_boost: 0.75", "  word_boost: 0.75")
BOOSTS_OFF = ("  agree_add_boost: 0.0", "  within_boost: 0.0", "  word_boost: 0.0")


def decide(case: Case) -> Finding:
    """Gate counters and boosts of every reported log, then the order of events."""
    gates = target_gates(case)
    if gates:
        return failed(
            f"within-word, word-start or agreement gates were active in {plural(len(gates), 'logged run')}: "
            f"{gates[0].says}",
            [gate.evidence for gate in gates],
            "These gates read the token being scored (does it start a word?) to decide whether its own hint counts.",
        )
    silent = gate_findings(case)
    if silent and all(gate.off for gate in silent):
        return passed(
            f"every gate on the current token is off in {plural(len(silent), 'logged run')}: {silent[0].says}",
            [gate.evidence for gate in silent],
        )
    return from_timelines(case, "whether an n-gram hint is gated on the token being scored", rule=RULE.id)


RULE = Rule(
    id="PG-C1-ngram-target-gate",
    title="N-gram/hint experts must not be gated on a property of the current target",
    statement=(
        "An eval-time n-gram tilt is a C1 violation when the decision to emit a hint, its weight or its "
        "validity reads the realised token (word-boundary flag, starts-new-word flag, agreement count). Only "
        'the "token-only" channel, whose lookup key and gate use the strict prefix, is accepted.'
    ),
    severity=Severity.ILLEGAL,
    tracks=frozenset({Track.RECORD, Track.NON_RECORD, Track.UNLIMITED}),
    since=dt.date(2026, 5, 2),
    authority="organiser ruling (cocohearts)",
    violations=(
        (
            "`tok = tokens[i]; is_boundary = boundary_lut[tok]; if not is_boundary and ...: within_valid[i] = "
            "1` (within-word / word-start experts of the online_ngram_state.c family)"
        ),
        (
            "log counters `within_gate`, `word_gate`, `agree2plus` non-zero; env `WITHIN_BOOST`, "
            "`WORD_BOOST`, `AGREE_ADD_BOOST`, `NGRAM_WITHIN_BETA`, `NGRAM_WORD_BETA` non-zero"
        ),
    ),
    allowed=(
        (
            "token-only hint: hash of tokens[p-1], tokens[p-2], ...; p_tilt(a) = p(a)*exp(beta*1[a==hint])/Z "
            "with Z = 1 + p(hint)*(exp(beta)-1); table updated with tokens[p] after the hint of p was written"
        ),
        (
            "within/word experts present in the code but with weight 0 in the effective configuration of "
            "every reported log (as in merged #1514)"
        ),
    ),
    history=(
        "Corrections pushed after the cut-off were accepted under the grace policy when the idea/code was "
        "public before it (#2140) but not when the data was leaky (#2130)."
    ),
    legal_precedents=(1514, 1437, 2135, 2140),
    illegal_precedents=(1420, 1437, 1967, 2018, 2041, 2118),
    sources=(
        "https://github.com/openai/parameter-golf/pull/1420#issuecomment-4199452189",
        "https://github.com/openai/parameter-golf/pull/1967#issuecomment-4356836010",
        "https://github.com/openai/parameter-golf/pull/2041",
        "https://github.com/openai/parameter-golf/pull/2118",
        "https://github.com/openai/parameter-golf/pull/2146",
    ),
    witnesses=(Witness.DOCUMENTS, Witness.STATIC, Witness.RUN),
    remedy=(
        "Keep the token-only channel: key and gate from tokens before the scored one. Set the boosts of the "
        "within-word, word-start and agreement experts to zero, run again, and ship logs whose gate counters "
        "are zero."
    ),
    legal=(
        Example(
            "token-only hints, the other gates at zero",
            variant(done=runs(settings=BOOSTS_OFF, before_score=(COUNTERS_OFF,))),
        ),
    ),
    illegal=(
        Example(
            "within-word and word-start gates active",
            variant(done=runs(settings=BOOSTS_ON, before_score=(COUNTERS_ON,))),
            Status.FAIL,
            dated=dt.date(2026, 5, 3),
        ),
    ),
    decide=decide,
)
