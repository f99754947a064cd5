"""Byte counts decided by evaluation: right ones in several shapes, every named defect, and what cannot be told."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.static import byte_stand_in as known
from auditor.static.byte_compare import compare
from auditor.static.byte_formula import constant_ratios
from auditor.static.byte_interpreter import Interpreter
from auditor.static.byte_operators import Stuck
from auditor.static.byte_table import byte_table
from auditor.static.byte_verdict import ByteTable
from auditor.unpack import Layer, Program

TABLE = """
import math
import numpy as np
import sentencepiece as spm
import torch

def make_tables(sp, vocab_size, device):
    n = max(int(sp.vocab_size()), vocab_size)
    size = np.zeros((n,), dtype=np.int16)
    space = np.zeros((n,), dtype=np.bool_)
    edge = np.ones((n,), dtype=np.bool_)
    for i in range(int(sp.vocab_size())):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        edge[i] = False
        if sp.is_byte(i):
            size[i] = 1
            continue
        piece = sp.id_to_piece(i)
        if piece.startswith("\\u2581"):
            space[i] = True
            piece = piece[1:]
        size[i] = len(piece.encode("utf-8"))
    return (torch.tensor(size, dtype=torch.int16, device=device), torch.tensor(space, device=device),
            torch.tensor(edge, device=device))
"""
SUM = """
def score(model, tokens, size, space, edge):
    total = 0
    for x, y in tokens:
        counted = size[y].to(torch.int16)
        counted += (space[y] & ~edge[x]).to(torch.int16)
        total += counted.sum()
    return total

def main():
    size, space, edge = make_tables(spm.SentencePieceProcessor(model_file="t.model"), 1024, "cuda")
    score(None, [], size, space, edge)
"""


def verdict(*texts: str) -> ByteTable:
    """Verdict on a program of one file."""
    text = "".join(texts)
    layer = Layer("train_gpt.py", text, text.encode())
    return byte_table(Program(layer, [layer]))


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def test_the_usual_shape_is_right_and_both_places_are_named() -> None:
    found = verdict(TABLE, SUM)
    assert (found.status, found.ratio, found.minor) == ("correct", 1.0, "")
    assert [place.what for place in found.places] == ["table of bytes", "bytes of the scored tokens"]
    assert found.places[0].excerpt.startswith("def make_tables")
    assert "space[y] & ~edge[x]" in found.places[1].excerpt


@pytest.mark.parametrize(
    "sum_",
    [
        "    counted = size[y].double() + (space[y] & ~edge[x]).double()\n    return counted.sum()\n",
        "    extra = torch.logical_and(space[y], torch.logical_not(edge[x]))\n    return (size[y] + extra).sum()\n",
        "    n = size.index_select(0, y)\n    n = n + (space[y] * (1 - edge[x].int()))\n    return n\n",
        "    total = 0\n    for a, b in zip(x, y):\n        n = int(size[b])\n"
        "        if space[b] and not edge[a]:\n            n += 1\n        total += n\n    return total\n",
        "    n = size[y]\n    return torch.where(space[y] & ~edge[x], n + 1, n)\n",
    ],
)
def test_sums_in_other_shapes(sum_: str) -> None:
    found = verdict(TABLE, "def count(size, space, edge, x, y):\n", sum_)
    assert found.status == "correct", found.reason


def test_a_table_made_inside_a_larger_function() -> None:
    body = TABLE.replace(
        "def make_tables(sp, vocab_size, device):",
        "def main(vocab_size, device, x, y):\n    sp = spm.SentencePieceProcessor()",
    )
    body = body[: body.index("    return (torch")] + "    train(unknown)\n    total = size[y] + (space[y] & ~edge[x])\n"
    assert verdict(body).status == "correct"


@pytest.mark.parametrize(("old", "status"), [('len(text.encode("utf-8"))', "correct"), ("len(text)", "wrong")])
def test_a_table_filled_by_a_function_that_lives_in_a_class(old: str, status: str) -> None:
    helper = f"""
class Fills:
    @staticmethod
    def one(i, text, size):
        size[i] = {old}
"""
    body = changed(TABLE, 'size[i] = len(piece.encode("utf-8"))', "Fills.one(i, piece, size)")
    assert verdict(body, helper, SUM).status == status


def test_a_table_of_comprehensions() -> None:
    table = """
def make(sp):
    kinds = [sp.IsControl(i) or sp.IsUnknown(i) or sp.IsUnused(i) for i in range(sp.GetPieceSize())]
    pieces = [sp.IdToPiece(i) for i in range(sp.GetPieceSize())]
    size = [0 if k else 1 if sp.IsByte(i) else len(p.removeprefix("\\u2581").encode()) for i, (k, p) in enumerate(zip(kinds, pieces))]
    space = [not k and p.startswith("\\u2581") for k, p in zip(kinds, pieces)]
    return torch.tensor(size), torch.tensor(space), torch.tensor(kinds)
