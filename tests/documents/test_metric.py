"""The metric identity: denominators revealed by loss/BPB pairs, with the error of the printed digits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.documents.interval import Interval, mean_interval, rounded, stated, unit_of
from auditor.documents.logs.patterns import result_facts
from auditor.documents.metric import (
    LN2,
    diagnose,
    diagnose_line,
    implied_bytes,
    margin_bpb,
    odd_quotients,
    tokenizer_for,
    tokenizers,
)
from auditor.documents.model import EvalResult, LogRun, Quantity, Source, StepLine

SP1024, SP8192 = (next(t for t in tokenizers() if t.name == name) for name in ("sp1024", "sp8192"))
losses = st.floats(min_value=0.5, max_value=8.0)


def pair(loss: float, tokens: int, size: int, digits: int) -> tuple[Interval, Interval]:
    """What a program prints for a loss and the BPB it computes from it."""
    bpb = loss * tokens / (LN2 * size)
    return tuple(rounded(float(f"{v:.{digits}f}"), f"{v:.{digits}f}") for v in (loss, bpb))


def a_run(**known: object) -> LogRun:
    return LogRun("train.log", 1, 100, **known)


def tokens_line(count: int) -> Quantity:
    return Quantity(count, Source("train.log", 1), str(count))


@pytest.mark.parametrize(
    ("text", "unit"),
    [("1.1194", 1e-4), ("~1.154", 1e-3), ("600", 1), ("15,510,640", 1), ("1.5e-05", 1e-6), ("no number", 0.0)],
)
def test_unit_of_last_digit(text: str, unit: float) -> None:
    assert unit_of(text) == pytest.approx(unit)


@given(st.floats(min_value=0.001, max_value=1e6), st.integers(min_value=0, max_value=8))
def test_printing_stays_inside_its_interval(value: float, digits: int) -> None:
    text = f"{value:.{digits}f}"
    assert rounded(float(text), text).widened(1e-12 * value).overlaps(Interval.exact(value))
    cut = math.floor(value * 10**digits) / 10**digits
    assert stated(cut, f"{cut:.{digits}f}").widened(1e-9 * value).overlaps(Interval.exact(value))


@given(losses, losses, losses, losses)
def test_interval_arithmetic_holds_every_outcome(a: float, b: float, c: float, d: float) -> None:
    x, y = Interval(min(a, b), max(a, b)), Interval(min(c, d), max(c, d))
    tiny = 1e-9
    assert a * c in (x * y).widened(tiny)
    assert a / d in (x / y).widened(tiny)
    assert a - c in (x - y).widened(tiny)
    assert (a + b) / 2 in mean_interval([Interval.exact(a), Interval.exact(b)]).widened(tiny)


def test_division_by_a_range_around_zero_is_refused() -> None:
    with pytest.raises(ZeroDivisionError, match="holds zero"):
        Interval(1, 2) / Interval(-1, 1)


@given(losses)
def test_exact_lines_reveal_the_bytes_within_two(loss: float) -> None:
    size = implied_bytes(SP1024.tokens, *pair(loss, SP1024.tokens, SP1024.bytes, 8))
    assert SP1024.bytes in size
    # Two bytes at the losses of real models; the error grows as 1 / loss.
    assert size.width <= 2 * 2 * max(1.0, 1.9 / loss)


@given(losses.filter(lambda x: x > 1.5))
def test_four_digits_still_tell_the_full_set_from_a_double_space(loss: float) -> None:
    right = diagnose(*pair(loss, SP8192.tokens, SP8192.bytes, 4), tokens=SP8192.tokens)
    wrong = diagnose(*pair(loss, SP8192.tokens, 176_332_748, 4), tokens=SP8192.tokens)
    assert (right.kind, right.accepted) == ("full validation set", True)
    assert (wrong.kind, wrong.accepted) == ("double leading space", False)


@pytest.mark.parametrize(
    ("tokens", "size", "kind", "accepted", "tokenizer"),
    [
        (62_021_632, 151_080_363, "full validation set", True, "sp1024"),
        (45_508_608, 151_074_053, "full validation set", True, "sp4096"),
        (40_540_160, 151_078_222, "full validation set", True, "sp8192"),
        (47_851_520, 151_074_499, "full validation set", True, "CaseOps sp8192"),
        (151_130_112, 151_080_112, "full validation set", True, "byte260"),
        (63_779_840, 155_769_746, "launch snapshot", True, "sp1024 launch snapshot"),
        (47_851_520, 164_594_398, "transformed bytes", False, "CaseOps sp8192"),
        (37_000_000, 157_319_833, "byte fallback", False, ""),
        (9_662_464, 32_756_252, "10,000 documents", False, ""),
        (36_562_944, 115_000_000, "wrong split", False, ""),
        (29_491_200, round(29_491_200 / 0.41052080342), "partial", False, "sp1024"),
        (40_540_160, 141_000_000, "not the canonical bytes", False, "sp8192"),
        (51_000_000, 151_080_500, "full validation set", True, ""),
        (50_905_088, 150_746_026, "fewer bytes", None, ""),
        (62_021_632, 151_202_254, "full validation set", True, "sp1024"),  # 50,000 targets fewer than announced
        (62_021_845, 151_289_053, "slightly more bytes", None, "sp1024"),
        (261_120, 849_823, "partial", False, ""),
        (62_021_632, 158_000_000, "not the canonical bytes", False, "sp1024"),
    ],
)
def test_denominators_by_target_count(tokens: int, size: int, kind: str, accepted: bool | None, tokenizer: str) -> None:
    answer = diagnose(*pair(1.9, tokens, size, 8), tokens=tokens)
    assert (answer.kind, answer.accepted, answer.tokenizer) == (kind, accepted, tokenizer)
    assert answer.bytes is not None and size in answer.bytes
    assert f"{tokens:,} targets imply" in answer.reason


def test_casefolded_bytes_need_an_exact_line() -> None:
    exact = diagnose(*pair(2.8, SP8192.tokens, 151_082_429, 8), tokens=SP8192.tokens)
    coarse = diagnose(*pair(2.8, SP8192.tokens, 151_082_429, 4), tokens=SP8192.tokens)
    assert exact.kind == "casefolded text"
    assert coarse.kind == "full validation set"


def test_without_target_count_the_ratio_decides_but_coverage_stays_open() -> None:
    right = diagnose(*pair(1.9, SP1024.tokens, SP1024.bytes, 4))
    inflated = diagnose(*pair(2.8, SP8192.tokens, 176_332_748, 8), vocabulary=8192)
    nothing = diagnose(*pair(2.8, 1_000_000, 5_700_000, 8))
    assert (right.kind, right.accepted, right.tokenizer) == ("right ratio, coverage unknown", None, "sp1024")
    assert (inflated.kind, inflated.accepted) == ("double leading space", False)
    assert (nothing.kind, nothing.accepted) == ("unknown", None)


def test_a_quotient_known_to_seven_digits_shows_which_targets_were_scored() -> None:
    whole = diagnose(*pair(1.9, SP1024.tokens, SP1024.bytes, 8))
    assert (whole.kind, whole.accepted, whole.tokenizer) == ("full validation set", True, "sp1024")
    # Half of the documents, whose tokens are 3e-4 shorter: the usual ratio, but not the same quotient.
    half = diagnose(*pair(1.9, SP1024.tokens // 2, round(SP1024.bytes / 2 * 1.0003), 8))
    assert half.accepted is not True


def test_placeholders_are_not_results() -> None:
    assert diagnose(rounded(0.0, "0.0000"), rounded(0.0, "0.0000"), tokens=62_021_632).accepted is None
    assert diagnose_line(EvalResult(3, "x", val_loss=0.0, val_bpb=0.0), a_run()) is None


@pytest.mark.parametrize(("name", "bpb"), [("sp1024", 0.00296), ("sp8192", 0.00194), ("CaseOps sp8192", 0.00228)])
def test_record_margin_by_tokenizer(name: str, bpb: float) -> None:
    ratio = next(t.tokens_per_byte for t in tokenizers() if t.name == name)
    assert margin_bpb(ratio) == pytest.approx(bpb, abs=5e-6)


def test_tokenizer_from_whatever_is_known() -> None:
    assert tokenizer_for(tokens=62_013_440).name == "sp1024"
    assert tokenizer_for(vocabulary=4096).name == "sp4096"
    # Two exports share 8,192 pieces: the vocabulary alone names neither, the ratio does.
    assert tokenizer_for(vocabulary=8192) is None
    assert tokenizer_for(vocabulary=8192, ratio=Interval.exact(0.26834)).name == "sp8192"
    assert tokenizer_for(tokens=1_000_000) is None


def curve(bend: dict[int, float]) -> LogRun:
    """A validation curve printed with four digits; `bend` adds to the BPB of single steps."""
    steps = []
    for index in range(20):
        loss = 6.9 - 0.24 * index
        bpb = loss * SP1024.tokens_per_byte / LN2 + bend.get(index, 0.0)
        text = f"step:{index * 1000}/20000 val_loss:{loss:.4f} val_bpb:{bpb:.4f}"
        printed = (float(f"{loss:.4f}"), float(f"{bpb:.4f}"))
        steps.append(StepLine(index + 10, index * 1000, 20000, None, *printed, text=text))
    exact = f"final_exact val_loss:{2.0:.8f} val_bpb:{2.0 * SP1024.tokens_per_byte / LN2:.8f}"
    result = EvalResult(99, "final_exact", 2.0, 2.0 * SP1024.tokens_per_byte / LN2, digits=8, text=exact)
    return a_run(steps=steps, results=[result])


def test_an_honest_curve_has_one_quotient() -> None:
    ratio, odd = odd_quotients(curve({}))
    assert SP1024.tokens_per_byte in ratio.widened(1e-4)
    assert odd == []


def test_bent_lines_of_a_curve_are_named() -> None:
    bent = {index: 3e-4 for index in range(2, 19)}
    _, odd = odd_quotients(curve(bent))
    assert [line.step // 1000 for line in odd] == sorted(bent)


def test_a_line_carries_its_own_digits() -> None:
    text = "final_exact val_loss:1.89832134 val_bpb:1.12434986"
    line = EvalResult(7, "final_exact", 1.89832134, 1.12434986, digits=4, text=text)
    answer = diagnose_line(line, a_run(val_tokens=tokens_line(62_021_632)))
    assert answer.bytes.width < 10
    assert answer.accepted


@pytest.mark.parametrize(
    ("factor", "tokens", "kind"),
    [
        (1.09, 2_048, "partial"),
        (1.02, 32_736, "partial"),
        (1.09, 32_736, "not the canonical bytes"),  # so many tokens are no more than 3 % off
        (1.09, None, "not the canonical bytes"),
        (1.0, 2_048, "full validation set"),  # another number of that name on a line with the right ratio
    ],
)
def test_a_stated_part_explains_a_ratio_only_as_far_as_its_size_allows(factor, tokens, kind) -> None:
    bpb = 2.5 * SP1024.tokens_per_byte / LN2 / factor
    stated_on = f"final_eval backend:none val_loss:2.5000 val_bpb:{bpb:.4f}" + (f" tokens:{tokens}" if tokens else "")
    exact = f"final_eval_exact backend:none val_loss:{2.5:.8f} val_bpb:{bpb:.8f}"
    results = [found for number, text in enumerate((stated_on, exact), 1) for found in result_facts(text, number)]
    run = a_run(val_tokens=tokens_line(SP1024.tokens), results=results)
    answer = diagnose_line(results[1], run)
    assert answer.kind == kind
    assert answer.tokens == (tokens if kind == "partial" else SP1024.tokens)


def test_speeds_and_totals_are_no_number_of_scored_tokens() -> None:
    (found,) = result_facts("final val_loss:2.5 val_bpb:1.48 tokens:8.5B tok_s:92", 1)
    assert found.tokens is None
    (found,) = result_facts("final_pll pll_loss:2.5 pll_bpb:1.48 scored_tokens:32736", 1)
    assert found.tokens == 32_736
