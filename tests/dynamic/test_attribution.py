"""Which recorded losses a printed number consists of: passes that score almost the same must not be taken for another."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest

from auditor.dynamic.account import lateness
from auditor.dynamic.attribution import VAL, Attribution, Printed, explain

TOKENS = 512
CHUNK = 128
BYTES = np.concatenate([[0], np.full(TOKENS, 3)])


class Record:
    """A run that scores the stream pass after pass and prints what it likes."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.losses = 0
        self.count = 0

    def add(self, kind: str, **fields: Any) -> None:
        self.count += 1
        self.events.append({"n": self.count, "kind": kind, **fields})

    def scored(self, losses: np.ndarray, site: int) -> float:
        """One pass, added up chunk by chunk in one line; returns nats per token."""
        self.events.append({"kind": "site", "site": site, "frames": [["/repo/train_gpt.py", site, "evaluate"]]})
        for start in range(0, TOKENS, CHUNK):
            part = losses[start : start + CHUNK]
            places = (VAL << 24) + np.arange(start + 1, start + 1 + len(part))
            base, self.losses = self.losses, self.losses + len(part)
            self.add("score", site=site, places=places, losses=part, base=base, grad=False, reduction="none", uses=[])
            ids = np.arange(base, base + len(part))
            self.add("sum", site=site, ids=ids, value=float(part.sum()), how="sum")
        return float(losses.mean())

    def printed(self, nats: float, label: str = "final") -> None:
        bpb = nats / math.log(2) / 3
        self.add("print", site=0, text=f"{label} val_loss:{nats:.8f} val_bpb:{bpb:.8f}")


@pytest.mark.parametrize("printed", [0, 1], ids=["first pass", "second pass"])
@pytest.mark.parametrize("sites", [(10, 20), (10, 10)], ids=["two loops", "one loop"])
def test_passes_that_differ_in_the_fifth_digit_are_told_apart(printed: int, sites: tuple[int, int]) -> None:
    losses = np.random.default_rng(0).normal(9.0, 0.3, TOKENS)
    record = Record()
    passes = [record.scored(losses, sites[0]), record.scored(losses - 2e-5, sites[1])]
    record.printed(passes[printed])
    found = explain(record.events, BYTES).claim[1]
    scores = [event["n"] for event in record.events if event["kind"] == "score"]
    half = len(scores) // 2
    assert set(found.event) == set(scores[printed * half : (printed + 1) * half])


def test_a_number_close_to_a_pass_that_was_printed_already_is_not_explained_by_it() -> None:
    record = Record()
    nats = record.scored(np.random.default_rng(1).normal(9.0, 0.3, TOKENS), 10)
    record.printed(nats, "plain")
    record.printed(nats - 1e-4, "improved")
    explained = explain(record.events, BYTES)
    assert explained.results[0][1] is not None
    assert explained.results[1][1] is None


@pytest.mark.parametrize("counted,explained", [(1549.0, 1549), (1700.0, 1700), (1549.37, None), (6000.0, None)])
def test_bits_over_another_whole_number_of_bytes(counted: float, explained: int | None) -> None:
    """Only bits per byte were printed, over bytes counted otherwise: the nats are these, the bytes are not the official ones."""
    record = Record()
    nats = TOKENS * record.scored(np.random.default_rng(2).normal(6.0, 0.3, TOKENS), 10)
    record.add("print", site=0, text=f"final val_bpb:{nats / math.log(2) / counted:.8f}")
    found = explain(record.events, BYTES).claim[1]
    assert (found and found.implied_bytes) == explained
    if found:
        assert (found.matched, found.official_bytes, len(found.position)) == ("loss", int(BYTES.sum()), TOKENS)


def test_means_over_weights_of_the_tokens() -> None:
    """Every token weighs what the program likes, and each batch is divided by its own weights."""
    record = Record()
    generator = np.random.default_rng(3)
    losses, weights = generator.normal(7.0, 0.4, TOKENS), generator.uniform(0.2, 3.0, TOKENS)
    record.scored(losses, 10)
    sums = [event for event in record.events if event["kind"] == "sum"]
    for event in sums:
        event["terms"] = weights[event["ids"]] * losses[event["ids"]]
        event["value"] = float(event["terms"].sum())
    parts = [event["ids"] for event in sums]
    nats = float(np.mean([(weights[part] * losses[part]).sum() / weights[part].sum() for part in parts]))
    record.printed(nats)
    found = explain(record.events, BYTES).claim[1]
    assert (found.how, found.derived, len(found.position)) == ("weighted", True, TOKENS)
    record.printed(nats * 1.01, "another")
    assert explain(record.events, BYTES).results[-1][1] is None


