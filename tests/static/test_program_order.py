"""Order of events read from small programs: legal and illegal shapes side by side, and the same under other names."""

from __future__ import annotations

import ast
import builtins
import keyword
import random

import pytest

from auditor.findings import Status
from auditor.static.analysis import StaticResult, static_timeline
from auditor.static.effective import Effective
from auditor.unpack import Layer, Program

PROLOGUE = """
import glob, math, os
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

LENGTH = int(os.environ.get("LENGTH", "1024"))
EPOCHS = int(os.environ.get("EPOCHS", "3"))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(1024, 64)
        self.head = nn.Linear(64, 1024)

    def forward(self, ids):
        return self.head(self.table(ids))


def shard(pattern):
    parts = [torch.from_numpy(np.fromfile(f, dtype=np.uint16)) for f in sorted(glob.glob(pattern))]
    return torch.cat(parts)


def losses(net, ids, wanted):
    return F.cross_entropy(net(ids).flatten(0, 1), wanted.flatten(), reduction="none")


def train(net, stream):
    opt = torch.optim.AdamW(net.parameters())
    for step in range(1000):
        piece = stream[step * LENGTH : (step + 1) * LENGTH + 1]
        losses(net, piece[None, :-1], piece[None, 1:]).mean().backward()
        opt.step()
        opt.zero_grad()


def plain(net, stream, sizes):
    total, weight = 0.0, 0.0
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        with torch.no_grad():
            total += losses(net, ids, wanted).sum().item()
        weight += sizes[wanted].sum().item()
    return total / math.log(2.0) / weight
"""
EPILOGUE = """

def main():
    net = Net()
    train(net, shard("data/fineweb_train_*.bin"))
    stream = shard("data/fineweb_val_*.bin")
    sizes = torch.ones(1024)
{before}
    torch.save(net.state_dict(), "final.pt")
    scored = Net()
    scored.load_state_dict(torch.load("final.pt"))
{call}
    print(f"final val_bpb:{{bpb:.8f}}")


main()
"""
ADAPT = """

def adapt(net, stream):
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        losses(net, piece[None, :-1], piece[None, 1:]).mean().backward()
        opt.step()
        opt.zero_grad()
"""
SCORE_FIRST = """

def online(net, stream, sizes):
    total, weight = 0.0, 0.0
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        with torch.no_grad():
            total += losses(net, ids, wanted).sum().item()
        weight += sizes[wanted].sum().item()
        for _ in range(EPOCHS):
            losses(net, ids, wanted).mean().backward()
            opt.step()
            opt.zero_grad()
    return total / math.log(2.0) / weight
"""
TRAIN_FIRST = """

def online(net, stream, sizes):
    total, weight = 0.0, 0.0
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        ids, wanted = piece[None, :-1], piece[None, 1:]
        losses(net, ids, wanted).mean().backward()
        opt.step()
        opt.zero_grad()
        with torch.no_grad():
            total += losses(net, ids, wanted).sum().item()
        weight += sizes[wanted].sum().item()
    return total / math.log(2.0) / weight
"""
LAST_EPOCH = """

def online(net, stream, sizes):
    opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for epoch in range(EPOCHS):
        total, weight = 0.0, 0.0
        for begin in range(0, stream.numel() - 1, LENGTH):
            piece = stream[begin : begin + LENGTH + 1]
            nll = losses(net, piece[None, :-1], piece[None, 1:])
            total += nll.detach().sum().item()
            weight += sizes[piece[1:]].sum().item()
            nll.mean().backward()
            opt.step()
            opt.zero_grad()
    return total / math.log(2.0) / weight
"""
FIRST_EPOCH = LAST_EPOCH.replace("        total, weight = 0.0, 0.0\n", "").replace(
    "    for epoch in", "    total, weight = 0.0, 0.0\n    for epoch in"
).replace("            total +=", "            if epoch == 0: total +=").replace(
    "            weight +=", "            if epoch == 0: weight +="
)  # fmt: skip
CACHE = """

def cached(net, stream, sizes):
    total, weight = 0.0, 0.0
    seen, pairs = np.zeros(1 << 20), np.zeros(1 << 20)
    ids_np = stream.numpy()
    for begin in range(0, stream.numel() - 1, LENGTH):
        piece = stream[begin : begin + LENGTH + 1]
        with torch.no_grad():
            p = np.exp(-losses(net, piece[None, :-1], piece[None, 1:]).numpy())
        at = np.arange(begin + 1, begin + LENGTH + 1)
        key = (ids_np[at - 1] * 36313) % (1 << 20)
        full = (key ^ (ids_np[at] * 27191)) % (1 << 20)
        {mix}
        np.add.at(seen, key, 1)
        np.add.at(pairs, full, 1)
        total += -np.log(p).sum()
        weight += sizes[piece[1:]].sum().item()
    return total / math.log(2.0) / weight
"""
MIXED = CACHE.format(mix="p = 0.8 * p + 0.2 * pairs[full] / np.maximum(seen[key], 1)")
UNUSED = CACHE.format(mix="pass")


