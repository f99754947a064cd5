"""The shapes keep the meaning: a program prints the same in every shape, and shares no name with its renamed self."""

from __future__ import annotations

import ast
import contextlib
import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from printing import packed
from renaming import renamed
from reshaping import inline_helpers, reorder, split_helpers, wrap_in_classes
from variants import SHAPES, Inapplicable, variant

PROGRAM = '''
"""Counts words of a text and scores them against a running table."""
import math
from collections import defaultdict as table_of
from dataclasses import dataclass


@dataclass
class Settings:
    window: int = 4
    decay: float = 0.9
    label: str = "run"


class Counter:
    total_seen = 0

    def __init__(self, decay=0.5, *, start=1.0):
        self.decay_rate = decay
        self.entries = table_of(lambda: start)

    def push(self, word, weight=1.0):
        """Adds a word."""
        Counter.total_seen += 1
        self.entries[word] = self.entries[word] * self.decay_rate + weight
        return self

    @property
    def mass(self):
        return sum(self.entries.values())

    def share(self, word):
        return self.entries[word] / (self.mass + 1e-9)


def halves(items):
    middle = len(items) // 2
    left, right = items[:middle], items[middle:]
    return left, right


def nats(probability):
    safe = max(probability, 1e-6)
    return -math.log(safe)


def windows(words, size):
    position = 0
    while position < len(words):
        chunk = words[position:position + size]
        position += size
        yield chunk


def evaluate(words, settings):
    counter = Counter(decay=settings.decay, start=0.5)
    loss_sum, count = 0.0, 0
    rows = []
    for number, chunk in enumerate(windows(words, settings.window)):
        for word in chunk:
            share = counter.share(word)
            loss = nats(share)
            loss_sum += loss
            count += 1
        first, second = halves(chunk)
        kept = [w for w in first if len(w) > 2] + [w.upper() for w in second]
        for word in chunk:
            counter.push(word, weight=1.0 + 0.1 * number)
        rows.append((number, len(kept), "-".join(kept)))

    def summary(scale=1):
        nonlocal count
        count += 0
        return f"{settings.label}: {loss_sum / count * scale:.6f} after {count} words"

    try:
        rows.append((99, int("no number"), ""))
    except ValueError as problem:
        rows.append((98, 0, type(problem).__name__))
    return rows, summary(scale=2), counter.mass


def report(text, *, settings):
    words = text.split()
    rows, line, mass = evaluate(words, settings)
    first = 3
    second = first * 2
    third = 7
    print(line)
    print(f"{mass:.4f} {Counter.total_seen} {first} {second} {third}")
    for number, size, kept in rows:
        print(number, size, kept)


if __name__ == "__main__":
    text = "the quick brown fox jumps over the lazy dog and the quick cat sees the dog run away from it all"
    report(text, settings=Settings(window=5, label="demo"))
'''


def output(source: str) -> str:
    """What a program written for this test prints."""
    captured = io.StringIO()
    with contextlib.redirect_stdout(captured):
        exec(compile(source, "program", "exec"), {"__name__": "__main__"})
    return captured.getvalue()


EXPECTED = output(PROGRAM)


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("seed", range(6))
def test_shape_keeps_what_the_program_prints(shape: str, seed: int) -> None:
    pytest.importorskip("torch")
    changed = variant(PROGRAM, shape, seed)
    assert changed != ast.unparse(ast.parse(PROGRAM))
    assert output(changed) == EXPECTED


@pytest.mark.parametrize("change", [split_helpers, inline_helpers, wrap_in_classes, reorder])
@given(seed=st.integers(0, 10_000))
def test_reshaping_finds_places_and_keeps_the_meaning(change, seed: int) -> None:
    tree = ast.parse(PROGRAM)
    if change(tree, random.Random(seed)):
        assert output(ast.unparse(tree)) == EXPECTED


def test_renaming_leaves_no_name_of_the_programs_own() -> None:
    pytest.importorskip("torch")
    tree = renamed(ast.parse(PROGRAM), random.Random(3))
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }
    assert not names & {"evaluate", "counter", "loss_sum", "Counter", "decay_rate", "windows", "math", "table_of"}
    assert {"print", "split", "values"} <= names, "what others know keeps its name"


def test_names_that_strings_hold_are_kept() -> None:
    pytest.importorskip("torch")
    source = "class A:\n    def __init__(self):\n        self.tied_table = 3\nprint(getattr(A(), 'tied_table'))\n"
    assert output(ast.unparse(renamed(ast.parse(source), random.Random(1)))) == "3\n"


def test_packed_program_is_read_again() -> None:
    from auditor.unpack import unpack_bytes

    layers, problems = unpack_bytes(packed(PROGRAM).encode())
    assert not problems and layers[-1].text.strip() == PROGRAM.strip()


def test_program_that_does_not_parse_has_no_variant() -> None:
    with pytest.raises(Inapplicable):
        variant("def main(:\n", "packed", 1)