def test_sums_in_single_precision_are_explained() -> None:
    record = Record()
    record.printed(record.scored(np.random.default_rng(2).normal(9.0, 0.3, TOKENS), 10) * (1 + 8e-6))
    assert explain(record.events, BYTES).claim[1] is not None


def test_a_loss_replaced_by_a_number_stays_that_of_its_token() -> None:
    """A program that keeps the better of two as plain numbers; a token set to nothing is left out."""
    torch = pytest.importorskip("torch")
    from auditor.dynamic.inside.traces import Traces

    counted = []
    traces = Traces(lambda *what: counted.append(what))
    losses = torch.tensor([1.0, 2.0, 3.0])
    traces.begin(losses, 3)
    for index, value in ((1, 0.5), (2, 0.0)):
        losses[index] = value
        traces.follow("__setitem__", torch.Tensor.__setitem__, (losses, index, value), {}, None)
    traces.follow("sum", torch.Tensor.sum, (losses,), {}, losses.sum())
    ids, value, how, terms = counted[0]
    assert ids.tolist() == [0, 1] and value == 1.5 and how == "sum" and terms.tolist() == [1.0, 0.5]


def test_arrays_made_beforehand_take_on_what_is_written_into_them() -> None:
    from auditor.dynamic.inside.arrays import LossArray, trace

    counted = []
    losses = trace(np.array([1.0, 2.0, 4.0]), np.array([7, 8, 9]), lambda *what: counted.append(what))
    kept = np.zeros(4).view(LossArray)
    kept[1:] = -np.log(0.5 * np.exp(-losses) + 0.25)
    kept[3] = 0.0
    float(kept.sum())
    ids, value, _, terms = counted[-1]
    assert ids.tolist() == [7, 8] and np.allclose(terms, -np.log(0.5 * np.exp([-1.0, -2.0]) + 0.25))
    assert np.isclose(value, terms.sum())


def test_numbers_know_whose_loss_they_are() -> None:
    from auditor.dynamic.inside.numbers import LossNumber, number

    told = []
    one, other = (number(value, loss, lambda *what: told.append(what)) for value, loss in ((2.0, 5), (3.0, 6)))
    mixed = 0.25 + 0.5 * -one / 4 + 1.0
    assert type(mixed) is LossNumber and mixed.loss == 5 and mixed == 1.0 and not told
    assert type(one * other) is float, "two tokens' losses are nobody's"
    total = 1.0
    total += mixed
    total -= other
    assert told == [(5, 1.0), (6, -3.0)] and type(total) is float and total == -1.0
    told.clear()
    assert sum([one, other]) == 5.0 and told == [(5, 2.0), (6, 3.0)]
    assert max(one, other) is other and f"{one:.1f}" == "2.0" and type(pickle.loads(pickle.dumps(one))) is float


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_elements_of_an_array_know_whose_loss_they_are(kind: type) -> None:
    from auditor.dynamic.inside.arrays import LossArray, trace
    from auditor.dynamic.inside.numbers import Traced

    told = []
    losses = trace(np.array([1.0, 2.0], dtype=kind), np.array([7, 8]), lambda *what: told.append(what))
    kept = np.full(3, -1.0).view(LossArray)
    kept[1] = losses[0]
    assert kept[0] == -1.0 and not isinstance(kept[0], Traced), "nothing was written there"
    mixed = -np.log(0.5 * np.exp(-kept[1]) + 0.25)
    assert isinstance(mixed, float) and np.isclose(mixed, -np.log(0.5 * np.exp(-1.0) + 0.25))
    assert mixed.item() == float(mixed) and mixed.astype(np.float32).dtype == np.float32 and mixed.ndim == 0
    assert np.array([mixed, kept[1]]).dtype == np.float64 and f"{mixed:.3f}" == f"{float(mixed):.3f}"
    with np.errstate(divide="ignore"):
        assert kept[1] / 0 == np.inf, "as numpy divides, not as Python does"
    told.clear()
    total, double = 0.0, np.float64(0.0)
    total += mixed
    double -= losses[1] * kind(2.0)
    assert [(ids.tolist(), value, how) for ids, value, how, *_ in told if how == "term"] == [
        ([7], float(mixed), "term"), ([8], -4.0, "term"),
    ]  # fmt: skip
    assert not isinstance(total, Traced) and not isinstance(double, Traced) and double == -4.0


