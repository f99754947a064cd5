"""The metric identity: loss, bits per byte, tokens and bytes determine each other.

    bpb = (sum of losses / ln 2) / bytes        loss = (sum of losses) / tokens
    tokens / bytes = bpb * ln 2 / loss          bytes = tokens * loss / (ln 2 * bpb)

So every log line with a loss and a BPB reveals the byte denominator it was computed with, and a wrong
denominator shows without running anything (rule book, sections 1.1 and 3.C). The error of the revealed
number follows from the printed digits: +-2 bytes for lines with eight decimals, +-10,000 for lines with four.
"""

from __future__ import annotations

import functools
import json
import math
import re
from dataclasses import dataclass
from importlib import resources

from auditor.documents.interval import Interval, hull, rounded
from auditor.documents.model import EvalResult, LogRun, StepLine

LN2 = math.log(2.0)
#: Required improvement of a record, nats per token (README of the challenge, launch text).
RECORD_MARGIN_NATS = 0.005
#: Documents of the validation set. Evaluation document by document does not score the token each begins with, which the
#: announced number of targets counts and which has no bytes.
DOCUMENTS = 50_000


@dataclass(frozen=True)
class Tokenizer:
    """Counts of the full validation set under one tokenizer.

    Attributes:
        tokens, bytes: scored targets and their original UTF-8 bytes in the usual evaluation.
        token_counts: every number of targets seen in accepted logs (it depends on the evaluation length).
        bytes_range: lowest and highest accepted byte count.
        until: last date (ISO) on which this export was the published one, "" for those still valid.
    """

    name: str
    vocabulary: tuple[int, ...]
    tokens: int
    bytes: int
    token_counts: tuple[int, ...]
    bytes_range: tuple[int, int]
    until: str = ""

    @property
    def tokens_per_byte(self) -> float:
        """Targets per byte; BPB = loss / ln 2 * this."""
        return self.tokens / self.bytes

    @property
    def ratio_range(self) -> Interval:
        """Tokens per byte over all accepted countings of the same text."""
        return Interval(self.tokens / self.bytes_range[1], self.tokens / self.bytes_range[0])


@dataclass(frozen=True)
class KnownWrong:
    """A byte denominator with a known cause. `exact`: only an 8-digit line can tell it from the right one."""

    kind: str
    bytes: int
    reason: str
    source: str
    exact: bool = False


@dataclass(frozen=True)
class Denominator:
    """What a loss/BPB pair says about its byte denominator.

    Attributes:
        kind: "full validation set", "launch snapshot", "double leading space", "transformed bytes",
            "byte fallback", "10,000 documents", "wrong split", "partial", "fewer bytes", "slightly more bytes",
            "not the canonical bytes",
            "right ratio, coverage unknown", "unknown".
        accepted: True, False, or None when the line cannot tell.
        tokenizer: name of the tokenizer whose counts fit, "" when none does.
        tokens: number of scored targets used, None when the log has none.
        bytes: implied bytes; None without tokens. `ratio`: tokens per byte.
        reason: one sentence with the numbers.
    """

    kind: str
    accepted: bool | None
    ratio: Interval
    tokenizer: str = ""
    tokens: int | None = None
    bytes: Interval | None = None
    reason: str = ""


@functools.cache
def _data() -> dict:
    return json.loads(resources.files("auditor.data").joinpath("fingerprints.json").read_text("utf-8"))


@functools.cache
def tokenizers() -> tuple[Tokenizer, ...]:
    """Every tokenizer with known counts of the validation set."""
    return tuple(
        Tokenizer(
            item["name"],
            tuple(item["vocabulary"]),
            item["tokens"],
            item["bytes"],
            tuple(item["token_counts"]),
            tuple(item["bytes_range"]),
            item.get("until", ""),
        )
        for item in _data()["tokenizers"]
    )


@functools.cache
def known_wrong() -> tuple[KnownWrong, ...]:
    """Byte denominators that were found in submissions and whose cause is known."""
    return tuple(
        KnownWrong(item["kind"], item["bytes"], item["reason"], item["source"], item.get("exact", False))
        for item in _data()["known_wrong"]
    )


