"""Linear recurrences of the stand-in against recurrences written out step by step."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.dynamic.inside import delta_layers, mamba_layers, recurrences
from auditor.dynamic.inside.recurrences import Unsupported

BATCH, HEADS, KEY, VALUE = 2, 2, 4, 6


def delta_by_steps(q, k, v, beta, g, scale):
    """o_t = scale S_t^T q_t with S_t = exp(g_t) S_{t-1} + k_t beta_t (v_t - exp(g_t) S_{t-1}^T k_t)^T, in float64."""
    q, k, v, beta, g = (tensor.double() for tensor in (q, k, v, beta, g))
    each = v.shape[2] // q.shape[2]
    state = torch.zeros(v.shape[0], v.shape[2], k.shape[-1], v.shape[-1], dtype=torch.float64)
    out = torch.zeros_like(v)
    for t in range(v.shape[1]):
        for head in range(v.shape[2]):
            for row in range(v.shape[0]):
                s = state[row, head] * g[row, t, head].exp()
                key = k[row, t, head // each]
                s = s + torch.outer(key, beta[row, t, head] * (v[row, t, head] - s.t() @ key))
                out[row, t, head], state[row, head] = scale * (s.t() @ q[row, t, head // each]), s
    return out, state


def drawn(time: int, heads: int = HEADS, width: int = VALUE, seed: int = 0):
    torch.manual_seed(seed)
    q, k = torch.randn(BATCH, time, HEADS, KEY), recurrences.unit(torch.randn(BATCH, time, HEADS, KEY))
    v, beta = torch.randn(BATCH, time, heads, width), torch.rand(BATCH, time, heads)
    return q, k, v, beta, -torch.rand(BATCH, time, heads) * 3


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.sampled_from([HEADS, 2 * HEADS]), st.integers(0, 99), st.sampled_from([3, 128]))
def test_delta_rule_by_steps(time: int, heads: int, seed: int, chunk: int) -> None:
    tensors = drawn(time, heads, seed=seed)
    before, recurrences.CHUNK = recurrences.CHUNK, chunk
    try:
        out, state = recurrences.delta_rule(*tensors)
    finally:
        recurrences.CHUNK = before
    expected, last = delta_by_steps(*tensors, KEY**-0.5)
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state.double(), last, atol=1e-4, rtol=1e-4)


def test_long_sequences_with_strong_decay_stay_finite() -> None:
    q, k, v, beta, g = drawn(600)
    out, state = recurrences.delta_rule(q, k, v, beta, 40 * g)
    assert torch.isfinite(out).all()
    assert torch.isfinite(state).all()


def test_a_state_carries_on_where_the_last_part_ended() -> None:
    tensors = drawn(20)
    whole, last = recurrences.delta_rule(*tensors)
    first, state = recurrences.delta_rule(*(tensor[:, :7] for tensor in tensors))
    second, end = recurrences.delta_rule(*(tensor[:, 7:] for tensor in tensors), state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(end, last, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("per_channel", [False, True])
def test_gated_linear_attention_by_steps(per_channel: bool) -> None:
    q, k, v, _, g = drawn(11)
    g = -torch.rand(BATCH, 11, HEADS, KEY) if per_channel else g
    out, _ = recurrences.linear_attention(q, k, v, g, scale=0.5)
    state = torch.zeros(BATCH, HEADS, KEY, VALUE)
    for t in range(11):
        decay = g[:, t, :, :, None].exp() if per_channel else g[:, t, :, None, None].exp()
        state = decay * state + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        torch.testing.assert_close(out[:, t], 0.5 * torch.einsum("bhkv,bhk->bhv", state, q[:, t]), atol=1e-5, rtol=1e-4)


def test_selective_scan_by_steps() -> None:
    torch.manual_seed(1)
    channels, states, time = 5, 3, 9
    u, dt, z = (torch.randn(BATCH, channels, time) for _ in range(3))
    a, b, c = -torch.rand(channels, states), *(torch.randn(BATCH, states, time) for _ in range(2))
    skip, bias = torch.randn(channels), torch.randn(channels)
    y, last = recurrences.selective_scan(u, dt, a, b, c, skip, z, bias, True)
    for row in range(BATCH):
        for channel in range(channels):
            h = torch.zeros(states)
            for t in range(time):
                step = F.softplus(dt[row, channel, t] + bias[channel])
                h = (step * a[channel]).exp() * h + step * b[row, :, t] * u[row, channel, t]
                expected = (c[row, :, t] @ h + skip[channel] * u[row, channel, t]) * F.silu(z[row, channel, t])
                torch.testing.assert_close(y[row, channel, t], expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(last[row, channel], h)


def test_state_space_dual_by_steps() -> None:
    torch.manual_seed(2)
    heads, width, groups, states, time = 4, 3, 2, 5, 8
    x, dt = torch.randn(BATCH, time, heads, width), torch.rand(BATCH, time, heads)
    a, skip = -torch.rand(heads), torch.randn(heads)
    b, c = (torch.randn(BATCH, time, groups, states) for _ in range(2))
    y, last = recurrences.state_space_dual(x, dt, a, b, c, skip)
    h = torch.zeros(BATCH, heads, width, states)
    for t in range(time):
        own = b[:, t].repeat_interleave(2, 1), c[:, t].repeat_interleave(2, 1)
        h = (dt[:, t] * a).exp()[..., None, None] * h
        h = h + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x[:, t], own[0])
        expected = torch.einsum("bhpn,bhn->bhp", h, own[1]) + skip[:, None] * x[:, t]
        torch.testing.assert_close(y[:, t], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, h, atol=1e-5, rtol=1e-4)


LAYERS = {
    "GatedDeltaNet": lambda: delta_layers.GatedDeltaNet(hidden_size=16, head_dim=4, num_heads=2, num_v_heads=4, expand_v=2),
    "DeltaNet": lambda: delta_layers.DeltaNet(d_model=16, num_heads=2, use_gate=True),
    "Mamba": lambda: mamba_layers.Mamba(16),
    "Mamba2": lambda: mamba_layers.Mamba2(16, d_state=8, headdim=8, ngroups=2),
    "Mamba2, part of the width": lambda: mamba_layers.Mamba2(16, d_state=8, headdim=8, d_ssm=16, rmsnorm=False),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_look_back_only_and_learn(name: str) -> None:
    torch.manual_seed(3)
    layer = LAYERS[name]()
    x = torch.randn(BATCH, 12, 16)
    changed = x.clone()
    changed[:, 7:] += 1.0
    one, other = (out[0] if isinstance(out, tuple) else out for out in (layer(x), layer(changed)))
    assert one.shape == x.shape
    torch.testing.assert_close(one[:, :7], other[:, :7])
    assert not torch.allclose(one[:, 7:], other[:, 7:])
    one.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "GatedDeltaNet",
            {"A_log": (4,), "dt_bias": (4,), "a_proj.weight": (4, 16), "q_conv1d.weight": (8, 1, 4), "v_conv1d.weight": (32, 1, 4),
             "o_norm.weight": (8,), "g_proj.weight": (32, 16), "o_proj.weight": (16, 32)},
        ),
        ("Mamba", {"in_proj.weight": (64, 16), "conv1d.weight": (32, 1, 4), "x_proj.weight": (33, 32), "dt_proj.weight": (32, 1),
                   "A_log": (32, 16), "D": (32,)}),
        ("Mamba2", {"in_proj.weight": (100, 16), "conv1d.bias": (64,), "dt_bias": (4,), "norm.weight": (32,), "D": (4,)}),
    ],
)  # fmt: skip
def test_parameters_have_the_names_and_shapes_of_the_package(name: str, shapes: dict[str, tuple]) -> None:
    found = {key: tuple(value.shape) for key, value in LAYERS[name]().state_dict().items()}
    assert shapes.items() <= found.items()


def test_documents_end_to_end_do_not_see_each_other() -> None:
    torch.manual_seed(4)
    layer, bounds = LAYERS["GatedDeltaNet"](), torch.tensor([0, 5, 12])
    x = torch.randn(1, 12, 16)
    apart = torch.cat([layer(x[:, :5])[0], layer(x[:, 5:])[0]], 1)
    torch.testing.assert_close(layer(x, cu_seqlens=bounds)[0], apart)


def test_what_would_change_the_result_is_refused() -> None:
    layer = LAYERS["GatedDeltaNet"]()
    with pytest.raises(Unsupported, match="past_key_values"):
        layer(torch.randn(1, 3, 16), past_key_values=[1])
    with pytest.raises(Unsupported, match="a padding mask"):
        layer(torch.randn(1, 3, 16), attention_mask=torch.tensor([[1, 1, 0]]))
    with pytest.raises(Unsupported, match="inference_params"):
        LAYERS["Mamba"]()(torch.randn(1, 3, 16), inference_params={"offset": 1})
