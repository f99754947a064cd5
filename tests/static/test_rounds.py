"""Positions moved on to a later round: training on what the next round scores, and the legal shapes beside it."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from auditor.static.verdicts import Verdict
from tests.static.test_program_order import analyse, program

CHUNKS = """

def online(net, stream, sizes):
    total, weight = 0.0, 0.0
    n = stream.numel() - 1
    C = 65536
    bounds = [0]
    while bounds[-1] < n:
        bounds.append(min(bounds[-1] + C, n))
    pieces = stream[: n // C * C].view(-1, C)
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    {head}
        {score}
        {pick}
        for epoch in range(EPOCHS):
            {rows}
                losses(net, local[None, :-1], local[None, 1:]).mean().backward()
                opt.step()
                opt.zero_grad()
        {after}
    return total / math.log(2.0) / weight
"""
COUNT = "for ci in range((n + C - 1) // C):"
SCORE = """for begin in range(ci * C, min((ci + 1) * C, n), LENGTH):
            piece = stream[begin : min(begin + LENGTH, n) + 1]
            ids, wanted = piece[None, :-1], piece[None, 1:]
            with torch.no_grad():
                total += losses(net, ids, wanted).sum().item()
            weight += sizes[wanted].sum().item()"""
ROWS = """for row in range((last - first) // LENGTH):
                local = stream[first + row * LENGTH : first + (row + 1) * LENGTH + 1]"""
RANGE = """for begin in range(first, last, LENGTH):
                local = stream[begin : begin + LENGTH + 1]"""
ONE = "for local in [stream[first : last + 1]]:"


def answer(
    pick: str, rows: str = ROWS, head: str = COUNT, score: str = SCORE, after: str = "pass"
) -> tuple[Status, Verdict]:
    """Whether the tokens are scored before they change the parameters."""
    functions = CHUNKS.format(head=head, score=score, pick=pick, rows=rows, after=after)
    verdict = analyse(program(functions, call="bpb = online(scored, stream, sizes)")).answers["PG-C3-score-first"]
    return verdict.status, verdict


SAME = [
    "first, last = ci * C, min((ci + 1) * C, n)",
    "first, last = (ci + 1) * C - C, min((ci + 1) * C, n)",
    "first, last = bounds[ci], bounds[ci + 1]",
    "start = ci * C; first, last = start, start + C",
]
NEXT = [
    "first, last = (ci + 1) * C, min((ci + 2) * C, n)",
    "first, last = min((1 + ci) * C, n), n",
    "start = ci * C; first, last = start + C, start + 2 * C",
    "start = ci * C; first = int(start + C); last = min(first + C, n)",
    "first, last = bounds[ci + 1], bounds[ci + 2]",
]


@pytest.mark.parametrize("rows", [ROWS, RANGE, ONE])
@pytest.mark.parametrize("pick", SAME)
def test_training_on_the_chunk_that_was_scored_passes(pick: str, rows: str) -> None:
    assert answer(pick, rows)[0] is Status.PASS


@pytest.mark.parametrize("rows", [ROWS, RANGE, ONE])
@pytest.mark.parametrize("pick", NEXT)
def test_training_on_the_chunk_that_is_scored_next_fails(pick: str, rows: str) -> None:
    status, verdict = answer(pick, rows)
    assert status is Status.FAIL
    assert any("later round" in words for _, words in verdict.chain)


@pytest.mark.parametrize(("index", "status"), [("ci", Status.PASS), ("ci + 1", Status.FAIL)])
def test_rows_of_a_stream_cut_into_pieces(index: str, status: Status) -> None:
    score = "piece = pieces[ci]\n" + "\n".join(SCORE.split("\n")[2:]).replace("            ", "        ", 1)
    score = score.replace("\n            ", "\n        ")
    assert answer("pass", f"for local in [pieces[{index}]]:", score=score)[0] is status


def test_an_enumerated_list_of_chunks() -> None:
    head = "for ci, begin in enumerate(range(0, n, C)):"
    assert answer(SAME[0], head=head)[0] is Status.PASS
    assert answer(NEXT[0], head=head)[0] is Status.FAIL


def test_training_on_a_chunk_and_scoring_the_next_one_is_score_first() -> None:
    """The loop is turned: the first chunk is scored before it, every later one after training on the one before."""
    moved = SCORE.replace("ci * C, min((ci + 1) * C, n)", "(ci + 1) * C, min((ci + 2) * C, n)")
    assert answer(SAME[0], score="pass", after=moved)[0] is Status.PASS


def test_the_tail_of_a_window_that_the_next_window_overlaps_was_scored() -> None:
    head = "for start in range(0, n, 512):"
    score = SCORE.replace("range(ci * C, min((ci + 1) * C, n), LENGTH)", "[start]")
    assert answer("first, last = start + 512, start + LENGTH", ONE, head, score)[0] is Status.PASS
