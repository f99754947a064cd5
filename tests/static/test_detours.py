"""Ways round the plain calls mean what the plain calls mean; the legal twin of each stays legal."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from tests.static.test_program_order import ADAPT, analyse, program

PLAIN = 'F.cross_entropy(net(ids).flatten(0, 1), wanted.flatten(), reduction="none")'
WARM = 'F.cross_entropy(net(ids).flatten(0, 1) * {t}, wanted.flatten(), reduction="none")'
TWIN = "import copy; twin = copy.deepcopy(net); adapt({who}, stream); "


def status(text: str, rule: str) -> Status | None:
    """Answer of the program to one rule."""
    verdict = analyse(text).answers.get(rule)
    return verdict.status if verdict is not None else None


@pytest.mark.parametrize(
    "hand_over",
    [
        "torch.nn.utils.vector_to_parameters(torch.nn.utils.parameters_to_vector(twin.parameters()), net.parameters())",
        "net.head.weight = twin.head.weight",
        "net.head = twin.head",
        "net.load_state_dict(twin.state_dict())",
        "net.load_state_dict({k: 0.5 * v + 0.5 * twin.state_dict()[k] for k, v in net.state_dict().items()})",
    ],
)
def test_weights_of_an_adapted_twin(hand_over: str) -> None:
    """Handed over before the export they are what is scored; when the other one was adapted they undo it."""
    assert status(program(ADAPT, before=TWIN.format(who="twin") + hand_over), "PG-C3-prequant-ttt") is Status.FAIL
    other = program(ADAPT, before=TWIN.format(who="copy.deepcopy(net)") + hand_over)
    assert status(other, "PG-C3-prequant-ttt") is Status.PASS


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ("'data/fineweb_{}_*.bin'.format('val')", "val"),
        ("'data/' + '_'.join(['fineweb', 'val', '*.bin'])", "val"),
        ("'data/fineweb_' + 'lav'[::-1] + '_*.bin'", "val"),
        ("'data/fineweb_v*_*.bin'", "val"),
        ("'data/fineweb_{}_*.bin'.format('train')", "train"),
        ("'data/fineweb_' + 'trainval'[:5] + '_*.bin'", "train"),
    ],
)
def test_a_pattern_put_together(words: str, split: str) -> None:
    found = status(program(ADAPT, before=f"adapt(net, shard({words}))"), "PG-C3-prequant-ttt")
    assert found is (Status.FAIL if split == "val" else Status.PASS)


@pytest.mark.parametrize(("test", "split"), [("'train' not in p", "val"), ("'val' not in p", "train")])
def test_names_that_are_left_out(test: str, split: str) -> None:
    read = f"torch.cat([torch.from_numpy(np.fromfile(p, dtype=np.uint16)) for p in glob.glob('data/*') if {test}])"
    found = status(program(ADAPT, before=f"adapt(net, {read})"), "PG-C3-prequant-ttt")
    assert found is (Status.FAIL if split == "val" else Status.PASS)


@pytest.mark.parametrize(
    ("loss", "rule", "bad"),
    [
        (f"torch.stack([{PLAIN}, {WARM.format(t=1.1)}]).min(dim=0).values", "PG-C4-single-pass", True),
        (f"torch.stack([{PLAIN}, {WARM.format(t=1.1)}]).mean(dim=0)", "PG-C4-single-pass", False),
        (f"torch.where({PLAIN} < 3, {PLAIN}, {WARM.format(t=1.1)})", "PG-C4-single-pass", True),
        (f"torch.where(ids.flatten() == 1, {PLAIN}, {WARM.format(t=1.1)})", "PG-C4-single-pass", False),
        (PLAIN.replace("net(ids)", "net(ids * (wanted != 1))"), "PG-C1-causality", True),
        (PLAIN.replace("net(ids)", "net(ids * (ids != 1))"), "PG-C1-causality", False),
        ("-(net(ids).softmax(-1) + 0.1 * F.one_hot(wanted, 1024)).gather(-1, wanted[..., None]).log()",
         "PG-C1-causality", True),
        ("-(net(ids).softmax(-1) + 0.1 * F.one_hot(ids, 1024)).gather(-1, wanted[..., None]).log()",
         "PG-C1-causality", False),
    ],
)  # fmt: skip
def test_losses_that_went_by_the_target(loss: str, rule: str, bad: bool) -> None:
    text = program().replace(PLAIN, loss)
    assert text != program()
    assert (status(text, rule) is Status.FAIL) is bad


WHILE = """

def online(net, stream, sizes):
    total, weight = 0.0, 0.0
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    pos = 0
    while pos < stream.numel() - 1:
        piece = stream[pos : pos + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        with torch.no_grad():
            total += losses(net, ids, wanted).sum().item()
        weight += sizes[wanted].sum().item()
        begin = {begin}
        piece = stream[begin : begin + LENGTH + 1]
        losses(net, piece[None, :-1], piece[None, 1:]).mean().backward()
        opt.step()
        opt.zero_grad()
        pos += LENGTH
    return total / math.log(2.0) / weight
"""


@pytest.mark.parametrize(("begin", "expected"), [("pos", Status.PASS), ("pos + LENGTH", Status.FAIL)])
def test_a_counter_of_its_own(begin: str, expected: Status) -> None:
    text = program(WHILE.format(begin=begin), call="bpb = online(scored, stream, sizes)")
    assert status(text, "PG-C3-score-first") is expected