def accepted_bytes() -> Interval:
    """Byte counts that a full evaluation of the 50,000 validation documents can have."""
    return Interval(*_data()["accepted_bytes"])


def tokens_per_byte(loss: Interval, bpb: Interval) -> Interval:
    """Tokens per byte implied by a loss (nats per token) and a BPB.

    Raises:
        ZeroDivisionError: the loss may be zero (a placeholder line).
    """
    return bpb.scaled(LN2) / loss


def implied_bytes(tokens: int, loss: Interval, bpb: Interval) -> Interval:
    """Byte denominator implied by a number of targets, a loss (nats per token) and a BPB.

    Raises:
        ZeroDivisionError: the BPB may be zero (a placeholder line).
    """
    return loss.scaled(tokens) / bpb.scaled(LN2)


def bpb_of(loss: Interval, ratio: Interval | float) -> Interval:
    """BPB of a loss (nats per token) at a number of tokens per byte."""
    factor = ratio if isinstance(ratio, Interval) else Interval.exact(ratio)
    return (loss * factor).scaled(1 / LN2)


def margin_bpb(ratio: float, nats: float = RECORD_MARGIN_NATS) -> float:
    """The record margin (nats per token) in bits per byte, at `ratio` tokens per byte."""
    return nats * ratio / LN2


def tokenizer_for(
    tokens: int | None = None, vocabulary: int | None = None, ratio: Interval | None = None
) -> Tokenizer | None:
    """The tokenizer that a target count, a vocabulary size or a tokens-per-byte ratio points to, or None.

    A target count decides alone; a ratio decides among those with the vocabulary; a vocabulary alone decides
    only when one current tokenizer has it.
    """
    if tokens is not None:
        for item in tokenizers():
            if any(abs(tokens - count) <= _truncation(count) for count in item.token_counts):
                return item
    pool = [item for item in tokenizers() if vocabulary is None or vocabulary in item.vocabulary]
    if ratio is not None:
        pool = [item for item in pool if ratio.overlaps(_loose(item))]
        return pool[0] if pool else None
    current = [item for item in pool if not item.until]
    return current[0] if vocabulary is not None and len(current) == 1 else None


def _truncation(count: int) -> int:
    """Targets that dropping an incomplete last sequence can lose (the accepted byte range, as a share)."""
    low, high = _data()["accepted_bytes"]
    return int(count * (high - low) / high)


def _loose(item: Tokenizer) -> Interval:
    """Ratios of a tokenizer when its tail may be cut: the accepted byte range, unless its own lies
    elsewhere."""
    accepted = accepted_bytes()
    if item.bytes not in accepted:
        return item.ratio_range
    return Interval(item.tokens / accepted.high, item.tokens / accepted.low)


def diagnose(loss: Interval, bpb: Interval, tokens: int | None = None, vocabulary: int | None = None) -> Denominator:
    """What the pair says about its denominator, with the number of targets and the vocabulary where known."""
    if loss.low <= 0 or bpb.low <= 0:
        reason = "loss or BPB is zero: a placeholder, not a result"
        return Denominator("unknown", None, Interval(0.0, 0.0), reason=reason)
    ratio = tokens_per_byte(loss, bpb)
    if tokens is None:
        return _from_ratio(ratio, vocabulary)
    return _from_tokens(tokens, implied_bytes(tokens, loss, bpb), ratio, vocabulary)


