"""The byte count as readers see it: table, lines, differences token by token; hostile text stays text."""

from __future__ import annotations

from auditor.report.byte_count import byte_count, markdown
from auditor.report.places import Places
from auditor.static.byte_table import byte_table
from auditor.unpack import Layer, Program

SCRIPT = """
def tables(sp, n):
    size, space, edge = [0] * n, [False] * n, [True] * n
    for i in range(sp.vocab_size()):
        if sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i):
            continue
        edge[i] = False
        if sp.is_byte(i):
            size[i] = 1
            continue
        piece = sp.id_to_piece(i)
        space[i] = piece.startswith("\\u2581")
        size[i] = len(piece.replace("\\u2581", " ").encode("utf-8"))
    return size, space, edge
def total(sp, x, y, n):
    size, space, edge = tables(sp, n)
    return size[y] + (space[y] and not edge[x])
"""

RIGHT = SCRIPT.replace('.replace("\\u2581", " ")', '.removeprefix("\\u2581")')


def section(script: str) -> dict:
    """The section of a one-file program."""
    layer = Layer("train_gpt.py", script, script.encode())
    found = byte_count(byte_table(Program(layer, [layer])), Places(None))
    assert found is not None
    return found


def test_differences_are_shown_token_by_token() -> None:
    found = section(SCRIPT)
    rows = {(row["piece"], row["after"]): row for row in found["samples"]}
    assert (found["status"], found["bug"]) == ("wrong", "double leading space")
    assert rows["\u2581the", "fo"]["official"] == 4 and rows["\u2581the", "fo"]["counted"] == 5
    assert rows["ing", "fo"]["difference"] == 0
    assert {2, 17} <= {place["line"] for place in found["places"]}


def test_a_right_count_has_no_differences() -> None:
    found = section(RIGHT)
    assert found["status"] == "correct" and found["samples"]
    assert not any(row["difference"] for row in found["samples"])


def test_a_comment_shows_the_differences_of_a_wrong_count_only() -> None:
    def cut(value: str, length: int) -> str:
        return value[:length]

    wrong = "\n".join(markdown(section(SCRIPT), cut))
    assert "| \u2581the | fo | 4 | 5 | +1 |" in wrong and "train_gpt.py:2 table of bytes" in wrong
    assert "| ing |" not in wrong
    assert markdown(section(RIGHT), cut) == []
    assert markdown(None, cut) == []


def test_no_table_no_section() -> None:
    assert byte_count(None, Places(None)) is None
    assert section("print(1)\n")["samples"] == []
