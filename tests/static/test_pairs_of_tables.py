"""Count tables kept in pairs inside a list: context counts beside counts of context and token."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from auditor.static.analysis import static_timeline
from auditor.submission import Submission
from auditor.unpack import read_program

SOURCE = """
import glob
import torch
import torch.nn.functional as F


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.w(x)


def empty(orders):
    tables = []
    for _ in range(orders):
        tables.append((torch.zeros(64), torch.zeros(64)))
    return tables


def losses(tables, logits, x, y):
    p = F.softmax(logits, -1).gather(1, y.unsqueeze(1)).squeeze(1)
    q = torch.zeros(8)
    for order in range(5, 1, -1):
        context, pair = tables[order]
        seen, both = context[x * 3], pair[KEY]
        q[seen > 2] = both / seen
    return -torch.log(0.5 * p + 0.5 * q)


def main():
    val = torch.cat([torch.load(f) for f in sorted(glob.glob("fineweb_val_*.bin"))])
    net, tables, total = Net(), empty(8), 0.0
    for i in range(0, len(val) - 9, 8):
        x, y = val[i:i + 8], val[i + 1:i + 9]
        total += LOSS.sum()
        for order in range(2, 6):
            context, pair = tables[order]
            context.scatter_add_(0, x * 3, torch.ones(8))
            pair.scatter_add_(0, (x * 3) ^ y, torch.ones(8))
    print(f"val_bpb:{total.item()}")


main()
"""
MIXED = "losses(tables, net(x), x, y)"
ALONE = "F.cross_entropy(net(x), y, reduction='none')"


@pytest.mark.parametrize(
    ("loss", "expected"), [(MIXED, Status.FAIL), (ALONE, Status.PASS)], ids=["counts mixed in", "counts kept apart"]
)
def test_counts_reach_the_score_only_where_they_are_mixed_in(loss: str, expected: Status) -> None:
    source = SOURCE.replace("KEY", "(x * 3) ^ y").replace("LOSS", loss)
    files = {"records/track_10min_16mb/2026-04-01_x/train_gpt.py": source.encode()}
    found = static_timeline(read_program(Submission.from_files(files))).answers
    assert found["PG-C2-hashed-ngram-cache"].status is expected
