"""Chains name the lines that prove a verdict: one table throughout, the loss it is mixed with, what was scored before."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from auditor.timeline import Report, Update, Via
from tests.static.test_mixtures import CALL, FORMED, HASHED, ONCE, cache
from tests.static.test_program_order import analyse, program

# Counts kept by context and read at the scored token: an entry of a row, no hashed key.
BY_CONTEXT = """

def cached(net, stream, sizes):
    total, weight = 0.0, 0.0
    rows = {{}}
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        p = np.exp(-losses(net, ids, wanted).numpy())
        for k in range(LENGTH):
            context, token = int(piece[k]), int(piece[k + 1])
            row = rows.get(context)
            if row is not None:
                q = row.get(token, 0) / sum(row.values())
                p[0, k] = 0.5 * p[0, k] + 0.5 * q
        total += -np.log(p).sum()
        weight += sizes[wanted].sum().item()
        for k in range(LENGTH):
            context, token = int(piece[k]), int(piece[k + 1])
            row = rows.get(context)
            if row is None:
                row = {{}}
                rows[context] = row
            row[token] = row.get(token, 0) + 1
    return total / math.log(2.0) / weight
"""


def words(text: str, rule: str) -> list[tuple[str, str]]:
    """(words, source line) of the chain of a rule."""
    lines = text.split("\n")
    return [(said, lines[place.line - 1].strip()) for place, said in analyse(text).answers[rule].chain]


@pytest.mark.parametrize("rule", [HASHED, FORMED])
def test_the_chain_of_a_count_stays_with_one_table(rule: str) -> None:
    chain = dict(words(cache(), rule))
    assert "both[n]" in chain["counts tokens"]
    assert "27191" in chain["the token being scored enters the key"]
    assert "both[n][full]" in chain["reads the count"]
    assert (
        "losses" in chain["the loss of the model it is mixed with"]
        or "cross_entropy" in (chain["the loss of the model it is mixed with"])
    )


def test_a_table_that_is_filled_by_bincount_shows_the_filling_line() -> None:
    text = cache().replace("np.add.at(both[n], full, 1)", "both[n] += np.bincount(full, minlength=4096)")
    assert "bincount" in dict(words(text, HASHED))["counts tokens"]


def test_an_entry_of_the_row_of_a_context_is_no_hashed_key() -> None:
    answers = analyse(program(BY_CONTEXT.format(), call=CALL)).answers
    assert answers[HASHED].status is not Status.FAIL
    assert answers[FORMED].status is Status.FAIL


EMPTIED = """

def trimmed(stream):
    sums = torch.zeros(LENGTH)
    for begin in range(0, 4 * LENGTH, LENGTH):
        sums = sums + stream[begin : begin + LENGTH].float()
    weight = torch.randn(1024, 64)
    order = torch.argsort(sums)
    weight[:, (sums == 0)[order]] = 0
    return weight
"""


def test_columns_that_are_emptied_count_nothing() -> None:
    text = program(EMPTIED, call="sizes = sizes + trimmed(stream).sum(); bpb = plain(scored, stream, sizes)")
    tables = [e for e in analyse(text).timeline.events() if isinstance(e, Update) and e.via is Via.TABLE]
    reported = [e for e in analyse(text).timeline.events() if isinstance(e, Report)]
    assert not tables and not any(report.counts for report in reported)


# Some documents are scored only; the others are trained on first and scored once.
APART = """

def adapted(net, stream, sizes):
    total, weight = 0.0, 0.0
    for begin in range(0, 40 * LENGTH, LENGTH):
        ids, wanted = stream[None, begin : begin + LENGTH], stream[None, begin + 1 : begin + LENGTH + 1]
        total += losses(net, ids, wanted).detach().sum().item()
        weight += sizes[wanted].sum().item()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for begin in range(40 * LENGTH, stream.numel() - 1, LENGTH):
        ids, wanted = stream[None, begin : begin + LENGTH], stream[None, begin + 1 : begin + LENGTH + 1]
        losses(net, ids, wanted).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        total += losses(net, ids, wanted).detach().sum().item()
        weight += sizes[wanted].sum().item()
    return total / math.log(2.0) / weight
"""


def test_tokens_scored_once_after_training_are_not_scored_again() -> None:
    answers = analyse(program(APART, call="bpb = adapted(scored, stream, sizes)")).answers
    assert answers["PG-C3-score-first"].status is Status.FAIL
    assert "again" not in answers["PG-C3-score-first"].summary
    assert answers[ONCE].status is Status.PASS


def test_leaving_the_front_of_the_stream_out_leaves_a_part() -> None:
    cut = "stream = stream[stream.numel() // 10 :]; bpb = plain(scored, stream, sizes)"
    found = analyse(program(call=cut)).answers["PG-B-full-val"]
    assert found.status is Status.FAIL
    assert any("leaves out a share" in said for _, said in found.chain)
