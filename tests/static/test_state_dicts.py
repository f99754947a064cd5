"""A state dict shares storage with the model until something copies it: snapshots stay, aliases follow."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from tests.static.test_program_order import ADAPT, analyse, program

EXPORT = '    torch.save(net.state_dict(), "final.pt")\n'
SHARED = [
    "kept = net.state_dict()",
    "full = net.state_dict(); kept = {k: v for k, v in full.items() if 'extra' not in k}",
    "kept = {k: v.detach() for k, v in net.state_dict().items()}",
    "kept = dict(net.state_dict())",
    "kept = {k: v for k, v in net.named_parameters()}",
]
COPIED = [
    "kept = {k: v.clone() for k, v in net.state_dict().items()}",
    "kept = {k: v.detach().cpu() for k, v in net.state_dict().items()}",
    "kept = {k: v.detach().to('cpu', torch.float16) for k, v in net.state_dict().items()}",
    "import copy; kept = copy.deepcopy(net.state_dict())",
    "kept = {k: v.detach().cpu().clone() for k, v in net.named_parameters()}",
]


def exported(take: str) -> str:
    """The artifact is written from a state taken before the model was trained on validation tokens."""
    return program(ADAPT, before=f"{take}\n    adapt(net, stream)").replace(
        EXPORT, '    torch.save(kept, "final.pt")\n'
    )


def restored(take: str) -> str:
    """A warm-up on validation tokens, and the weights as they had been put back before the export."""
    return program(ADAPT, before=f"{take}\n    adapt(net, stream)\n    net.load_state_dict(kept)")


@pytest.mark.parametrize("take", SHARED)
def test_what_shares_the_weights_is_exported_adapted(take: str) -> None:
    assert analyse(exported(take)).answers["PG-C3-prequant-ttt"].status is Status.FAIL


@pytest.mark.parametrize("take", COPIED)
def test_a_copy_taken_before_is_exported_as_it_was(take: str) -> None:
    answers = analyse(exported(take)).answers
    assert answers["PG-C3-prequant-ttt"].status is Status.PASS
    assert answers["PG-C3-score-first"].status is Status.PASS


@pytest.mark.parametrize("take", SHARED[:3])
def test_putting_back_what_shares_the_weights_changes_nothing(take: str) -> None:
    assert analyse(restored(take)).answers["PG-C3-prequant-ttt"].status is Status.FAIL


@pytest.mark.parametrize("take", COPIED[:4])
def test_putting_back_a_copy_undoes_the_warm_up(take: str) -> None:
    assert analyse(restored(take)).answers["PG-C3-score-first"].status is Status.PASS


WRITE = """
    for k, v in net.state_dict().items():
        v.copy_({source}[k])"""


@pytest.mark.parametrize(("source", "status"), [("kept", Status.PASS), ("other.state_dict()", Status.FAIL)])
def test_weights_written_through_the_state_dict(source: str, status: Status) -> None:
    """Writing into its entries writes the weights: back to what they were, or to those of an adapted twin."""
    before = "import copy; other = copy.deepcopy(net)\n    " + COPIED[0]
    before += "\n    adapt(other, stream)\n    adapt(net, stream)" + WRITE.format(source=source)
    assert analyse(program(ADAPT, before=before)).answers["PG-C3-score-first"].status is status


BYTES = """    blob = b"".join(v.cpu().numpy().tobytes() for v in net.state_dict().values())
    with open("final.bin", "wb") as f:
        f.write(blob)
    with open("final.bin", "rb") as f:
        flat = np.frombuffer(f.read(), dtype=np.float32)
"""
BACK = """    rest = {}
    for k, v in net.state_dict().items():
        rest[k] = torch.from_numpy(flat[: v.numel()]).view(v.shape)
    scored.load_state_dict(rest)
"""


@pytest.mark.parametrize(("back", "status"), [(BACK, None), ("", Status.WARN)])
def test_an_artifact_put_together_by_hand(back: str, status: Status | None) -> None:
    """Bytes of the weights in a format of the program's own: read back into the model that is scored, or not."""
    text = program().replace(EXPORT, BYTES).replace('    scored.load_state_dict(torch.load("final.pt"))\n', back)
    text = text.replace("    scored = Net()\n", "    scored = net\n" if not back else "    scored = Net()\n")
    assert "torch.load" not in text
    verdict = analyse(text).answers.get("PG-B-from-artifact")
    assert (verdict.status if verdict is not None else None) is status
