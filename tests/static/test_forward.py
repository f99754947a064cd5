"""Direction of the operations of a forward pass, read from small models."""

from __future__ import annotations

import ast

import pytest

from auditor.findings import Status
from auditor.static.convolution import two_sided
from auditor.static.round_trip import carried_on, round_trip, takes_final_state
from tests.static.test_program_order import analyse, program

RULE = "PG-C1-causality"
PLAIN = "        return self.head(self.table(ids))\n"
HEAD = """        x = self.table(ids)
        B, T, D = x.shape
        q = self.q(x).reshape(B, T, 4, 16).transpose(1, 2)
        k = self.k(x).reshape(B, T, 4, 16).transpose(1, 2)
        y = {attention}
        x = x + y.transpose(1, 2).reshape(B, T, D)
        {more}
        return self.head(x)
"""
CAUSAL = "F.scaled_dot_product_attention(q, k, k, is_causal=True)"
MASKED = "(q @ k.transpose(-2, -1)).masked_fill(torch.ones(T, T).triu(1).bool(), -1e9).softmax(-1) @ k"
BOTH_WAYS = "F.scaled_dot_product_attention(q, k, k)"
SMEAR = "x = torch.cat([x[:, :1], x[:, 1:] + torch.sigmoid(self.gate(x[:, 1:])) * x[:, :-1]], dim=1)"
BACK = "x = x + torch.roll(x, 1, dims=1)"
FORTH = "x = x + torch.roll(x, -1, dims=1)"
NEXT = "x = x + torch.cat([x[:, 1:], x[:, -1:]], dim=1)"
WRITTEN = "x[:, :-1] = x[:, 1:]"
POOLED = "x = x - x.mean(dim=1, keepdim=True)"
SWITCHED = "x = x + torch.roll(x, -1, dims=1) if T > 4096 else x"
TRAINING = "if self.training and T > 1:\n            x = x + torch.roll(x, -1, dims=1)"


def status(attention: str, more: str = "pass") -> Status | None:
    """Answer for a model with this attention and this line after it."""
    text = program().replace(PLAIN, HEAD.format(attention=attention, more=more))
    assert text != program()
    extra = (
        "        self.q = nn.Linear(64, 64)\n        self.k = nn.Linear(64, 64)\n        self.gate = nn.Linear(64, 1)\n"
    )
    text = text.replace(
        "        self.head = nn.Linear(64, 1024)\n", "        self.head = nn.Linear(64, 1024)\n" + extra
    )
    verdict = analyse(text).answers.get(RULE)
    return verdict.status if verdict is not None else None


@pytest.mark.parametrize("more", ["pass", SMEAR, BACK, TRAINING])
def test_what_looks_back_passes(more: str) -> None:
    assert status(CAUSAL, more) is Status.PASS


@pytest.mark.parametrize("more", [FORTH, NEXT, WRITTEN])
def test_what_looks_ahead_fails(more: str) -> None:
    assert status(CAUSAL, more) is Status.FAIL


def test_lengths_taken_from_later_positions_are_open() -> None:
    ends = "ends = torch.cat([x[:, 1:], x[:, -1:]], dim=1)"
    assert status(CAUSAL, ends) is Status.UNKNOWN


def test_attention_both_ways_fails_where_it_is_the_only_one() -> None:
    assert status(BOTH_WAYS) is Status.FAIL


@pytest.mark.parametrize("more", [POOLED, "x = self.elsewhere(x)", "x = torch.fft.fft(x, dim=1).real"])
def test_what_could_not_be_read_is_open(more: str) -> None:
    assert status(CAUSAL, more) is Status.UNKNOWN


def test_attention_written_out_is_never_failed() -> None:
    assert status(MASKED) in (Status.PASS, Status.UNKNOWN)


def test_a_program_that_hides_tokens_at_random_may_look_both_ways() -> None:
    text = program().replace(PLAIN, HEAD.format(attention=BOTH_WAYS, more="pass"))
    hide = "def hide(ids):\n    return torch.where(torch.rand(ids.shape) < 0.3, 0, ids)\n\n\n"
    text = text.replace("def shard(", hide + "def shard(")
    verdict = analyse(text).answers.get(RULE)
    assert verdict is None or verdict.status is not Status.FAIL


HEADS = """class Mix(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)
        self.gain = nn.Parameter(torch.ones(4))

    def forward(self, x, first=None):
        B, T, D = x.shape
        q = self.q(x).reshape(B, T, 4, 16).transpose(1, 2)
        k = self.k({keys}).reshape(B, -1, 4, 16).transpose(1, 2)
        v = self.v(x).reshape(B, T, 4, 16).transpose(1, 2)
        if first is not None:
            v = v + first
        q = torch.cat((q[..., :8] * 2, q[..., 8:]), dim=-1) * self.gain[None, :, None, None]
        {attend}
        return x + y.transpose(1, 2).reshape(B, T, D)


"""
ALL = "y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, is_causal=False, enable_gqa=True)"
EITHER = (
    """if T > 2048:
            y = flash_attn_func(q, k, v, causal=False, window_size=(-1, -1))
        else:
            """
    + ALL
)
OLDER = EITHER.replace("(-1, -1)", "(512, 0)")
HELPER = "def attend(q, k, v, causal=True):\n    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)\n\n\n"


