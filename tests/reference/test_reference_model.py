"""The model against its equations, causality, counts of the published configurations, and configuration errors."""

from __future__ import annotations

import math
import tomllib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import tiny

from reference import config as configs
from reference.config import ConfigError, load
from reference.model import GPT, role_of
from reference.model import head as heads
from reference.model.attention import causal_attention, exclude_self
from reference.model.embeddings import SmearGate, bigram_index
from reference.model.layers import FakeQuant, set_fake_quant
from reference.model.rotary import attention_temperature, frequencies
from reference.optim import partition
from reference.quantize import quantize_state
from reference.ttt import select

SEEDS = {  # parameters, payload bytes, tensors quantised, parameters trained at test time
    "pr612": (27_030_107, 27_530_604, 69, 22_301_259),
    "pr644": (27_030_107, 27_530_604, 69, 22_301_259),
    "pr598": (27_030_108, 27_522_422, 69, 22_301_260),
    "pr861": (30_208_603, 30_560_620, 69, 17_329_667),
    "pr610": (26_993_756, 27_204_792, 69, 21_255_240),
    "baseline": (17_059_912, 17_178_912, 55, 0),
}


@pytest.mark.parametrize("name", SEEDS)
def test_counts_of_the_published_configurations(name: str) -> None:
    """Parameters and stored bytes equal the logs to the last digit."""
    parameters, payload, quantised, trained = SEEDS[name]
    config = load(name, ["model.ortho_init=false"])
    for rule in config.quant.rules:
        rule.percentiles = [1.0]
    model = GPT(config)
    assert sum(p.numel() for p in model.parameters()) == parameters
    stored = quantize_state(model.state_dict(), config.quant)
    assert (stored.payload_bytes, len(stored.integers)) == (payload, quantised)
    if trained:
        assert sum(p.numel() for _, p in select(model, config.ttt.select)) == trained
        assert config.ttt.trainable_params == trained


def test_published_configurations_differ_only_in_known_keys() -> None:
    """#644 is #612 at another length; nothing else."""
    a, b = load("pr612").to_dict(), load("pr644").to_dict()
    changed = {k for k in a if a[k] != b[k]}
    assert changed == {"name", "notes", "schedule"}
    assert {k for k in a["schedule"] if a["schedule"][k] != b["schedule"][k]} == {"iterations", "warmdown"}
    tables = [set(tomllib.loads((configs.CONFIG_FOLDER / f"{n}.toml").read_text())) for n in SEEDS]
    assert all(table == tables[0] for table in tables)  # the files can be read side by side


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.headz=3"], "model.headz: unknown key"),
        (["model.heads=5"], r"model.heads: must divide model.dim=32; got 5"),
        (["model.heads=many"], "model.heads: expected int, got 'many'"),
        (["model.activation=tanh"], "model.activation: 'tanh' is not one of relu2"),
        (["model=3"], "model: expected a table"),
        (["name.x=3"], "'name' is a value"),
        (["quant.rules=[{lo=5,hi=1}]"], "quant.rules"),
        (["model.value_embed.layers=7"], "expected a list"),
        (["model.value_embed.layers=[9]"], "model.value_embed.layers"),
        (["model.rope_dims=7"], "model.rope_dims"),
        (["model.kv_heads=3"], "model.kv_heads"),
        (["data.batch_tokens=500"], "data.batch_tokens"),
        (["ttt.chunk_tokens=16"], "ttt.chunk_tokens: must be at least"),
        (["ttt.chunk_tokens=65"], "multiple of eval.stride"),
        (["schedule.mode=wallclock"], "schedule.max_wallclock_seconds"),
        (["schedule.mode=replay"], "schedule.replay_file"),
        (["averaging.ema_decay=1.5"], "averaging.ema_decay"),
        (["averaging.apply=swa"], "averaging.swa_every"),
        (["quant.gptq=none"], "quant.gptq"),
        (["justakey"], "write key=value"),
        (["model.params=5"], "model.params: the model has"),
    ],
)
def test_configuration_errors_name_the_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GPT(tiny(*overrides))


