"""Templates: what a program can print is found through wrappers, loops, joins, and every way to build text."""

from __future__ import annotations

import math
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.static.cadence import describe, refused_by
from auditor.static.library_lines import is_library_line
from auditor.static.parse import parse_module
from auditor.static.patterns import Field, field_expression
from auditor.static.printing import extract
from auditor.static.templates import TemplateSet


def templates(source: str) -> TemplateSet:
    return extract(textwrap.dedent(source), "train_gpt.py")


WRAPPED = """
    import math, sys
    def main():
        def log0(msg, console=True):
            if console:
                print(msg)
            with open(logfile, "a") as f:
                print(msg, file=f)
        log0(f"step:{step}/{args.iterations} val_loss:{val_loss:.4f} train_time:{t:.0f}ms")
        log0("quantised %d tensors in %.2fs" % (n, seconds))
        log0("total {:,} bytes ({:.1%})".format(size, share))
        log0("plain " + name + " done")
        print("epoch", epoch, "loss", f"{loss:.3f}")
        for k, v in sorted(vars(args).items()):
            log0(f"  {k}: {v}")
        x = math.log(2.0)
"""


@pytest.mark.parametrize(
    "line",
    [
        "step:10/20000 val_loss:2.1234 train_time:600ms",
        "step:0/5 val_loss:nan train_time:0ms",
        "[12:30:01] step:10/20000 val_loss:2.1234 train_time:600ms",
        "1776144156.999 quantised 12 tensors in 3.50s",
        "total 15,999,000 bytes (99.9%)",
        "plain model done",
        "epoch 3 loss 2.345",
    ],
)
def test_lines_of_the_program_match(line: str) -> None:
    assert templates(WRAPPED).match(line) is not None


@pytest.mark.parametrize(
    "line",
    [
        "step:10/20000 val_loss:2.123 train_time:600ms",
        "step:10/20000 val_bpb:2.1234 train_time:600ms",
        "quantised 12 tensors in 3.5s",
        "quantised twelve tensors in 3.50s",
        "total 15,999,000 bytes (99.91%)",
        "epoch 3 loss 2.3456",
        "0.6931471805599453",
    ],
)
def test_other_lines_do_not(line: str) -> None:
    assert templates(WRAPPED).match(line) is None


def test_settings_listing_is_a_dump_and_leaves_the_list_complete() -> None:
    found = templates(WRAPPED)
    assert found.complete
    dump = found.may_be_dynamic("  matrix_lr: 0.02")
    assert dump is not None and dump.dump
    assert found.may_be_dynamic("matrix_lr: 0.02") is None, "the listing indents its names"


def test_label_passed_through_two_functions() -> None:
    found = templates(
        """
        def log(msg): print(msg)
        def timed_eval(label, fn):
            loss = fn()
            log(f"{label} val_loss:{loss:.8f}")
        timed_eval("quantized", f)
        timed_eval("quantized_sliding", f)
        """
    )
    assert found.match("quantized val_loss:1.23456789")
    assert found.match("quantized_sliding val_loss:1.23456789")
    assert not found.match("quantized_ttt val_loss:1.23456789")


def test_wrapper_passed_as_parameter_and_aliases() -> None:
    found = templates(
        """
        def log0(msg): print(msg)
        def evaluate(model, log_fn=None):
            log_fn(f"chunk {i + 1} bpb={bpb:.6f}")
        say = print
        evaluate(model, log_fn=log0)
        say(f"done {n:d}")
        """
    )
    assert found.match("chunk 3 bpb=1.123456")
    assert found.match("done 12")


def test_message_built_in_pieces_and_joined_list() -> None:
    found = templates(
        """
        def log0(msg): print(msg)
        msg = f"a:{a:.1f}"
        if extra:
            msg += f" b:{b:.2f}"
        log0(msg)
        parts = []
        for i in range(3):
            parts.append(f"{i:d}={x:.3f}")
        log0(f"rows:[{','.join(parts)}]")
        """
    )
    assert found.match("a:1.0")
    assert found.match("a:1.0 b:2.00")
    assert not found.match("a:1.0 b:2.0")
    assert found.match("rows:[0=1.000,1=2.000]")
    assert not found.match("rows:[0=1.0,1=2.0]")


def test_arithmetic_is_not_read_as_text() -> None:
    template = templates('def f():\n    print(f"[{ci + 1}/{n}] x")\n').templates[0]
    assert [part.name for part in template.fields] == ["ci + 1", "n"]