def _from_tokens(tokens: int, size: Interval, ratio: Interval, vocabulary: int | None) -> Denominator:
    def answer(kind: str, accepted: bool | None, reason: str, tokenizer: str = "") -> Denominator:
        full = f"{_implied(tokens, size)}: {reason}"
        return Denominator(kind, accepted, ratio, tokenizer, tokens, size, full)

    for item in _data()["wrong_token_counts"]:
        if tokens == item["tokens"]:
            return answer(item["kind"], False, item["reason"])
    known = tokenizer_for(tokens=tokens)
    name = known.name if known else ""
    for wrong in known_wrong():
        if wrong.exact and size.width <= 100 and wrong.bytes in size.widened(2):
            return answer(wrong.kind, False, wrong.reason, name)
    if known and known.until and size.overlaps(Interval(*known.bytes_range)):
        return answer("launch snapshot", True, "the full validation set of the launch export", name)
    if size.overlaps(accepted_bytes()):
        under = f"under {name}" if name else "with a tokenizer that is not listed"
        return answer("full validation set", True, f"the full validation set {under}", name)
    if known and size.scaled(1 - DOCUMENTS / tokens).widened(2).overlaps(Interval(*known.bytes_range)):
        reason = f"the full validation set under {name}, its {DOCUMENTS:,} document starts not scored"
        return answer("full validation set", True, reason, name)
    for wrong in known_wrong():
        if not wrong.exact and size.overlaps(Interval.exact(wrong.bytes).widened(wrong.bytes * 5e-4)):
            return answer(wrong.kind, False, wrong.reason, name)
    if known is None:
        by_ratio = tokenizer_for(vocabulary=vocabulary, ratio=ratio) or tokenizer_for(ratio=ratio)
        if by_ratio and tokens < by_ratio.tokens:
            share = tokens / by_ratio.tokens
            reason = f"{share:.1%} of the {by_ratio.tokens:,} targets of {by_ratio.name}, whose ratio fits"
            return answer("partial", False, reason, by_ratio.name)
    return answer(*_unexplained(size, known), name)


#: Share of the canonical bytes from which on a smaller count can still be the whole validation set (other
#: normalisation, averaging over batches) rather than a part of it.
_NEARLY_ALL = 0.98
#: Share up to which more bytes can come from other tokens: bytes per token of large parts of the text differ by that.
_HARDLY_MORE = 1.002


def _unexplained(size: Interval, known: Tokenizer | None) -> tuple[str, bool | None, str]:
    """(kind, accepted, reason) of a byte count that fits neither the validation set nor a known mistake."""
    accepted = accepted_bytes()
    factor = size.middle / (known.bytes if known else _data()["canonical_bytes"])
    span = f"({accepted.low / 1e6:.2f}-{accepted.high / 1e6:.2f} million)"
    if known is None and factor < _NEARLY_ALL:
        return "partial", False, f"{factor:.2%} of the bytes of the validation set"
    if _NEARLY_ALL <= factor < 1:
        reason = (
            f"{1 - factor:.2%} less than any full count {span}; fewer bytes raise a BPB, so nothing is gained by it"
        )
        return "fewer bytes", None, reason
    if 1 < factor < _HARDLY_MORE:
        reason = (
            f"{factor - 1:.2%} more than any full count {span}: too little for a known mistake; other tokens than the "
            "validation set were scored, or the loss and the BPB of this line do not belong together"
        )
        return "slightly more bytes", None, reason
    reason = (
        f"{factor:.4f} times the validation set; {'more' if factor > 1 else 'less'} than any full count {span}, so the "
        "loss and the BPB of this line do not belong together or the bytes are not those of the original text"
    )
    return "not the canonical bytes", False, reason


def _from_ratio(ratio: Interval, vocabulary: int | None) -> Denominator:
    """Without a number of targets the ratio still tells how bytes were counted, not how much was scored."""
    text = f"{ratio.middle:.5f} tokens per byte"
    known = tokenizer_for(vocabulary=vocabulary, ratio=ratio)
    whole = next((item for item in tokenizers() if not item.until and _same_quotient(ratio, item)), None)
    if whole is not None:
        reason = (
            f"{ratio.middle:.9f} tokens per byte is {whole.tokens:,} / {whole.bytes:,} to {-math.log10(SAME_QUOTIENT):.0f} "
            f"digits: the full validation set under {whole.name}; parts of the text differ from it in the fourth"
        )
        return Denominator("full validation set", True, ratio, whole.name, reason=reason)
    if known:
        usual = f"{known.name} ({known.tokens_per_byte:.5f})"
        reason = f"{text} is the ratio of {usual}; the log has no number of targets"
        return Denominator("right ratio, coverage unknown", None, ratio, known.name, reason=reason)
    for item in tokenizers():
        if item.until or (vocabulary is not None and vocabulary not in item.vocabulary):
            continue
        for wrong in known_wrong():
            inflated = Interval.exact(item.tokens / wrong.bytes)
            if wrong.exact or wrong.bytes < item.bytes:
                continue
            if ratio.overlaps(inflated.widened(inflated.low * 5e-4)):
                reason = f"{text} is the ratio of {item.name} with a wrong denominator: {wrong.reason}"
                return Denominator(wrong.kind, False, ratio, item.name, reason=reason)
    reason = f"{text} fits no tokenizer with known counts, and the log has no number of targets"
    return Denominator("unknown", None, ratio, reason=reason)