def test_configuration_files(tmp_path) -> None:
    with pytest.raises(ConfigError, match="give one of baseline, pr598"):
        load("pr999")
    (tmp_path / "x.toml").write_text("a = [")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load(str(tmp_path / "x.toml"))
    (tmp_path / "y.toml").write_text("[optim]\ntok_lr = 1\n")
    assert load(str(tmp_path / "y.toml")).optim.tok_lr == 1.0


def reference_forward(model: GPT, tokens: list[int]) -> np.ndarray:
    """Logits `[T, V]` of one row in float64, written from the equations, one position and one head at a time."""
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    c = model.config
    n, width = len(tokens), c.head_dim

    def rms(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.rms_eps)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    def rotate(x: np.ndarray, t: int) -> np.ndarray:
        r, out = c.rope_dims, x.copy()
        base = c.rope_base * max(n / c.rope_train_len, 1) ** (r / (r - 2))
        for i in range(r // 2):
            angle = t * base ** (-2 * i / r)
            a, b = x[i], x[i + r // 2]
            out[i], out[i + r // 2] = a * np.cos(angle) + b * np.sin(angle), -a * np.sin(angle) + b * np.cos(angle)
        return out

    x = w["tok_embed"][tokens].copy()
    for t in range(n):
        hashed = (1009 * (tokens[t - 1] if t else 0) + tokens[t]) % c.bigram.buckets
        if c.bigram.hash == "xor":
            hashed = ((36313 * tokens[t]) ^ (27191 * tokens[t - 1])) % (c.bigram.buckets - 1)
            hashed = hashed if t else c.bigram.buckets - 1
        x[t] += w.get("bigram.scale", 1.0) * (w["bigram.proj.weight"] @ w["bigram.table"][hashed])
    x = rms(x)
    gate, plain = sigmoid(w["smear.gate"]), x.copy()
    for t in range(n):
        if tokens[t] != 1 or not c.smear.mask_bos:
            x[t] = (1 - gate) * plain[t] + gate * (plain[t - 1] if t else 0)
    x0, skips, half = x.copy(), [], c.layers // 2
    shared = w["value_embed.scale"] * (w["value_embed.table"][tokens] @ w["value_embed.proj.weight"].T)
    for l in range(c.layers):
        if l >= half and skips:
            skip = w["skip_weights"][l - half] * skips.pop()
            if c.skip_mode == "gated":
                a = sigmoid(w["skip_gates"][l - half])
                x = a * x + (1 - a) * skip
            else:
                x = x + skip
        p = f"blocks.{l}."
        y = w[p + "resid_mix"][0] * x + w[p + "resid_mix"][1] * x0
        damped = 1 / math.sqrt(l + 1) if c.ln_scale else 1.0
        z = rms(y) * damped
        v = z @ w[p + "attn.v.weight"].T
        if l in c.value_embed.layers:
            v = v + w[f"value_embed.layer_scales.{c.value_embed.layers.index(l)}"] * shared
        q, k = z @ w[p + "attn.q.weight"].T, z @ w[p + "attn.k.weight"].T
        out = np.zeros_like(z)
        for t in range(n):
            for j in range(c.heads):
                group = slice(j // (c.heads // c.kv_heads) * width, (j // (c.heads // c.kv_heads) + 1) * width)
                own = slice(j * width, (j + 1) * width)
                query = rotate(rms(q[t, own]), t) * w[p + "attn.gain"][j]
                scores = np.array([query @ rotate(rms(k[s, group]), s) for s in range(t + 1)]) / math.sqrt(width)
                weights = np.exp(scores - scores.max())
                head = (weights / weights.sum()) @ v[: t + 1, group]
                if l >= c.layers - c.xsa_last_n:
                    unit = v[t, group] / max(np.linalg.norm(v[t, group]), 1e-12)
                    head = head - (head @ unit) * unit
                out[t, own] = head
        y = y + w[p + "attn_scale"] * (out @ w[p + "attn.o.weight"].T)
        h = damped * rms(y) @ w[p + "mlp.up.weight"].T
        h = np.where(h > 0, h, (c.lrelu_slope if c.activation == "lrelu2" else 0.0) * h) ** 2
        if c.mlp_hidden_affine:
            h = h * w[p + "mlp.hidden_scale"] + w[p + "mlp.hidden_bias"]
        x = y + w[p + "mlp_scale"] * (h @ w[p + "mlp.down.weight"].T)
        if l < half:
            skips.append(x)
    z = rms(x) @ w["tok_embed"].T
    return c.logit_softcap * np.tanh(z / c.logit_softcap)


def random_model(*overrides: str) -> GPT:
    """A model whose every parameter is random, so that no branch is dead."""
    model = GPT(tiny(*overrides))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        # the stack of #610, and the smear of the seeds across documents
        [
            "model.skip_mode=add",
            "model.mlp_hidden_affine=false",
            "model.bigram.hash=xor",
            "model.bigram.scale_init=0.05",
            "model.smear.mask_bos=false",
        ],
        # the activation of #598 and #612, an odd number of layers: one decoder block without a skip
        ["model.activation=relu2", "model.layers=5", "model.value_embed.layers=[4]", "model.rope_train_len=32"],
        ["model.ln_scale=false", "model.xsa_last_n=0", "model.kv_heads=4", "model.rope_dims=4"],
    ],
)
def test_logits_equal_the_equations(overrides: list[str]) -> None:
    model = random_model(*overrides)
    tokens = [1, 40, 41, 42, 1, 43, 44, 200, 201, 99, 98, 1, 1, 5, 6, 7, 8, 9, 10, 11]
    with torch.no_grad():
        logits = model.logits(torch.tensor([tokens]))[0].double().numpy()
    expected = reference_forward(model, tokens)
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, atol=2e-4)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["model.xsa_last_n=4", "model.kv_heads=4"],
        ["model.layers=3", "model.value_embed.layers=[2]"],
        [
            "model.activation=swiglu",
            "model.mlp_hidden_affine=false",
            "model.skip_mode=add",
            "model.tie_embeddings=false",
        ],
        ["model.bigram.hash=xor", "model.bigram.scale_init=0.05", "model.smear.kind=none", "model.ln_scale=false"],
        ["model.rope_scaling=yarn", "model.value_embed.layers=[]", "model.bigram.hash=none", "model.activation=relu2"],
    ],
)
def test_causality_and_scored_columns(overrides: list[str]) -> None:
    """By gradient of the embeddings: a token influences its own and later logits, never earlier ones.

    The last columns alone give the losses of the whole row.
    """
    model = random_model(*overrides)
    tokens = torch.randint(4, 260, (1, 24), generator=torch.Generator().manual_seed(1))
    for position in (0, 1, 11, 23):
        inputs = torch.nn.functional.embedding(tokens, model.tok_embed).detach().requires_grad_()
        original = torch.nn.functional.embedding
        model_module = __import__("reference.model.gpt", fromlist=["F"])
        try:
            model_module.F.embedding = lambda u, table, _o=original, _i=inputs, _m=model: (
                _i if table is _m.tok_embed else _o(u, table)
            )
            logits = model.logits(tokens)
        finally:
            model_module.F.embedding = original
        (grad,) = torch.autograd.grad(logits[0, position].square().sum(), inputs)
        size = grad[0].abs().sum(-1)
        assert (size[: position + 1] > 0).all()
        assert (size[position + 1 :] == 0).all()
    with torch.no_grad():
        targets = torch.randint(4, 260, (1, 24))
        whole = model.token_losses(tokens, targets)
        for columns in (1, 7, 24):
            torch.testing.assert_close(
                model.token_losses(tokens, targets[:, -columns:]), whole[:, -columns:], atol=2e-5, rtol=1e-5
            )
        assert torch.allclose(model(tokens, targets), whole.mean(), atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 3), st.integers(1, 9), st.sampled_from([(4, 1), (4, 2), (4, 4), (6, 3)]), st.integers(1, 9))