def of_layer(attend: str, keys: str = "x", before: str = "") -> Status | None:
    """Answer for a model whose layer is a module of its own that also takes the values of an earlier one."""
    text = program().replace(PLAIN, "        return self.head(self.mix(self.table(ids)))\n")
    text = text.replace(
        "        self.head = nn.Linear(64, 1024)\n",
        "        self.head = nn.Linear(64, 1024)\n        self.mix = Mix()\n",
    )
    first = text.index("class ")
    verdict = analyse(text[:first] + before + HEADS.format(attend=attend, keys=keys) + text[first:]).answers.get(RULE)
    return verdict.status if verdict is not None else None


@pytest.mark.parametrize("attend", [ALL, EITHER, "y = attend(q, k, v, causal=False)"])
def test_queries_and_keys_of_one_stream_without_a_mask_look_ahead(attend: str) -> None:
    assert of_layer(attend, before=HELPER) is Status.FAIL


@pytest.mark.parametrize("attend", [ALL.replace("False", "True"), "y = attend(q, k, v)"])
def test_the_same_layer_with_a_causal_switch_does_not(attend: str) -> None:
    assert of_layer(attend, before=HELPER) in (Status.PASS, Status.UNKNOWN)


def test_a_window_that_ends_at_the_query_is_not_accused() -> None:
    assert of_layer(OLDER) is Status.UNKNOWN


@pytest.mark.parametrize("keys", ["first", "x[:, :1]", "torch.roll(x, 1, dims=1)", "F.pad(x, (0, 0, 1, 0))"])
def test_keys_from_elsewhere_or_moved_are_open(keys: str) -> None:
    assert of_layer(ALL, keys=keys) is Status.UNKNOWN


def test_attention_both_ways_beside_causal_attention_is_open() -> None:
    both = ALL + "\n        y = y + " + ALL.replace("False", "True").removeprefix("y = ")
    assert of_layer(both) is Status.UNKNOWN


CONVOLVED = """
class Mix(nn.Module):
    def __init__(self, d, k=5):
        super().__init__()
        {padding}
        self.conv = nn.Conv1d(d, d, k, padding=padding, groups=d)

    def forward(self, x):
        {before}
        y = self.conv(x.transpose(1, 2))
        {after}
        return y.transpose(1, 2)
"""


@pytest.mark.parametrize(
    ("padding", "before", "after", "both"),
    [
        ("padding = k // 2", "pass", "pass", True),
        ("padding = (k - 1) * 2 // 2", "pass", "pass", True),
        ("padding = 'same'", "pass", "pass", True),
        ("padding = k - 1", "n = x.size(1)", "y = y[..., :n]", False),
        ("padding = 0", "x = F.pad(x, (0, 0, 4, 0))", "pass", False),
        ("padding = k // 2", "n = x.size(1)", "y = y[:, :, : n - 2]", False),
    ],
)
def test_convolutions_padded_on_both_sides_are_told(padding: str, before: str, after: str, both: bool) -> None:
    text = CONVOLVED.format(padding=padding, before=before, after=after)
    (node,) = [part for part in ast.parse(text).body if isinstance(part, ast.ClassDef)]
    (made,) = [
        part for part in ast.walk(node)
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "Conv1d"
    ]  # fmt: skip
    assert two_sided(node, made) is both


SLOTS = """
def forward(self, x, cond):
    n = x.size(0)
    slots = self.own.to(dtype=x.dtype)[None].expand(n, -1, -1)
    slots = slots + self.read(self.norm(slots), {asked})
    for _ in range(2):
        slots = slots + self.think(slots, slots)
    back = self.up(slots)
    return x + self.write(self.norm(x), {answer})
"""


@pytest.mark.parametrize(
    ("asked", "answer", "line"),
    [("x", "back", 9), ("self.down(x)", "self.norm(back)", 9), ("cond", "back", None), ("x", "cond", None)],
)
def test_slots_that_ask_the_stream_and_are_asked_by_it(asked: str, answer: str, line: int | None) -> None:
    (method,) = ast.parse(SLOTS.format(asked=asked, answer=answer)).body
    assert isinstance(method, ast.FunctionDef)
    assert round_trip(method) == line


SCAN = """
class Memory(nn.Module):
    def forward(self, x, state):
        o, after = delta_scan(q=x, k=x, v=x, initial_state={begins}, output_final_state={ends})
        return x + o, after

class Looped(nn.Module):
    def forward(self, x):
        state = torch.zeros(4)
        {loop}
            {step}
        return x
"""


@pytest.mark.parametrize(
    ("loop", "step", "line"),
    [
        ("for n in range(self.loops):", "x, state = self.memory(x, state)", 11),
        ("for n, part in enumerate(self.parts):", "x, state = self.memory(x, state=state)", 11),
        ("for n in range(self.loops):", "x, _ = self.memory(x, None)", None),
        ("for a in range(0, 64, 8):", "x, state = self.memory(x[:, a : a + 8], state)", None),
        ("for part in x.split(8):", "part, state = self.memory(part, state)", None),
    ],
)
def test_a_state_of_the_whole_stream_in_the_next_pass_over_it(loop: str, step: str, line: int | None) -> None:
    memory, looped = ast.parse(SCAN.format(begins="state", ends="True", loop=loop, step=step)).body
    assert isinstance(memory, ast.ClassDef) and isinstance(looped, ast.ClassDef)
    assert takes_final_state(memory) and not takes_final_state(looped)
    (method,) = looped.body
    assert isinstance(method, ast.FunctionDef)
    assert carried_on(method) == line


@pytest.mark.parametrize(("begins", "ends"), [("None", "True"), ("state", "False")])
def test_scans_that_begin_anew_or_give_no_state_back(begins: str, ends: str) -> None:
    text = SCAN.format(begins=begins, ends=ends, loop="for n in range(2):", step="pass")
    assert not takes_final_state(ast.parse(text).body[0])
