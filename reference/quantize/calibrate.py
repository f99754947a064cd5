"""Hessians of layer inputs from the first rows of the training data, collected inside the training budget."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reference.config import Config
from reference.data import TokenStream
from reference.model import GPT
from reference.model.layers import Linear
from reference.quantize.gptq import accumulate_hessian, full_precision, make_hessian
from reference.ranks import Ranks

SHARED_INPUT = {"attn.k": "attn.q", "attn.v": "attn.q", "mlp.gate": "mlp.up"}
"""Layers that read the same input as another one; its Hessian is collected once."""


def collect_hessians(model: GPT, stream: TokenStream, config: Config, ranks: Ranks) -> dict[str, Tensor]:
    """`H = sum X^T X / tokens` for every linear layer, by parameter name, from consecutive non-overlapping rows.

    Rows are divided over ranks and sums reduced. The head is the token table, so `tok_embed` (or `head`) gets the
    Hessian of the final norm's output.
    """
    settings = config.quant.gptq
    assert settings is not None, "called only when a rule uses GPTQ"
    length = config.data.seq_len
    sums: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(_hook(sums, name))
        for name, module in model.named_modules()
        if isinstance(module, Linear) and _own_input(name)
    ]
    first, last = ranks.slice(settings.nsamples)
    was_training = model.training
    model.eval()
    head = make_hessian(model.config.dim, ranks.device)
    try:
        with torch.inference_mode(), full_precision():
            for row in range(first, last, settings.batch):
                count = min(settings.batch, last - row)
                tokens = torch.from_numpy(stream.slice(row * length, count * length).astype("int64"))
                accumulate_hessian(head, model.features(tokens.view(count, length).to(ranks.device)))
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    return _normalised(model, sums, head, settings.nsamples * length, ranks)


def _own_input(name: str) -> bool:
    return not any(name.endswith(layer) for layer in SHARED_INPUT)


def _hook(sums: dict[str, Tensor], name: str) -> Any:
    def collect(_: Any, arguments: tuple[Tensor, ...]) -> None:
        if name not in sums:
            sums[name] = make_hessian(arguments[0].size(-1), arguments[0].device)
        accumulate_hessian(sums[name], arguments[0])

    return collect


def _normalised(model: GPT, sums: dict[str, Tensor], head: Tensor, tokens: int, ranks: Ranks) -> dict[str, Tensor]:
    with torch.no_grad():
        by_module = {
            name: ranks.sum_(_or_zeros(sums, name, module)).clone() / tokens
            for name, module in model.named_modules()
            if isinstance(module, Linear) and _own_input(name)
        }
        hessians = {"tok_embed" if model.head is None else "head": ranks.sum_(head).clone() / tokens}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            source = name
            for layer, twin in SHARED_INPUT.items():
                source = source.removesuffix(layer) + twin if source.endswith(layer) else source
            hessians[f"{name}.weight"] = by_module[source]
    return hessians


def _or_zeros(sums: dict[str, Tensor], name: str, module: Linear) -> Tensor:
    """A rank without calibration rows still takes part in the reduction."""
    return sums[name] if name in sums else make_hessian(module.weight.size(1), module.weight.device)