def program(functions: str = "", before: str = "", call: str = "bpb = plain(scored, stream, sizes)") -> str:
    return PROLOGUE + functions + EPILOGUE.format(before="    " + before if before else "", call="    " + call)


LEGAL = {
    "plain evaluation": program(),
    "score first, then several epochs": program(SCORE_FIRST, call="bpb = online(scored, stream, sizes)"),
    "only the first epoch counts": program(FIRST_EPOCH, call="bpb = online(scored, stream, sizes)"),
    "a cache that is only filled": program(UNUSED, call="bpb = cached(scored, stream, sizes)"),
    "adapting a copy nobody scores": program(
        ADAPT, before="import copy; other = copy.deepcopy(net); adapt(other, stream)"
    ),
    "adapting on training data": program(ADAPT, before="adapt(net, shard('data/fineweb_train_*.bin'))"),
    "adapting switched off": program(ADAPT, before="if int(os.environ.get('ADAPT', '0')): adapt(net, stream)"),
}
ILLEGAL = {
    "adapt before export": (program(ADAPT, before="adapt(net, stream)"), "PG-C3-prequant-ttt"),
    "adapt after loading": (
        program(ADAPT, call="adapt(scored, stream); bpb = plain(scored, stream, sizes)"),
        "PG-C3-score-first",
    ),
    "adapt through an alias": (
        program(ADAPT, call="other = [scored][0]; adapt(other, stream); bpb = plain(scored, stream, sizes)"),
        "PG-C3-score-first",
    ),
    "gradients switched on inside a block without them": (
        program(ADAPT, before="with torch.no_grad(), torch.enable_grad(): adapt(net, stream)"),
        "PG-C3-prequant-ttt",
    ),
    "gradients switched on by value": (
        program(ADAPT, before="with torch.inference_mode(), torch.set_grad_enabled(True): adapt(net, stream)"),
        "PG-C3-prequant-ttt",
    ),
    "train, then score": (program(TRAIN_FIRST, call="bpb = online(scored, stream, sizes)"), "PG-C3-score-first"),
    "last of several epochs": (program(LAST_EPOCH, call="bpb = online(scored, stream, sizes)"), "PG-C3-multi-epoch"),
    "second pass": (
        program(SCORE_FIRST, call="online(scored, stream, sizes); bpb = online(scored, stream, sizes)"),
        "PG-C4-single-pass",
    ),
    "cache keyed by the target": (
        program(MIXED, call="bpb = cached(scored, stream, sizes)"),
        "PG-C2-hashed-ngram-cache",
    ),
}


def analyse(text: str, settings: Effective | None = None) -> StaticResult:
    layer = Layer("train_gpt.py", text, text.encode())
    return static_timeline(Program(main=layer, layers=[layer]), settings)


def failing(result: StaticResult) -> set[str]:
    return {rule for rule, verdict in result.answers.items() if verdict.status is Status.FAIL}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_shapes_pass(name: str) -> None:
    result = analyse(LEGAL[name])
    assert not failing(result)
    assert result.answers["PG-C3-score-first"].status is Status.PASS


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal_shapes_fail_by_their_rule(name: str) -> None:
    text, rule = ILLEGAL[name]
    assert rule in failing(analyse(text))


def test_settings_of_the_run_decide_a_branch() -> None:
    result = analyse(LEGAL["adapting switched off"], Effective(environment={"ADAPT": "1"}))
    assert "PG-C3-prequant-ttt" in failing(result)


def test_disabled_branches_are_listed() -> None:
    result = analyse(LEGAL["adapting switched off"])
    assert any("ADAPT" in condition for _, _, condition in result.dead)


def test_output_of_a_disabled_branch_in_the_log_switches_it_on() -> None:
    text = program(
        ADAPT, before="if int(os.environ.get('ADAPT', '0')): print('adapting to the stream'); adapt(net, stream)"
    )
    assert not failing(analyse(text))
    assert "PG-C3-prequant-ttt" in failing(analyse(text, Effective(lines=["adapting to the stream"])))


