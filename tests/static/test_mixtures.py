"""What is mixed into a loss: keys with and without the target, rows that sum to one, bytes divided in compiled code."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from auditor.static.native_text import spread_line
from tests.static.test_program_order import analyse, program, renamed

HASHED, FORMED, ONCE = "PG-C2-hashed-ngram-cache", "PG-C2-normalisation", "PG-C4-single-pass"

# One dict of arrays for each order; the scored token enters the second key.
CACHE = """

def cached(net, stream, sizes):
    total, weight = 0.0, 0.0
    seen = {{n: np.zeros(4096) for n in (2, 3, 4)}}
    both = {{}}
    for n in range(2, LENGTH):
        both[n] = np.zeros(4096)
    ids_np = stream.numpy()
{before}
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        p = np.exp(-losses(net, ids, wanted).numpy())
        spots = np.arange(begin + 1, begin + LENGTH)
        q = np.zeros(LENGTH)
        for n in range(2, LENGTH):
            short, full = keys(ids_np, spots, n)
            q = np.maximum(q, {estimate})
        total += -np.log(0.5 * p + 0.5 * q).sum()
        weight += sizes[wanted].sum().item()
{after}
    return total / math.log(2.0) / weight


def keys(tokens, spots, n):
    short = np.zeros(len(spots), dtype=np.uint64)
    for k in range(n - 1):
        short ^= tokens[spots - (n - 1 - k)].astype(np.uint64) * 36313
    return short & 4095, (short ^ (tokens[spots].astype(np.uint64) * 27191)) & 4095


def fill(seen, both, tokens, spots):
    for n in range(2, LENGTH):
        short, full = keys(tokens, spots, n)
        np.add.at(seen[n], short, 1)
        np.add.at(both[n], full, 1)
"""
IN_TURN = "        fill(seen, both, ids_np, spots)"
WHOLE = "    fill(seen, both, ids_np, np.arange(1, len(ids_np)))"
CALL = "bpb = cached(scored, stream, sizes)"
# A row of counts over the vocabulary, by the token before.
ROWS = """

def cached(net, stream, sizes):
    total, weight = 0.0, 0.0
    table = torch.ones(1024, 1024)
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[:-1], piece[1:]
        row = table[ids]
        {mixture}
        weight += sizes[wanted].sum().item()
        table.index_put_((ids, wanted), torch.ones(LENGTH), accumulate=True)
    return total / math.log(2.0) / weight
"""
RENORMALISED = "total += F.cross_entropy(net(ids) + row.log(), wanted, reduction='sum').item()"
OWN_SUM = """p = 0.9 * net(ids).softmax(-1) + 0.1 * row / row.sum(-1, keepdim=True)
        total += -p.gather(-1, wanted[:, None]).log().sum().item()"""
NO_SUM = """p = 0.9 * net(ids).softmax(-1) + 0.1 * row
        total += -p.gather(-1, wanted[:, None]).log().sum().item()"""


def cache(
    before: str = "", after: str = IN_TURN, estimate: str = "both[n][full] / np.maximum(seen[n][short], 1)"
) -> str:
    return program(CACHE.format(before=before, after=after, estimate=estimate), call=CALL)


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_ratio_with_the_target_in_the_key_is_named_with_the_line_where_it_enters(seed: int | None) -> None:
    text = cache() if seed is None else renamed(cache(), seed)
    answers = analyse(text).answers
    assert answers[HASHED].status is Status.FAIL
    assert answers[FORMED].status is Status.FAIL
    lines = text.split("\n")
    entered = next(place for place, words in answers[HASHED].chain if "enters the key" in words)
    assert "27191" in lines[entered.line - 1]
    assert answers[ONCE].status is Status.PASS  # filled in turn, after the score


def test_a_table_filled_with_the_whole_stream_first_is_a_second_pass() -> None:
    answers = analyse(cache(before=WHOLE, after="        pass")).answers
    assert answers[ONCE].status is Status.FAIL
    assert answers[HASHED].status is Status.FAIL


def test_losses_kept_as_tuples_in_a_list_are_those_of_every_round() -> None:
    """The first round reads empty tables; what a later one puts into the list is what counts."""
    text = (
        cache()
        .replace("        total += -np.log(", "        kept.append((-np.log(")
        .replace("0.5 * q).sum()\n        weight", "0.5 * q).sum(), begin))\n        weight")
    )
    text = text.replace("    total, weight = 0.0, 0.0\n    seen", "    kept, weight = [], 0.0\n    seen")
    text = text.replace(
        "    return total / math.log(2.0) / weight\n\n\ndef keys",
        "    return sum(loss for loss, _ in kept) / math.log(2.0) / weight\n\n\ndef keys",
    )
    assert "kept.append((" in text and "in kept)" in text
    answers = analyse(text).answers
    assert answers[HASHED].status is Status.FAIL
    assert answers[FORMED].status is Status.FAIL


@pytest.mark.parametrize(
    ("mixture", "status"), [(RENORMALISED, Status.PASS), (OWN_SUM, Status.PASS), (NO_SUM, Status.WARN)]
)
def test_rows_of_counts_are_distributions_when_they_sum_to_one(mixture: str, status: Status) -> None:
    answers = analyse(program(ROWS.format(mixture=mixture), call=CALL)).answers
    assert answers[FORMED].status is status
    assert answers.get(HASHED) is None or answers[HASHED].status is Status.PASS


SOURCE = """#include <math.h>
double mixed(const int *ids, const double *loss, int n, const int *lengths) {
  double sum = 0;
  for (int i = 0; i < n; i++) {
    int count = lengths[ids[i]];
    double share = %s;
    for (int k = 0; k < count; k++) { double m = log(0.5 * exp(share) + exp(other(k))); sum -= m; }
  }
  return sum;
}
"""


def test_the_loss_divided_over_bytes_is_found_in_c_source() -> None:
    divided = SOURCE % "-loss[i] / (double)count"
    assert divided.split("\n")[spread_line(divided, "mixed") or 0].strip().startswith("double share")
    assert spread_line(divided, "elsewhere") is None
    assert spread_line(SOURCE % "-loss[i]", "mixed") is None
    assert spread_line(divided.replace("exp", "cos"), "mixed") is None
