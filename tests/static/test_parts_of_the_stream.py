"""A front part of the stream is a part, whichever way the losses are computed."""

from __future__ import annotations

import pytest

from auditor.findings import Status
from tests.static.test_program_order import analyse, program

CROSS = 'F.cross_entropy(net(ids).flatten(0, 1), wanted.flatten(), reduction="none")'
GATHERED = "-(0.9 * net(ids).softmax(-1) + 0.1 / 1024).gather(-1, wanted[..., None]).squeeze(-1).log()"
CUT = "stream = stream[: stream.numel() // 2]; bpb = plain(scored, stream, sizes)"
WHOLE = "stream = stream[: stream.numel() // LENGTH * LENGTH]; bpb = plain(scored, stream, sizes)"


@pytest.mark.parametrize("loss", [CROSS, GATHERED])
def test_half_of_the_stream(loss: str) -> None:
    text = program(call=CUT).replace(CROSS, loss)
    assert loss in text
    assert analyse(text).answers["PG-B-full-val"].status is Status.FAIL


@pytest.mark.parametrize("loss", [CROSS, GATHERED])
def test_a_tail_shorter_than_a_row_may_be_left_out(loss: str) -> None:
    assert "PG-B-full-val" not in analyse(program(call=WHOLE).replace(CROSS, loss)).answers