#: Relative distance within which two quotients of tokens and bytes are the same. Tokens per byte of half of the documents
#: lie 3e-4 from those of all, of 99 % of them 3e-5: a part comes as near as this once in a thousand times.
SAME_QUOTIENT = 1e-7


def _same_quotient(ratio: Interval, item: Tokenizer) -> bool:
    """Whether a ratio is known precisely enough, and is that of all targets of a tokenizer."""
    slack = SAME_QUOTIENT * item.tokens_per_byte
    return ratio.width < slack and abs(ratio.middle - item.tokens / item.bytes) < slack


def _implied(tokens: int, size: Interval) -> str:
    spread = size.width / 2
    error = f"+-{max(1, round(spread)):,}" if spread < 1e5 else f"+-{spread / 1e6:.2f} million"
    return f"{tokens:,} targets imply {round(size.middle):,} {error} bytes"


@functools.lru_cache(maxsize=1 << 16)
def _as_printed(value: float, text: str, digits: int) -> Interval:
    """Interval of a value of a log line, with the decimals it has in that line."""
    for found in re.findall(r"\d+\.\d+", text):
        if float(found) == value:
            return rounded(value, found)
    return rounded(value, digits=digits)


def bytes_factor(denominator: Denominator, vocabulary: int | None) -> Interval | None:
    """Bytes counted over the bytes the same tokens have in the validation set, None without a known tokenizer.

    Holds for a part of the set too: bytes per token of a few hundred thousand tokens of the same text stay within some
    percent, so a factor far from one is the counting and not the choice of documents.
    """
    if denominator.ratio.low <= 0:
        return None
    named = next((item for item in tokenizers() if item.name == denominator.tokenizer), None)
    usual = named or tokenizer_for(vocabulary=vocabulary)
    return Interval.exact(usual.tokens_per_byte) / denominator.ratio if usual else None


def pair_of(line: EvalResult | StepLine) -> tuple[Interval, Interval] | None:
    """(loss, BPB) of a log line as intervals of what was printed, None when it has not both or they are
    zero."""
    if not line.val_loss or not line.val_bpb or not math.isfinite(line.val_loss * line.val_bpb):
        return None
    digits = line.digits if isinstance(line, EvalResult) else 4
    return _as_printed(line.val_loss, line.text, digits), _as_printed(line.val_bpb, line.text, digits)


def bpb_interval(line: EvalResult | StepLine) -> Interval | None:
    """BPB of a log line as the interval of what was printed."""
    if line.val_bpb is None:
        return None
    return _as_printed(line.val_bpb, line.text, line.digits if isinstance(line, EvalResult) else 4)


def vocabulary_of(run: LogRun) -> int | None:
    """Vocabulary size that a log states in its settings dump, or in the name of its tokenizer or data set."""
    for name in ("vocab_size", "VOCAB_SIZE"):
        text = run.settings.get(name, "")
        if text.strip().isdigit():
            return int(text)
    for name in ("tokenizer_path", "data_path", "dataset", "datasets_dir"):
        match = re.search(r"sp(\d{3,5})|_(\d{3,5})_bpe", run.settings.get(name, ""))
        if match:
            return int(match.group(1) or match.group(2))
    return None


