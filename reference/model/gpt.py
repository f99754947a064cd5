"""The transformer (specification 2.1).

Notable features:
- U-Net: the first L//2 blocks push their output, the others take it back in reverse order (gated mix or addition)
- every block also sees the embedding: `m0 x + m1 x0`
- norms without parameters, inputs of block l scaled by 1/sqrt(l+1)
- only the scored columns pass through the queries, output projection and MLP of the last block, final norm and head
- plain dtypes, no autocast: weights are fp32 (tables bf16 where configured) and cast where used
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.config import Config, ModelConfig
from reference.errors import ConfigError
from reference.model.attention import Attention, FlashFunction, choose_flash
from reference.model.embeddings import BigramEmbedding, SmearGate, ValueEmbedding
from reference.model.head import mean_loss, softcap_logits, token_losses
from reference.model.init import initialise
from reference.model.layers import rms
from reference.model.mlp import MLP
from reference.model.rotary import attention_temperature, tables


class Block(nn.Module):
    """`y = m0 x + m1 x0; y += a Attn(c rms(y)); y += b MLP(c rms(y))` with the constant `c = 1/sqrt(l+1)` or 1."""

    def __init__(self, config: ModelConfig, layer: int, flash: FlashFunction | None = None) -> None:
        super().__init__()
        self.eps = config.rms_eps
        self.input_scale = 1 / math.sqrt(layer + 1) if config.ln_scale else 1.0
        self.attn = Attention(config, xsa=layer >= config.layers - config.xsa_last_n, flash=flash)
        self.mlp = MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(config.dim))
        self.mlp_scale = nn.Parameter(torch.ones(config.dim))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(config.dim), torch.zeros(config.dim))))

    def forward(
        self,
        x_BTD: Tensor,
        x0_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        temperature: float,
        value_BTE: Tensor | None,
        columns: int,
    ) -> Tensor:
        """Output of the last `columns` positions."""
        mix = self.resid_mix.to(x_BTD.dtype)
        y = torch.addcmul(mix[0] * x_BTD, mix[1], x0_BTD)
        attended = self.attn(self._input(y), cos, sin, temperature, value_BTE, columns)
        y = torch.addcmul(y[:, y.size(1) - columns :], self.attn_scale.to(y.dtype), attended)
        return torch.addcmul(y, self.mlp_scale.to(y.dtype), self.mlp(self._input(y)))

    def _input(self, y_BTD: Tensor) -> Tensor:
        """Normalised and scaled input of a sub-layer."""
        normed = rms(y_BTD, self.eps)
        return self.input_scale * normed if torch.is_grad_enabled() else normed.mul_(self.input_scale)


class GPT(nn.Module):
    """Model of one configuration. Calling it gives the mean loss in nats, `token_losses` the loss of each position.

    Args:
        initial: fill the weights; False for a model whose weights are all replaced (orthogonal matrices take seconds).
    """

    def __init__(self, config: Config, *, initial: bool = True) -> None:
        super().__init__()
        self.config = config.model
        model, vocab = config.model, config.data.vocab_size
        self.dtype = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
        self.cap, self.cap_in_float32 = model.logit_softcap, model.logit_softcap_dtype == "float32"
        self.loss_chunk = config.run.loss_chunk
        self.tok_embed = nn.Parameter(torch.empty(vocab, model.dim))
        self.head = None if model.tie_embeddings else nn.Parameter(torch.empty(vocab, model.dim))
        self.bigram = BigramEmbedding(model.bigram, model.dim) if model.bigram.hash != "none" else None
        smear = model.smear
        self.smear = SmearGate(model.dim, smear.init, mask_bos=smear.mask_bos) if smear.kind != "none" else None
        self.value_embed = ValueEmbedding(model, vocab) if model.value_embed.layers else None
        self.encoder_blocks = model.layers // 2
        skips = self.encoder_blocks
        self.skip_weights = nn.Parameter(torch.ones(skips, model.dim)) if skips else None
        gated = model.skip_mode == "gated" and skips
        self.skip_gates = nn.Parameter(torch.zeros(skips, model.dim)) if gated else None
        flash = choose_flash(config.run)
        self.blocks = nn.ModuleList([Block(model, layer, flash) for layer in range(model.layers)])
        self._rotary: dict[int, tuple[Tensor, Tensor]] = {}
        if initial:
            initialise(self.named_parameters(), model, torch.Generator().manual_seed(config.schedule.seed))
        self._store_tables(config)
        self._check_size(model.params)

    def _store_tables(self, config: Config) -> None:
        """Embedding tables are kept in bf16 where configured; everything else is fp32."""
        if config.run.precision == "fp32":
            return
        tables = {"tok_embed": config.model.embed_dtype}
        tables |= dict.fromkeys(("bigram.table", "value_embed.table"), config.model.bigram_value_embed_dtype)
        for name, parameter in self.named_parameters():
            if tables.get(name) == "bfloat16":
                parameter.data = parameter.data.bfloat16()

    def _check_size(self, expected: int) -> None:
        count = sum(p.numel() for p in self.parameters())
        if expected and count != expected:
            raise ConfigError(
                f"model.params: the model has {count} parameters, the configuration expects {expected};"
                " set model.params=0 when it is meant to be another model"
            )

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        self._rotary.clear()
        return super()._apply(fn, recurse)

    def prepare(self, length: int) -> tuple[Tensor, Tensor]:
        """Rotary tables for rows of `length` tokens; call before compiling so that no table is made while tracing."""
        if length not in self._rotary:
            self._rotary[length] = tables(self.config, length, self.tok_embed.device)
        return self._rotary[length]

    def features(self, tokens_BT: Tensor, columns: int | None = None) -> Tensor:
        """Normalised hidden state of the last `columns` positions (all by default), `[B, columns, D]`."""
        length = tokens_BT.size(1)
        columns = length if columns is None else columns
        cos, sin = self.prepare(length)
        temperature = attention_temperature(self.config, length)
        x = x0 = self._embed(tokens_BT)
        shared = self.value_embed(tokens_BT, self.dtype) if self.value_embed is not None else None
        skips: list[Tensor] = []
        for layer, block in enumerate(self.blocks):
            if layer >= self.encoder_blocks and skips:
                x = self._take_skip(x, skips.pop(), layer - self.encoder_blocks)
            value = self.value_embed.at(layer, shared) if shared is not None and self.value_embed is not None else None
            last = layer == len(self.blocks) - 1
            x = block(x, x0, cos, sin, temperature, value, columns if last else length)
            if layer < self.encoder_blocks:
                skips.append(x)
        return rms(x, self.config.rms_eps)

    def _embed(self, tokens_BT: Tensor) -> Tensor:
        x = F.embedding(tokens_BT, self.tok_embed).to(self.dtype)
        if self.bigram is not None:
            x = x + self.bigram(tokens_BT, self.dtype)
        x = rms(x, self.config.rms_eps)
        return x if self.smear is None else self.smear(x, tokens_BT)

    def _take_skip(self, x: Tensor, skip: Tensor, index: int) -> Tensor:
        assert self.skip_weights is not None
        weighted = self.skip_weights[index].to(x.dtype) * skip
        if self.skip_gates is None:
            return x + weighted
        gate = torch.sigmoid(self.skip_gates[index]).to(x.dtype)
        return torch.lerp(weighted, x, gate)

    @property
    def output_table(self) -> Tensor:
        """Weights of the head `[V, D]`."""
        return self.tok_embed if self.head is None else self.head

    def logits(self, tokens_BT: Tensor, columns: int | None = None) -> Tensor:
        """Soft-capped fp32 logits of the last `columns` positions `[B, columns, V]`."""
        hidden = self.features(tokens_BT, columns)
        return softcap_logits(hidden, self.output_table, self.cap, in_float32=self.cap_in_float32)

    def token_losses(self, tokens_BT: Tensor, targets_BC: Tensor) -> Tensor:
        """Loss in nats of the last C positions of each row, fp32 `[B, C]`; targets are given for these only."""
        hidden = self.features(tokens_BT, targets_BC.size(1)).flatten(0, 1)
        losses = token_losses(
            hidden, self.output_table, targets_BC.reshape(-1), self.cap, in_float32=self.cap_in_float32
        )
        return losses.view(targets_BC.shape)

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean loss in nats over all positions."""
        hidden = self.features(tokens_BT).flatten(0, 1)
        return mean_loss(
            hidden,
            self.output_table,
            targets_BT.reshape(-1),
            self.cap,
            in_float32=self.cap_in_float32,
            chunk=self.loss_chunk,
        )

    def flops_per_token(self, length: int) -> float:
        """Floating-point operations of one token forward: 2 for each matrix weight and 2 T D for causal attention."""
        matrices = sum(p.numel() for name, p in self.named_parameters() if name.endswith(".weight"))
        return 2.0 * (matrices + self.output_table.numel()) + 2.0 * self.config.layers * length * self.config.dim