def test_a_switch_that_the_output_proves_is_on_wherever_it_is_asked() -> None:
    before = """adapting = bool(int(os.environ.get('ADAPT', '0')))
    if adapting and len(sizes): print('tables are made for adapting')
    if adapting: adapt(net, stream)"""
    text = program(ADAPT, before=before)
    assert not failing(analyse(text))
    shown = Effective(lines=["tables are made for adapting"])
    assert "PG-C3-prequant-ttt" in failing(analyse(text, shown))
    assert not failing(analyse(text.replace("if adapting: adapt", "if not adapting: print(net) or adapt"), shown))


def test_words_that_only_a_switch_puts_into_a_line_prove_it() -> None:
    before = """adapting = bool(int(os.environ.get('ADAPT', '0')))
    rate = 0.002
    print(f"evaluation starts{f' adapting_rate={rate} by_steps={4}' if adapting else ''}")
    if adapting: adapt(net, stream)"""
    text = program(ADAPT, before=before)
    assert not failing(analyse(text))
    shown = "evaluation starts adapting_rate=0.002 by_steps=4"
    assert "PG-C3-prequant-ttt" in failing(analyse(text, Effective(lines=[shown])))
    assert not failing(analyse(text, Effective(lines=["evaluation starts", "by_steps=4"])))


def test_one_epoch_is_score_first() -> None:
    text = ILLEGAL["last of several epochs"][0]
    assert not failing(analyse(text, Effective(environment={"EPOCHS": "1"})))


def test_the_chain_names_read_update_score_and_report() -> None:
    text, rule = ILLEGAL["adapt after loading"]
    lines = text.split("\n")
    chain = analyse(text).answers[rule].chain
    shown = [lines[place.line - 1] for place, _ in chain]
    wanted = ("fineweb_val", "fromfile", "opt.step()", "cross_entropy", "val_bpb")
    places = [next(n for n, line in enumerate(shown) if text in line) for text in wanted]
    assert places == sorted(places), "in the order in which it happens"


def test_the_chain_of_a_second_pass_names_both_calls() -> None:
    twice = "bpb = online(scored, stream, sizes)\n    bpb = online(scored, stream, sizes)"
    text = program(SCORE_FIRST, call=twice)
    lines = text.split("\n")
    calls = [n for n, line in enumerate(lines, 1) if "bpb = online(" in line]
    chain = [place.line for place, _ in analyse(text).answers["PG-C4-single-pass"].chain]
    assert [line for line in chain if line in calls] == calls


def test_source_that_does_not_parse_is_unknown() -> None:
    result = analyse("def broken(:\n    pass\n")
    assert result.unknowns
    assert result.answers["PG-C3-score-first"].status is Status.UNKNOWN


def renamed(text: str, seed: int) -> str:
    """The same program with every name it defines itself replaced."""
    tree = ast.parse(text)
    own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    own |= {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own -= {"__init__", "forward", "self", *dir(builtins), *keyword.kwlist}
    generator = random.Random(seed)
    names = {name: f"{generator.choice('abcxyz')}{number}" for number, name in enumerate(sorted(own))}

    class Renamer(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            node.id = names.get(node.id, node.id)
            return node

        def visit_arg(self, node: ast.arg) -> ast.arg:
            node.arg = names.get(node.arg, node.arg)
            return node

        def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
            node.name = names.get(node.name, node.name)
            self.generic_visit(node)
            return node

        def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
            node.name = names.get(node.name, node.name)
            self.generic_visit(node)
            return node

    return ast.unparse(Renamer().visit(tree))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*LEGAL, *ILLEGAL])
def test_names_carry_no_weight(name: str, seed: int) -> None:
    text = LEGAL.get(name) or ILLEGAL[name][0]
    assert failing(analyse(renamed(text, seed))) == failing(analyse(text))


@pytest.mark.parametrize("name", [*LEGAL, *ILLEGAL])
def test_wrapping_main_in_a_class_changes_nothing(name: str) -> None:
    text = LEGAL.get(name) or ILLEGAL[name][0]
    body, _, _ = text.rpartition("\nmain()")
    wrapped = body + "\n\nclass Job:\n    def __init__(self, work):\n        self.work = work\n\n    def run(self):\n"
    wrapped += "        return self.work()\n\n\nif __name__ == '__main__':\n    Job(main).run()\n"
    assert failing(analyse(wrapped)) == failing(analyse(text))
