"""Timelines as trees: the structure that is the argument survives, cuts are counted, late scores are found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor import timeline as tl
from auditor.report.places import Places
from auditor.report.trees import MAX_CHILDREN, MAX_NODES, describe, marks, tree
from reports.gallery.examples import executed_timeline, static_timeline

AT = tl.Place("train_gpt.py", 7)


def val(*positions: tuple[int, int]) -> tl.Span:
    return tl.Span(tl.Split.VAL, tl.Extent.PART, "", positions)


def line_of(*events: tl.Node) -> tl.Timeline:
    return tl.Timeline("CPU run", tl.Sequence(events))


def nodes(node: dict) -> int:
    inner = node.get("items", []) + node.get("otherwise", [])
    return 1 + sum(map(nodes, inner))


def test_loops_calls_and_branches_keep_their_nesting():
    found = tree(static_timeline(True), Places(None))["root"]["items"]
    assert [node["type"] for node in found] == ["event", "loop", "event", "branch", "event"]
    call = found[3]["items"][1]
    assert call["type"] == "call" and call["items"][1]["label"] == "chunk i"
    inside = [node.get("kind", node["type"]) for node in call["items"][1]["items"]]
    assert inside == ["Read", "Score", "loop"]


def test_order_inside_the_loop_is_the_order_of_the_source():
    chunk = tree(static_timeline(False), Places(None))["root"]["items"][3]["items"][1]["items"][1]
    assert [node.get("kind", node["type"]) for node in chunk["items"]] == ["Read", "loop", "Score"]


def test_cut_nodes_are_counted():
    score = tl.Score(AT, val((0, 1)), True)
    made = tree(line_of(*[score] * 5000), Places(None))
    *kept, last = made["root"]["items"]
    assert len(kept) == MAX_CHILDREN and last == {"type": "omitted", "count": 5000 - MAX_CHILDREN}
    assert made["counts"] == {"Score": 5000} and made["marks_total"] == 5000


def test_budget_of_nodes_holds_for_deep_and_wide_trees():
    node: tl.Node = tl.Score(AT, val((0, 1)), True)
    for i in range(100):
        node = tl.Loop(f"l{i}", AT, "range(9)", tl.Sequence((node, node)) if i < 12 else tl.Sequence((node,)))
    assert nodes(tree(line_of(node), Places(None))["root"]) <= 3 * MAX_NODES


def test_late_scores_only_where_counted_and_seen_before():
    found = marks(
        line_of(
            tl.Update(AT, val((0, 10)), "adapter"),
            tl.Score(AT, val((10, 20)), True),
            tl.Score(AT, val((5, 12)), True),
            tl.Score(AT, val((0, 5)), False),
            tl.Score(AT, val((0, 5)), None),
            tl.Calibrate(AT, val((30, 40))),
            tl.Score(AT, val((39, 41)), True),
            tl.Score(AT, tl.Span(tl.Split.TRAIN, tl.Extent.PART, "", ((0, 5),)), True),
        )
    )
    assert [(mark["kind"], mark["late"]) for mark in found] == [
        ("Update", False), ("Score", False), ("Score", True), ("Score", False), ("Score", False), ("Calibrate", False),
        ("Score", True)]  # fmt: skip


def test_what_a_table_has_counted_makes_no_score_late():
    counted = tl.Update(AT, val((0, 10)), "counts", tl.Via.TABLE)
    found = marks(line_of(counted, tl.Score(AT, val((0, 10)), True), tl.Update(AT, val((0, 10)), "adapter")))
    assert [(mark["kind"], mark["late"]) for mark in found] == [("Table", False), ("Score", False), ("Update", False)]
    assert describe(counted) == "update counts by count table from val 0–10"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 8)), max_size=40))
def test_late_agrees_with_the_definition(steps):
    seen: set[int] = set()
    events, expected = [], []
    for is_score, start, length in steps:
        positions = range(start, start + length)
        span = val((start, start + length))
        if is_score:
            expected.append(bool(seen & set(positions)))
            events.append(tl.Score(AT, span, True))
        else:
            seen |= set(positions)
            events.append(tl.Update(AT, span, "adapter"))
    found = [mark["late"] for mark in marks(line_of(*events)) if mark["kind"] == "Score"]
    assert found == expected


@pytest.mark.parametrize("legal", [True, False])
def test_executed_example_is_legal_or_not(legal):
    late = [mark["late"] for mark in marks(executed_timeline(legal)) if mark["kind"] == "Score"]
    assert late == [not legal] * 16


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            tl.Score(AT, tl.Span(tl.Split.VAL, tl.Extent.ITEM, "chunk i"), True),
            "score item i of val [chunk i] (counted)",
        ),
        (tl.Score(AT, val((0, 8192)), None), "score val 0–8,192 (counting unknown)"),
        (tl.Update(AT, val((0, 1)), "n-gram table", tl.Via.TABLE), "update n-gram table by count table from val 0–1"),
        (tl.Calibrate(AT, tl.Span(tl.Split.TRAIN)), "calibrate on an unknown part of train"),
        (tl.Serialize(AT, 15_999_370), "write the artifact, 15,999,370 bytes"),
        (tl.Load(AT), "load a file"),
        (tl.Report(AT, "val_bpb", 1.5), "report val_bpb = 1.5"),
        (tl.PhaseMark(AT, tl.Phase.EVALUATION), "evaluation begins"),
        (tl.External(AT, "network", "example.org"), "network: example.org"),
        (tl.Unknown(AT, "exec of computed text"), "could not follow: exec of computed text"),
    ],
)
def test_events_in_words(event, words):
    assert describe(event) == words
