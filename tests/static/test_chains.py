"""Chains name the lines that prove a verdict: one table throughout, the loss it is mixed with, what was scored before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.findings import Status
from auditor.static.values import FORGOTTEN, LEARNT, MAX_FACTS, TOKENS, disjoint, limited
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


# One row of adapters for each document; `rows` makes others answer for it.
BANK = """

class Rows(nn.Module):
    rows = None

    def __init__(self, count):
        super().__init__()
        self.low = nn.Parameter(torch.zeros(count, 64, 8))

    def forward(self, x):
        rows = Rows.rows
        low = self.low if rows is None else self.low[rows]
        return (x @ low).sum(-1, keepdim=True)


class Adapters(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.head = Rows(count)


def adapted(net, stream, sizes):
    total, weight = 0.0, 0.0
    for begin in range(0, stream.numel() - 1, 8 * LENGTH):
        bank = Adapters(8)
        optimizer = torch.optim.SGD(bank.parameters(), lr=1e-3)
        piece = stream[begin : begin + 8 * LENGTH + 1]
        ids, wanted = piece[:-1].view(8, LENGTH), piece[1:].view(8, LENGTH)
        hidden = net.table(ids)
        nll = F.cross_entropy((net.head(hidden) + bank.head(hidden)).flatten(0, 1), wanted.flatten(), reduction="none")
        kept = nll.detach()
        nll.mean().backward()
        optimizer.step()
{again}
        total += kept.sum().item()
        weight += sizes[wanted].sum().item()
    return total / math.log(2.0) / weight
"""
SCORED_AGAIN = """
{pick}
        logits = net.head(hidden) + bank.head(hidden)
        kept = kept + F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").detach()
        Rows.rows = None"""
OTHERS = "        Rows.rows = torch.roll(torch.arange(8), 1).to(ids.device)"


def banked(again: str) -> str:
    return program(BANK.format(again=again), call="bpb = adapted(scored, stream, sizes)")


@pytest.mark.parametrize(
    ("again", "status"),
    [
        ("", Status.PASS),
        (SCORED_AGAIN.format(pick=""), Status.FAIL),
        (SCORED_AGAIN.format(pick=OTHERS), Status.WARN),
    ],
)
def test_rows_that_were_picked_out_of_a_trained_bank_are_not_said_to_have_learnt(again: str, status: Status) -> None:
    found = analyse(banked(again)).answers["PG-C3-score-first"]
    assert found.status is status
    assert ("selection of rows" in found.summary) == (status is Status.WARN)


# Tables that travel in a file beside their orders, read by keys whose length is one of these numbers.
TRAVELLED = """

def counted(stream):
    tables = {{}}
    for order in (2, 3, 4):
        table = np.zeros(4096)
        ids = stream.numpy().astype(np.int64)
        for start in range(0, len(ids) - order, LENGTH):
            piece = ids[start : start + LENGTH + order]
            key = np.zeros(LENGTH, dtype=np.int64)
            for k in range(order):
                key = key * 31 + piece[k : k + LENGTH]
            np.add.at(table, key % 4096, 1)
        tables[order] = table
    return tables


def packed(tables):
    parts = [np.array([len(tables)], dtype=np.int32).tobytes()]
    for order in sorted(tables):
        parts.append(np.array([order, len(tables[order])], dtype=np.int32).tobytes())
    for order in sorted(tables):
        parts.append(tables[order].astype(np.int32).tobytes())
    return b"".join(parts)


def unpacked(raw):
    numbers = np.frombuffer(raw, dtype=np.int32)
    orders = [int(numbers[1 + 2 * n]) for n in range(int(numbers[0]))]
    tables = {{}}
    for n, order in enumerate(orders):
        tables[order] = numbers[100 + n * 4096 : 100 + (n + 1) * 4096].astype(np.float64).copy()
    return tables, orders


def cached(net, stream, sizes, tables, orders):
    total, weight = 0.0, 0.0
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        p = np.exp(-losses(net, ids, wanted).numpy())
        context, target = ids[0].numpy().astype(np.int64), wanted[0].numpy().astype(np.int64)
        for order in sorted(orders, reverse=True):
            table = tables[order]
            first = order - 2
            key = np.zeros(LENGTH - first, dtype=np.int64)
            for k in range(order - 1):
                key = key * 31 + context[k : k + LENGTH - first]
            {key}
            count = table[key % len(table)]
            p[first:] = 0.5 * p[first:] + 0.5 * count / (count + 1024.0)
        total += -np.log(p).sum()
        weight += sizes[wanted].sum().item()
    return total / math.log(2.0) / weight
"""
KEPT = (
    "torch.save({'counts': packed(counted(shard('data/fineweb_train_*.bin')))}, 'counts.pt'); "
    "bpb = cached(scored, stream, sizes, *unpacked(torch.load('counts.pt')['counts']))"
)


@pytest.mark.parametrize("target", [True, False])
def test_a_key_as_long_as_a_number_from_the_file_of_counts_still_holds_the_token(target: bool) -> None:
    text = program(TRAVELLED.format(key="key = key * 31 + target[first:]" if target else "pass"), call=KEPT)
    answers = analyse(text).answers
    assert (answers[HASHED].status is Status.FAIL) == target
    if target:
        chain = dict(words(text, HASHED))
        assert "target[first:]" in chain["the token being scored enters the key"]
        assert "table[key" in chain["reads the count"]
        assert "np.add.at" in chain["counts tokens"]


# How often tokens came, added to the logits of a model; then the loss is mixed with pairs that were counted.
BIASED = """

def cached(net, stream, sizes):
    total, weight = 0.0, 0.0
    often, pairs = torch.ones(1024), torch.ones(1024, 1024)
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[:-1], piece[1:]
        rows = F.log_softmax(net(ids) + often.log(), dim=-1)
        own = -rows.gather(-1, wanted[:, None]).squeeze(-1)
        {mixed}
        total += loss.sum().item()
        weight += sizes[wanted].sum().item()
        often.scatter_add_(0, wanted, torch.ones(LENGTH))
        pairs.reshape(-1).scatter_add_(0, ids * 1024 + wanted, torch.ones(LENGTH))
    return total / math.log(2.0) / weight
"""
PAIRS = """other = -(pairs[ids, wanted] / 1000.0).log()
        loss = -torch.stack([-own, -other], dim=-1).logsumexp(-1)"""


def test_counts_added_to_logits_are_part_of_the_distribution_and_its_loss_is_the_mixed_one() -> None:
    answers = analyse(program(BIASED.format(mixed="loss = own"), call=CALL)).answers
    assert answers[FORMED].status is Status.PASS
    assert answers[ONCE].status is Status.PASS
    mixed = program(BIASED.format(mixed=PAIRS), call=CALL)
    assert analyse(mixed).answers[FORMED].status is Status.FAIL
    chain = dict(words(mixed, FORMED))
    assert "rows.gather" in chain["the loss of the model it is mixed with"]
    assert "pairs[ids, wanted]" in chain["reads the count"]


# A model that gives two results; one of them decides which of two losses counts.
TWO_RESULTS = """

class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def forward(self, ids, wanted, both=True):
        rows = F.log_softmax(self.net(ids), dim=-1)
        loss = F.nll_loss(rows.flatten(0, 1), wanted.flatten(), reduction="none")
        return (loss, -(rows.exp() * rows).sum(-1)) if both else loss


def judged(net, stream, sizes):
    total, weight = 0.0, 0.0
    judge, second = Judge(), Net()
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        first, spread = judge(ids, wanted)
        other = losses(second, ids, wanted)
        total += torch.where({condition}, first, other).sum().item()
        weight += sizes[wanted].sum().item()
    return total / math.log(2.0) / weight
"""


@pytest.mark.parametrize(("condition", "status"), [("spread > 2.0", Status.WARN), ("other > 2.0", Status.FAIL)])
def test_a_result_that_may_be_a_loss_or_not_is_a_question(condition: str, status: Status) -> None:
    text = program(TWO_RESULTS.format(condition=condition), call="bpb = judged(scored, stream, sizes)")
    assert analyse(text).answers[ONCE].status is status


ITEMS = st.frozensets(st.tuples(st.integers(1, 12), st.integers(1, 2)), min_size=1, max_size=5)


@given(st.lists(st.tuples(ITEMS, st.integers(-2, 2), st.integers(1, 40)), min_size=MAX_FACTS, max_size=2 * MAX_FACTS))
def test_what_is_forgotten_only_makes_token_sets_larger(many: list) -> None:
    facts = frozenset(
        (TOKENS, "val", at, offset)
        if owner % 2
        else (LEARNT, "val", at, offset, owner, "optimizer", ("main.py", owner))
        for at, offset, owner in many
    )
    fewer = limited(facts)
    assert len(fewer) <= max(len(facts), MAX_FACTS)
    for fact in facts:
        alike = [f for f in fewer if (*f[:2], *f[3:]) == (*fact[:2], *fact[3:])]
        wider = [f for f in alike if f[2] <= fact[2] or f[2] == FORGOTTEN]
        assert wider and all(f[2] for f in alike)
        other = frozenset({(number, 3 - number_of) for number, number_of in fact[2]})
        assert all(disjoint(fact[2], other) or not disjoint(f[2], other) for f in wider)
