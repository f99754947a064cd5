"""What a log proves of the settings of its run, and what it does not."""

from __future__ import annotations

import pytest

from auditor.dynamic.run import settings_of
from auditor.dynamic.switches import plain, shown_by

PROGRAM = """
import os


class Args:
    cache_eval = os.environ.get("CACHE_EVAL", "0") == "1"
    cache_order = int(os.environ.get("CACHE_ORDER", 7))
    adapt_enabled = bool(int(os.environ.get("ADAPT_ENABLED", "0")))
    adapt_only = bool(int(os.environ.get("ADAPT_ONLY", "0")))
    mode = os.environ.get("MODE", "plain")
    strength = float(os.environ.get("STRENGTH", 0.0))
    second_enabled = bool(int(os.environ.get("SECOND_ENABLED", "0")))


args = Args()


def log0(text):
    print(text)


def cached(model):
    log0(f"counted evaluation done bpb={model:.6f}")


def main():
    log0(f"final_roundtrip_exact val_loss:{1.0:.8f} val_bpb:{1.0:.8f}")
    if args.adapt_enabled:
        log0(f"adapted_rounds_exact val_bpb:{1.0:.8f}")
    if args.adapt_only:
        log0("weights of an earlier run are adapted")
    if args.cache_order >= 2:
        cached(1.0)
    if args.mode == "mixed":
        log0(f"mixture of experts val_bpb:{1.0:.8f}")
    if args.strength > 0:
        log0(f"strengthened evaluation val_bpb:{1.0:.8f}")
    if args.adapt_enabled or args.second_enabled:
        log0(f"either of the switches val_bpb:{1.0:.8f}")
    if args.cache_order > 100:
        log0(f"step summary {1.0:.3f}")
    log0(f"step summary {2.0:.3f}")


main()
"""
FINAL = "final_roundtrip_exact val_loss:1.00000000 val_bpb:1.20000000"


def proved(*lines: str, effective: dict[str, str] | None = None, logged: tuple[str, ...] = ()) -> dict[str, str]:
    return shown_by((FINAL, *lines), PROGRAM, settings_of(PROGRAM, "train_gpt.py"), effective or {}, logged)


def test_lines_that_any_run_prints_prove_nothing():
    assert proved() == {}
    assert proved("step summary 0.125", "something nobody prints 1.0") == {}


@pytest.mark.parametrize(
    "line", ["adapted_rounds_exact val_bpb:1.12345678", "  adapted_rounds_exact val_bpb:0.90000000"]
)
def test_switch_that_was_on(line):
    assert proved(line) == {"ADAPT_ENABLED": "1"}


def test_documented_value_that_the_log_contradicts():
    """The documents show the variant without the cache; the log is of the one with it."""
    line = "counted evaluation done bpb=0.912061"
    assert proved(line) == {}
    assert proved(line, effective={"CACHE_ORDER": "0"}) == {"CACHE_ORDER": "7"}


def test_value_a_mode_is_compared_with():
    assert proved("mixture of experts val_bpb:1.10000000") == {"MODE": "mixed"}


def test_what_cannot_be_told_is_left_alone():
    assert proved("strengthened evaluation val_bpb:1.10000000") == {}, "any positive strength"
    assert proved("either of the switches val_bpb:1.10000000") == {}, "one of two switches"
    assert proved("weights of an earlier run are adapted") == {}, "needs a file that is not here"


def test_what_the_log_states_is_not_overruled():
    assert proved("adapted_rounds_exact val_bpb:1.12345678", logged=("adapt_enabled",)) == {}


def test_switch_that_is_on_already():
    assert proved("adapted_rounds_exact val_bpb:1.12345678", effective={"ADAPT_ENABLED": "1"}) == {}


def test_source_that_does_not_parse():
    assert shown_by([FINAL], "def broken(:", [], {}) == {}


@pytest.mark.parametrize(
    "written,value", [("1", 1), ("0.5", 0.5), ("True", True), ("off", False), ("plain", "plain"), (None, None), (3, 3)]
)
def test_plain_values(written, value):
    assert plain(written) == value
