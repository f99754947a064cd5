"""A way of counting bytes compared with the bytes of the decoded text, pair of tokens by pair of tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

from auditor.static import byte_stand_in as known
from auditor.static.byte_operators import Stuck
from auditor.static.byte_verdict import BYTES, CORRECT, CREDITED, DOUBLE, DROPPED, LONE, MARKER, OTHER, WRONG, Sample

# Per byte of the published validation text: tokens with a leading space (sp8192: 25,251,857 of 151,080,891), document
# starts (50,000), byte-fallback tokens of a vocabulary without common characters (half of 6,246,229 surplus bytes).
# They turn errors per token into an estimate of the whole denominator.
LEAD_SHARE, BYTE_SHARE, START_SHARE = 0.16714, 0.0206, 0.00033


def compare(count: Any) -> tuple[str, str, str, float, str]:
    """Status, bug, sentence, estimated ratio and minor remark for a way of counting.

    Args:
        count: (previous, token) -> bytes counted.

    Raises:
        Stuck: it cannot be evaluated.
    """

    def error(previous: int, tokens: tuple[int, ...]) -> list[int]:
        return [count(previous, token) - known.true_bytes(previous, token) for token in tokens]

    lead, plain = error(known.FO, known.LEADING), error(known.FO, known.PLAIN)
    byte, outside = error(known.FO, known.BYTE_IDS), error(known.FO, known.BOUNDARY_IDS)
    start = [e for p in (1, 2) for e in error(p, known.LEADING)] + error(1, known.PLAIN)
    # Byte-fallback pieces are rare in the published exports; their share is known of a vocabulary that needs them.
    spaces = _mean(lead[1:]) * LEAD_SHARE
    ratio = 1 + (spaces or _mean(byte) * BYTE_SHARE) + _mean(outside[:2]) * START_SHARE
    bug = _named(lead, plain, byte, outside)
    if bug:
        errors = Counter(e for e in (*lead, *plain, *byte, *outside) if e).most_common(1)[0][0]
        return WRONG, bug, f"{bug}: up to {errors:+d} bytes a token against the decoded text", ratio, ""
    small = [
        "a space after a document start is counted too" if any(start) else "",
        "ids that no text contains have bytes" if outside[3] else "",
    ]
    minor = " and ".join(part for part in small if part)
    text = "table and sum give the bytes of the text that the tokens decode to" + (f", but {minor}" if minor else "")
    return CORRECT, "", text, ratio, minor


_SHOWN = (
    *((known.FO, token) for token in (known.A, known.THE, known.LONE, known.ING, known.E_ACUTE, known.KANJI)),
    *((known.FO, token) for token in (known.BYTE_IDS[2], known.BOUNDARY_IDS[0], known.BOUNDARY_IDS[2])),
    (known.BOUNDARY_IDS[0], known.THE),
    (known.BOUNDARY_IDS[0], known.ING),
)


def samples(count: Any) -> list[Sample]:
    """Tokens of every kind with their official bytes and those that `count(previous, token)` gives."""
    found = []
    for previous, token in _SHOWN:
        try:
            counted: int | None = int(count(previous, token))
        except (Stuck, TypeError, ValueError):
            counted = None
        pieces = known.PIECES[token][0], known.PIECES[previous][0]
        found.append(Sample(*pieces, known.true_bytes(previous, token), counted))
    return found


def _mean(errors: list[int]) -> float:
    return sum(errors) / len(errors)


def _named(lead: list[int], plain: list[int], byte: list[int], outside: list[int]) -> str:
    if any(plain):
        return OTHER
    words = lead[1:]
    if all(e == 1 for e in words):
        return DOUBLE
    if all(e in (2, 3) for e in words):
        return MARKER
    if all(e == -1 for e in words):
        return DROPPED
    if any(words):
        return OTHER
    if any(byte):
        return BYTES
    if any(outside[:3]):
        return CREDITED
    if lead[0]:
        return LONE if lead[0] > 0 else OTHER
    return ""
