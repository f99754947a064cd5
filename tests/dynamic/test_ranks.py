"""Two ranks in one sandbox: the same score as one, every position counted once, gradients shared between them told."""

from __future__ import annotations

import cpu_programs as parts
import pytest

pytest.importorskip("torch")

from auditor.dynamic import witness
from auditor.dynamic.run import run_submission
from auditor.dynamic.sandbox import available_layers
from auditor.submission import Submission
from auditor.unpack import read_program

pytestmark = pytest.mark.skipif(bool(available_layers()[1]), reason="this machine cannot contain a program")
FOLDER = "records/track_10min_16mb/2026-04-01_Small"
TOKENS = 4096

BEGIN = """
import torch.distributed as dist

dist.init_process_group("nccl", device_id=torch.device("cuda", 0))
rank, world = dist.get_rank(), dist.get_world_size()
for p in model.parameters():
    dist.broadcast(p.data, 0)
"""
SHARDED = """
total = torch.zeros(3, dtype=torch.float64, device="cuda")
with torch.no_grad():
    for index, (x, y) in enumerate(chunks()):
        if index % world == (rank + SHIFT) % world:
            total += torch.tensor([losses(model, x, y).double().sum().item(), y.numel(), byte_count(x, y)])
dist.all_reduce(total, op=dist.ReduceOp.SUM)
if rank == 0:
    report(*total.tolist())
"""
ADAPT_SHARDED = """
for index, (x, y) in enumerate(chunks()):
    if index % world == rank:
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        SYNC
        opt.step()
"""
REDUCED = """for p in model.parameters():
            dist.all_reduce(p.grad, op=dist.ReduceOp.AVG)"""


def said(ranks: int, *program: str) -> witness.Testimony:
    text = parts.program(*program)
    submission = Submission.from_files({f"{FOLDER}/train_gpt.py": text, f"{FOLDER}/README.md": "small"})
    program_ = read_program(submission)
    made = witness.from_run(run_submission(submission, program_, {}, seconds=60, ranks=ranks), submission, program_)
    assert made.run.status == "finished", made.run.reason + made.run.stderr[-1500:]
    return made


def test_two_ranks_score_what_one_scores() -> None:
    one, two = (said(ranks, BEGIN, SHARDED.replace("SHIFT", "0")) for ranks in (1, 2))
    assert two.headline.bpb == pytest.approx(one.headline.bpb, rel=1e-6)
    assert (two.counted, two.repeated, two.late) == (one.counted, one.repeated, one.late) == (TOKENS, 0, 0)


@pytest.mark.parametrize(
    ("sync", "shift", "late"),
    [(REDUCED, "0", TOKENS), (REDUCED, "1", TOKENS), ("pass", "0", TOKENS), ("pass", "1", 0)],
    ids=["shared", "shared, scored by the other", "own", "own, scored by the other"],
)
def test_what_a_rank_trains_on_reaches_the_other_through_gradients(sync: str, shift: str, late: int) -> None:
    made = said(2, BEGIN, ADAPT_SHARDED.replace("SYNC", sync), SHARDED.replace("SHIFT", shift))
    assert (made.counted, made.late) == (TOKENS, late)


def test_ranks_that_disagree_end_with_a_reason() -> None:
    text = parts.program(BEGIN, "dist.barrier() if rank else dist.all_reduce(torch.ones(1))")
    submission = Submission.from_files({f"{FOLDER}/train_gpt.py": text, f"{FOLDER}/README.md": "small"})
    result = run_submission(submission, read_program(submission), {}, seconds=60, ranks=2)
    assert result.status == "stopped"
    assert "barrier" in result.reason and "all_reduce" in result.reason