def diagnose_line(line: EvalResult | StepLine, run: LogRun) -> Denominator | None:
    """`diagnose` of a log line with the target count and vocabulary of its run; None for a line without a
    pair."""
    pair = pair_of(line)
    if pair is None:
        return None
    tokens = int(run.val_tokens.value) if run.val_tokens else None
    found = diagnose(*pair, tokens=tokens, vocabulary=vocabulary_of(run))
    part = None if found.accepted is not False else _stated_tokens(line, run)
    return _of_a_part(found, pair, part, vocabulary_of(run)) if part else found


#: Bytes per token of N tokens in sequence stay within this over the root of N of those of the whole text, relative: a
#: token's length varies by about 0.8 of its mean, and neighbours in a document are alike.
_SPREAD = 5.0


def _stated_tokens(line: EvalResult | StepLine, run: LogRun) -> int | None:
    """Targets of a result as its own line states them, or the line of the same result with fewer digits."""
    if not isinstance(line, EvalResult):
        return None
    same = (
        other
        for other in run.results
        if other.tokens
        and line.label.replace("_exact", "") == other.label
        and abs(other.val_bpb - line.val_bpb) < 10.0 ** -min(other.digits, line.digits)
    )
    return line.tokens or next((other.tokens for other in same), None)


def _of_a_part(found: Denominator, pair: tuple[Interval, Interval], tokens: int, vocabulary: int | None) -> Denominator:
    """`found`, or "partial" where the line states so few tokens that its ratio is one such a part can have."""
    whole = tokenizer_for(tokens=found.tokens, vocabulary=vocabulary)
    factor = bytes_factor(found, vocabulary)
    if whole is None or factor is None or tokens >= _NEARLY_ALL * whole.tokens:
        return found
    if abs(factor.middle - 1) > _SPREAD / math.sqrt(tokens):
        return found
    size = implied_bytes(tokens, *pair)
    reason = (
        f"{_implied(tokens, size)}: {tokens / whole.tokens:.4%} of the {whole.tokens:,} targets of {whole.name}, with "
        f"{factor.middle:.3f} times the usual bytes per token"
    )
    return Denominator("partial", False, found.ratio, whole.name, tokens, size, reason)


def odd_quotients(run: LogRun) -> tuple[Interval, list[StepLine]]:
    """Validation lines of training whose loss and BPB cannot stem from the same evaluation as the others.

    All of them score the same tokens, so tokens/bytes is one constant. Returns (its range, the lines that miss it);
    no line when one constant fits all of them, whatever it is. Else the constant is that of the tokenizer or of the
    run's exact result lines, where any validation line has it, and the one most lines share otherwise.
    """
    pairs = [(line, tokens_per_byte(*pair)) for line in run.steps if (pair := pair_of(line))]
    if not pairs:
        return Interval(0.0, 0.0), []
    common = Interval(max(ratio.low for _, ratio in pairs), min(ratio.high for _, ratio in pairs))
    if common.low <= common.high:
        return common, []
    best = _reference(pairs, run)
    return best, [line for line, ratio in pairs if not ratio.overlaps(best)]


def _reference(pairs: list[tuple[StepLine, Interval]], run: LogRun) -> Interval:
    known = tokenizer_for(tokens=int(run.val_tokens.value)) if run.val_tokens else None
    exact = [tokens_per_byte(*pair) for item in run.results if item.digits >= 6 and (pair := pair_of(item))]
    trusted = [known.ratio_range] if known else []
    for ratio in exact:
        # Evaluations of one run differ in how they treat the tail: the fingerprints say by how much at most.
        named = tokenizer_for(vocabulary=vocabulary_of(run), ratio=ratio)
        trusted.append(named.ratio_range if named else ratio.widened(ratio.middle * 7e-5))
    for candidate in trusted:
        if any(ratio.overlaps(candidate) for _, ratio in pairs):
            return candidate
    hits = [sum(ratio.overlaps(candidate) for _, ratio in pairs) for _, candidate in pairs]
    return pairs[hits.index(max(hits))][1]


def quotient_hull(run: LogRun) -> Interval | None:
    """Range of tokens per byte over all pairs of a run, None when it has none."""
    ratios = [tokens_per_byte(*pair) for line in [*run.results, *run.steps] if (pair := pair_of(line))]
    return hull(ratios) if ratios else None