def test_what_was_taken_out_at_one_line_counts_where_it_is_added() -> None:
    """Read at one line, and added up at two others of the function: changed at one of them, as it is at the other."""
    losses = np.random.default_rng(3).normal(9.0, 0.3, TOKENS)
    record = Record()
    record.scored(losses, 10)
    changed = np.arange(TOKENS) % 3 == 0
    for line, chosen, factor, taken in (
        (20, changed | True, 1.0, True),
        (21, changed, 0.5, False),
        (22, ~changed, 1.0, False),
    ):
        record.events.append({"kind": "site", "site": line, "frames": [["/repo/train_gpt.py", line, "mix"]]})
        terms = (losses[chosen] * factor).astype(np.float32)
        told = {"terms": terms} if factor != 1.0 else {}
        ids, value = np.flatnonzero(chosen), float(terms.astype(np.float64).sum())
        record.add("sum", site=line, ids=ids, value=value, how="item", taken=taken, **told)
    record.printed(float((losses * np.where(changed, 0.5, 1.0)).sum()) / TOKENS)
    found = explain(record.events, BYTES).claim[1]
    assert found is not None and found.derived and len(found.position) == TOKENS


def test_parts_of_a_loss_make_up_a_result() -> None:
    """Three parts of every loss, none of them the loss, printed as one number a token."""
    losses = np.random.default_rng(3).normal(9.0, 0.3, TOKENS)
    record = Record()
    record.scored(losses, 10)
    shares = np.random.default_rng(4).dirichlet([1.0, 1.0, 1.0], TOKENS) * losses[:, None] * 0.8
    terms = shares.reshape(-1).astype(np.float32)
    record.events.append({"kind": "site", "site": 20, "frames": [["/repo/train_gpt.py", 20, "mix"]]})
    record.add("sum", site=20, ids=np.repeat(np.arange(TOKENS), 3), value=float(terms.sum()), how="item", terms=terms)
    record.printed(float(terms.astype(np.float64).sum()) / TOKENS)
    found = explain(record.events, BYTES).claim[1]
    assert found.how == "parts" and found.derived
    assert np.array_equal(found.position, np.arange(1, TOKENS + 1)) and np.allclose(found.loss, losses * 0.8)


def test_sums_in_bits_are_those_of_the_losses() -> None:
    record = Record()
    nats = record.scored(np.random.default_rng(3).normal(7.0, 0.3, TOKENS), 10)
    for event in record.events:
        if event["kind"] == "sum":
            event["value"] /= math.log(2)
    record.add("print", site=0, text=f"final val_bpb:{nats / math.log(2) / 3:.8f}")
    found = explain(record.events, BYTES).claim[1]
    assert found is not None
    assert len(found.position) == TOKENS
    assert not found.derived


def test_document_marks_alone_are_no_late_tokens() -> None:
    positions = np.array([5, 6, 7])
    printed = Printed(9, "final", 1.0, 1.0, 8, "final")
    counted = Attribution(printed, "all", positions, np.ones(3), np.full(3, 2), 0, 1.0, 1.0, 9, False, 0.0)
    events = [
        {"kind": "update", "n": 1, "changes": [[1, 0.5, 1.0]], "places": (VAL << 24) + positions[:2]},
        {"kind": "score", "n": 2, "uses": [[1, 0.5, 1.0]], "places": (VAL << 24) + positions},
    ]
    assert np.flatnonzero(lateness(events, counted, 10).late).tolist() == [5, 6]
    assert np.flatnonzero(lateness(events, counted, 10, np.array([0, 6])).late).tolist() == [5, 6]
    assert not lateness(events, counted, 10, np.array([5, 6])).late.any()


@pytest.mark.parametrize(
    "one,other,kept",
    [([5, 6], [5, 6], [0, 1]), ([5, 6], [6, 5], None), ([5, -1], [5, -1], [0])],
    ids=["same tokens", "other tokens", "padding"],
)
def test_experts_that_each_have_a_loss_of_a_token_are_mixed_into_one(
    one: list[int], other: list[int], kept: list[int] | None
) -> None:
    torch = pytest.importorskip("torch")
    from auditor.dynamic.inside.traces import Traces

    counted: list[list[int]] = []
    traces = Traces(lambda ids, value, how, terms=None: counted.append(ids.tolist()))
    model, table = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    traces.begin(model, 2, np.array(one))
    traces.begin(table, 2, np.array(other))
    both = torch.stack([model, table], dim=-1)
    traces.follow("stack", torch.stack, ([model, table],), {"dim": -1}, both)
    result = torch.logsumexp(both, -1)
    traces.follow("logsumexp", torch.logsumexp, (both, -1), {}, result)
    assert (traces.of(result) is not None) is (kept is not None)
    if kept:
        total = result.sum()
        traces.follow("sum", torch.sum, (result,), {}, total)
        assert counted == [kept]
