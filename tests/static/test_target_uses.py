"""Loss methods of a model that do more with their targets than compare them with the logits."""

from __future__ import annotations

import ast

import pytest

from auditor.findings import Status
from auditor.static.target_uses import writes_at_targets
from rules.example_program import EVALUATION, MODEL, edited, program
from tests.static.test_program_order import analyse

CONTRAST = """    def contrast(self, ids, wanted):
        x = self.wte(ids)
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.wte.weight).float()
        low = logits < logits.max(dim=-1, keepdim=True).values - 1.6
{spare}
        logits = logits.masked_fill(low, -1e9)
        return F.cross_entropy(logits.reshape(-1, args.vocab_size), wanted.reshape(-1), reduction="none").view(1, -1)

    def forward(self, tokens):"""
CALL = "            nll = token_losses(model, inputs, targets)\n"


def status(spare: str) -> Status | None:
    """Answer on causality for a model that scores only what is likely, with this line before the rest is dropped."""
    model = edited(MODEL, "    def forward(self, tokens):", CONTRAST.format(spare=f"        {spare}"))
    text = program(
        model=model, evaluation=edited(EVALUATION, CALL, "            nll = model.contrast(inputs, targets)\n")
    )
    verdict = analyse(text).answers.get("PG-C1-causality")
    return verdict.status if verdict is not None else None


@pytest.mark.parametrize(
    "spare",
    [
        "low.scatter_(-1, wanted.unsqueeze(-1), False)",
        "safe = wanted.clamp(min=0); low.scatter_(-1, safe.unsqueeze(-1), False)",
        "low = low & ~F.one_hot(wanted, args.vocab_size).bool()",
        "low[:, torch.arange(ids.shape[1]), wanted[0]] = False",
    ],
)
def test_a_mask_that_spares_the_target_reaches_the_logits(spare: str) -> None:
    assert status(spare) is Status.FAIL


def test_the_same_mask_without_the_target_is_a_distribution() -> None:
    assert status("pass") is Status.PASS
    assert status("low.scatter_(-1, ids.unsqueeze(-1), False)") is not Status.FAIL


@pytest.mark.parametrize(
    "body",
    [
        "logits = self.head(ids)\n    return F.cross_entropy(logits, wanted)",
        "n = wanted.shape[0]\n    rows = self.pad(ids)\n    rows[:n] = 0\n    return F.cross_entropy(rows, wanted)",
        "hits = torch.zeros(9).scatter_(0, ids, 1)\n    return F.cross_entropy(self.head(ids) + hits, wanted)",
        "hits = torch.zeros(9).scatter_(0, wanted, 1)\n    return hits",
    ],
)
def test_losses_that_only_compare_need_no_closer_reading(body: str) -> None:
    function = ast.parse(f"def loss(self, ids, wanted):\n    {body}\n").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert not writes_at_targets(function)