def test_unknown_output_makes_the_list_incomplete() -> None:
    found = templates('import subprocess\nout = tool()\nprint(out)\nprint("known line")\n')
    assert not found.complete
    assert found.may_be_dynamic("anything at all") is not None


def test_source_dump_and_nvidia_smi_are_recognised() -> None:
    found = templates(
        """
        import subprocess, sys
        code = open(__file__).read()
        def log0(m): print(m)
        log0(code)
        log0("=" * 100)
        log0(subprocess.run(["nvidia-smi"], capture_output=True, text=True).stdout)
        log0("x:1")
        """
    )
    assert found.dumps_source == [5]
    assert found.complete


@given(st.floats(-1e6, 1e6), st.integers(0, 8))
def test_fixed_point_fields_accept_exactly_their_digits(value: float, digits: int) -> None:
    import re

    shown = f"{value:.{digits}f}"
    assert re.fullmatch(field_expression(Field("x", f".{digits}f")), shown)
    assert not re.fullmatch(field_expression(Field("x", f".{digits + 1}f")), shown)


@given(
    st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.just(math.inf)),
    st.sampled_from([".4f", "8.3f", ">10.2f", "+.2e", ".3g", ",.1f", "08.2f", ".2%", "^12.4f"]),
)
def test_whatever_python_formats_the_field_matches(value: float, spec: str) -> None:
    import re

    assert re.fullmatch(field_expression(Field("x", spec)), format(value, spec))


LOOP = """
    def log0(m): print(m)
    def score(n):
        for ci in range(n):
            if ci % 10 == 0 or ci == num_chunks - 1:
                log0(f"  chunk [{ci+1}/{num_chunks}] bpb={b:.6f}")
    def train():
        while True:
            step += 1
            should_log = args.every > 0 and (step <= 10 or step % args.every == 0)
            if should_log:
                log0(f"step:{step}/{args.iterations} loss:{x:.4f}")
"""


@pytest.mark.parametrize(("position", "refused"), [(1, False), (11, False), (100, True), (500, True), (1893, False)])
def test_cadence_of_a_progress_line(position: int, refused: bool) -> None:
    line = f"  chunk [{position}/1893] bpb=1.123456"
    template = templates(LOOP).match(line)
    assert template is not None
    guard = refused_by(template, line)
    assert (guard is not None) == refused
    if guard is not None:
        assert describe(guard) == "ci % 10 == 0 or ci == num_chunks - 1"


def test_cadence_that_depends_on_a_setting_stays_open() -> None:
    found = templates(LOOP)
    line = "step:123/20000 loss:2.0000"
    template = found.match(line)
    assert template is not None
    assert refused_by(template, line) is None
    assert refused_by(template, line, {"args.every": 200}) is not None


def test_newer_syntax_is_read_on_every_interpreter() -> None:
    parsed = parse_module('def f(d):\n    print(f"loss:{d["a"]:.4f} {f"{1}"}")\n')
    assert parsed.tree is not None
    found = extract(parsed.text, "x.py")
    assert found.match("loss:1.2345 1")
    assert not found.match("loss:1.23 1")


def test_text_that_is_not_python_says_where() -> None:
    parsed = parse_module("x = 1\nthis is some prose\n")
    assert parsed.tree is None and parsed.line == 2 and parsed.error
    assert not extract("x = 1\nthis is some prose\n", "x.py").complete


@given(st.text(max_size=200))
def test_any_text_is_answered(text: str) -> None:
    found = extract(text, "x.py")
    found.match("step:1")
    assert isinstance(found.complete, bool)


@pytest.mark.parametrize(
    "line",
    [
        "W0321 23:58:21.049000 2107250 site-packages/torch/distributed/run.py:852] ****",
        "| N/A   32C    P0   71W / 700W |   1MiB / 81559MiB |",
        "Traceback (most recent call last):",
        "Requirement already satisfied: numpy in /usr/lib",
        "real\t10m3.123s",
    ],
)
def test_library_lines(line: str) -> None:
    assert is_library_line(line)


@pytest.mark.parametrize("line", ["val_bpb: 1.1", "step:1/2 train_loss:3.0", "final_int8 val_loss:2.0 val_bpb:1.2"])
def test_results_are_never_library_lines(line: str) -> None:
    assert not is_library_line(line)