def test_grouped_attention_equals_explicit_heads(batch: int, length: int, kinds: tuple[int, int], columns: int) -> None:
    heads_, kv_heads = kinds
    columns = min(columns, length)
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(batch, columns, heads_, 8, generator=generator)
    k, v = (torch.randn(batch, length, kv_heads, 8, generator=generator) for _ in range(2))
    out = causal_attention(q, k, v, 0.3)
    for j in range(heads_):
        g = j // (heads_ // kv_heads)
        scores = 0.3 * q[:, :, j] @ k[:, :, g].transpose(1, 2)
        mask = torch.arange(length)[None] > torch.arange(length - columns, length)[:, None]
        expected = scores.masked_fill(mask, -torch.inf).softmax(-1) @ v[:, :, g]
        torch.testing.assert_close(out[:, :, j], expected, atol=1e-5, rtol=1e-4)
    removed = exclude_self(out, v[:, length - columns :])
    for j in range(heads_):
        along = (removed[:, :, j] * v[:, length - columns :, j // (heads_ // kv_heads)]).sum(-1)
        assert along.abs().max() < 1e-4


def test_rotary_bases() -> None:
    """NTK of #598: base 22,081.8 for rows of 2,048 trained at 1,024; none at the training length."""
    config = load("pr598").model
    scaled = frequencies(config, 2048)
    assert float(scaled[1]) == pytest.approx(22_081.8 ** (-2 / 16), rel=1e-5)
    assert float(frequencies(config, 1024)[1]) == pytest.approx(10_000 ** (-2 / 16), rel=1e-9)
    yarn = load("pr598", ["model.rope_scaling=yarn"]).model
    plain = 10_000.0 ** -(torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    ratio = frequencies(yarn, 2048) / plain
    assert ratio[0] == 1.0 and float(ratio[-1]) == pytest.approx(0.5)
    assert attention_temperature(yarn, 2048) == pytest.approx((0.1 * math.log(2) + 1) ** 2)
    assert attention_temperature(yarn, 1024) == 1.0


def test_bigram_hashes() -> None:
    xor, poly = load("pr598").model.bigram, load("pr612").model.bigram
    u = [17, 1000, 3, 1023]
    rows = bigram_index(torch.tensor([u]), xor)[0].tolist()
    assert rows == [2047] + [((36313 * u[t]) ^ (27191 * u[t - 1])) % 2047 for t in range(1, 4)]
    assert bigram_index(torch.tensor([u]), poly)[0].tolist() == [17] + [
        (1009 * u[t - 1] + u[t]) % 2048 for t in range(1, 4)
    ]


def test_smear_does_not_cross_documents_when_masked() -> None:
    x, tokens = torch.randn(1, 4, 6), torch.tensor([[9, 8, 1, 7]])
    plain, masked = SmearGate(6, 0.0, mask_bos=False)(x, tokens), SmearGate(6, 0.0, mask_bos=True)(x, tokens)
    assert torch.equal(masked[0, 2], x[0, 2]) and torch.allclose(plain[0, 2], (x[0, 1] + x[0, 2]) / 2)
    assert torch.equal(plain[0, [0, 1, 3]], masked[0, [0, 1, 3]]) and torch.allclose(plain[0, 0], x[0, 0] / 2)


@settings(deadline=None, max_examples=15)
@given(count=st.integers(1, 40), chunk=st.integers(1, 50), vocab=st.integers(2, 30))
def test_chunked_loss_equals_plain_loss_and_gradients(count: int, chunk: int, vocab: int) -> None:
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 5, generator=generator, requires_grad=True)
    weight = (3 * torch.randn(vocab, 5, generator=generator)).requires_grad_()
    targets = torch.randint(0, vocab, (count,), generator=generator)
    plain = heads.mean_loss(hidden, weight, targets, 4.0, in_float32=True)
    fused = heads.mean_loss(hidden, weight, targets, 4.0, in_float32=True, chunk=chunk)
    torch.testing.assert_close(fused, plain)
    for a, b in zip(
        torch.autograd.grad(2 * fused, (hidden, weight)), torch.autograd.grad(2 * plain, (hidden, weight)), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_training_works_after_scoring_in_inference_mode() -> None:
    """Tables first made inside inference mode must not break the next backward pass."""
    model = GPT(tiny())
    tokens = torch.randint(4, 260, (2, 17))
    with torch.inference_mode():
        model.token_losses(tokens[:, :-1], tokens[:, 1:])
    model(tokens[:, :-1], tokens[:, 1:]).backward()
    assert model.tok_embed.grad is not None


def test_loss_starts_at_the_logarithm_of_the_vocabulary() -> None:
    config = load(
        "pr612",
        [
            "run.precision=fp32",
            "model.layers=2",
            "model.value_embed.layers=[1]",
            "model.params=0",
            "model.xsa_last_n=1",
        ],
    )
    tokens = torch.randint(0, 1024, (2, 65))
    assert float(GPT(config)(tokens[:, :-1], tokens[:, 1:]).detach()) == pytest.approx(math.log(1024), abs=2e-2)


def test_bf16_keeps_the_residual_stream_in_bf16() -> None:
    config = load("pr610", ["model.layers=2", "model.value_embed.layers=[1]", "model.xsa_last_n=1", "model.params=0"])
    model = GPT(config)
    tokens = torch.randint(0, 1024, (1, 33))
    assert model.features(tokens[:, :-1]).dtype == torch.bfloat16
    dtypes = {name: p.dtype for name, p in model.named_parameters()}
    assert dtypes["tok_embed"] == dtypes["bigram.table"] == torch.bfloat16
    assert dtypes["blocks.0.attn.q.weight"] == torch.float32
    losses = model.token_losses(tokens[:, :-1], tokens[:, 1:])
    assert losses.dtype == torch.float32 and float(losses.detach().mean()) == pytest.approx(6.93, abs=0.1)


def test_whole_graph_can_be_captured() -> None:
    """torch.compile needs one graph without breaks, with and without QAT; the eager backend checks just that."""
    model = GPT(tiny()).train()
    tokens = torch.randint(4, 260, (2, 33))
    model.prepare(32)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    expected = float(model(tokens[:, :-1], tokens[:, 1:]).detach())
    assert float(compiled(tokens[:, :-1], tokens[:, 1:]).detach()) == pytest.approx(expected, abs=1e-6)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.o.weight.normal_(0, 0.3)
    before = float(compiled(tokens[:, :-1], tokens[:, 1:]).detach())
    set_fake_quant(model, FakeQuant(-3, 3, 3, 1e-10))
    assert float(compiled(tokens[:, :-1], tokens[:, 1:]).detach()) != before
    set_fake_quant(model, None)
    assert float(compiled(tokens[:, :-1], tokens[:, 1:]).detach()) == pytest.approx(before, abs=1e-6)


def test_fake_quant_passes_gradients_and_acts_only_in_training() -> None:
    fake = FakeQuant(-31, 31, 31, 1 / 31)
    weight = torch.randn(4, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad((fake(weight) * 3).sum(), weight)
    assert torch.equal(gradient, torch.full_like(weight, 3.0))
    step = weight.detach().abs().amax(1, keepdim=True) / 31
    assert (fake(weight) - weight).abs().max() <= step.clamp_min(1 / 31).max() / 2 + 1e-6


def test_every_parameter_has_an_owner_and_a_role() -> None:
    for name in ("pr598", "pr610", "pr612", "baseline"):
        config = load(name, ["model.ortho_init=false"])
        model = GPT(config)
        groups = partition(
            model,
            config.optim,
            bigram_scale_trainable=config.model.bigram.scale_trainable,
            first_decoder=model.encoder_blocks,
        )
        owned = [n for part in (groups.muon, groups.adam) for members in part.values() for n, _ in members]
        owned += [n for n, _ in groups.orphans]
        assert sorted(owned) == sorted(n for n, _ in model.named_parameters())
        assert [n for n, _ in groups.orphans] == (["bigram.scale"] if name == "pr598" else [])
        muon = {n for members in groups.muon.values() for n, _ in members}
        assert ("value_embed.proj.weight" in muon) == (name == "pr610")
        assert all(role_of(n) in ("attn", "mlp", "proj") for n in muon)
    rates = {n: lr for lr, members in groups.muon.items() for n, _ in members}
    assert set(rates.values()) == {0.04}
    with pytest.raises(ConfigError, match="needs a matrix"):
        odd = GPT(tiny())
        odd.blocks[0].attn.q.weight = torch.nn.Parameter(torch.zeros(3))
        partition(odd, tiny().optim, bigram_scale_trainable=True, first_decoder=2)