def count(size, space, kinds, x, y):
    return size[y] + (space[y] & ~kinds[x])
"""
    assert verdict("import torch\n", table).status == "correct"


@pytest.mark.parametrize(
    ("old", "new", "bug"),
    [
        ("piece = piece[1:]\n", "piece = ' ' + piece[1:]\n", "double leading space"),
        ("piece = piece[1:]\n", "pass\n", "marker counted"),
        ("size[i] = 1\n", "size[i] = len(sp.decode([i]).encode('utf-8'))\n", "byte tokens counted wrongly"),
        ("size[i] = 1\n", "size[i] = 3\n", "byte tokens counted wrongly"),
        (
            "            continue\n        edge[i] = False\n",
            "            size[i] = 3\n            continue\n        edge[i] = False\n",
            "boundary tokens credited",
        ),
        ('len(piece.encode("utf-8"))', "len(piece)", "byte counts differ from the text"),
    ],
)
def test_defects_of_the_table(old: str, new: str, bug: str) -> None:
    found = verdict(changed(TABLE, old, new), SUM)
    assert (found.status, found.bug) == ("wrong", bug)
    assert found.ratio is not None and (found.ratio > 1 or bug.startswith("byte counts"))


def test_a_space_in_the_table_and_none_in_the_sum_differs_at_document_starts_only() -> None:
    table = changed(TABLE, "piece = piece[1:]\n", "piece = ' ' + piece[1:]\n")
    plain = "def run(y):\n    a, b, c = make_tables(spm.SentencePieceProcessor(), 9, 0)\n    return a[y].sum()\n"
    found = verdict(table, plain)
    assert found.status == "correct" and found.minor
    forgotten = verdict(TABLE, plain)
    assert (forgotten.status, forgotten.bug) == ("wrong", "leading space not counted")
    handed = plain.replace("return a[y].sum()", "library.count(b, c)\n    return a[y].sum()")
    assert (verdict(TABLE, handed).status, verdict(TABLE, handed).bug) == ("undecided", "leading space not counted")


def test_tables_handed_on_under_other_names_and_in_one_piece() -> None:
    handed = """
def score(model, x, y, luts):
    a, b, c = luts
    return (a[y] + (b[y] & ~c[x])).sum()
def main(n):
    luts = make_tables(spm.SentencePieceProcessor(), n, 0) if n else (None, None, None)
    score(None, n, n, luts)
"""
    assert verdict(TABLE, handed).status == "correct"
    dropped = changed(handed, "(a[y] + (b[y] & ~c[x])).sum()", "a[y].sum()")
    assert (verdict(TABLE, dropped).status, verdict(TABLE, dropped).bug) == ("wrong", "leading space not counted")
    unconditional = changed(handed, "(a[y] + (b[y] & ~c[x])).sum()", "a[y].sum() + b[y].sum()")
    found = verdict(TABLE, unconditional)
    assert found.status == "correct" and found.minor


def test_tables_that_nothing_counts_with() -> None:
    idle = "def main():\n    t = make_tables(spm.SentencePieceProcessor(), 9, 0)\n    print('done')\n"
    assert verdict(TABLE, idle).status == "none"
    away = "from metrics import add_up\ndef main(x, y):\n    t = make_tables(spm.SentencePieceProcessor(), 9, 0)\n    add_up(t, x, y)\n"
    found = verdict(TABLE, away)
    assert found.status == "undecided" and "metrics.add_up" in found.reason


def test_bytes_of_the_decoded_text() -> None:
    plain = (
        "def count(sp, y):\n    n = 0\n    t = sp.decode(y.tolist())\n    n += len(t.encode('utf-8'))\n    return n\n"
    )
    assert verdict(TABLE, plain, "a, b, c = make_tables(spm.SentencePieceProcessor(), 9, 0)\n").status == "correct"


def test_a_lone_marker_counted_twice_has_its_own_name() -> None:
    table = changed(TABLE, "piece = piece[1:]\n", "piece = piece[1:] or ' '\n")
    assert (verdict(table, SUM).status, verdict(table, SUM).bug) == ("wrong", "lone space counted twice")


def test_a_marker_damaged_by_a_wrong_encoding_counts_three_bytes() -> None:
    found = verdict(changed(TABLE, 'startswith("\\u2581")', 'startswith("?")'), SUM)
    assert (found.status, found.bug) == ("wrong", "marker counted")


def test_a_table_that_may_come_from_a_file_is_not_called_right() -> None:
    either = """
def load_tables(path, n, device):
    if path.endswith(".npz"):
        d = np.load(path)
        return d["a"], d["b"], d["c"]
    return make_tables(spm.SentencePieceProcessor(model_file=path), n, device)
"""
    found = verdict(
        TABLE,
        either,
        SUM.replace('make_tables(spm.SentencePieceProcessor(model_file="t.model")', 'load_tables("t.model"'),
    )
    assert (found.status, found.bug) == ("undecided", "external table")


def test_bytes_counted_token_by_token() -> None:
    text = """
def lengths(ids, sp=None):
    if sp is None:
        return [3.3] * len(ids)
    return [len(sp.decode_ids([int(i)]).encode("utf-8")) for i in ids.tolist()]
"""
    assert verdict(text).status == "none"
    text += "def total(ids, sp):\n    return sum(lengths(ids, sp))\n"
    assert (verdict(text).status, verdict(text).bug) == ("wrong", "leading space not counted")


def test_estimated_ratio_of_a_space_counted_twice() -> None:
    found = verdict(changed(TABLE, "piece = piece[1:]\n", "piece = ' ' + piece[1:]\n"), SUM)
    assert found.ratio == pytest.approx(176_332_748 / 151_080_891, rel=1e-3)


def test_a_table_from_a_file_is_not_judged() -> None:
    text = "import numpy as np\nd = np.load('lengths.npz')\ndef f(x, y):\n    return d['a'][y] + (d['b'][y] & ~d['c'][x])\n"
    assert verdict(text).status == "undecided"


def test_a_byte_vocabulary() -> None:
    text = """
import numpy as np
def luts(n):
    size = np.zeros((max(n, 260),), dtype=np.int16)
    size[4:min(n, 260)] = 1
    return size, np.zeros((n,), dtype=np.bool_), np.ones((n,), dtype=np.bool_)
def f(x, y, n):
    size, space, edge = luts(n)
    return size[y] + (space[y] & ~edge[x])
"""
    assert verdict(text).status == "correct"
    assert verdict(changed(text, "] = 1", "] = 2")).status == "undecided"


def test_constants_in_the_formula() -> None:
    text = "import math\nRATIO = 2.44\ndef f(loss):\n    return loss / math.log(2) / RATIO\n"
    found = verdict(text)
    assert (found.status, found.bug, found.places[0].line) == ("wrong", "constant ratio", 4)
    assert verdict(TABLE, SUM, "def g(loss):\n    return loss / (math.log(2) * 3.5)\n").status == "correct"
    assert not list(
        constant_ratios(ast.parse("import math\nx = loss / math.log(2) / total\ny = loss / math.log(2) / 8\n"))
    )


def test_nothing_that_counts_bytes() -> None:
    assert verdict("print(1)\n").status == "none"
    assert byte_table(Program()).status == "undecided"
    assert verdict("def broken(:\n").status == "undecided"


def test_hostile_code_ends() -> None:
    for body in (
        "while True:\n        pass",
        "return 'a' * 10**12",
        "return [0] * 10**9",
        "x = 9\n    for i in range(99):\n        x = x ** 60",
        "return make_tables(sp)",
        "return f'{sp:0999999999d}'",
        "return list(range(10**12))",
    ):
        text = f"def make_tables(sp):\n    [sp.is_byte(i) for i in range(9)]\n    {body}\n"
        assert verdict(text).status in ("none", "undecided")


@given(st.integers(-9, 9), st.integers(1, 9))
def test_arithmetic_agrees_with_python(a: int, b: int) -> None:
    text = f"({a} // {b} + {a} % {b} * {b}) ^ ({a} & {b}) | ~{b}"
    assert Interpreter(ast.Module([], [])).value(ast.parse(text, mode="eval").body, {}) == eval(text)


@settings(max_examples=40)
@given(
    st.lists(
        st.sampled_from([i for i in range(known.SIZE) if known.PIECES[i][1] == known.NORMAL]), min_size=1, max_size=8
    )
)
def test_true_bytes_are_those_of_the_decoded_text(tokens: list[int]) -> None:
    text = "".join(known.PIECES[i][0] for i in tokens).replace(known.MARK, " ")
    text = text[1:] if text.startswith(" ") else text  # a space after a document start is not in the text
    assert sum(known.true_bytes(p, t) for p, t in zip([1, *tokens], tokens, strict=False)) == len(text.encode())


def test_compare_reports_what_cannot_be_evaluated() -> None:
    def unknown(_: int, __: int) -> int:
        raise Stuck("no")

    with pytest.raises(Stuck):
        compare(unknown)
